"""A small design with the traits that matter to the generator and the simulators.

Streams at its boundary, shared modules in two levels, a combinational shared module, a memory, and
logic that is driven from a register alone (the case that stock Verilog gets wrong on Icarus).
"""

# pyright: reportAttributeAccessIssue=false

from typing import Any

from amaranth.hdl import Array, Module, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.lib.library import replicate


class Choose(wiring.Component):
    """Combinational: a sum or a difference."""

    a: In(signed(16))
    b: In(signed(16))
    minus: In(1)
    y: Out(signed(17))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        with m.If(self.minus):
            m.d.comb += self.y.eq(self.a - self.b)
        with m.Else():
            m.d.comb += self.y.eq(self.a + self.b)
        return m


class Cell(wiring.Component):
    """Multiply and accumulate; ``index`` words leave through ``y``."""

    a: In(signed(8))
    b: In(signed(8))
    en: In(1)
    y: Out(signed(16))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        with m.If(self.en):
            m.d.sync += self.y.eq(self.y + self.a * self.b)
        return m


class Row(wiring.Component):
    """A row of cells and a chain of choosers."""

    def __init__(self, cols: int):
        self.cols = cols
        super().__init__(
            {
                "a": In(signed(8)),
                "b": In(signed(8)).array(cols),
                "en": In(1),
                "y": Out(signed(16)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        cells = replicate(m, platform, "cell", Cell, self.cols)
        sums = replicate(m, platform, "choose", Choose, self.cols)
        total = 0
        for index, (cell, adder) in enumerate(zip(cells, sums, strict=True)):
            m.d.comb += [
                cell.a.eq(self.a),
                cell.b.eq(self.b[index]),
                cell.en.eq(self.en),
                adder.a.eq(cell.y),
                adder.b.eq(total),
                adder.minus.eq(index % 2),
            ]
            total = adder.y
        m.d.comb += self.y.eq(total)
        return m


class StandIn(wiring.Component):
    """Rows of cells fed by a stream, with results and a status that depends on registers only."""

    def __init__(self, rows: int, cols: int):
        self.rows = rows
        self.cols = cols
        item = data.StructLayout({"a": signed(8), "b": data.ArrayLayout(signed(8), cols)})
        super().__init__(
            {
                "i": In(stream.Signature(item)),
                "o": Out(stream.Signature(signed(16))),
                "status": Out(unsigned(4)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        def make() -> Row:
            return Row(self.cols)

        rows = replicate(m, platform, f"row{self.cols}", make, self.rows)
        m.submodules.memory = memory = Memory(shape=signed(16), depth=16, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        accept = Signal()
        m.d.comb += accept.eq(self.i.valid & self.i.ready)
        at = Signal(range(self.rows))
        m.d.sync += at.eq(at + accept)
        for row in rows:
            m.d.comb += [row.a.eq(self.i.payload.a), row.en.eq(accept)]
            m.d.comb += [row.b[n].eq(self.i.payload.b[n]) for n in range(self.cols)]
        m.d.comb += write.data.eq(Array([row.y for row in rows])[at])
        with m.FSM():
            with m.State("LOAD"):
                m.d.comb += [self.i.ready.eq(1), self.status.eq(5)]
                with m.If(self.i.valid):
                    m.next = "STORE"
            with m.State("STORE"):
                m.d.comb += [write.en.eq(1), self.status.eq(6)]
                m.next = "SHOW"
            with m.State("SHOW"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(read.data), self.status.eq(9)]
                with m.If(self.o.ready):
                    m.next = "LOAD"
        return m
