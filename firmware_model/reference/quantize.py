"""Preparing a head for the accelerator: section 1 of `docs/numerics.md`."""

import math
from dataclasses import dataclass

import torch

from firmware_model.capture import Capture
from firmware_model.transform import transform_channels
from paro.config.config import Config, padded_head_dim
from paro.config.errors import ParoError
from paro.config.formats import (
    KEY_SCALE_BITS,
    LOGIT_FRAC,
    OPERAND_MAX,
    OUT_FRAC,
    QUERY_SCALE_BITS,
    QUERY_SCALE_SHIFT,
)


class BeyondFormatError(ParoError):
    """The logits of a head are beyond the number format."""


@dataclass(frozen=True, eq=False)
class QuantizedHead:
    """One head as the accelerator reads it; tokens stand in the head's order.

    Parameters
    ----------
    q8, k8, v8 : torch.Tensor
        int8 [tokens, head_dim], -127 .. 127, ``head_dim`` that of the configuration.
    mq : torch.Tensor
        int32 [tokens], 1 .. 2**17 - 1: scale mantissa of each query.
    mk : torch.Tensor
        int32 [tokens], 1 .. 255: scale mantissa of each key.
    v_scale, v_mean : torch.Tensor
        float64 [captured head_dim]: unit of V and the mean taken off it, per channel.
    permutation : torch.Tensor
        int64 [tokens]: the capture's token at each position.
    order : int
        Index in `choices.ORDERS`.
    transform : int
        Index in `choices.TRANSFORMS`.
    """

    q8: torch.Tensor
    k8: torch.Tensor
    v8: torch.Tensor
    mq: torch.Tensor
    mk: torch.Tensor
    v_scale: torch.Tensor
    v_mean: torch.Tensor
    permutation: torch.Tensor
    order: int
    transform: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.q8.shape[0]


def quantize_head(
    capture: Capture, head: int, order: int, config: Config, transform: int = 0
) -> QuantizedHead:
    """Reorder, smooth, pad, transform and quantise one head.

    Parameters
    ----------
    capture : Capture
        Source of the head.
    head : int
        Index of the head in the capture.
    order : int
        Index in `choices.ORDERS`.
    config : Config
        Core that will read it.
    transform : int
        Index in `choices.TRANSFORMS`.

    Raises
    ------
    BeyondFormatError
        If the head's logits are beyond the number format in this transform.
    ParoError
        If the configuration has another head size or too few tokens.
    """
    head_dim = padded_head_dim(capture.head_dim)
    if config.head_dim != head_dim:
        raise ParoError(
            f"head_dim = {config.head_dim} does not fit capture {capture.path}, whose heads have "
            f"{capture.head_dim} channels; legal: {head_dim}"
        )
    if capture.tokens > config.max_tokens:
        raise ParoError(
            f"max_tokens = {config.max_tokens} is too small for capture {capture.path}; "
            f"legal: {capture.tokens} or more"
        )
    permutation = capture.permutation(order)
    q, k, v = (tensor[head].double()[permutation] for tensor in (capture.q, capture.k, capture.v))

    def padded(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(values, (0, head_dim - capture.head_dim))

    q, k = transform_channels(padded(q), padded(k - k.mean(dim=0)), transform)
    k_max = k.abs().amax(dim=1, keepdim=True)
    mk_max = 2**KEY_SCALE_BITS - 1
    k_unit = k_max.max().item() / (OPERAND_MAX * mk_max)
    # Without a spread of keys every logit is 0: K8 = 0, and below mq = 1, Q8 = 0.
    divisor = k_unit or 1.0
    mk = scale_mantissas(k_max, divisor, KEY_SCALE_BITS)

    shift = config.key_scale_shift + QUERY_SCALE_SHIFT
    logits_per_unit = k_unit * capture.scale * math.log2(math.e)
    q_unit = 2.0 ** -(shift + LOGIT_FRAC) / logits_per_unit if logits_per_unit else math.inf
    q_max = q.abs().amax(dim=1, keepdim=True)
    mq = torch.ceil(q_max / OPERAND_MAX / q_unit).clamp(min=1)
    mq_max = 2**QUERY_SCALE_BITS - 1
    # The negated form also refuses the NaN of a unit that underflowed to 0.
    if not (mq <= mq_max).all():
        largest = mq_max * OPERAND_MAX * q_unit
        raise BeyondFormatError(
            f"capture {capture.path}, head {head}: logits beyond the format; with these keys and "
            f"this scale, legal: |q| up to {largest:.3g}, found {q_max.max().item():.3g}"
        )

    v_mean = v.mean(dim=0)
    v = v - v_mean
    v_scale = v.abs().amax(dim=0) / OPERAND_MAX
    v_scale[v_scale == 0] = 1.0

    return QuantizedHead(
        q8=round_operands(q / (mq * q_unit)),
        k8=round_operands(k / (mk * divisor)),
        v8=padded(round_operands(v / v_scale)),
        mq=mq.flatten().int(),
        mk=mk.flatten().int(),
        v_scale=v_scale,
        v_mean=v_mean,
        permutation=permutation,
        order=order,
        transform=transform,
    )


def scale_mantissas(largest: torch.Tensor, unit: float, bits: int) -> torch.Tensor:
    """Least mantissas of ``bits`` bits, at least 1, at which the largest magnitudes fit INT8."""
    return torch.ceil(largest / (OPERAND_MAX * unit)).clamp(1, 2**bits - 1)


def round_operands(values: torch.Tensor) -> torch.Tensor:
    """Round to int8, saturated to -127 .. 127."""
    return torch.round(values).clamp(-OPERAND_MAX, OPERAND_MAX).to(torch.int8)


def dequantize(words: torch.Tensor, head: QuantizedHead) -> torch.Tensor:
    """Turn output words into values.

    Parameters
    ----------
    words : torch.Tensor
        int16 [rows, config.head_dim], `OUT_FRAC` fractional bits, in units of ``v_scale``.
    head : QuantizedHead
        The head they belong to.

    Returns
    -------
    torch.Tensor
        float32 [rows, captured head_dim]; padded channels are dropped.
    """
    channels = len(head.v_scale)
    values = words[:, :channels].double() * 2.0**-OUT_FRAC * head.v_scale + head.v_mean
    return values.float()
