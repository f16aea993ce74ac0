"""Array sequencer: turns live blocks into tiles and steps, QK and PV on the same array."""

from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config, formats
from paro.config.formats import Operation
from rtl.core.array import ArrayStep
from rtl.core.blocks import SLOTS, block_layout
from rtl.core.digits import KeyEncoder
from rtl.core.tile_walk import TileWalk, tile_layout
from rtl.interfaces import Activity
from rtl.lib.banked_memory import READ_LATENCY
from rtl.lib.delay import delayed

__all__ = ["ArraySequencer", "load_state_layout"]


def load_state_layout(config: Config, side: int) -> data.StructLayout:
    """State of an operand buffer, see `rtl.core.load_control` and `rtl.core.operand_buffers`."""
    return data.StructLayout(
        {
            "full": SLOTS,
            "loaded": range(config.block // side),
        }
    )


def _is_loaded(load: data.View, slot: Value, group: Value) -> Value:
    """Whether a group of tokens lies in the slot; what is being loaded is the slot's if not full.

    Loads come in the order of their use, and what is used is loaded to its end.
    """
    full = load.full.bit_select(slot, 1)
    if len(load.loaded) == 0:  # a block is one group
        return full
    return full | (load.loaded > group)


class ArraySequencer(wiring.Component):
    """Issues one step a cycle: QK of block n + 1 before PV of block n, without a gap in between.

    `rtl.core.tile_walk.TileWalk` is the operation in progress.

    At most two blocks lie between the start of their QK and the start of their PV. That bound
    is what the logit buffer and the weight buffer are sized for, so that nothing after the array
    ever has to stop it.

    QK starts when the first groups of its operands are there, and each tile waits for its own.

    Parameters
    ----------
    config : Config
        Array shape, block and head_dim.

    Members
    -------
    scheduled : In, stream of `block_layout`
        Live blocks whose Q and K have been asked for: their slots, which were released before that,
        hold nothing else by then.
    weighted : In, stream of `block_layout`
        Blocks whose P lies in the weight buffer.
    started : Out, stream of `block_layout`
        Block whose QK starts; always accepted.
    query_load, key_load, value_load : In, `load_state_layout`
        What the operand buffers hold.
    value_release : Out, 1
        The oldest V slot is free.
    output_started : Out, 1
        A row's first PV starts: one output slot is taken.
    output_free : In, 1
        An output slot is free.
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
                "query_load": In(load_state_layout(config, config.cols)),
                "key_load": In(load_state_layout(config, config.rows)),
                "value_load": In(load_state_layout(config, config.block)),
                "value_release": Out(1),
                "output_started": Out(1),
                "output_free": In(1),
                "query_address": Out(range(SLOTS * config.block // config.cols * chunks)),
                "key_address": Out(range(SLOTS * config.block // config.rows * config.head_dim)),
                "value_address": Out(range(SLOTS * groups * (config.head_dim // config.cols))),
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
        pace = self._pace(m, walk)
        walk.move(m, pace.advance, pace.ending)
        choice = self._choose(m, walk, pace.ending)
        walk.start(m, choice.start_qk, choice.start_pv, *self._next_blocks())
        walk.place(m)
        self._issue(m, walk, pace)
        self._count(m, walk, pace, choice)
        return m

    def _next_blocks(self) -> tuple[data.View, data.View]:
        """Blocks whose QK and whose PV come next."""
        return self.scheduled.payload, self.weighted.payload

    def _pace(self, m: Module, walk: TileWalk) -> "_Pace":
        """Let a step go on when its operands are there and the drain has room for its tile."""
        config = self._config
        advance = Signal()
        tile_loaded = Signal()
        draining_long = Signal()
        # A tile of QK waits for its operands.
        m.d.comb += tile_loaded.eq(
            walk.is_pv
            | (
                _is_loaded(self.key_load, walk.key_slot, walk.row_group)
                & _is_loaded(self.query_load, walk.query_slot, walk.col_group)
            )
        )
        # No tile ends before the drain of the last one has.
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
        return _Pace(advance, last_advance & walk.at_last_tile, tile_loaded, draining_long)

    def _choose(self, m: Module, walk: TileWalk, ending: Value) -> "_Choice":
        """Start the next operation in the cycle after the last step of the one before.

        QK goes before PV while there is room for another block between the two.
        """
        lead = Signal(range(SLOTS + 1))  # blocks between the start of QK and the start of PV
        outputs = Signal(range(SLOTS + 1))  # output slots in use
        can_start = ~walk.active | ending
        new_qk, new_pv = self._next_blocks()
        start_qk = Signal()
        start_pv = Signal()

        # Slots in which something lies; a slot is not asked for again so soon that a cycle counts.
        keys_begun = Signal(SLOTS)
        queries_begun = Signal(SLOTS)
        for begun, load in ((keys_begun, self.key_load), (queries_begun, self.query_load)):
            m.d.sync += begun.eq(Cat(_is_loaded(load, Const(s, 1), Const(0)) for s in range(SLOTS)))

        def qk_operands(key_slot: Value, query_slot: Value) -> Value:
            """Whether the first groups of the next QK's operands lie in these slots."""
            queries = queries_begun.bit_select(query_slot, 1)
            return keys_begun.bit_select(key_slot, 1) & (~new_qk.first | queries)

        def pv_operands(value_slot: Value) -> Value:
            """Whether the next PV's values lie in this slot: it was released a PV ago."""
            return self.value_load.full.bit_select(value_slot, 1)

        # The end of an operation moves its slots on; what follows is looked at for both cases.
        qk_loaded = Signal()
        qk_room = Signal()
        pv_loaded = Signal()
        pv_room = Signal()
        m.d.comb += [
            qk_loaded.eq(
                self.scheduled.valid
                & Mux(
                    ending & walk.is_qk,
                    qk_operands(~walk.key_slot, walk.query_slot ^ walk.block.last),
                    qk_operands(walk.key_slot, walk.query_slot),
                )
            ),
            qk_room.eq(lead != SLOTS),
            pv_loaded.eq(
                self.weighted.valid
                & Mux(
                    ending & walk.is_pv,
                    pv_operands(~walk.value_slot),
                    pv_operands(walk.value_slot),
                )
            ),
            pv_room.eq(~new_pv.first | (outputs != SLOTS)),
            start_qk.eq(can_start & qk_loaded & qk_room),
            start_pv.eq(can_start & ~start_qk & pv_loaded & pv_room),
            self.scheduled.ready.eq(start_qk),
            self.weighted.ready.eq(start_pv),
            self.started.valid.eq(start_qk),
            self.started.payload.eq(new_qk),
            self.output_started.eq(start_pv & new_pv.first),
        ]
        m.d.sync += [
            lead.eq(lead + start_qk - start_pv),
            outputs.eq(outputs + self.output_started - self.output_free),
        ]
        return _Choice(start_qk, start_pv, qk_loaded, qk_room, pv_loaded, pv_room)

    def _issue(self, m: Module, walk: TileWalk, pace: "_Pace") -> None:
        """Send the step's addresses and all that goes with it, each in its cycle."""
        m.d.comb += self.key_address.eq(walk.key_address)
        m.d.comb += Cat(self.key_code, self.key_phase).eq(
            delayed(m, Cat(walk.block.code, walk.phase), READ_LATENCY, "key")
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
                "tile": tile_layout(self._config),
            }
        )
        now = Signal(issued)
        m.d.comb += [
            now.query_address.eq(walk.query_address),
            now.value_address.eq(walk.value_address),
            now.weight_address.eq(walk.weight_address),
            now.step.valid.eq(pace.advance),
            now.step.first.eq(walk.step == 0),
            now.step.last.eq(walk.at_last_step),
            now.phase.eq(walk.phase),
            now.value_release.eq(pace.ending & walk.is_pv),
            *walk.tile(now.tile),
        ]
        now = delayed(m, now, KeyEncoder.LATENCY, "issued")
        arriving = delayed(m, now, READ_LATENCY, "arriving")
        m.d.comb += [
            self.query_address.eq(now.query_address),
            self.value_address.eq(now.value_address),
            self.weight_address.eq(now.weight_address),
            self.value_release.eq(now.value_release),
            self.former_operation.eq(arriving.tile.operation),
            self.former_code.eq(arriving.tile.block.code),
            self.former_phase.eq(arriving.phase),
            self.tile.eq(arriving.tile),
        ]
        m.d.sync += self.step.eq(arriving.step)

    def _count(self, m: Module, walk: TileWalk, pace: "_Pace", choice: "_Choice") -> None:
        """Tell what the array does, and what an idle one waits for.

        It is what QK lacks if a block waits for its QK, else what PV lacks.
        """
        waiting_qk = ~walk.active & self.scheduled.valid & choice.qk_room
        waiting_pv = ~walk.active & ~waiting_qk
        m.d.comb += [
            self.qk_activity.busy.eq(pace.advance & walk.is_qk),
            self.qk_activity.starved.eq(
                (walk.active & ~pace.tile_loaded) | (waiting_qk & ~choice.qk_loaded)
            ),
            self.qk_activity.blocked.eq(
                walk.active & pace.tile_loaded & pace.draining_long & walk.is_qk
            ),
            self.pv_activity.busy.eq(pace.advance & walk.is_pv),
            self.pv_activity.starved.eq(waiting_pv & ~choice.pv_loaded),
            self.pv_activity.blocked.eq(
                (walk.active & pace.draining_long & walk.is_pv)
                | (waiting_pv & choice.pv_loaded & ~choice.pv_room)
            ),
        ]


class _Pace(NamedTuple):
    """Whether the operation in progress goes on in this cycle, and why not."""

    advance: Value
    ending: Value
    tile_loaded: Value
    draining_long: Value


class _Choice(NamedTuple):
    """Which operation starts in this cycle, and why none."""

    start_qk: Value
    start_pv: Value
    qk_loaded: Value
    qk_room: Value
    pv_loaded: Value
    pv_room: Value
