"""Write master: runs of units to memory, in order, through an AXI4 write port."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from paro.config import Config
from paro.config.registers import MEMORY_ADDRESS_BITS
from rtl.bus.axi import (
    CACHE_BUFFERABLE,
    ERROR_BIT,
    WORD_BYTES,
    Burst,
    axi_write_signature,
    run_layout,
    vector_shape,
)
from rtl.bus.burst_splitter import BurstSplitter, ask_for_runs
from rtl.bus.windows import windows_member
from rtl.bus.word_lanes import WordLanes, rotated, span, window
from rtl.interfaces import o_signature
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["WriteMaster"]

#: Longest burst, in beats, and most bursts whose answer is waited for.
BURST_BEATS = 16
OUTSTANDING = 64

#: Words that a lane holds: a whole burst must fit beside words of others.
DEPTH = 2 * BURST_BEATS

#: Runs that wait while the data of an earlier one comes.
WAITING_RUNS = 5

#: Begun bursts whose data waits for that of an earlier one.
BEGUN = 5

_WORD_BITS = 8 * WORD_BYTES


class WriteMaster(wiring.Component):
    """Gathers the units of runs into beats and writes them as bursts of one ID.

    The words of a unit go into a queue for each lane, from the lane on at which the run's next word
    lies; beats take them out without moving them. A burst begins when all its data is there, so
    that it never waits for more.

    Parameters
    ----------
    config : Config
        Width of the port and of a unit.

    Members
    -------
    runs : In, stream of `run_layout`
        A run has a whole number of 32-bit words. ``destination`` is `Destination.VECTOR` or not.
    data : In, `rtl.interfaces.o_signature`
        All units of all runs in order. They may come before their run, and wait.
    axi : Out, `axi_write_signature`
    windows : In, `rtl.bus.windows.windows_member`
        Where writes may lie: in a single window.
    stop : In, 1
        Stays 1 until reset: no further burst is begun and no run is taken; begun bursts (an address
        that is already offered, too) are completed. Data may still be taken and is lost.
    idle : Out, 1
        No burst is begun and not yet answered and, without ``stop``, every run that was taken has
        been written and answered.
    failed : Out, 1
        A burst was answered with an error.
    failed_address : Out, 40 bits
        With ``failed``: the burst.
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
    `ADDRESS_LATENCY` cycles from the last unit of a burst to its address, `BEAT_LATENCY` to its
    first beat. One unit a cycle, or one beat a cycle where a unit is wider.
    """

    ADDRESS_LATENCY = 2
    BEAT_LATENCY = 4

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "runs": In(stream.Signature(run_layout(config))),
                "data": In(o_signature(config)),
                "axi": Out(axi_write_signature(config)),
                "windows": windows_member(1),
                "stop": In(1),
                "idle": Out(1),
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
        ask_for_runs(contracts, self.runs, self._config.output_bytes)
        contracts.asks_to_keep(self.data, "data")
        self._lanes = self._config.axi_bits // _WORD_BITS
        self._unit_bytes = self._config.output_bytes
        m.submodules.splitter = splitter = BurstSplitter(
            self._config, unit_bytes=self._unit_bytes, beats=BURST_BEATS
        )
        m.submodules.waiting = waiting = StreamFIFO(self.runs.payload.shape(), depth=WAITING_RUNS)
        connect(m, waiting.output, splitter.runs)
        # The runs once more, for their data.
        m.submodules.places = places = StreamFIFO(
            data.StructLayout(
                {"lane": range(self._lanes), "units": self.runs.payload.units.shape()}
            ),
            depth=WAITING_RUNS,
        )
        m.submodules.lanes = lanes = WordLanes(lanes=self._lanes, depth=DEPTH)
        go = ~self.stop
        run = self.runs.payload
        m.d.comb += [
            waiting.input.payload.eq(run),
            waiting.input.valid.eq(self.runs.valid & places.input.ready & go),
            places.input.payload.lane.eq(run.address[log2(WORD_BYTES) :]),
            places.input.payload.units.eq(run.units),
            places.input.valid.eq(self.runs.valid & waiting.input.ready & go),
            self.runs.ready.eq(places.input.ready & waiting.input.ready & go),
        ]
        pushed = self._fill(m, places, lanes)
        pending = (waiting.level != 0) | ~splitter.idle
        begun, waited_for = self._begin(m, splitter, pushed)
        self._write(m, begun, lanes)
        m.d.comb += self.idle.eq(~waited_for & (self.stop | ~pending))
        return m

    def _fill(self, m: Module, places: StreamFIFO, lanes: WordLanes) -> Value:
        """Put units into the lanes; returns words put this cycle."""
        unit_words = max(1, self._unit_bytes // WORD_BYTES)
        words = min(unit_words, self._lanes)
        parts = unit_words // words
        place = places.output.payload

        active = Signal()
        lane = Signal(range(self._lanes))
        further = Signal.like(place.units)  # units of the run after this one
        step = Signal()
        take = Signal()
        put = Signal()
        part = Signal(range(parts))
        m.d.comb += [
            step.eq(self.data.valid & active & lanes.room),
            self.data.ready.eq(active & lanes.room & (part == parts - 1)),
            take.eq(self.data.valid & self.data.ready),
            places.output.ready.eq(~active | (take & (further == 0))),
        ]
        with m.If(step):
            m.d.sync += part.eq(part + 1)
        with m.If(take):
            m.d.sync += [part.eq(0), further.eq(further - 1)]

        unit = self.data.payload.as_value()
        if self._unit_bytes < WORD_BYTES:
            half = Signal(len(unit))
            odd = Signal()
            unit = Cat(half, unit)
            m.d.comb += put.eq(step & odd)
            with m.If(step):
                m.d.sync += [half.eq(self.data.payload.as_value()), odd.eq(~odd)]
        else:
            m.d.comb += put.eq(step)
        group = unit.word_select(part, words * _WORD_BITS)
        given = [group.word_select(i, _WORD_BITS) for i in range(words)]
        # Lane i takes word (i - lane) mod words, if it takes one.
        ordered = rotated(m, given, (-lane)[: log2(words)], words)
        for index in range(self._lanes):
            m.d.comb += lanes.write_data[index].eq(ordered[index % words])
        with m.If(put):
            m.d.comb += lanes.push.eq(window(lane, words, self._lanes))
            m.d.sync += lane.eq(lane + words)
        with m.If(places.output.ready):
            m.d.sync += [
                active.eq(places.output.valid),
                lane.eq(place.lane),
                further.eq(place.units - 1),
            ]
        return Mux(put, words, 0)

    def _begin(self, m: Module, splitter: BurstSplitter, pushed: Value) -> tuple[StreamFIFO, Value]:
        """Offer bursts whose data is there.

        Returns
        -------
        (begun, waited_for)
            Bursts whose data is to be sent; whether any burst is not answered yet.
        """
        axi, bursts = self.axi, splitter.bursts
        burst = bursts.payload
        beat_bits = log2(self._config.axi_bits // 8)
        m.submodules.tags = tags = StreamFIFO(
            data.StructLayout(
                {
                    "beat_address": unsigned(MEMORY_ADDRESS_BITS - beat_bits),
                    "vector": vector_shape(self._config),
                }
            ),
            depth=OUTSTANDING,
        )
        m.submodules.begun = begun = StreamFIFO(burst.shape(), depth=BEGUN)
        stored = Signal(range(self._lanes * DEPTH + 1))  # words of bursts that are not begun
        may_begin = Signal()
        begin = Signal()
        m.d.comb += [
            axi.awsize.eq(beat_bits),
            axi.awburst.eq(Burst.INCR),
            axi.awcache.eq(CACHE_BUFFERABLE),
            splitter.windows.eq(self.windows),
            self.refused.eq(bursts.valid & ~burst.allowed),
            self.refused_address.eq(burst.address),
            may_begin.eq(
                (stored >= burst.words) & (~axi.awvalid | axi.awready) & ~self.stop & burst.allowed
            ),
            bursts.ready.eq(may_begin & tags.input.ready & begun.input.ready),
            begin.eq(bursts.valid & bursts.ready),
            tags.input.payload.beat_address.eq(burst.address[beat_bits:]),
            tags.input.payload.vector.eq(burst.vector),
            self.refused_vector.eq(burst.vector),
            tags.input.valid.eq(begin),
            begun.input.payload.eq(burst),
            begun.input.valid.eq(begin),
            self.burst.eq(axi.awvalid & axi.awready),
        ]
        m.d.sync += stored.eq(stored + pushed - Mux(begin, burst.words, 0))
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(begin):
            m.d.sync += [
                axi.awvalid.eq(1),
                axi.awaddr.eq(burst.address),
                axi.awlen.eq(burst.last_beat),
            ]

        answered = Signal()
        m.d.comb += [
            axi.bready.eq(tags.output.valid),
            answered.eq(axi.bvalid & axi.bready),
            tags.output.ready.eq(axi.bvalid),
        ]
        m.d.sync += [
            self.failed.eq(answered & axi.bresp[ERROR_BIT]),
            self.failed_address.eq(Cat(Const(0, beat_bits), tags.output.payload.beat_address)),
            self.failed_vector.eq(tags.output.payload.vector),
        ]
        return begun, tags.level != 0

    def _write(self, m: Module, begun: StreamFIFO, lanes: WordLanes) -> None:
        """Send the data of begun bursts."""
        axi, burst = self.axi, begun.output.payload
        index = Signal(range(BURST_BEATS))
        last = Signal()
        step = Signal()
        mask = Signal(self._lanes)
        lowest = Mux(index == 0, burst.first_lane, 0)
        highest = Mux(last, burst.last_lane, self._lanes - 1)
        m.d.comb += [
            last.eq(index == burst.last_beat),
            step.eq(begun.output.valid & (~axi.wvalid | axi.wready)),
            begun.output.ready.eq(step & last),
            mask.eq(span(lowest, highest, self._lanes)),
            self.beat.eq(axi.wvalid & axi.wready),
        ]
        with m.If(axi.wready):
            m.d.sync += axi.wvalid.eq(0)
        with m.If(step):
            m.d.comb += lanes.pop.eq(mask)
            m.d.sync += [
                index.eq(Mux(last, 0, index + 1)),
                axi.wvalid.eq(1),
                axi.wdata.eq(lanes.read_data),
                axi.wstrb.eq(Cat(bit.replicate(WORD_BYTES) for bit in mask)),
                axi.wlast.eq(last),
            ]
