"""Read master: runs of units from memory, in order, through an AXI4 read port."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.registers import MEMORY_ADDRESS_BITS, WINDOWS
from rtl.bus.axi import (
    CACHE_BUFFERABLE,
    ERROR_BIT,
    WORD_BYTES,
    Burst,
    Destination,
    axi_read_signature,
    run_layout,
    vector_shape,
)
from rtl.bus.burst_splitter import BurstSplitter, ask_for_runs
from rtl.bus.windows import windows_member
from rtl.bus.word_lanes import WordLanes, rotated, span, window
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["ReadMaster", "unit_layout"]

#: Longest burst, in beats, and most bursts that are waited for.
BURST_BEATS = 64
OUTSTANDING = 32

#: Runs that are taken and not complete: every burst that is waited for may be the only one of its
#: run, and the units of one more are being put together.
RUNS = OUTSTANDING + 2

#: Beats that are held for the units' consumer.
DEPTH = 16


def unit_layout(config: Config) -> data.StructLayout:
    """``load_bytes`` bytes of a run, lowest address lowest, and the run's ``destination`` and
    ``cores``.
    """
    return data.StructLayout(
        {
            "data": data.ArrayLayout(unsigned(8 * WORD_BYTES), config.load_bytes // WORD_BYTES),
            "destination": run_layout(config)["destination"].shape,
            "cores": run_layout(config)["cores"].shape,
        }
    )


def _of_cores(destination: Any) -> Value:
    """Whether a run brings a core's codes or operands."""
    return (destination != Destination.DESCRIPTOR) & (destination != Destination.VECTOR)


