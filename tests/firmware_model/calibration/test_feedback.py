"""Weights with error feedback, against rounding to nearest."""

import pytest
import torch

from firmware_model.calibration.feedback import DAMPING, feedback_weights, second_moments
from firmware_model.quality.metrics import snr_db
from firmware_model.reference.digits import key_value
from firmware_model.reference.linear import quantize_weights, tile_values
from paro.config import Config

CONFIG = Config(rows=4, cols=4, block=16, head_dim=32)


def layer(seed):
    """Inputs that go together, as real ones do, and weights with rows of different size."""
    torch.manual_seed(seed)
    x = torch.randn(600, 24) @ torch.randn(24, 200) + 0.1 * torch.randn(600, 200)
    weight = torch.randn(40, 200) * torch.exp(torch.randn(40, 1))
    return x * torch.exp(torch.randn(200)), weight


def codes_of(code):
    if code == "mixed":
        return torch.randint(0, 4, (3, 7), dtype=torch.uint8)
    return torch.full((3, 7), code, dtype=torch.uint8)


def quality(x, weight, weights):
    values = tile_values(weights, CONFIG) * weights.mw.double().unsqueeze(1) * weights.unit
    return snr_db(x.double() @ values.T, x.double() @ weight.double().T)


@pytest.mark.parametrize(("code", "gain"), [(1, 3), (2, 3), (3, 3), ("mixed", 1)])
def test_outputs_are_nearer_than_by_rounding(code, gain, seed):
    x, weight = layer(seed)
    codes = codes_of(code)
    fed = feedback_weights(second_moments(x), weight, codes, CONFIG)
    plain = quantize_weights(weight, codes)
    assert quality(x, weight, fed) > quality(x, weight, plain) + gain
    assert torch.equal(fed.codes, codes)
    # A scale holds the largest weight, and but for its mantissa is less than twice the least one.
    least = weight.double().abs().amax(dim=1) / 127
    assert (fed.mw.double() * fed.unit >= least * (1 - 1e-12)).all()
    assert ((fed.mw.double() - 1) * fed.unit < 2 * least).all()


@pytest.mark.parametrize("code", [1, 2, 3])
def test_without_correlation_it_is_rounding_to_the_nearest_value(code, seed):
    _, weight = layer(seed)
    codes = codes_of(code)
    fed = feedback_weights(second_moments(torch.eye(200)), weight, codes, CONFIG)
    target = weight.double() / (fed.mw.double().unsqueeze(1) * fed.unit)
    bits = (0, 2, 4, 8)[code]
    levels = torch.tensor([key_value(value, bits) for value in range(-127, 128)]).double()
    least = (target.unsqueeze(2) - levels).abs().amin(dim=2)
    assert torch.allclose((tile_values(fed, CONFIG) - target).abs(), least, atol=1e-9)


def test_tiles_of_width_0_hold_nothing(seed):
    x, weight = layer(seed)
    codes = codes_of(2)
    codes[1, 2] = 0
    fed = feedback_weights(second_moments(x), weight, codes, CONFIG)
    assert not fed.w8[16:32, 64:96].any()


def test_no_activation_at_all(seed):
    _, weight = layer(seed)
    fed = feedback_weights(torch.zeros(200, 200, dtype=torch.float64), weight, codes_of(3), CONFIG)
    target = weight.double() / (fed.mw.double().unsqueeze(1) * fed.unit)
    assert torch.equal(fed.w8, torch.round(target).to(torch.int8))


@pytest.mark.parametrize("code", [1, 2])
def test_no_single_change_is_better(code, seed):
    """After the sweeps hardly a weight is left that another value would serve better."""
    x, weight = layer(seed)
    moments = second_moments(x)
    fed = feedback_weights(moments, weight, codes_of(code), CONFIG)
    ridge = DAMPING * moments.diagonal().mean()
    moments = moments + ridge * torch.eye(200)
    scale = fed.mw.double().unsqueeze(1) * fed.unit
    error = tile_values(fed, CONFIG) - weight.double() / scale
    slopes = error @ moments
    levels = torch.tensor([key_value(v, (0, 2, 4)[code]) for v in range(-127, 128)]).double()
    moves = levels.unique() - tile_values(fed, CONFIG).unsqueeze(2)
    gains = -(2 * moves * slopes.unsqueeze(2) + moves.square() * moments.diagonal().view(1, -1, 1))
    better = gains.amax(dim=2) > 1e-6 * moments.diagonal()
    assert better.float().mean() < 0.05
