"""What lies between attention and linear layers, bit exact: section 8 of `docs/numerics.md`.

Rows are words [tokens, channels], int64 within -`WORD_MAX` .. `WORD_MAX`; the caller knows their
unit. A group is a number of neighbouring channels, a head or all of a row.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch

from firmware_model.reference.integer import check_width, rounding_shift
from paro.config.errors import ParoError
from paro.config.formats import KEY_SCALE_BITS, OPERAND_MAX, QUERY_SCALE_BITS
from paro.config.vector_formats import (
    ACTIVATION_END,
    ACTIVATION_FRAC,
    ACTIVATION_PLACES,
    ACTIVATION_REST_BITS,
    ACTIVATION_TABLE_FRAC,
    CONSTANT_BITS,
    CONSTANT_SHIFT_MAX,
    FACTOR_BITS,
    MANTISSA_PLACES,
    NORM_CHANNELS_MAX,
    NORM_PLACES_MAX,
    PRODUCT_SHIFT_MAX,
    QUANTIZE_FRAC,
    ROOT_BITS,
    ROTATION_FRAC,
    SQUARES_BITS,
    WORD_MAX,
    Activation,
    Pairing,
    activation_table,
)

__all__ = [
    "Constants",
    "Norm",
    "Rotation",
    "activate",
    "activation_segments",
    "add",
    "lane_pass",
    "leading_one",
    "make_constants",
    "make_norm",
    "make_rotation",
    "multiply",
    "normalize",
    "partners",
    "quantize_channels",
    "quantize_tokens",
    "reciprocal_root",
    "rotate",
    "scale",
    "to_words",
]

_CONSTANT_MAX = 2 ** (CONSTANT_BITS - 1) - 1


@dataclass(frozen=True, eq=False)
class Constants:
    """A factor and an offset for each channel.

    Parameters
    ----------
    factor : torch.Tensor
        int64 [channels], of `CONSTANT_BITS` signed bits.
    shift : int
        Right shift of a word times its factor, 0 to `CONSTANT_SHIFT_MAX`.
    offset : torch.Tensor
        int64 [channels], of `CONSTANT_BITS` signed bits, in the unit of the result.
    """

    factor: torch.Tensor
    shift: int
    offset: torch.Tensor


@dataclass(frozen=True)
class Norm:
    """How groups are normalised.

    Parameters
    ----------
    group : int
        Channels that are normalised together, 1 to `NORM_CHANNELS_MAX`.
    centred : bool
        Whether their mean is taken off: LayerNorm, and not RMSNorm.
    epsilon : int
        4 n epsilon in square units of the words, at least 1, below 2**47.
    places : int
        Fractional bits of the result in units of the root of the sum of squares, 0 to
        `NORM_PLACES_MAX`.
    """

    group: int
    centred: bool
    epsilon: int
    places: int

    @property
    def unit(self) -> float:
        """Value of a word of the result."""
        return math.sqrt(self.group) * 2.0**-self.places


@dataclass(frozen=True, eq=False)
class Rotation:
    """Rotary positions of the tokens of a head.

    Parameters
    ----------
    cos, sin : torch.Tensor
        int64 [tokens, head channels], `ROTATION_FRAC` fractional bits; the sine is negative in the
        first channel of each pair.
    pairing : Pairing
        Which channels are a pair.
    """

    cos: torch.Tensor
    sin: torch.Tensor
    pairing: Pairing


def to_words(values: torch.Tensor, unit: torch.Tensor | float) -> torch.Tensor:
    """Round values to words, saturated: int64, shape of ``values``."""
    return torch.round(values.double() / unit).clamp(-WORD_MAX, WORD_MAX).long()


def make_constants(factor: torch.Tensor, offset: torch.Tensor) -> Constants:
    """Round factors and offsets.

    Parameters
    ----------
    factor : torch.Tensor
        float64 [channels]: words of the result for each word of the input.
    offset : torch.Tensor
        float64 [channels], in words of the result; saturates.

    Raises
    ------
    ParoError
        If a factor is beyond the format.
    """
    largest = factor.abs().max().item()
    if not largest <= _CONSTANT_MAX:
        raise ParoError(
            f"a channel's factor of {largest:.3g} words a word is not legal; legal: up to "
            f"{_CONSTANT_MAX:,}"
        )
    shift = CONSTANT_SHIFT_MAX
    while round(largest * 2**shift) > _CONSTANT_MAX:
        shift -= 1
    rounded = torch.round(offset.double()).clamp(-_CONSTANT_MAX, _CONSTANT_MAX)
    return Constants(torch.round(factor.double() * 2**shift).long(), shift, rounded.long())


def make_norm(
    group: int, *, centred: bool, epsilon: float, unit: float, largest: float | None = None
) -> Norm:
    """Choose the format of a norm.

    Parameters
    ----------
    group : int
        Channels that are normalised together.
    centred : bool
        Whether their mean is taken off.
    epsilon : float
        What is added to their mean square.
    unit : float
        Value of a word of the input.
    largest : float, optional
        Magnitude of the normalised values that must not saturate; by default none ever does.

    Raises
    ------
    ParoError
        If the group or epsilon in these units is beyond the format.
    """
    if not 1 <= group <= NORM_CHANNELS_MAX:
        raise ParoError(
            f"a norm of {group} channels is not legal; legal: 1 to {NORM_CHANNELS_MAX:,}"
        )
    rounded = max(round(4 * group * epsilon / unit**2), 1)
    if rounded >= 2 ** (SQUARES_BITS - 1):
        raise ParoError(
            f"epsilon = {epsilon:g} of a norm is beyond the format where a word is {unit:.3g}"
        )
    share = min((largest or math.inf) / math.sqrt(group), 1.0)
    places = min(math.floor(math.log2(WORD_MAX / share)), NORM_PLACES_MAX)
    return Norm(group, centred, rounded, places)


def make_rotation(angles: torch.Tensor, pairing: Pairing) -> Rotation:
    """Words of a rotation by ``angles``, float [tokens, pairs], one for each pair of channels."""
    cos, sin = angles.double().cos(), angles.double().sin()
    if pairing == "halves":
        both = torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)
    else:
        both = tuple(torch.stack(pair, dim=2).flatten(1) for pair in ((cos, cos), (-sin, sin)))
    words = [torch.round(part * 2**ROTATION_FRAC).long() for part in both]
    return Rotation(words[0], words[1], pairing)


def partners(channels: int, pairing: Pairing) -> torch.Tensor:
    """Channel that each channel of a head is rotated with: int64 [channels]."""
    index = torch.arange(channels)
    return (index + channels // 2) % channels if pairing == "halves" else index ^ 1


def scale(words: torch.Tensor, constants: Constants) -> torch.Tensor:
    """``rshift(x * k, s) + b`` of each channel."""
    return lane_pass(words, constants.factor, constants.shift, constants.offset)


def add(words: torch.Tensor, constants: Constants, base: torch.Tensor) -> torch.Tensor:
    """``base + rshift(x * k, s)``, words in the unit of ``base``; offsets are not used."""
    return lane_pass(words, constants.factor, constants.shift, base)


def multiply(words: torch.Tensor, others: torch.Tensor, shift: int) -> torch.Tensor:
    """``rshift(x * z, shift)``."""
    return lane_pass(words, others, shift, 0)


def normalize(words: torch.Tensor, norm: Norm) -> torch.Tensor:
    """LayerNorm or RMSNorm of each group, words in `Norm.unit`."""
    groups = words.unflatten(1, (-1, norm.group))
    middle = 0
    if norm.centred:
        total = groups.sum(dim=2, keepdim=True)
        middle = (4 * total + norm.group) // (2 * norm.group)
    distance = 2 * groups - middle
    squares = distance.square().sum(dim=2, keepdim=True) + norm.epsilon
    check_width("sum of squares of a norm", squares, SQUARES_BITS + 1)
    half, reciprocal = reciprocal_root(squares)
    return lane_pass(distance, reciprocal, ROOT_BITS + half - norm.places, 0).flatten(1)


def activate(words: torch.Tensor, kind: Activation, places: int) -> torch.Tensor:
    """GELU or SiLU of words with ``places`` fractional bits, which the result has too.

    Raises
    ------
    ParoError
        If there cannot be so many.
    """
    low, high = ACTIVATION_PLACES
    if not low <= places <= high:
        raise ParoError(f"an activation of {places} places is not legal; legal: {low} to {high}")
    base, slope = activation_segments(kind)
    distance = (words.abs() << (ACTIVATION_FRAC - places)).clamp(
        max=ACTIVATION_END << ACTIVATION_FRAC
    )
    segment = distance >> ACTIVATION_REST_BITS
    rest = distance & ((1 << ACTIVATION_REST_BITS) - 1)
    offset = words.clamp(min=0) + rounding_shift(base[segment], ACTIVATION_TABLE_FRAC - places)
    return lane_pass(
        rest, slope[segment], ACTIVATION_TABLE_FRAC + ACTIVATION_REST_BITS - places, offset
    )


def rotate(
    words: torch.Tensor, rotation: Rotation, offset: torch.Tensor | None = None
) -> torch.Tensor:
    """Rotate every head of each token.

    Parameters
    ----------
    words : torch.Tensor
        int64 [tokens, heads * head channels].
    rotation : Rotation
        Of the same tokens.
    offset : torch.Tensor, optional
        int64 [heads * head channels], added to the result.
    """
    channels = rotation.cos.shape[1]
    heads = words.unflatten(1, (-1, channels))
    added = 0 if offset is None else offset.unflatten(0, (-1, channels))
    straight = lane_pass(heads, rotation.cos.unsqueeze(1), ROTATION_FRAC, added)
    crossed = heads[..., partners(channels, rotation.pairing)]
    return lane_pass(crossed, rotation.sin.unsqueeze(1), ROTATION_FRAC, straight).flatten(1)


def quantize_tokens(
    words: torch.Tensor, group: int, places: int, bits: int = QUERY_SCALE_BITS
) -> tuple[torch.Tensor, torch.Tensor]:
    """INT8 with a mantissa for each token and group.

    Parameters
    ----------
    words : torch.Tensor
        int64 [tokens, channels].
    group : int
        Channels that share a mantissa.
    places : int
        Places between a largest word and its mantissa, within `MANTISSA_PLACES`.
    bits : int
        Width of a mantissa: `QUERY_SCALE_BITS` or `KEY_SCALE_BITS`.

    Returns
    -------
    x8 : torch.Tensor
        int8 [tokens, channels].
    mantissa : torch.Tensor
        int32 [tokens, channels / group], at least 1.

    Raises
    ------
    ParoError
        If there are no such places or mantissas.
    """
    low, high = MANTISSA_PLACES
    if not low <= places <= high or bits not in (KEY_SCALE_BITS, QUERY_SCALE_BITS):
        raise ParoError(
            f"mantissas of {bits} bits at {places} places are not legal; legal: "
            f"{KEY_SCALE_BITS} or {QUERY_SCALE_BITS} bits, {low} to {high} places"
        )
    groups = words.unflatten(1, (-1, group))
    largest = groups.abs().amax(dim=2, keepdim=True)
    if places >= 0:
        mantissa = largest.clamp(min=1) << places
        reached = largest.clamp(min=1)
        check_width("mantissa", mantissa, bits + 1)
    else:
        mantissa = (-(-largest >> -places)).clamp(1, 2**bits - 1)
        reached = mantissa << -places
    exponent = leading_one(reached)
    factor = (OPERAND_MAX << (exponent + QUANTIZE_FRAC)) // reached
    x8 = lane_pass(groups, factor, exponent + QUANTIZE_FRAC, 0, OPERAND_MAX)
    return x8.flatten(1).to(torch.int8), mantissa.squeeze(2).int()


def quantize_channels(words: torch.Tensor, constants: Constants) -> torch.Tensor:
    """INT8 with a scale for each channel: int8 [tokens, channels]."""
    return lane_pass(words, constants.factor, constants.shift, constants.offset, OPERAND_MAX).to(
        torch.int8
    )


def lane_pass(
    left: torch.Tensor,
    right: torch.Tensor,
    shift: torch.Tensor | int,
    added: torch.Tensor | int,
    largest: int = WORD_MAX,
) -> torch.Tensor:
    """One formula of the lanes: a product, a shift, a sum, a clamp."""
    check_width("left factor", left, FACTOR_BITS)
    check_width("right factor", right, FACTOR_BITS)
    if isinstance(shift, int):
        shift = torch.tensor(shift)
    # Products are below 2**34, so that beyond the largest shift nothing is left of one either.
    shifted = rounding_shift(left * right, shift.clamp(max=PRODUCT_SHIFT_MAX))
    return (shifted + added).clamp(-largest, largest)


def reciprocal_root(squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Half the exponent of a sum of squares, and the reciprocal of its root's mantissa."""
    half = leading_one(squares) >> 1
    one = ROOT_BITS - 1
    places = 2 * (one - half)
    aligned = torch.where(
        places >= 0, squares << places.clamp(min=0), squares >> (-places).clamp(min=0)
    )
    # float64 finds the root of 34 bits exactly but for its floor.
    root = aligned.double().sqrt().long()
    root = torch.where(root * root > aligned, root - 1, root)
    root = torch.where((root + 1) * (root + 1) <= aligned, root + 1, root)
    return half, ((1 << (2 * one + 1)) // root).clamp(max=2**ROOT_BITS - 1)


def leading_one(values: torch.Tensor) -> torch.Tensor:
    """Exponent of the leading one of positive integers below 2**53."""
    return torch.frexp(values.double()).exponent.long() - 1


@cache
def activation_segments(kind: Activation) -> tuple[torch.Tensor, torch.Tensor]:
    """Bases and slopes, one segment of zeros after the last."""
    base, slope = torch.tensor([*activation_table(kind), (0, 0)]).T
    return base, slope