class ReadMaster(wiring.Component):
    """Turns runs into bursts of one ID, and their data into units.

    A beat's words go into a queue for each lane; words that do not belong to the run are left out.
    A run's words then lie in consecutive lanes, so that a unit is taken from the lanes it begins
    in, and only its own words are rotated into place.

    Parameters
    ----------
    config : Config
        Width of the port and of a unit.

    Members
    -------
    runs : In, stream of `run_layout`
    axi : Out, `axi_read_signature`
    windows : In, `rtl.bus.windows.windows_member`
        Where reads may lie: in any of all windows.
    units : Out, stream of `unit_layout`
        All units of all runs in order.
    stop : In, 1
        Stays 1 until reset: no further burst is begun (an address that is already offered stays),
        no run is taken, all data is accepted and dropped, and no unit is offered.
    idle : Out, 1
        No burst is offered or outstanding and, without ``stop``, no run that was taken has
        any left. Units may still be on their way.
    cores_idle : Out, `rtl.bus.axi.vector_shape`
        No run of codes or operands is taken and not complete.
    failed : Out, 1
        A beat came with an error response; its data is used like any other.
    failed_address : Out, 40 bits
        With ``failed``: the beat's burst.
    failed_vector, refused_vector : Out, `rtl.bus.axi.vector_shape`
        With ``failed`` and ``refused``: the burst is one of the vector unit.
    refused : Out, 1
        The next burst lies in no window: neither it nor a later one begins, until reset.
    refused_address : Out, 40 bits
        With ``refused``: that burst.
    burst, beat : Out, 1
        An address, a beat of data is transferred.

    Latency
    -------
    `ADDRESS_LATENCY` cycles from a run to its address, `UNIT_LATENCY` from a beat to the unit that
    it completes, 1 from a beat to ``failed``. One unit a cycle, or one beat a cycle where a unit is
    wider; no cycle is lost between runs.
    """

    ADDRESS_LATENCY = 3
    UNIT_LATENCY = 2

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "runs": In(stream.Signature(run_layout(config))),
                "axi": Out(axi_read_signature(config)),
                "windows": windows_member(len(WINDOWS)),
                "units": Out(stream.Signature(unit_layout(config))),
                "stop": In(1),
                "idle": Out(1),
                "cores_idle": Out(vector_shape(config)),
                "failed": Out(1),
                "failed_address": Out(MEMORY_ADDRESS_BITS),
                "failed_vector": Out(vector_shape(config)),
                "refused": Out(1),
                "refused_address": Out(MEMORY_ADDRESS_BITS),
                "refused_vector": Out(vector_shape(config)),
                "burst": Out(1),
                "beat": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        contracts = Contracts(m, platform, self)
        contracts.asks_to_keep(self.runs, "runs")
        ask_for_runs(contracts, self.runs, self._config.load_bytes)
        self._lanes = self._config.axi_bits // (8 * WORD_BYTES)
        m.submodules.splitter = splitter = BurstSplitter(
            self._config,
            unit_bytes=self._config.load_bytes,
            beats=BURST_BEATS,
            windows=len(WINDOWS),
        )
        m.submodules.places = places = StreamFIFO(
            data.StructLayout(
                {
                    "lane": range(self._lanes),
                    "units": self.runs.payload.units.shape(),
                    "destination": self.runs.payload.destination.shape(),
                    "cores": self.runs.payload.cores.shape(),
                }
            ),
            depth=RUNS - 1,
        )
        m.submodules.lanes = lanes = WordLanes(lanes=self._lanes, depth=DEPTH)
        go = ~self.stop
        run = self.runs.payload
        m.d.comb += [
            splitter.runs.payload.eq(run),
            splitter.runs.valid.eq(self.runs.valid & places.input.ready & go),
            places.input.payload.lane.eq(run.address[log2(WORD_BYTES) :]),
            places.input.payload.units.eq(run.units),
            places.input.payload.destination.eq(run.destination),
            places.input.payload.cores.eq(run.cores),
            places.input.valid.eq(self.runs.valid & splitter.runs.ready & go),
            self.runs.ready.eq(places.input.ready & splitter.runs.ready & go),
        ]
        pushed = self._fill(m, splitter, lanes)
        self._take(m, places, lanes, pushed)
        return m

    def _fill(self, m: Module, splitter: BurstSplitter, lanes: WordLanes) -> Signal:
        """Offer bursts and put their data into the lanes; returns words put this cycle."""
        axi, bursts = self.axi, splitter.bursts
        beat_bits = log2(self._config.axi_bits // 8)
        m.submodules.tags = tags = StreamFIFO(
            data.StructLayout(
                {
                    "beat_address": unsigned(MEMORY_ADDRESS_BITS - beat_bits),
                    "first_lane": range(self._lanes),
                    "last_lane": range(self._lanes),
                    "vector": vector_shape(self._config),
                }
            ),
            depth=OUTSTANDING,
        )
        may_begin = Signal()
        m.d.comb += [
            axi.arsize.eq(beat_bits),
            axi.arburst.eq(Burst.INCR),
            axi.arcache.eq(CACHE_BUFFERABLE),
            splitter.windows.eq(self.windows),
            self.refused.eq(bursts.valid & ~bursts.payload.allowed),
            self.refused_address.eq(bursts.payload.address),
            may_begin.eq((~axi.arvalid | axi.arready) & ~self.stop & bursts.payload.allowed),
            bursts.ready.eq(may_begin & tags.input.ready),
            tags.input.valid.eq(may_begin & bursts.valid),
            tags.input.payload.beat_address.eq(bursts.payload.address[beat_bits:]),
            tags.input.payload.first_lane.eq(bursts.payload.first_lane),
            tags.input.payload.last_lane.eq(bursts.payload.last_lane),
            tags.input.payload.vector.eq(bursts.payload.vector),
            self.refused_vector.eq(bursts.payload.vector),
            self.idle.eq((tags.level == 0) & (self.stop | splitter.idle)),
            self.burst.eq(axi.arvalid & axi.arready),
        ]
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        with m.If(bursts.valid & bursts.ready):
            m.d.sync += [
                axi.arvalid.eq(1),
                axi.araddr.eq(bursts.payload.address),
                axi.arlen.eq(bursts.payload.last_beat),
            ]

        tag = tags.output.payload
        first = Signal(init=1)
        lowest = Signal(range(self._lanes))
        highest = Signal(range(self._lanes))
        pushed = Signal(range(self._lanes + 1))
        m.d.comb += [
            axi.rready.eq(tags.output.valid & (lanes.room | self.stop)),
            self.beat.eq(axi.rvalid & axi.rready),
            tags.output.ready.eq(self.beat & axi.rlast),
            lowest.eq(Mux(first, tag.first_lane, 0)),
            highest.eq(Mux(axi.rlast, tag.last_lane, self._lanes - 1)),
            lanes.write_data.eq(axi.rdata),
        ]
        with m.If(self.beat & ~self.stop):
            m.d.comb += pushed.eq(highest - lowest + 1)
            m.d.comb += lanes.push.eq(span(lowest, highest, self._lanes))
        with m.If(self.beat):
            m.d.sync += first.eq(axi.rlast)
        m.d.sync += [
            self.failed.eq(self.beat & axi.rresp[ERROR_BIT]),
            self.failed_address.eq(Cat(Const(0, beat_bits), tag.beat_address)),
            self.failed_vector.eq(tag.vector),
        ]
        return pushed

    def _take(self, m: Module, places: StreamFIFO, lanes: WordLanes, pushed: Signal) -> None:
        """Take units out of the lanes, as many words a cycle as a unit and a beat both have."""
        unit_words = self._config.load_bytes // WORD_BYTES
        words = min(unit_words, self._lanes)
        parts = unit_words // words
        place = places.output.payload

        # Words come in order: the next ones are there when there are as many.
        stored = Signal(range(self._lanes * DEPTH + 1))
        active = Signal()
        valid = Signal()
        lane = Signal(range(self._lanes))
        further = Signal.like(place.units)  # units of the run after this one
        destination = Signal.like(place.destination)
        cores = Signal.like(place.cores)
        part = Signal(range(parts))
        take = Signal()
        completes = Signal()
        last = Signal()
        m.d.comb += [
            take.eq(active & (stored >= words) & (~valid | self.units.ready)),
            completes.eq(take & (part == parts - 1)),
            last.eq(completes & (further == 0)),
            places.output.ready.eq(~active | last),
            self.units.valid.eq(valid & ~self.stop),
        ]
        m.d.sync += stored.eq(stored + pushed - Mux(take, words, 0))
        if self._config.vector_channels:
            runs_of_cores = Signal(range(RUNS + 1))
            begun = self.runs.valid & self.runs.ready & _of_cores(self.runs.payload.destination)
            m.d.sync += runs_of_cores.eq(runs_of_cores + begun - (last & _of_cores(destination)))
            m.d.comb += self.cores_idle.eq(runs_of_cores == 0)
        unit = self.units.payload
        ordered = rotated(m, [lanes.read_data[i] for i in range(self._lanes)], lane, words)
        with m.If(self.units.ready):
            m.d.sync += valid.eq(0)
        with m.If(take):
            m.d.comb += lanes.pop.eq(window(lane, words, self._lanes))
            m.d.sync += [
                lane.eq(lane + words),
                part.eq(part + 1),
                unit.destination.eq(destination),
                unit.cores.eq(cores),
            ]
            for index in range(parts):
                with m.If(part == index):
                    m.d.sync += [unit.data[index * words + i].eq(ordered[i]) for i in range(words)]
        with m.If(completes):
            m.d.sync += [valid.eq(1), part.eq(0), further.eq(further - 1)]
        with m.If(places.output.ready):
            m.d.sync += [
                active.eq(places.output.valid),
                lane.eq(place.lane),
                further.eq(place.units - 1),
                destination.eq(place.destination),
                cores.eq(place.cores),
            ]
