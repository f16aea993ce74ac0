"""Operand feed: a stream of the vector unit, from tables or from tokens' second rows."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config.vector_program import SECOND_ROW, TABLES_MAX
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["OperandFeed", "feed_layout"]

#: Beats that wait, and passes that are known before their beats are taken.
_WAITING = 4


def feed_layout(depth: int, banks: int) -> data.StructLayout:
    """What a pass takes: ``beats`` + 1 of them, from a ``source``, of the row in a ``bank``."""
    return data.StructLayout(
        {"source": range(SECOND_ROW + 1), "bank": range(banks), "beats": range(depth)}
    )


class OperandFeed(wiring.Component):
    """Sends the beats of one pass after another.

    Parameters
    ----------
    beat : ShapeLike
        Words of the lanes.
    depth, banks : int
        Beats of the longest row, a power of two; rows in progress.

    Members
    -------
    passes : In, stream of `feed_layout`
    address : Out
        Beat of a table, to be read: its ``words`` come one cycle later.
    words : In
    seconds : In, stream of each bank
        Second rows of its tokens.
    output : Out, stream

    Latency
    -------
    `LATENCY` cycles from a pass to its first beat of a table; then one a cycle.
    """

    LATENCY = 2 * StreamFIFO.LATENCY + 1

    def __init__(self, beat: Any, depth: int, banks: int):
        self._depth, self._banks = depth, banks
        log2(depth)
        signature = stream.Signature(beat)
        super().__init__(
            {
                "passes": In(stream.Signature(feed_layout(depth, banks))),
                "address": Out(unsigned(log2(depth * TABLES_MAX))),
                "words": In(beat),
                "seconds": In(signature).array(banks),
                "output": Out(signature),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.waiting = waiting = StreamFIFO(
            feed_layout(self._depth, self._banks), depth=_WAITING
        )
        m.submodules.queue = queue = StreamFIFO(self.words.shape(), depth=_WAITING)
        connect(m, flipped(self.passes), waiting.input)
        connect(m, queue.output, flipped(self.output))
        turn = waiting.output
        of_table = turn.payload.source != SECOND_ROW
        beat = Signal(range(self._depth))
        read = Signal()  # in this cycle
        comes = Signal()  # in this cycle, from a table
        passed = Signal()
        bank = turn.payload.bank
        second = Array(source.payload.as_value() for source in self.seconds)[bank]
        second_valid = Array(source.valid for source in self.seconds)[bank]
        m.d.comb += [
            self.address.eq(Cat(beat, turn.payload.source[: log2(TABLES_MAX)])),
            read.eq(turn.valid & of_table & (queue.level + comes < _WAITING)),
            passed.eq(turn.valid & ~of_table & ~comes & second_valid & queue.input.ready),
            queue.input.valid.eq(comes | passed),
            queue.input.payload.eq(Mux(comes, self.words.as_value(), second)),
            turn.ready.eq((read | passed) & (beat == turn.payload.beats)),
        ]
        Contracts(m, platform, self).has_room(queue.input, "a beat that is read")
        m.d.sync += comes.eq(read)
        with m.If(read | passed):
            m.d.sync += beat.eq(Mux(turn.ready, 0, beat + 1))
        for index, source in enumerate(self.seconds):
            m.d.comb += source.ready.eq(passed & (bank == index))
        return m
