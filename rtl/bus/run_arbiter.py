"""Run arbiter: one memory port for several sources of runs."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from rtl.bus.axi import run_layout
from rtl.lib.contract import Contracts

__all__ = ["RunArbiter"]


class RunArbiter(wiring.Component):
    """Passes one source's run on at a time; the first source goes before the second.

    Parameters
    ----------
    config : Config
        Size of runs.
    sources : int
        How many there are.

    Members
    -------
    inputs : In, array of stream of `run_layout`
    output : Out, stream of `run_layout`
        An offered run stays until it is taken.
    """

    def __init__(self, config: Config, sources: int):
        signature = stream.Signature(run_layout(config))
        super().__init__({"inputs": In(signature).array(sources), "output": Out(signature)})

    def elaborate(self, platform):
        m = Module()
        contracts = Contracts(m, platform, self)
        for index, source in enumerate(self.inputs):
            contracts.asks_to_keep(source, f"runs_{index}")
        chosen = Signal(range(len(self.inputs)))
        held = Signal.like(chosen)
        offered = Signal()
        with m.If(offered):
            m.d.comb += chosen.eq(held)
        with m.Else():
            for index, source in reversed(list(enumerate(self.inputs))):
                with m.If(source.valid):
                    m.d.comb += chosen.eq(index)
        for index, source in enumerate(self.inputs):
            with m.If(chosen == index):
                m.d.comb += [
                    self.output.payload.eq(source.payload),
                    self.output.valid.eq(source.valid),
                    source.ready.eq(self.output.ready),
                ]
        m.d.sync += [held.eq(chosen), offered.eq(self.output.valid & ~self.output.ready)]
        return m
