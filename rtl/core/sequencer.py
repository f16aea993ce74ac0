"""Array sequencer: turns live blocks into tiles and steps, QK and PV on the same array."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config, formats
from paro.config.formats import Operation
from rtl.core.array import ArrayStep
from rtl.core.blocks import SLOTS, block_layout
from rtl.core.digits import KeyEncoder
from rtl.core.operand_buffers import KeyBuffer
from rtl.core.operations import encode_operation, is_operation
from rtl.core.tile_walk import TileWalk, tile_layout
from rtl.interfaces import Activity
from rtl.lib.arithmetic import first_of
from rtl.lib.contract import Contracts
from rtl.lib.delay import delayed

__all__ = ["ArraySequencer", "ending_row_layout", "load_state_layout"]


def load_state_layout(config: Config, side: int, slots: int) -> data.StructLayout:
    """State of an operand buffer, see `rtl.core.load_control` and `rtl.core.operand_buffers`."""
    return data.StructLayout(
        {
            "full": slots,
            "loaded": range(config.block // side),
        }
    )


def ending_row_layout(config: Config) -> data.StructLayout:
    """A row that its last block completes: its output ``slot``; whether it is a layer's."""
    return data.StructLayout({"slot": range(config.row_slots), "linear": 1})


def _is_loaded(load: data.View, slot: Value, group: Value) -> Value:
    """Whether a group of tokens lies in the slot.

    A load in progress counts for a slot that is not full: loads come in the order of their use, and
    a load in use goes on to its end.
    """
    full = load.full.bit_select(slot, 1)
    if len(load.loaded) == 0:  # a block is one group
        return full
    return full | (load.loaded > group)


@dataclass(frozen=True)
class _Progress:
    """Conditions of this cycle's step of the operation in progress."""

    advance: Value  # the step is done
    ending: Value  # ... and is the operation's last one
    tile_loaded: Value  # the operands of its tile are there
    draining_long: Value  # it would end its tile while the drain of the tile before goes on


class _OutputSlots:
    """Output slots: which are free, and which one each row of the superblock has."""

    def __init__(self, m: Module, config: Config):
        slots = config.row_slots
        self.free = Signal(slots, init=-1, name="free_outputs")
        self._lowest = first_of(m, self.free, "free_output")
        self._of_row = Array(
            Signal(range(slots), name=f"output_of_{row}") for row in range(config.query_rows)
        )

    def slot_of(self, block: Any) -> Value:
        """Return the slot of a block's row, which has none yet if it is the row's first one."""
        return Mux(block.first, self._lowest, self._of_row[block.row])

    def update(
        self, m: Module, block: Any, taken: Value, released: Value, released_slot: Value
    ) -> None:
        """Give the block's row a slot if one is ``taken``, and take one back if it is released."""
        with m.If(released):
            m.d.sync += self.free.bit_select(released_slot, 1).eq(1)
        with m.If(taken):
            m.d.sync += [
                self.free.bit_select(self._lowest, 1).eq(0),
                self._of_row[block.row].eq(self._lowest),
            ]


@dataclass(frozen=True)
class _Candidate:
    """An operation that may be the next one."""

    block: Any  # its block
    loaded: Value  # the block waits, and its first operands are there
    room: Value  # ... so is room for its results


