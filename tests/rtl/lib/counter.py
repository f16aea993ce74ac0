"""A counter with contracts of every kind."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.lib.contract import Contracts


class Counter(wiring.Component):
    """Offers a count, which ``step`` changes, at most by 3 and only where it is not offered."""

    step: In(4)
    offer: In(1)
    scale: In(4)
    count: Out(stream.Signature(8))

    def __init__(self, *, checked: bool = True):
        self._checked = checked
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        count = self.count
        m.d.comb += count.valid.eq(self.offer)
        m.d.sync += count.payload.eq(count.payload + self.step)
        with m.If(count.payload > 100):
            m.d.sync += count.payload.eq(0)
        if self._checked:
            contracts = Contracts(m, platform, self)
            contracts.asks(self.step <= 3, 'a step is short, "100%" sure')
            contracts.asks_constant(self.scale, "scale", unless=~self.offer)
            contracts.keeps(count, "count")
            contracts.has_room(count, "every count")
            contracts.holds(count.payload < 104, "the count stays small")
        return m
