"""A memory of more words than a block RAM has, with a register behind each of its banks."""

from amaranth.hdl import Array, Module, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.lib.arithmetic import log2
from rtl.lib.delay import delayed

__all__ = ["DeepMemory"]

#: Words of a bank: what a block RAM of an FPGA has where it is as wide as 16 or 18 bits.
BANK_WORDS = 1024


class DeepMemory(wiring.Component):
    """A memory that is cut into banks by the upper bits of its addresses.

    A block RAM gives its word so late in a cycle that no choice between several of them fits
    behind it: each bank has a register, and the choice comes after it.

    Parameters
    ----------
    shape : ShapeLike
        Of a word.
    depth : int
        Number of words.

    Members
    -------
    write_enable, write_address, write_data : In
        Writes a word.
    read_address : In
    read_data : Out
        `READ_LATENCY` cycles after ``read_address``. Undefined for an address written in that
        cycle.
    """

    READ_LATENCY = 2

    def __init__(self, shape, *, depth: int):
        self._shape, self._depth = Shape.cast(shape), depth
        super().__init__(
            {
                "write_enable": In(1),
                "write_address": In(range(depth)),
                "write_data": In(self._shape),
                "read_address": In(range(depth)),
                "read_data": Out(self._shape),
            }
        )

    def elaborate(self, platform):
        m = Module()
        word_bits = log2(BANK_WORDS)
        fetched = []
        for first in range(0, self._depth, BANK_WORDS):
            bank = first // BANK_WORDS
            memory = Memory(shape=self._shape, depth=min(BANK_WORDS, self._depth - first), init=[])
            m.submodules[f"bank_{bank}"] = memory
            write, read = memory.write_port(), memory.read_port()
            word = Signal(self._shape, name=f"fetched_{bank}")
            m.d.comb += [
                write.en.eq(self.write_enable & (self.write_address[word_bits:] == bank)),
                write.addr.eq(self.write_address[:word_bits]),
                write.data.eq(self.write_data),
                read.addr.eq(self.read_address[:word_bits]),
            ]
            m.d.sync += word.eq(read.data)
            fetched.append(word)
        if len(fetched) == 1:
            m.d.comb += self.read_data.eq(fetched[0])
        else:
            chosen = delayed(m, self.read_address[word_bits:], self.READ_LATENCY, "bank")
            m.d.comb += self.read_data.eq(Array(fetched)[chosen])
        return m
