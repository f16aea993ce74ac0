"""Scalars of a group: its mean, the reciprocal of its root or of its largest word, bit by bit."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import formats, vector_formats
from paro.config.vector_program import Reduce
from rtl.lib.arithmetic import log2
from rtl.vector.passes import SCALAR_SHIFT, mantissa_shape, total_layout

__all__ = ["MIDDLE_BITS", "ScalarUnit", "scalar_layout"]

#: Width of a signed M, twice a mean.
MIDDLE_BITS = formats.OUT_BITS + 1
#: Bits of the sum of a group's words.
SUM_BITS = formats.OUT_BITS + log2(vector_formats.NORM_CHANNELS_MAX)
#: Quotient bits of M, its offset of 2**17 included; and of a reciprocal.
_MEAN_STEPS, _STEPS = MIDDLE_BITS + 1, vector_formats.ROOT_BITS
#: Width of a normalised largest word.
_LARGEST_BITS = formats.OUT_BITS
#: Most places of a largest word's leading one; a root has fewer.
_EXPONENT_MAX = _LARGEST_BITS - 1 - vector_formats.MANTISSA_PLACES[0]


def scalar_layout() -> data.StructLayout:
    """What the unit found: ``middle`` (M) if ``mean``, else ``factor`` (R) and its ``shift``."""
    return data.StructLayout(
        {
            "mean": 1,
            "index": range(vector_formats.GROUPS_MAX),
            "middle": signed(MIDDLE_BITS),
            "factor": unsigned(vector_formats.ROOT_BITS),
            "shift": SCALAR_SHIFT,
        }
    )


class ScalarUnit(wiring.Component):
    """M and R of section 8 of `docs/numerics.md`, one group after another.

    A quotient and a root come by restoring division, one bit a cycle, which gives floors; leading
    zeros go before them, eight or two (of a largest word four or one) a cycle.

    Parameters
    ----------
    lanes : int
        Channels of a beat, a power of two.
    depth, banks : int
        Beats of the longest row, rows in progress.

    Members
    -------
    totals : In, stream of `total_layout`
    found : Out, `scalar_layout`
        With ``done``.
    done : Out, 1
    mantissas : Out, stream
        Mantissa of each group whose largest word was found.

    Latency
    -------
    From a total that is taken to ``done``: `MEAN_LATENCY` cycles of a sum, up to `ROOT_LATENCY` of
    squares and up to `LARGEST_LATENCY` and the places below 0 of a largest word, if its mantissa
    is taken at once.
    """

    MEAN_LATENCY = _MEAN_STEPS + 1
    ROOT_LATENCY = 9 + _STEPS + _STEPS + 1
    LARGEST_LATENCY = 2 + 7 + _STEPS + 1

    def __init__(self, *, lanes: int, depth: int, banks: int):
        self._lanes = lanes
        super().__init__(
            {
                "totals": In(stream.Signature(total_layout(depth, banks))),
                "found": Out(scalar_layout()),
                "done": Out(1),
                "mantissas": Out(stream.Signature(mantissa_shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        total, found = self.totals.payload, self.found
        r = _Registers()
        # M: 4 sum + n over 2 n, made positive by 2**17 times 2 n.
        count = Signal(range(vector_formats.NORM_CHANNELS_MAX + 1))
        dividend = Signal(unsigned(len(count) + _MEAN_STEPS + 1))
        m.d.comb += [
            count.eq((total.beats + 1) << log2(self._lanes)),
            dividend.eq((total.value[:SUM_BITS].as_signed() << 2) + count + (count << _MEAN_STEPS)),
        ]
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += self.totals.ready.eq(1)
                m.d.sync += [
                    r.kind.eq(total.reduce),
                    found.index.eq(total.index),
                    r.places.eq(total.places),
                    r.short.eq(total.short),
                    r.quotient.eq(0),
                    r.halve.eq(Mux(total.places < 0, -total.places, 0)),
                    r.work.eq(total.value),
                ]
                with m.If(self.totals.valid):
                    with m.Switch(total.reduce):
                        with m.Case(Reduce.SUM):
                            low = vector_formats.SQUARES_BITS - _MEAN_STEPS
                            m.d.sync += [
                                r.work.eq(Cat(Const(0, low), dividend[:_MEAN_STEPS])),
                                r.remainder.eq(dividend >> _MEAN_STEPS),
                                r.divisor.eq(count << 1),
                                r.left.eq(_MEAN_STEPS),
                            ]
                            m.next = "DIVIDE"
                        with m.Case(Reduce.SQUARES):
                            m.d.sync += r.exponent.eq(vector_formats.SQUARES_BITS // 2 - 1)
                            m.next = "ALIGN"
                        with m.Case(Reduce.LARGEST):
                            largest = total.value[: formats.OUT_BITS]
                            m.d.sync += r.divisor.eq(Mux(largest.any(), largest, 1))
                            m.next = "HALVE"
            self._largest(m, r)
            self._root(m, r)
            # A divisor of a leading one alone makes all bits 1, which is the bound of R.
            with m.State("DIVIDE"):
                doubled = Cat(r.work[-1], r.remainder)
                fits = doubled >= r.divisor
                m.d.sync += [
                    r.work.eq(r.work << 1),
                    r.remainder.eq(Mux(fits, doubled - r.divisor, doubled)),
                    r.quotient.eq(Cat(fits, r.quotient)),
                    r.left.eq(r.left - 1),
                ]
                with m.If(r.left == 1):
                    m.next = "DONE"
            with m.State("DONE"):
                is_largest = r.kind == Reduce.LARGEST
                m.d.comb += [
                    self.mantissas.valid.eq(is_largest),
                    self.done.eq(~is_largest | self.mantissas.ready),
                ]
                with m.If(self.done):
                    m.next = "TAKE"
        most = vector_formats.PRODUCT_SHIFT_MAX
        norm_shift = r.exponent + vector_formats.ROOT_BITS - r.places
        m.d.comb += [
            found.mean.eq(r.kind == Reduce.SUM),
            found.middle.eq(r.quotient - (1 << (_MEAN_STEPS - 1))),
            found.factor.eq(r.quotient),
            found.shift.eq(
                Mux(
                    r.kind == Reduce.SQUARES,
                    Mux(norm_shift > most, most, norm_shift),
                    r.exponent + vector_formats.QUANTIZE_FRAC,
                )
            ),
        ]
        return m

    def _largest(self, m: Module, r: "_Registers") -> None:
        """The largest word: its mantissa, then its leading one to the highest bit."""
        with m.State("HALVE"):
            most = (1 << formats.KEY_SCALE_BITS) - 1
            clamped = Mux(r.short & (r.divisor > most), most, r.divisor)
            below = r.places < 0
            with m.If(r.halve.any()):
                m.d.sync += [r.halve.eq(r.halve - 1), r.divisor.eq((r.divisor + 1) >> 1)]
            with m.Else():
                m.d.sync += [
                    self.mantissas.payload.eq(clamped << Mux(below, 0, r.places[:2])),
                    r.divisor.eq(clamped),
                    r.exponent.eq(_LARGEST_BITS - 1 - Mux(below, r.places, 0)),
                    r.work.eq(0),
                    r.remainder.eq(formats.OPERAND_MAX << _LARGEST_BITS - 8),
                    r.left.eq(_STEPS),
                ]
                m.next = "NORMALISE"
        with m.State("NORMALISE"):
            with m.If(~r.divisor[_LARGEST_BITS - 4 : _LARGEST_BITS].any()):
                m.d.sync += [r.divisor.eq(r.divisor << 4), r.exponent.eq(r.exponent - 4)]
            with m.Elif(~r.divisor[_LARGEST_BITS - 1]):
                m.d.sync += [r.divisor.eq(r.divisor << 1), r.exponent.eq(r.exponent - 1)]
            with m.Else():
                m.next = "DIVIDE"

    def _root(self, m: Module, r: "_Registers") -> None:
        """Squares: the leading pair of bits to the top, then each two bits give one of the root."""
        with m.State("ALIGN"):
            m.d.sync += [r.left.eq(_STEPS), r.remainder.eq(0), r.divisor.eq(0)]
            with m.If(~r.work[-8:].any()):
                m.d.sync += [r.work.eq(r.work << 8), r.exponent.eq(r.exponent - 4)]
            with m.Elif(~r.work[-2:].any()):
                m.d.sync += [r.work.eq(r.work << 2), r.exponent.eq(r.exponent - 1)]
            with m.Else():
                m.next = "ROOT"
        with m.State("ROOT"):
            brought = Cat(r.work[-2:], r.remainder)
            trial = Cat(Const(1, 2), r.divisor)
            larger = brought >= trial
            m.d.sync += [
                r.work.eq(r.work << 2),
                r.remainder.eq(Mux(larger, brought - trial, brought)),
                r.divisor.eq(Cat(larger, r.divisor)),
                r.left.eq(r.left - 1),
            ]
            with m.If(r.left == 1):
                m.d.sync += [
                    r.work.eq(0),
                    r.remainder.eq(1 << (vector_formats.ROOT_BITS - 1)),
                    r.left.eq(_STEPS),
                ]
                m.next = "DIVIDE"


class _Registers:
    """What the states share: ``work`` gives its highest bits to a quotient or a root.

    All is set when a total is taken, or later, before it is used.
    """

    def __init__(self) -> None:
        self.kind = Signal(Reduce, reset_less=True)
        self.work = Signal(vector_formats.SQUARES_BITS, reset_less=True)
        self.divisor = Signal(vector_formats.ROOT_BITS, reset_less=True)
        self.remainder = Signal(vector_formats.ROOT_BITS + 1, reset_less=True)
        self.quotient = Signal(_MEAN_STEPS, reset_less=True)
        self.left = Signal(range(_MEAN_STEPS + 1), reset_less=True)
        self.exponent = Signal(range(_EXPONENT_MAX + 1), reset_less=True)
        self.places = Signal(signed(6), reset_less=True)
        self.halve = Signal(range(16), reset_less=True)
        self.short = Signal(reset_less=True)
