"""Softmax unit: logits of a block to quantised weights P and the rows' rescales."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config, formats
from rtl.core.blocks import SLOTS, block_layout, weighted_chunk_layout
from rtl.core.digits import DigitWord
from rtl.core.exponential import ExponentialLane
from rtl.core.logits import LogitBuffer
from rtl.core.row_state import RowState, rescale_layout
from rtl.interfaces import Activity
from rtl.lib.arithmetic import log2
from rtl.lib.banked_memory import BankedMemory
from rtl.lib.contract import Contracts
from rtl.lib.delay import delay_line
from rtl.lib.library import replicate
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["SoftmaxUnit"]


class SoftmaxLane(wiring.Component):
    """One query: its weights, gathered to digit words, and their sum.

    Weights arrive key by key, so that 1, 2 or 4 of them fill a digit word.

    Members
    -------
    logit, maximum, absent, code : In
        See `ExponentialLane`.
    valid : In, 1
        A weight is leaving the exponential lane, `ExponentialLane.LATENCY` cycles after its logit.
    key, gather_code : In
        Low bits of its key, its block code.
    first : In, 1
        It is the first of its sum.
    word : Out, `DigitWord`
        Complete one cycle after its last weight.
    block_sum : Out
        Sum since ``first``, one cycle after the weight.
    """

    DATA_ONLY = True

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "logit": In(signed(formats.LOGIT_BITS)),
                "maximum": In(signed(formats.MAX_BITS)),
                "absent": In(1),
                "code": In(2),
                "valid": In(1),
                "key": In(2),
                "gather_code": In(2),
                "first": In(1),
                "word": Out(DigitWord),
                "block_sum": Out(unsigned(config.block_sum_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.exponential = exponential = ExponentialLane(self._config)
        m.d.comb += [
            exponential.logit.eq(self.logit),
            exponential.maximum.eq(self.maximum),
            exponential.absent.eq(self.absent),
            exponential.code.eq(self.code),
        ]
        with m.If(self.valid):
            m.d.sync += self.block_sum.eq(Mux(self.first, 0, self.block_sum) + exponential.value)
            for digit in range(formats.LANES):
                place = {1: self.key == digit, 2: self.key[0] == digit // 2, 3: 1}
                with m.Switch(self.gather_code):
                    for code, here in place.items():
                        with m.Case(code):
                            with m.If(here):
                                m.d.sync += self.word[digit].eq(exponential.word[digit])
        return m


@dataclass(frozen=True)
class _Results:
    """Results of the lanes for a chunk of queries."""

    words: Any  # digit words of the latest keys
    sums: Any  # of the weights of its keys so far
    maxima: Any


@dataclass(frozen=True)
class _Complete:
    """Which results are complete in this cycle, and where they belong."""

    word: Value
    chunk: Value  # the sums of a chunk's queries, with their last key
    block: Value  # the weights of a block
    slot: Value  # of the weight buffer and of the rescales
    query_chunk: Value
    word_index: Value
    of_block: Any  # `block_layout`


class SoftmaxUnit(wiring.Component):
    """Walks over complete logit groups: L queries at a time, one key a cycle.

    Complete digit words go into the weight buffer of their query's array row.

    Members
    -------
    started : In, stream of `block_layout`
        Blocks whose QK has started, in order.
    groups, release, read_key, read_part, logits, maxima
        See `LogitBuffer`; the logits come `LogitBuffer.READ_LATENCY` cycles after their address.
    weighted : Out, stream of `block_layout`
        Blocks whose weights are complete.
    weight_address : In
        (slot, group of R queries, digit word).
    weights : Out, R x `DigitWord`
        As late as the words of the operand buffers, `KeyBuffer.READ_LATENCY` cycles.
    rescale_slot, rescale_query : In
    rescale : Out, `rescale_layout`
        `RowState.READ_LATENCY` cycles later: how PV of the query joins its row.
    chunks : Out, stream of `weighted_chunk_layout`
        Final denominators of the rows.
    activity : Out, `rtl.interfaces.Activity`
        Busy: a logit of each lane is taken. Never blocked.

    Contract
    --------
    At most ``SLOTS`` blocks lie between ``started`` and the end of their PV's issue. Rescales of a
    block are read as late as `RowState` requires, counted from ``weighted``.
    """

    #: Cycles from the address of a logit to its lane: one cycle after the buffer has read them, the
    #: chunk's logits are selected.
    FETCH_LATENCY = 1 + LogitBuffer.READ_LATENCY
    #: Cycles from the address of a chunk's last key to its digit words and its row state's update.
    LATENCY = FETCH_LATENCY + ExponentialLane.LATENCY + 1

    def __init__(self, config: Config):
        self._config = config
        self._weights = BankedMemory(
            data.ArrayLayout(DigitWord, config.softmax_lanes),
            banks=config.rows // config.softmax_lanes,
            depth=SLOTS * config.block // config.rows * config.block,
        )
        words = config.drain_words
        block = block_layout(config)
        super().__init__(
            {
                "started": In(stream.Signature(block, always_ready=True)),
                "groups": In(range(SLOTS * config.block // config.cols + 1)),
                "release": Out(1),
                "read_key": Out(range(config.block)),
                "read_part": Out(range(config.cols // words)),
                "logits": In(data.ArrayLayout(signed(formats.LOGIT_BITS), words)),
                "maxima": In(data.ArrayLayout(signed(formats.MAX_BITS), words)),
                "weighted": Out(stream.Signature(block)),
                "weight_address": In(self._weights.read_address.shape()),
                "weights": Out(data.ArrayLayout(DigitWord, config.rows)),
                "rescale_slot": In(1),
                "rescale_query": In(range(config.block)),
                "rescale": Out(rescale_layout()),
                "chunks": Out(stream.Signature(weighted_chunk_layout(config))),
                "activity": Out(Activity),
            }
        )

    def elaborate(self, platform):
        m = Module()
        block_shape = block_layout(self._config)
        m.submodules.queue = queue = StreamFIFO(block_shape, depth=SLOTS + 1)
        m.submodules.done = done = StreamFIFO(block_shape, depth=SLOTS + 1)
        connect(m, done.output, flipped(self.weighted))
        m.d.comb += [
            queue.input.payload.eq(self.started.payload),
            queue.input.valid.eq(self.started.valid),
        ]
        place = self._issue(m, queue)
        places = delay_line(m, place, self.FETCH_LATENCY + ExponentialLane.LATENCY, "place")
        results = self._weigh(m, platform, places)
        contracts = Contracts(m, platform, self)
        contracts.has_room(queue.input, "all blocks whose QK has started")
        contracts.has_room(done.input, "all blocks that have their weights")
        complete = self._complete(m, places[-1])
        self._store_weights(m, complete, results.words)
        m.d.comb += [
            done.input.payload.eq(complete.of_block),
            done.input.valid.eq(complete.block),
        ]
        m.submodules.row_state = row_state = RowState(self._config)
        m.d.comb += [
            row_state.row.eq(places[-1].block.row),
            row_state.chunk.eq(places[-1].query_chunk),
            row_state.update.eq(complete.chunk),
            row_state.slot.eq(complete.slot),
            row_state.first.eq(complete.of_block.first),
            row_state.last.eq(complete.of_block.last),
            row_state.queries.eq(complete.of_block.queries),
            row_state.maxima.eq(results.maxima),
            row_state.block_sums.eq(results.sums),
            row_state.read_slot.eq(self.rescale_slot),
            row_state.read_query.eq(self.rescale_query),
            self.rescale.eq(row_state.rescale),
            # Every group in the ring belongs to a block of the queue.
            self.activity.busy.eq(place.valid),
            self.activity.starved.eq(~place.valid),
        ]
        connect(m, row_state.chunks, flipped(self.chunks))
        return m

    def _issue(self, m: Module, queue: StreamFIFO) -> Any:
        """Read a logit of each lane in a cycle, and return its place.

        Key by key, chunk of L queries by chunk, group of C queries by group.
        """
        config = self._config
        lanes = config.softmax_lanes
        issue_block = Signal(block_layout(config))
        m.d.comb += issue_block.eq(queue.output.payload)
        chunks = config.cols // lanes
        key = Signal(range(config.block))
        chunk = Signal(range(chunks))
        group = Signal(range(config.block // config.cols))
        last_key, last_chunk = key == config.block - 1, chunk == chunks - 1
        last_group = group == config.block // config.cols - 1
        issue = Signal()
        m.d.comb += [
            issue.eq(queue.output.valid & self.groups.any()),
            self.read_key.eq(key),
            self.read_part.eq(chunk >> log2(config.drain_words // lanes)),
            self.release.eq(issue & last_key & last_chunk),
            queue.output.ready.eq(self.release & last_group),
        ]
        with m.If(issue):
            m.d.sync += key.eq(key + 1)
            with m.If(last_key):
                m.d.sync += chunk.eq(Mux(last_chunk, 0, chunk + 1))
                with m.If(last_chunk):
                    m.d.sync += group.eq(Mux(last_group, 0, group + 1))

        # It travels beside the lanes.
        place = Signal(
            data.StructLayout(
                {
                    "valid": 1,
                    "key": range(config.block),
                    "query_chunk": range(config.block // lanes),
                    "part": range(config.drain_words // lanes),
                    "block": block_layout(config),
                }
            ),
            name="place_0",
        )
        m.d.comb += [
            place.valid.eq(issue),
            place.key.eq(key),
            place.query_chunk.eq(Cat(chunk, group)),
            place.part.eq(chunk[: log2(config.drain_words // lanes)]),
            place.block.eq(issue_block),
        ]
        return place

    def _weigh(self, m: Module, platform: Any, places: list[Any]) -> _Results:
        """Send the logits through the lanes; ``places`` are those of 0, 1, .. cycles ago."""
        config = self._config
        lanes = config.softmax_lanes
        fetched, arriving = places[self.FETCH_LATENCY - 1], places[self.FETCH_LATENCY]
        before_leaving, leaving = places[-2:]
        absent = Signal()
        m.d.sync += absent.eq(fetched.key >= fetched.block.keys)

        # The maxima of a chunk are caught with its first key, and kept until its sums are complete.
        maxima_shape = data.ArrayLayout(signed(formats.MAX_BITS), lanes)
        logits_now = Signal(data.ArrayLayout(signed(formats.LOGIT_BITS), lanes))
        maxima_now = Signal(maxima_shape)
        maxima_caught = Signal(maxima_shape)
        maxima_held = Signal(maxima_shape)
        with m.If(arriving.valid & (arriving.key == 0)):
            m.d.sync += maxima_caught.eq(maxima_now)
        first_key = leaving.key == 0
        with m.If(leaving.valid & first_key):
            m.d.sync += maxima_held.eq(maxima_caught)

        sums = Signal(data.ArrayLayout(unsigned(config.block_sum_bits), lanes))
        words = Signal(data.ArrayLayout(DigitWord, lanes))
        copies = replicate(m, platform, "softmax_lane", lambda: SoftmaxLane(config), lanes)
        contracts = Contracts(m, platform, self)
        parts = config.drain_words // lanes
        for index, lane in enumerate(copies):
            logits = Array(self.logits[part * lanes + index] for part in range(parts))
            maxima = Array(self.maxima[part * lanes + index] for part in range(parts))
            query = arriving.query_chunk * lanes + index
            counts = arriving.valid & ~absent & (query < arriving.block.queries)
            below = (maxima_now[index] << formats.LOGIT_FRAC) >= logits_now[index]
            contracts.asks(~counts | below, "no logit is above its row's maximum")
            m.d.sync += [
                logits_now[index].eq(logits[fetched.part]),
                maxima_now[index].eq(maxima[fetched.part]),
            ]
            m.d.comb += [
                lane.logit.eq(logits_now[index]),
                lane.maximum.eq(maxima_now[index]),
                lane.absent.eq(absent),
                lane.code.eq(before_leaving.block.code),
                lane.valid.eq(leaving.valid),
                lane.key.eq(leaving.key),
                lane.gather_code.eq(leaving.block.code),
                lane.first.eq(first_key),
                sums[index].eq(lane.block_sum),
                words[index].eq(lane.word),
            ]
        return _Results(words, sums, maxima_held)

    def _complete(self, m: Module, leaving: Any) -> _Complete:
        """Find the word, chunk and block that a weight completes, a cycle after it has left."""
        config = self._config
        lanes = config.softmax_lanes
        slot = Signal()
        row_state_chunk = Signal(range(config.block // lanes))
        word_index = Signal(range(config.block))
        word_complete = Signal()
        chunk_complete = Signal()
        block_complete = Signal()
        complete_block = Signal(block_layout(config))
        all_keys = leaving.key == config.block - 1
        all_chunks = leaving.query_chunk == config.block // lanes - 1
        m.d.sync += [
            row_state_chunk.eq(leaving.query_chunk),
            chunk_complete.eq(leaving.valid & all_keys),
            block_complete.eq(leaving.valid & all_keys & all_chunks),
            complete_block.eq(leaving.block),
            slot.eq(slot ^ block_complete),
        ]
        with m.Switch(leaving.block.code):
            with m.Case(1):
                m.d.sync += [
                    word_index.eq(leaving.key >> 2),
                    word_complete.eq(leaving.valid & leaving.key[:2].all()),
                ]
            with m.Case(2):
                m.d.sync += [
                    word_index.eq(leaving.key >> 1),
                    word_complete.eq(leaving.valid & leaving.key[0]),
                ]
            with m.Default():
                m.d.sync += [word_index.eq(leaving.key), word_complete.eq(leaving.valid)]
        return _Complete(
            word=word_complete,
            chunk=chunk_complete,
            block=block_complete,
            slot=slot,
            query_chunk=row_state_chunk,
            word_index=word_index,
            of_block=complete_block,
        )

    def _store_weights(self, m: Module, complete: _Complete, words: Any) -> None:
        """Write complete digit words to the banks of their array rows, and read them for PV."""
        bank_bits = log2(self._config.rows // self._config.softmax_lanes)
        m.submodules.weights = weights = self._weights
        chunk = complete.query_chunk
        m.d.comb += [
            weights.write_enable.eq(complete.word),
            weights.write_bank.eq(chunk[:bank_bits]),
            weights.write_address.eq(Cat(complete.word_index, chunk[bank_bits:], complete.slot)),
            weights.write_data.eq(words),
            weights.read_address.eq(self.weight_address),
        ]
        m.d.sync += self.weights.eq(weights.read_data)
