"""A memory of parallel banks: one bank written at a time, all banks read together."""

from amaranth.hdl import Module, Shape
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["BankedMemory"]


class BankedMemory(wiring.Component):
    """The operand buffers' corner turn: tokens come in one by one and leave side by side.

    Parameters
    ----------
    shape : ShapeLike
        One bank's word.
    banks : int
        Number of banks.
    depth : int
        Words in each bank.

    Members
    -------
    write_enable, write_bank, write_address, write_data : In
        Writes a word into one bank.
    read_address : In
        Read by all banks.
    read_data : Out, banks x shape
        One cycle after ``read_address``. Undefined for an address written in that cycle.
    """

    def __init__(self, shape, *, banks: int, depth: int):
        self._shape, self._banks, self._depth = shape, banks, depth
        super().__init__(
            {
                "write_enable": In(1),
                "write_bank": In(range(banks)),
                "write_address": In(range(depth)),
                "write_data": In(shape),
                "read_address": In(range(depth)),
                "read_data": Out(data.ArrayLayout(shape, banks)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for bank in range(self._banks):
            memory = Memory(shape=Shape.cast(self._shape), depth=self._depth, init=[])
            m.submodules[f"bank_{bank}"] = memory
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(self.write_enable & (self.write_bank == bank)),
                write.addr.eq(self.write_address),
                write.data.eq(self.write_data),
                read.addr.eq(self.read_address),
                self.read_data.as_value()[bank * len(read.data) : (bank + 1) * len(read.data)].eq(
                    read.data
                ),
            ]
        return m
