"""Counters of the cycles that every stage spends in each state."""

from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config.registers import REGISTER_BITS, STAGES, STATES
from rtl.interfaces import activity_layout

__all__ = ["StageCounters", "counters_layout"]


def counters_layout() -> data.StructLayout:
    """For every stage, the cycles that it spent in each state."""
    stage = data.StructLayout(dict.fromkeys(STATES, REGISTER_BITS))
    return data.StructLayout(dict.fromkeys(STAGES, stage))


class StageCounters(wiring.Component):
    """Counts the cycles of every stage in every state.

    Members
    -------
    clear : In, 1
        All counters go to 0; wins over counting.
    enable : In, 1
        This cycle counts.
    activity : In, `rtl.interfaces.activity_layout`
    counters : Out, `counters_layout`
        Wrap after 2**32 cycles.

    Latency
    -------
    One cycle.
    """

    clear: In(1)
    enable: In(1)
    activity: In(activity_layout())
    counters: Out(counters_layout())

    def elaborate(self, platform):
        m = Module()
        for index, stage in enumerate(STAGES):
            for state in STATES:
                counter = self.counters[stage][state]
                with m.If(self.clear):
                    m.d.sync += counter.eq(0)
                with m.Elif(self.enable & self.activity[index][state]):
                    m.d.sync += counter.eq(counter + 1)
        return m
