import dataclasses

import pytest
import torch

from firmware_model.calibration.sensitivity import model_config
from firmware_model.choices import TRANSFORMS
from firmware_model.quality.metrics import snr_db
from firmware_model.reference.attention import reference_attention
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.quantize import BeyondFormatError, dequantize, quantize_head
from firmware_model.transform import transform_channels

NONE, BALANCE, ROTATE, BOTH = range(len(TRANSFORMS))


def operands(channels=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 50, channels, dtype=torch.float64, generator=generator).unbind()


@pytest.mark.parametrize("transform", range(len(TRANSFORMS)))
@pytest.mark.parametrize("channels", [32, 128])
def test_no_logit_changes(transform, channels):
    q, k = operands(channels)
    after_q, after_k = transform_channels(q, k, transform)
    assert torch.allclose(after_q @ after_k.T, q @ k.T, rtol=1e-12, atol=1e-12)
    assert after_q.equal(q) == (transform == NONE)


def test_balanced_channels_are_equally_large():
    q, k = operands()
    k[:, 9] *= 40
    q[:, 9] /= 40
    q[:, 3] = 0
    k[:, 4] = 0
    q[:, 5] = k[:, 5] = 0
    after_q, after_k = transform_channels(q, k, BALANCE)
    assert torch.isfinite(after_q).all()
    assert torch.isfinite(after_k).all()
    used = [channel for channel in range(32) if channel not in (3, 4, 5)]
    assert torch.allclose(after_q[:, used].abs().amax(0), after_k[:, used].abs().amax(0))


def test_a_rotation_spreads_one_channel_over_all():
    q = torch.zeros(1, 64, dtype=torch.float64)
    q[0, 17] = 8
    rotated, _ = transform_channels(q, q, ROTATE)
    assert torch.equal(rotated.abs(), torch.ones(1, 64, dtype=torch.float64))
    again, _ = transform_channels(rotated, rotated, ROTATE)
    assert torch.allclose(again, q)


def outlier_channel(capture):
    """One channel of K times 40, the same one of Q divided by 40: the same logits."""
    q, k = capture.q.clone(), capture.k.clone()
    k[:, :, 9] *= 40
    q[:, :, 9] /= 40
    return dataclasses.replace(capture, q=q, k=k)


@pytest.mark.parametrize("head_dim", [20, 64])
def test_a_head_with_an_outlier_channel_is_held(random_capture, head_dim):
    capture = random_capture((4, 4, 8), heads=1, head_dim=head_dim, gain=5)
    config = model_config(capture, 16)
    codes = torch.full((8, 8), 3, dtype=torch.uint8)
    exact = reference_attention(capture.q[0], capture.k[0], capture.v[0], capture.scale)

    def quality(source, transform):
        head = quantize_head(source, 0, 4, config, transform)
        assert head.transform == transform
        output = dequantize(integer_attention(head, codes, config), head)
        return snr_db(output[head.permutation.argsort()], exact)

    unspoilt = quality(capture, NONE)
    assert unspoilt > 33
    spoilt = outlier_channel(capture)
    with pytest.raises(BeyondFormatError, match="head 0: logits beyond the format"):
        quantize_head(spoilt, 0, 4, config)
    assert quality(spoilt, BALANCE) > unspoilt - 1
    assert quality(spoilt, BOTH) > unspoilt - 1
