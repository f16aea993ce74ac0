"""Word lanes: a memory beat as a row of queues of 32-bit words, and rotation between lanes."""

from amaranth.hdl import Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.bus.axi import WORD_BYTES
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts

__all__ = ["WordLanes", "rotated", "span", "window"]

_WORD_BITS = 8 * WORD_BYTES


def rotated(m: Module, words: list[Value], places: Value, count: int) -> list[Value]:
    """First ``count`` of ``words`` rotated down: word (i + ``places``) mod len(words).

    Words are a power of two in number; ``places`` has the bits to point at one of them. Halves
    come first, so that each step keeps only the words that can still come out.
    """
    size = len(words)
    for bit in reversed(range(log2(size))):
        kept = min(size, count + (1 << bit) - 1)
        step = [Signal(_WORD_BITS, name=f"rotated_{bit}_{i}") for i in range(kept)]
        for i in range(kept):
            # Words that were dropped before are never asked for here.
            moved = words[(i + (1 << bit)) % size]
            m.d.comb += step[i].eq(Mux(places[bit], moved, words[i]))
        words = [*step]
    return words[:count]


def span(lowest: Value, highest: Value, lanes: int) -> Value:
    """A bit for each lane, 1 from lane ``lowest`` to lane ``highest``."""
    ones = Const((1 << lanes) - 1, lanes)
    return (ones << lowest)[:lanes] & (ones >> (lanes - 1 - highest)[: len(highest)])


def window(first: Value, count: int, lanes: int) -> Value:
    """A bit for each lane, 1 for ``count`` lanes from ``first`` on, lane 0 after the last."""
    mask = Const((1 << count) - 1) << first
    return (mask | mask >> lanes)[:lanes]


class WordLanes(wiring.Component):
    """One queue of 32-bit words for each lane of a beat.

    Words come out in the order in which they came in, but a lane at a time: consecutive words lie
    in consecutive lanes, so that no word is moved sideways on its way in or out.

    Parameters
    ----------
    lanes : int
        A power of two.
    depth : int
        Words in each lane, a power of two.

    Members
    -------
    room : Out, 1
        Every lane takes a word. A register: it may be 0 with one place left in a lane.
    push, write_data : In, lanes x 1, lanes x 32 bits
        Adds words, only while ``room``.
    pop : In, lanes x 1
        Removes words, only of lanes that hold one.
    read_data : Out, lanes x 32 bits
        The oldest word of each lane that holds one.

    Latency
    -------
    1 cycle from a word's push until it may be popped.
    """

    def __init__(self, *, lanes: int, depth: int):
        self._lanes, self._depth = lanes, depth
        super().__init__(
            {
                "room": Out(1),
                "push": In(lanes),
                "write_data": In(data.ArrayLayout(unsigned(_WORD_BITS), lanes)),
                "pop": In(lanes),
                "read_data": Out(data.ArrayLayout(unsigned(_WORD_BITS), lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        contracts = Contracts(m, platform, self)
        has_room = Signal(self._lanes)
        m.d.sync += self.room.eq(has_room.all())
        for lane in range(self._lanes):
            memory = Memory(shape=unsigned(_WORD_BITS), depth=self._depth, init=[])
            m.submodules[f"lane_{lane}"] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            level = Signal(range(self._depth + 1), name=f"level_{lane}")
            push, pop = self.push[lane], self.pop[lane]
            contracts.asks(~push | self.room, "words are pushed only while there is room")
            contracts.asks(~pop | (level != 0), "words are popped only of lanes that hold one")
            contracts.holds(level + self.room <= self._depth, "with room every lane takes a word")
            m.d.comb += [
                has_room[lane].eq(level < self._depth - 1),
                write.en.eq(push),
                write.data.eq(self.write_data[lane]),
                self.read_data[lane].eq(read.data),
            ]
            m.d.sync += [
                level.eq(level + push - pop),
                write.addr.eq(write.addr + push),
                read.addr.eq(read.addr + pop),
            ]
        return m