class ArraySequencer(wiring.Component):
    """Issues one step a cycle: QK of block n + 1 before PV of block n, without a gap in between.

    At most two blocks lie between the start of their QK and the start of their PV. The logit buffer
    and the weight buffer have room for these two, so that nothing after the array ever has to stop
    it. The steps of an operation are those of `TileWalk`.

    A block of a linear layer waits until no other is between the two, since its sums go where those
    of PV go; what comes after it does not wait.

    QK starts when the first groups of its operands are there, and each tile waits for its own.

    Parameters
    ----------
    config : Config
        Array shape, block and head_dim.

    Members
    -------
    scheduled : In, stream of `block_layout`
        Live blocks whose Q and K have been asked for: their slots were released before that, and
        hold nothing else.
    weighted : In, stream of `block_layout`
        Blocks whose P lies in the weight buffer.
    started : Out, stream of `block_layout`
        Block whose QK starts, none of a layer; always accepted.
    query_load, key_load, value_load : In, `load_state_layout`
        State of the operand buffers.
    value_release : Out, 1
        The V slot ``value_release_slot`` is free.
    value_release_slot : Out
    ending_rows : Out, stream of `ending_row_layout`
        A row's last PV, or last block of a layer, starts; always accepted.
    output_free : In, 1
        The output slot ``output_free_slot`` is free.
    output_free_slot : In
    key_address : Out
        Read address of this cycle's step, in QK.
    key_code, key_phase : Out, 2
        Of the step whose keys arrive in this cycle, `READ_LATENCY` cycles after their address.
    query_address, value_address, weight_address : Out
        Read addresses of the step, `KeyEncoder.LATENCY` cycles later: they meet the keys' digits.
    former_operation, former_code, former_phase : Out
        Of the step whose words arrive in this cycle, `READ_LATENCY` cycles after these addresses.
    step : Out, `ArrayStep`
        With the operands, `READ_LATENCY` + 1 cycles after these addresses.
    tile : Out, `tile_layout`
        Of the step with ``last``, with its words.
    qk_activity, pv_activity : Out, `rtl.interfaces.Activity`
        Starved: the array waits for K or Q (for V or P); blocked: for room in the logit ring or the
        drain (for an output slot).

    Contract
    --------
    Steps with ``last`` are at least ``drain_cycles`` apart; where a tile is shorter, its last
    step waits.
    """

    #: Cycles from each address to its words at the array's edge, the same for all operands.
    READ_LATENCY = KeyBuffer.READ_LATENCY
    #: Cycles from a step to the addresses of all but its keys, and to ``value_release``.
    LATENCY = KeyEncoder.LATENCY
    #: Cycles from a tile's last step to ``tile``.
    TILE_LATENCY = LATENCY + READ_LATENCY
    #: Cycles from the arrival of a block's first groups until its QK may start.
    BEGUN_LATENCY = 1

    def __init__(self, config: Config):
        self._config = config
        block = block_layout(config)
        chunks, groups = config.head_dim // formats.LANES, config.block // formats.LANES
        super().__init__(
            {
                "scheduled": In(stream.Signature(block)),
                "weighted": In(stream.Signature(block)),
                "started": Out(stream.Signature(block, always_ready=True)),
                "query_load": In(load_state_layout(config, config.cols, config.row_slots)),
                "key_load": In(load_state_layout(config, config.rows, config.key_slots)),
                "value_load": In(load_state_layout(config, config.block, config.key_slots)),
                "value_release": Out(1),
                "value_release_slot": Out(range(config.key_slots)),
                "ending_rows": Out(stream.Signature(ending_row_layout(config), always_ready=True)),
                "output_free": In(1),
                "output_free_slot": In(range(config.row_slots)),
                "query_address": Out(
                    range(config.row_slots * config.block // config.cols * chunks)
                ),
                "key_address": Out(
                    range(config.key_slots * config.block // config.rows * config.head_dim)
                ),
                "value_address": Out(
                    range(config.key_slots * groups * (config.head_dim // config.cols))
                ),
                "weight_address": Out(range(SLOTS * config.block // config.rows * config.block)),
                "key_code": Out(2),
                "key_phase": Out(2),
                "former_operation": Out(Operation),
                "former_code": Out(2),
                "former_phase": Out(2),
                "step": Out(ArrayStep),
                "tile": Out(tile_layout(config)),
                "qk_activity": Out(Activity),
                "pv_activity": Out(Activity),
            }
        )

    def elaborate(self, platform):
        m = Module()
        walk = TileWalk(self._config)
        progress = self._progress(m, walk)
        with m.If(progress.advance):
            walk.advance(m)
        with m.If(progress.ending):
            walk.end(m)
        contracts = Contracts(m, platform, self)
        candidates = self._start_next(m, contracts, walk, progress.ending)
        self._issue_step(m, walk, progress)
        self._report_activity(m, walk, progress, candidates)
        return m

    def _progress(self, m: Module, walk: TileWalk) -> _Progress:
        """Decide whether the walk goes on in this cycle.

        A tile of QK waits for its operands. No tile ends before the drain of the last one has.
        """
        config = self._config
        advance = Signal()
        tile_loaded = Signal()
        draining_long = Signal()
        m.d.comb += tile_loaded.eq(
            is_operation(walk.operation, Operation.PV)
            | (
                _is_loaded(self.key_load, walk.key_slot, walk.row_group)
                & _is_loaded(self.query_load, walk.block.query_slot, walk.col_group)
            )
        )
        shortest_tile = config.shortest_reduction // formats.LANES
        if config.drain_cycles > shortest_tile:
            draining = Signal(range(config.drain_cycles))
            m.d.comb += draining_long.eq(walk.at_last_step & draining.any())
            with m.If(advance & walk.at_last_step):
                m.d.sync += draining.eq(config.drain_cycles - 1)
            with m.Elif(draining.any()):
                m.d.sync += draining.eq(draining - 1)
        # A tile that is at its last step has its operands.
        last_advance = walk.active & walk.at_last_step & ~draining_long
        m.d.comb += advance.eq(last_advance | (walk.active & ~walk.at_last_step & tile_loaded))
        return _Progress(advance, last_advance & walk.at_last_tile, tile_loaded, draining_long)

    def _start_next(
        self, m: Module, contracts: Contracts, walk: TileWalk, ending: Value
    ) -> dict[Operation, _Candidate]:
        """Start the next operation in the cycle after the last step of the one before.

        QK goes before PV. Returns both candidates.
        """
        lead = Signal(range(SLOTS + 1))  # blocks between the start of QK and the start of PV
        outputs = _OutputSlots(m, self._config)
        can_start = ~walk.active | ending
        start_qk = Signal()
        start_pv = Signal()
        qk = self._qk_candidate(m, walk, ending, lead, outputs.free.any())
        pv = self._pv_candidate(m, walk, ending, outputs.free.any())
        # The block whose sums go to an output slot, if an operation starts.
        block = data.View(
            block_layout(self._config),
            Mux(start_qk, qk.block.as_value(), pv.block.as_value()),
        )
        starts_layer = Signal()
        joins = start_pv | starts_layer
        output_slot = outputs.slot_of(block)
        m.d.comb += [
            start_qk.eq(can_start & qk.loaded & qk.room),
            start_pv.eq(can_start & ~start_qk & pv.loaded & pv.room),
            self.scheduled.ready.eq(start_qk),
            self.weighted.ready.eq(start_pv),
            self.started.valid.eq(start_qk & ~qk.block.linear),
            self.started.payload.eq(qk.block),
            self.ending_rows.valid.eq(joins & block.last),
            self.ending_rows.payload.slot.eq(output_slot),
            self.ending_rows.payload.linear.eq(starts_layer),
            starts_layer.eq(start_qk & qk.block.linear),
        ]
        m.d.sync += lead.eq(lead + self.started.valid - start_pv)
        has_started = ~self.weighted.valid | lead.any()
        is_taken = (~outputs.free).bit_select(self.output_free_slot, 1)
        contracts.asks(has_started, "P is there only of blocks whose QK has started")
        contracts.asks(
            ~self.output_free | is_taken, "an output slot is freed only while it is taken"
        )
        contracts.holds(~(start_qk & start_pv), "one operation starts at a time")
        contracts.holds(
            ~self.started.valid | (lead != SLOTS), "at most two blocks lie between QK and PV"
        )
        contracts.holds(
            ~(joins & block.first) | outputs.free.any(), "a row begins with an output slot"
        )
        outputs.update(m, block, joins & block.first, self.output_free, self.output_free_slot)
        with m.If(start_qk | start_pv):
            walk.begin(
                m,
                encode_operation({Operation.QK: start_qk, Operation.PV: start_pv}),
                {Operation.QK: qk.block, Operation.PV: pv.block},
                output_slot,
            )
        return {Operation.QK: qk, Operation.PV: pv}

    def _qk_candidate(
        self, m: Module, walk: TileWalk, ending: Value, lead: Value, output_free: Value
    ) -> _Candidate:
        """QK of the next scheduled block, once the first groups of its operands are there."""
        block = self.scheduled.payload
        # Slots that hold a first group, a cycle late: a released slot is filled again later still.
        keys_begun = Signal.like(self.key_load.full)
        queries_begun = Signal.like(self.query_load.full)
        for begun, load in ((keys_begun, self.key_load), (queries_begun, self.query_load)):
            m.d.sync += begun.eq(
                Cat(_is_loaded(load, Const(s, len(begun)), Const(0)) for s in range(len(begun)))
            )
        queries = queries_begun.bit_select(block.query_slot, 1)
        has_own = block.first | block.linear

        # The end of an operation moves its slots on: both cases are looked at beside each other.
        qk_loaded = Signal()
        qk_room = Signal()
        m.d.comb += [
            qk_loaded.eq(
                self.scheduled.valid
                & (~has_own | queries)
                & Mux(
                    ending & is_operation(walk.operation, Operation.QK),
                    keys_begun.bit_select(walk.next_slot(walk.key_slot), 1),
                    keys_begun.bit_select(walk.key_slot, 1),
                )
            ),
            qk_room.eq(
                Mux(
                    block.linear,
                    ~lead.any() & (~block.first | output_free),
                    lead != SLOTS,
                )
            ),
        ]
        return _Candidate(block, qk_loaded, qk_room)

    def _pv_candidate(
        self, m: Module, walk: TileWalk, ending: Value, output_free: Value
    ) -> _Candidate:
        """PV of the next weighted block, once its values are there and its row has an output."""
        block = self.weighted.payload

        def operands(value_slot: Value) -> Value:
            return self.value_load.full.bit_select(value_slot, 1)  # it was released a PV ago

        pv_loaded = Signal()
        pv_room = Signal()
        m.d.comb += [
            pv_loaded.eq(
                self.weighted.valid
                & Mux(
                    ending & is_operation(walk.operation, Operation.PV),
                    operands(walk.next_slot(walk.value_slot)),
                    operands(walk.value_slot),
                )
            ),
            pv_room.eq(~block.first | output_free),
        ]
        return _Candidate(block, pv_loaded, pv_room)

    def _issue_step(self, m: Module, walk: TileWalk, progress: _Progress) -> None:
        """Send a step's addresses, controls and tile, each in the cycle in which it is needed."""
        walk.place_in_reduction(m)
        m.d.comb += self.key_address.eq(walk.key_address())
        m.d.comb += Cat(self.key_code, self.key_phase).eq(
            delayed(m, Cat(walk.block.code, walk.phase), self.READ_LATENCY, "key")
        )

        # All else waits for the keys' digits.
        issued = data.StructLayout(
            {
                "query_address": self.query_address.shape(),
                "value_address": self.value_address.shape(),
                "weight_address": self.weight_address.shape(),
                "step": ArrayStep,
                "phase": 2,
                "value_release": 1,
                "value_release_slot": self.value_release_slot.shape(),
                "tile": tile_layout(self._config),
            }
        )
        now = Signal(issued)
        m.d.comb += [
            now.query_address.eq(walk.query_address()),
            now.value_address.eq(walk.value_address()),
            now.weight_address.eq(walk.weight_address()),
            now.step.valid.eq(progress.advance),
            now.step.first.eq(walk.step == 0),
            now.step.last.eq(walk.at_last_step),
            now.phase.eq(walk.phase),
            now.value_release.eq(
                progress.ending & is_operation(walk.operation, Operation.PV) & ~walk.block.keeps
            ),
            now.value_release_slot.eq(walk.value_slot),
        ]
        walk.describe_tile(m, now.tile)
        issued_now = delayed(m, now, KeyEncoder.LATENCY, "issued")
        arriving = delayed(m, issued_now, self.READ_LATENCY, "arriving")
        m.d.comb += [
            self.query_address.eq(issued_now.query_address),
            self.value_address.eq(issued_now.value_address),
            self.weight_address.eq(issued_now.weight_address),
            self.value_release.eq(issued_now.value_release),
            self.value_release_slot.eq(issued_now.value_release_slot),
            self.former_operation.eq(arriving.tile.operation),
            self.former_code.eq(arriving.tile.block.code),
            self.former_phase.eq(arriving.phase),
            self.tile.eq(arriving.tile),
        ]
        m.d.sync += self.step.eq(arriving.step)

    def _report_activity(
        self,
        m: Module,
        walk: TileWalk,
        progress: _Progress,
        candidates: dict[Operation, _Candidate],
    ) -> None:
        """Report each operation's activity.

        An idle array waits for QK if a block waits for its QK and has room, else for PV.
        """
        qk, pv = candidates[Operation.QK], candidates[Operation.PV]
        is_qk, is_pv = (is_operation(walk.operation, each) for each in (Operation.QK, Operation.PV))
        active = walk.active
        waiting_qk = ~active & self.scheduled.valid & qk.room
        waiting_pv = ~active & ~waiting_qk
        draining = progress.draining_long
        m.d.comb += [
            self.qk_activity.busy.eq(progress.advance & is_qk),
            self.qk_activity.starved.eq(
                (active & ~progress.tile_loaded) | (waiting_qk & ~qk.loaded)
            ),
            self.qk_activity.blocked.eq(active & progress.tile_loaded & draining & is_qk),
            self.pv_activity.busy.eq(progress.advance & is_pv),
            self.pv_activity.starved.eq(waiting_pv & ~pv.loaded),
            self.pv_activity.blocked.eq(
                (active & draining & is_pv) | (waiting_pv & pv.loaded & ~pv.room)
            ),
        ]
