"""Totals of the vector unit: of each group of channels its sum, squares or largest word."""

from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config import formats, vector_formats
from paro.config.vector_program import Reduce
from rtl.lib.arithmetic import log2
from rtl.lib.delay import delayed
from rtl.vector.issue import beat_layout
from rtl.vector.lane import VectorLane
from rtl.vector.passes import total_layout

__all__ = ["GroupTotals"]


class GroupTotals(wiring.Component):
    """Adds lanes, then beats, or finds the largest; a total comes a cycle after its last beat.

    Parameters
    ----------
    lanes, depth, banks : int
        Channels of a beat, beats of the longest row, rows in progress.

    Members
    -------
    squares : In, one for each lane
        `VectorLane.LATENCY` - `VectorLane.PRODUCT_LATENCY` cycles before ``words``.
    words : In, one for each lane
        Words of a pass.
    valid, beat : In, 1, `beat_layout`
        A cycle after ``words``.
    epsilon : In
        What sums of squares begin with, of each bank.
    done : Out, 1
    total : Out, `total_layout`
        A cycle after the ``beat`` that ends a group.
    """

    def __init__(self, *, lanes: int, depth: int, banks: int):
        self._lanes = lanes
        square = unsigned(2 * (vector_formats.FACTOR_BITS - 1))
        epsilon = unsigned(vector_formats.SQUARES_BITS - 1)
        super().__init__(
            {
                "squares": In(data.ArrayLayout(square, lanes)),
                "words": In(data.ArrayLayout(signed(formats.OUT_BITS), lanes)),
                "valid": In(1),
                "beat": In(beat_layout(depth, banks)),
                "epsilon": In(data.ArrayLayout(epsilon, banks)),
                "done": Out(1),
                "total": Out(total_layout(depth, banks)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        squares = Signal(vector_formats.SQUARES_BITS)
        words = Signal(signed(formats.OUT_BITS + log2(self._lanes)))
        largest = Signal(formats.OUT_BITS - 1)
        lanes = range(self._lanes)
        sizes = [
            Mux(self.words[lane] < 0, -self.words[lane], self.words[lane])[: len(largest)]
            for lane in lanes
        ]
        m.d.sync += [
            squares.eq(sum(self.squares[lane] for lane in lanes)),
            words.eq(sum(self.words[lane] for lane in lanes)),
            largest.eq(_larger(m, sizes)),
        ]
        late = VectorLane.LATENCY - VectorLane.PRODUCT_LATENCY
        squares = delayed(m, squares, late, "squares")

        beat, total = self.beat, self.total
        is_squares = beat.reduce == Reduce.SQUARES
        sofar = Signal(signed(vector_formats.SQUARES_BITS + 1))
        joined = Signal(signed(vector_formats.SQUARES_BITS + 1))
        first = Mux(is_squares, self.epsilon[beat.bank], 0)
        before = Mux(beat.begins, first, sofar)
        with m.Switch(beat.reduce):
            with m.Case(Reduce.SUM):
                m.d.comb += joined.eq(before + words)
            with m.Case(Reduce.SQUARES):
                m.d.comb += joined.eq(before + squares)
            with m.Default():
                m.d.comb += joined.eq(Mux(before > largest, before, largest))
        with m.If(self.valid):
            m.d.sync += sofar.eq(joined)
        m.d.sync += [
            self.done.eq(self.valid & beat.ends & (beat.reduce != Reduce.NOTHING)),
            total.reduce.eq(beat.reduce),
            total.bank.eq(beat.bank),
            total.index.eq(beat.index),
            total.beats.eq(beat.group),
            total.places.eq(beat.places),
            total.short.eq(beat.short),
        ]
        m.d.comb += total.value.eq(sofar)
        return m


def _larger(m: Module, values: list[Value]) -> Value:
    """Largest of some values, a power of two of them: a tree, each of its results a signal.

    As one expression it would repeat every comparison in those above it.
    """
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=True)
        values = []
        for first, second in pairs:
            larger = Signal(len(first), name=f"larger_{len(values)}")
            m.d.comb += larger.eq(Mux(first > second, first, second))
            values.append(larger)
    return values[0]
