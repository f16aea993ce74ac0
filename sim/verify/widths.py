"""Widths of accumulators: the largest value that each may reach, against the bits that it has.

The values come from the formulas of `docs/numerics.md` by interval arithmetic, from what operands,
mantissas and digits may be, and not from what `Config` derives; the widths are those of the
registers of the hardware, as it is elaborated.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from amaranth.hdl import Fragment, Shape
from amaranth.lib import wiring

from firmware_model.reference.digits import key_value, probability_value
from paro.config import Config, formats, vector_formats
from paro.config.config import blocks_of
from rtl.core.logits import LogitLane
from rtl.core.normalizer import NormalizerLane
from rtl.core.output_accumulator import OutputLane
from rtl.core.pe import PE
from rtl.core.reciprocal import ReciprocalLane
from rtl.core.row_state import RowStateLane
from rtl.core.softmax import SoftmaxLane
from rtl.vector.lane import VectorLane
from rtl.vector.totals import GroupTotals

__all__ = ["Interval", "Width", "accumulator_widths"]

_BITS = [bits for bits in formats.CODE_BITS if bits]


@dataclass(frozen=True)
class Interval:
    """All integers from ``low`` to ``high``."""

    low: int
    high: int

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.low + other.low, self.high + other.high)

    def __mul__(self, other: "Interval") -> "Interval":
        ends = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(ends), max(ends))

    def times(self, count: int) -> "Interval":
        """Sum of so many values, each of this interval."""
        return Interval(self.low * count, self.high * count)

    def shifted(self, places: int) -> "Interval":
        """Values shifted right, rounded down."""
        return Interval(self.low >> places, self.high >> places)

    def rounded(self, places: int) -> "Interval":
        """Values shifted right, rounded half up."""
        return (self + _exactly(1 << places >> 1)).shifted(places)

    def hull(self, *others: "Interval") -> "Interval":
        """Least interval that has all of these."""
        every = (self, *others)
        return Interval(min(each.low for each in every), max(each.high for each in every))

    def fits(self, bits: int, signed: bool) -> bool:
        """Whether a register of so many bits holds all of them."""
        shape = Shape(bits, signed)
        least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        assert shape.width == bits
        return least <= self.low and self.high <= most


@dataclass(frozen=True)
class Width:
    """A register that adds up, or takes what others added up.

    Parameters
    ----------
    component, register : str
        Class and signal.
    bits, signed
        Its shape.
    low, high : int
        Least and largest value that it may reach.
    fits : bool
        Whether it holds them.
    spare : bool
        Whether it would with one bit less.
    """

    component: str
    register: str
    bits: int
    signed: bool
    low: int
    high: int
    fits: bool
    spare: bool


def accumulator_widths(config: Config) -> list[Width]:
    """Registers of the data path, with what they may have to hold.

    Operands are -127 .. 127, mantissas and codes any; a row has at most ``max_tokens`` keys, a
    layer at most `formats.INPUTS_MAX` inputs.
    """
    return [
        _width(component, register, reached)
        for component, registers in _reached(config)
        for register, reached in registers.items()
    ]


def _exactly(value: int) -> Interval:
    return Interval(value, value)


def _signed(largest: int) -> Interval:
    return Interval(-largest, largest)


def _below(end: int) -> Interval:
    return Interval(0, end - 1)


@cache
def _digit_values(of_key: bool, bits: int) -> Interval:
    """Values that digits of a block's width make of K, or of P."""
    value, operands = (key_value, _OPERANDS) if of_key else (probability_value, _PROBABILITIES)
    return _hull(_exactly(value(each, bits)) for each in range(operands.low, operands.high + 1))


def _hull(intervals: Iterable[Interval]) -> Interval:
    first, *others = intervals
    return first.hull(*others)


_OPERANDS = _signed(formats.OPERAND_MAX)
_PROBABILITIES = Interval(0, 1 << formats.P_FRAC)
_KEY_SCALES, _QUERY_SCALES = (
    _below(1 << formats.KEY_SCALE_BITS),
    _below(1 << formats.QUERY_SCALE_BITS),
)


def _reached(config: Config) -> Iterator[tuple[wiring.Component, dict[str, Interval]]]:
    """Components, and intervals of their registers by name."""
    keys = {bits: _digit_values(True, bits) for bits in _BITS}
    weights = _hull(_digit_values(False, bits) for bits in _BITS)
    scores = {bits: (_OPERANDS * key).times(config.head_dim) for bits, key in keys.items()}
    score = _hull(scores.values())
    partial = (_OPERANDS * weights).times(config.block)
    # In 2-bit blocks K counts four times in the array.
    yield PE(config), {"accumulator": _hull([partial, score, scores[2].times(4)])}
    yield from _logits(config, score)
    yield SoftmaxLane(config), {"block_sum": weights.times(config.block)}
    yield from _rows(config, weights)
    yield from _vectors(config)


