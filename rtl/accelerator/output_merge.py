"""Output merge: the outputs of all cores, block row by block row, as one stream."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from rtl.accelerator.output_addresses import places_signature, row_beats
from rtl.interfaces import o_signature, rows_signature
from rtl.lib.arithmetic import first_of
from rtl.lib.contract import Contracts
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["OutputMerge"]


class OutputMerge(wiring.Component):
    """Passes on whole block rows, in the order in which their first words are there.

    Parameters
    ----------
    config : Config
        ``cores`` above 1.

    Members
    -------
    outputs : In, array of stream of `rtl.interfaces.o_signature`
        Of each core.
    rows : In, array of stream of `rtl.interfaces.rows_signature`
        Likewise; only with superblocks (``query_rows`` > 1).
    open : In, a bit for each core
        The next row of its output may be passed on: those of a wave are, before any of the next.
    places : Out, stream of `rtl.accelerator.output_addresses.places_signature`
        The rows, as they are passed on.
    beats : In
        Of the row that is taken, in the cycle in which it is.
    output : Out, stream of `rtl.interfaces.o_signature`

    Latency
    -------
    A cycle to offer a row, `StreamFIFO.LATENCY` until its words are passed on, while those of the
    row before are.
    """

    def __init__(self, config: Config):
        self._config = config
        rows = In(rows_signature(config)).array(config.cores)
        super().__init__(
            {
                "outputs": In(o_signature(config)).array(config.cores),
                **({"rows": rows} if config.query_rows > 1 else {}),
                "open": In(config.cores),
                "places": Out(places_signature(config)),
                "beats": In(row_beats(config)),
                "output": Out(o_signature(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.taken = taken = StreamFIFO(
            data.StructLayout({"core": range(config.cores), "beats": self.beats.shape()}), depth=2
        )
        place = self.places
        passing = Signal(config.cores)  # a row of the core is on its way
        waiting = Signal(config.cores)
        first = first_of(m, waiting, "first")
        offer = Signal()
        for core, output in enumerate(self.outputs):
            valid = output.valid & self.open[core] & ~passing[core]
            if config.query_rows > 1:
                valid &= self.rows[core].valid
                m.d.comb += self.rows[core].ready.eq(offer & (first == core))
            m.d.comb += waiting[core].eq(valid)
        m.d.comb += offer.eq(waiting.any() & ~place.valid & taken.input.ready)
        with m.If(place.ready):
            m.d.sync += place.valid.eq(0)
        with m.If(offer):
            m.d.sync += [
                place.valid.eq(1),
                place.payload.core.eq(first),
                passing.bit_select(first, 1).eq(1),
            ]
            if config.query_rows > 1:
                rows = Array(row.payload for row in self.rows)
                m.d.sync += place.payload.row.eq(rows[first])
        m.d.comb += [
            taken.input.valid.eq(place.valid & place.ready),
            taken.input.payload.core.eq(place.payload.core),
            taken.input.payload.beats.eq(self.beats),
        ]

        contracts = Contracts(m, platform, self)
        contracts.keeps(place, "places")
        contracts.has_room(taken.input, "the row that is taken")
        turn = taken.output
        sent = Signal.like(self.beats)
        last = sent == turn.payload.beats - 1
        with m.If(self.output.valid & self.output.ready):
            m.d.sync += sent.eq(sent + 1)
            with m.If(last):
                m.d.comb += turn.ready.eq(1)
                m.d.sync += [sent.eq(0), passing.bit_select(turn.payload.core, 1).eq(0)]
        for core, output in enumerate(self.outputs):
            with m.If(turn.valid & (turn.payload.core == core)):
                m.d.comb += [
                    self.output.valid.eq(output.valid),
                    self.output.payload.eq(output.payload),
                    output.ready.eq(self.output.ready),
                ]
        return m
