"""Column edge: four bytes of Q or V to the operands of four digit lanes."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config import formats
from paro.config.formats import Operation
from rtl.core.digits import ODD_LANE_SHIFT
from rtl.core.operations import by_operation
from rtl.core.pe import LaneOperands

__all__ = ["OperandFormer"]


class OperandFormer(wiring.Component):
    """One column's operands for a step.

    Members
    -------
    queries, values : In, 4 x signed(8)
        Four consecutive elements of the reduction, for QK and for PV.
    operation, code, phase : In
        `Operation`, the width of the block, which digit word of the four elements.
    operands : Out, `LaneOperands`
        2 bit: an element a lane, even lanes four times theirs (see `rtl.core.digits`); 4 bit: two
        lanes an element; 8 bit: one element in all lanes.

    Latency
    -------
    1 cycle.
    """

    DATA_ONLY = True

    queries: In(data.ArrayLayout(signed(8), formats.LANES))
    values: In(data.ArrayLayout(signed(8), formats.LANES))
    operation: In(Operation)
    code: In(2)
    phase: In(2)
    operands: Out(LaneOperands)

    def elaborate(self, platform):
        m = Module()
        elements = [Signal(signed(8), name=f"element_{i}") for i in range(formats.LANES)]
        for i, element in enumerate(elements):
            m.d.comb += element.eq(
                by_operation(
                    self.operation,
                    {Operation.QK: self.queries[i], Operation.PV: self.values[i]},
                )
            )
        halves = [Mux(self.phase[0], elements[2 + i], elements[i]) for i in range(2)]
        whole = Mux(
            self.phase[1],
            Mux(self.phase[0], elements[3], elements[2]),
            Mux(self.phase[0], elements[1], elements[0]),
        )
        for lane in range(formats.LANES):
            operand = self.operands[f"lane_{lane}"]
            with m.Switch(self.code):
                with m.Case(1):
                    m.d.sync += operand.eq(elements[lane] << (0 if lane % 2 else ODD_LANE_SHIFT))
                with m.Case(2):
                    m.d.sync += operand.eq(halves[lane // 2])
                with m.Default():
                    m.d.sync += operand.eq(whole)
        return m
