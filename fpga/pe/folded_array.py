"""A PE array with three pins, to place and route it alone."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from rtl.core.array import PEArray

__all__ = ["FoldedArray"]


class FoldedArray(wiring.Component):
    """An array whose inputs come out of a shift register and whose outputs are folded into another.

    Every input comes from a register and every output goes to one, as in the core, so that paths
    within the array alone decide the clock.

    The inputs stand in registers of their own, taken from the shift register at ``load``. Without
    them a register of the array that only delays an input would hold the same as the neighbour of
    that input in the shift register. Yosys makes one register of the two, and its wires then go
    far.

    Parameters
    ----------
    config, pe
        As `PEArray`.

    Members
    -------
    pin_in : In, 1
        Fills the shift register.
    load : In, 1
        Copies the shift register to the inputs.
    pin_out : Out, 1
        End of the register that takes up all outputs.
    """

    pin_in: In(1)
    load: In(1)
    pin_out: Out(1)

    def __init__(self, config: Config, pe: type[Any]):
        self._config, self._pe = config, pe
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = array = PEArray(self._config, self._pe)
        inputs = Cat(Value.cast(port) for port in (array.step, array.operands, array.words))
        chain = Signal(len(inputs))
        held = Signal(len(inputs))
        m.d.sync += chain.eq(Cat(self.pin_in, chain))
        with m.If(self.load):
            m.d.sync += held.eq(chain)
        m.d.comb += inputs.eq(held)
        outputs = Cat(array.drained, array.drained_first)
        folded = Signal(len(outputs))
        m.d.sync += folded.eq(Cat(folded[-1], folded) ^ outputs)
        m.d.comb += self.pin_out.eq(folded[-1])
        return m