def _logits(
    config: Config, score: Interval
) -> Iterator[tuple[wiring.Component, dict[str, Interval]]]:
    half = config.score_bits // 2
    by_key = score * _KEY_SCALES
    scaled = by_key.rounded(config.key_scale_shift)
    by_query = scaled * _QUERY_SCALES
    yield (
        LogitLane(config),
        {
            "score_1": score,
            "low": _below(1 << half) * _KEY_SCALES,
            "high": score.shifted(half) * _KEY_SCALES,
            "by_key": by_key,
            "scaled": scaled,
            "by_query": by_query,
            "rounded": by_query.rounded(formats.QUERY_SCALE_SHIFT),
            "logit": _signed(formats.LOGIT_MAX),
        },
    )


def _rows(
    config: Config, weights: Interval
) -> Iterator[tuple[wiring.Component, dict[str, Interval]]]:
    """Denominators and numerators of rows, sums of layers, and what becomes of them."""
    blocks = blocks_of(config.max_tokens, config.block)
    last = config.max_tokens - (blocks - 1) * config.block
    # Keys beyond the last token weigh nothing.
    whole, rest = (
        weights.times(count).times(1 << formats.DENOMINATOR_FRAC) for count in (config.block, last)
    )
    denominator = _joined(whole, blocks, rest)
    yield (
        RowStateLane(config),
        {
            "old": denominator,
            "new": whole,
            "small": denominator,
            "scaled": denominator,
            "new_denominator": denominator,
        },
    )
    products = _OPERANDS * weights
    whole, rest = products.times(config.block), products.times(last)
    sums = (_OPERANDS * _hull(_digit_values(True, bits) for bits in _BITS)).times(
        formats.INPUTS_MAX
    )
    numerator = _joined(whole, blocks, rest).hull(sums)
    yield OutputLane(config), dict.fromkeys(("small", "large", "scaled", "total"), numerator)
    # The leading one of a divisor goes to its highest bit; a remainder stays below the divisor.
    yield (
        ReciprocalLane(config),
        {
            "divisor": denominator,
            "doubled": Interval(0, 2 * ((1 << config.denominator_bits) - 1)),
        },
    )
    # |numerator| <= denominator < 2**(e + 1), doubled and shifted by e - 15; a layer's sum is
    # shifted by its host to as much.
    aligned = Interval(-(1 << 17), (1 << 17) - 1)
    product = aligned * _below(1 << formats.RECIPROCAL_BITS)
    least = min(formats.OUT_SHIFTS)
    halves = product.shifted(least - 1)
    bias = Interval(-(1 << formats.OUT_BITS - 1), (1 << formats.OUT_BITS - 1) - 1)
    yield (
        NormalizerLane(config),
        {
            "coarse": numerator.times(2),
            "aligned": aligned,
            "product": product,
            "halves": halves,
            "total": (halves + bias.times(2) + _exactly(1)).shifted(1),
        },
    )


def _joined(block: Interval, blocks: int, last: Interval) -> Interval:
    """Sum of a row's blocks, of which at each step the older or the newer is shifted and rounded.

    That never takes a sum further from 0, so that none is shifted where it reaches furthest.
    """
    reached = block.times(blocks - 1) + last
    assert all(reached.rounded(places).hull(reached) == reached for places in range(64))
    return reached


def _vectors(config: Config) -> Iterator[tuple[wiring.Component, dict[str, Interval]]]:
    """The vector unit: products, and totals of a group."""
    word = _signed(vector_formats.WORD_MAX)
    factor = _signed((1 << vector_formats.FACTOR_BITS - 1) - 1)
    product = factor * factor
    square = Interval(0, product.high)
    lanes, most = config.vector_lanes, vector_formats.NORM_CHANNELS_MAX
    epsilon = _below(1 << vector_formats.SQUARES_BITS - 1)
    yield (
        VectorLane(),
        {
            "doubled": word.times(2) + word.times(2),
            "product": product,
            "total": product + _exactly(1) + word.times(2),
        },
    )
    totals = GroupTotals(lanes=lanes, depth=most // lanes, banks=config.vector_rows)
    yield (
        totals,
        {
            "squares": square.times(lanes),
            "words": word.times(lanes),
            "sofar": (epsilon + square.times(most)).hull(word.times(most)),
        },
    )


def _width(component: wiring.Component, register: str, reached: Interval) -> Width:
    shape = _shape(component, register)
    return Width(
        component=type(component).__name__,
        register=register,
        bits=shape.width,
        signed=shape.signed,
        low=reached.low,
        high=reached.high,
        fits=reached.fits(shape.width, shape.signed),
        spare=reached.fits(shape.width - 1, shape.signed),
    )


def _shape(component: Any, register: str) -> Shape:
    """Shape of a signal that the component itself drives."""
    driven: Callable[..., Any] = Fragment.get
    statements = driven(component, None).statements.values()
    (shape,) = {
        signal.shape()
        for group in statements
        for statement in group
        for signal in statement._lhs_signals()
        if signal.name == register
    }
    return shape
