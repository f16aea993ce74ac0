"""Parts as a proof of their parent may take them: all that they may do, without how they do it.

What holds of a parent with these holds of it with the parts themselves, as far as these do nothing
else: `tests/formal/test_stream_fifo.py` shows that of the queue.
"""

from types import SimpleNamespace
from typing import Any

from amaranth.asserts import AnySeq
from amaranth.hdl import Module, Shape, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.lib.contract import Contracts

__all__ = ["AnyLanes", "AnyMemory", "AnyQueue"]


class AnyQueue(wiring.Component):
    """Any queue of a stream: it takes and offers payloads in order, as late as it likes.

    Parameters
    ----------
    shape : ShapeLike
        Payload.
    depth : int
        Most payloads that it holds.

    Members
    -------
    input, output, level
        See `rtl.lib.stream_fifo.StreamFIFO`. Its registers ``entry_0`` (the oldest) and following
        are the payloads, as bits.
    """

    LATENCY = 2

    def __init__(self, shape, *, depth: int):
        self._depth = depth
        super().__init__(
            {
                "input": In(stream.Signature(shape)),
                "output": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = unsigned(Shape.cast(self.input.payload.shape()).width)
        entries = [Signal(bits, name=f"entry_{place}") for place in range(self._depth)]
        held = Signal.like(self.level)
        offered = Signal()
        takes, offers = Signal(), Signal()
        put = self.input.valid & self.input.ready
        got = self.output.valid & self.output.ready
        m.d.comb += [
            takes.eq(AnySeq(1)),
            offers.eq(AnySeq(1)),
            self.level.eq(held),
            self.input.ready.eq(takes & (held != self._depth)),
            self.output.valid.eq((held != 0) & (offers | offered)),
            Value.cast(self.output.payload).eq(entries[0]),
        ]
        m.d.sync += [offered.eq(self.output.valid & ~got), held.eq(held + put - got)]
        for place, entry in enumerate(entries):
            behind = entries[place + 1] if place + 1 < self._depth else entry
            with m.If(put & (held == place + got)):
                m.d.sync += entry.eq(Value.cast(self.input.payload))
            with m.Elif(got):
                m.d.sync += entry.eq(behind)
        Contracts(m, platform, self).holds(held <= self._depth, "it holds what it has places for")
        return m


class AnyLanes(wiring.Component):
    """Any words of any lanes, with room at any time: see `rtl.bus.word_lanes.WordLanes`."""

    def __init__(self, *, lanes: int, depth: int):
        words = data.ArrayLayout(unsigned(32), lanes)
        super().__init__(
            {
                "room": Out(1),
                "push": In(lanes),
                "write_data": In(words),
                "pop": In(lanes),
                "read_data": Out(words),
            }
        )

    def elaborate(self, platform):
        m = Module()
        words = Value.cast(self.read_data)
        m.d.comb += [self.room.eq(AnySeq(1)), words.eq(AnySeq(len(words)))]
        Contracts(m, platform, self).asks(
            ~self.push.any() | self.room, "words are pushed only while there is room"
        )
        return m


class AnyMemory(wiring.Component):
    """A memory whose words may be anything: see `amaranth.lib.memory.Memory`."""

    def __init__(self, *, shape: Any, depth: int, init: Any):
        self._shape, self._depth = shape, depth
        self._read: list[SimpleNamespace] = []
        super().__init__({})

    def read_port(self, **_: Any) -> SimpleNamespace:
        """Ports of a reader; the words come when they like."""
        self._read.append(self.write_port())
        return self._read[-1]

    def write_port(self) -> SimpleNamespace:
        """Ports of a writer."""
        return SimpleNamespace(
            addr=Signal(range(self._depth)), en=Signal(), data=Signal(self._shape)
        )

    def elaborate(self, platform):
        m = Module()
        for port in self._read:
            word = Value.cast(port.data)
            m.d.comb += word.eq(AnySeq(len(word)))
        return m
