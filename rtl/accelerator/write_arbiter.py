"""Write arbiter: one write master for the cores' outputs and those of the vector unit."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from rtl.bus.axi import run_layout
from rtl.interfaces import o_signature
from rtl.lib.arithmetic import first_of
from rtl.lib.contract import Contracts

__all__ = ["WriteArbiter"]


class WriteArbiter(wiring.Component):
    """Passes a run on, then its data, then the next run; the first source goes before the second.

    A run waits until the first of its data is there, so that none holds up the others for long.

    Parameters
    ----------
    config : Config
    sources : int
        How many there are.

    Members
    -------
    runs : In, array of stream of `run_layout`
    data : In, array of stream of `rtl.interfaces.o_signature`
        Of each source, all data of a run, in the order of its runs.
    hold : In, a bit for each source
        No further run of it is passed on.
    output_runs : Out, stream of `run_layout`
    output_data : Out, stream of `rtl.interfaces.o_signature`
    idle : Out, 1
        Data of all runs has been passed on.

    Latency
    -------
    1 cycle from a run to its first data.
    """

    def __init__(self, config: Config, sources: int):
        runs = stream.Signature(run_layout(config))
        self._units = run_layout(config)["units"].shape
        super().__init__(
            {
                "runs": In(runs).array(sources),
                "data": In(o_signature(config)).array(sources),
                "hold": In(sources),
                "output_runs": Out(runs),
                "output_data": Out(o_signature(config)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        busy = Signal()
        offered = Signal()
        waiting = Signal(len(self.runs))
        first = first_of(m, waiting, "first")
        chosen = Signal.like(first)
        source = Signal.like(first)
        left = Signal(self._units)
        run, passed = self.output_runs, self.output_data
        contracts = Contracts(m, platform, self)
        contracts.keeps(run, "output_runs")
        contracts.asks(~run.valid | run.payload.units.any(), "a run has a unit")
        m.d.comb += [
            chosen.eq(Mux(offered, source, first)),
            run.valid.eq(~busy & (offered | waiting.any())),
            self.idle.eq(~busy),
        ]
        m.d.sync += offered.eq(run.valid & ~run.ready)
        with m.If(run.valid):
            m.d.sync += [source.eq(chosen), left.eq(run.payload.units), busy.eq(run.ready)]
        with m.If(passed.valid & passed.ready):
            m.d.sync += [left.eq(left - 1), busy.eq(left != 1)]
        for index, (own, data) in enumerate(zip(self.runs, self.data, strict=True)):
            m.d.comb += waiting[index].eq(own.valid & data.valid & ~self.hold[index])
            with m.If(chosen == index):
                m.d.comb += [run.payload.eq(own.payload), own.ready.eq(run.valid & run.ready)]
            with m.If(busy & (source == index)):
                m.d.comb += [
                    passed.valid.eq(data.valid),
                    passed.payload.eq(data.payload),
                    data.ready.eq(passed.ready),
                ]
        return m
