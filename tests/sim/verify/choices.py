"""A small component with choices of every kind, for `test_coverage`."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Choices"]


class Choices(wiring.Component):
    """Members are those that the bench drives; what they do means nothing."""

    a: In(4)
    flags: In(2)
    y: Out(4)
    z: Out(4)
    parts: Out(2)

    def elaborate(self, platform):
        m = Module()
        never = Signal(3)
        m.d.comb += never[1].eq(self.a[0])
        with m.If(self.a == 3):
            m.d.sync += self.y.eq(self.y + 1)
        with m.Elif(self.a[3]):
            m.d.sync += self.y.eq(Mux(self.a[0], 1, 2))
            m.d.comb += self.z.eq(Mux(self.flags[0], Mux(self.flags[1], 1, 2), never))
        with m.Switch(self.flags):
            with m.Case(0):
                m.d.sync += self.parts.eq(0)
            with m.Case(2):
                m.d.sync += self.parts.eq(2)
        copies = [Signal(name=f"copy_{index}") for index in range(2)]
        for flag, copy in zip(self.flags, copies, strict=True):
            with m.If(flag):
                m.d.sync += copy.eq(self.a[2])
        with m.FSM():
            with m.State("first"):
                m.d.comb += self.z[0].eq(self.a[0])
                with m.If(self.a == 15):
                    m.next = "second"
            with m.State("second"):
                m.d.comb += self.z.eq(Cat(copies))
        return m
