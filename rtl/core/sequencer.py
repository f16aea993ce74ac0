"""Array sequencer: turns live blocks into tiles and steps, QK and PV on the same array."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config, formats
from rtl.core.array import ArrayStep
from rtl.core.blocks import SLOTS, block_layout
from rtl.core.digits import KeyEncoder
from rtl.interfaces import Activity
from rtl.lib.arithmetic import log2
from rtl.lib.banked_memory import READ_LATENCY

__all__ = ["ArraySequencer", "load_state_layout", "tile_layout"]


def tile_layout(config: Config) -> data.StructLayout:
    """What the consumers of a finished tile must know of it.

    ``is_pv``; ``block`` it belongs to; ``slot`` of the operands that its consumer still reads (K
    scales and rescales); ``query_slot`` and ``output_slot``; ``row_group``, ``col_group`` place of
    the tile (in units of array rows and columns); ``last`` tile of its block.
    """
    return data.StructLayout(
        {
            "is_pv": 1,
            "block": block_layout(config),
            "slot": 1,
            "query_slot": 1,
            "output_slot": 1,
            "row_group": unsigned(log2(config.block // config.rows)),
            "col_group": unsigned(log2(max(config.block, config.head_dim) // config.cols)),
            "last": 1,
        }
    )


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

    At most two blocks lie between the start of their QK and the start of their PV. That bound
    is what the logit buffer and the weight buffer are sized for, so that nothing behind
    the array ever has to stop it.

    QK of a block: for each group of C queries, for each group of R keys, a tile with reduction
    over head_dim. PV: for each group of R queries, for each group of C channels, a tile
    with reduction over the block's keys. A step consumes one digit word per row: 1, 2 or 4 elements
    of the reduction.

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
    former_is_pv, former_code, former_phase : Out
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
                "former_is_pv": Out(1),
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
        config = self._config
        longest = max(config.head_dim, config.block)

        # The operation in progress.
        active = Signal()
        is_pv = Signal()
        block = Signal(block_layout(config))
        key_slot, query_slot, weight_slot, value_slot, output_slot = (
            Signal(name=f"{name}_slot") for name in ("key", "query", "weight", "value", "output")
        )
        row_groups = config.block // config.rows
        qk_cols, pv_cols = config.block // config.cols, config.head_dim // config.cols
        row_group = Signal(range(row_groups))
        col_group = Signal(range(max(qk_cols, pv_cols)))
        step = Signal(range(longest))

        # Digit words per tile: a quarter, half or all of the reduction length, at least four. The
        # last one is seen one step ahead.
        second_last_step = Signal(range(longest))
        at_last_step = Signal()
        at_last_row = row_group == row_groups - 1
        at_last_col = col_group == Mux(is_pv, pv_cols - 1, qk_cols - 1)
        at_last_tile = at_last_row & at_last_col

        # A tile of QK waits for its operands. No tile ends before the drain of the last one has.
        advance = Signal()
        tile_loaded = Signal()
        draining_long = Signal()
        m.d.comb += tile_loaded.eq(
            is_pv
            | (
                _is_loaded(self.key_load, key_slot, row_group)
                & _is_loaded(self.query_load, query_slot, col_group)
            )
        )
        shortest_tile = config.shortest_reduction // formats.LANES
        if config.drain_cycles > shortest_tile:
            draining = Signal(range(config.drain_cycles))
            m.d.comb += draining_long.eq(at_last_step & draining.any())
            with m.If(advance & at_last_step):
                m.d.sync += draining.eq(config.drain_cycles - 1)
            with m.Elif(draining.any()):
                m.d.sync += draining.eq(draining - 1)
        # A tile that is at its last step has its operands.
        last_advance = active & at_last_step & ~draining_long
        m.d.comb += advance.eq(last_advance | (active & ~at_last_step & tile_loaded))
        ending = last_advance & at_last_tile

        # QK keeps its group of queries while it walks over the keys; PV walks over the channels.
        with m.If(advance):
            m.d.sync += [step.eq(step + 1), at_last_step.eq(step == second_last_step)]
            with m.If(at_last_step):
                m.d.sync += [step.eq(0), at_last_step.eq(0)]
                with m.If(is_pv):
                    m.d.sync += col_group.eq(Mux(at_last_col, 0, col_group + 1))
                    with m.If(at_last_col):
                        m.d.sync += row_group.eq(Mux(at_last_row, 0, row_group + 1))
                with m.Else():
                    m.d.sync += row_group.eq(Mux(at_last_row, 0, row_group + 1))
                    with m.If(at_last_row):
                        m.d.sync += col_group.eq(Mux(at_last_col, 0, col_group + 1))
        with m.If(ending):
            m.d.sync += active.eq(0)
            with m.If(is_pv):
                m.d.sync += [
                    weight_slot.eq(~weight_slot),
                    value_slot.eq(~value_slot),
                    output_slot.eq(output_slot ^ block.last),
                ]
            with m.Else():
                m.d.sync += [
                    key_slot.eq(~key_slot),
                    query_slot.eq(query_slot ^ block.last),
                ]

        # The next operation starts in the cycle after the last step of the one before.
        lead = Signal(range(SLOTS + 1))  # blocks between the start of QK and the start of PV
        outputs = Signal(range(SLOTS + 1))  # output slots in use
        can_start = ~active | ending
        new_qk, new_pv = self.scheduled.payload, self.weighted.payload
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
                    ending & ~is_pv,
                    qk_operands(~key_slot, query_slot ^ block.last),
                    qk_operands(key_slot, query_slot),
                )
            ),
            qk_room.eq(lead != SLOTS),
            pv_loaded.eq(
                self.weighted.valid
                & Mux(ending & is_pv, pv_operands(~value_slot), pv_operands(value_slot))
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
        with m.If(start_qk | start_pv):
            m.d.sync += [
                active.eq(1),
                is_pv.eq(start_pv),
                block.eq(Mux(start_pv, new_pv, new_qk)),
                second_last_step.eq(
                    Mux(
                        start_pv,
                        (config.block >> ~new_pv.code) - 2,
                        (config.head_dim >> ~new_qk.code) - 2,
                    )
                ),
            ]

        # Addresses of the step. Four elements of the reduction share an address of Q and V.
        chunk = Signal(range(longest // formats.LANES))
        phase = Signal(2)
        with m.Switch(block.code):
            with m.Case(1):
                m.d.comb += chunk.eq(step)
            with m.Case(2):
                m.d.comb += [chunk.eq(step >> 1), phase.eq(step[0])]
            with m.Default():
                m.d.comb += [chunk.eq(step >> 2), phase.eq(step[:2])]
        m.d.comb += self.key_address.eq(
            Cat(chunk[: log2(config.head_dim // formats.LANES)], row_group, key_slot)
        )

        def delayed(value: Any, cycles: int, name: str) -> Any:
            for cycle in range(cycles):
                following = Signal.like(value, name=f"{name}_{cycle + 1}")
                m.d.sync += following.eq(value)
                value = following
            return value

        m.d.comb += Cat(self.key_code, self.key_phase).eq(
            delayed(Cat(block.code, phase), READ_LATENCY, "key")
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
                "tile": tile_layout(config),
            }
        )
        now = Signal(issued)
        m.d.comb += [
            now.query_address.eq(
                Cat(
                    chunk[: log2(config.head_dim // formats.LANES)],
                    col_group[: log2(qk_cols)],
                    query_slot,
                )
            ),
            now.value_address.eq(
                Cat(
                    col_group[: log2(pv_cols)],
                    chunk[: log2(config.block // formats.LANES)],
                    value_slot,
                )
            ),
            now.weight_address.eq(Cat(step[: log2(config.block)], row_group, weight_slot)),
            now.step.valid.eq(advance),
            now.step.first.eq(step == 0),
            now.step.last.eq(at_last_step),
            now.phase.eq(phase),
            now.value_release.eq(ending & is_pv),
            now.tile.is_pv.eq(is_pv),
            now.tile.block.eq(block),
            now.tile.slot.eq(Mux(is_pv, weight_slot, key_slot)),
            now.tile.query_slot.eq(query_slot),
            now.tile.output_slot.eq(output_slot),
            now.tile.row_group.eq(row_group),
            now.tile.col_group.eq(col_group),
            now.tile.last.eq(at_last_tile),
        ]
        now = delayed(now, KeyEncoder.LATENCY, "issued")
        arriving = delayed(now, READ_LATENCY, "arriving")
        m.d.comb += [
            self.query_address.eq(now.query_address),
            self.value_address.eq(now.value_address),
            self.weight_address.eq(now.weight_address),
            self.value_release.eq(now.value_release),
            self.former_is_pv.eq(arriving.tile.is_pv),
            self.former_code.eq(arriving.tile.block.code),
            self.former_phase.eq(arriving.phase),
            self.tile.eq(arriving.tile),
        ]
        m.d.sync += self.step.eq(arriving.step)

        # An idle array waits for what QK lacks if a block waits for its QK, else for what PV lacks.
        waiting_qk = ~active & self.scheduled.valid & qk_room
        waiting_pv = ~active & ~waiting_qk
        m.d.comb += [
            self.qk_activity.busy.eq(advance & ~is_pv),
            self.qk_activity.starved.eq((active & ~tile_loaded) | (waiting_qk & ~qk_loaded)),
            self.qk_activity.blocked.eq(active & tile_loaded & draining_long & ~is_pv),
            self.pv_activity.busy.eq(advance & is_pv),
            self.pv_activity.starved.eq(waiting_pv & ~pv_loaded),
            self.pv_activity.blocked.eq(
                (active & draining_long & is_pv) | (waiting_pv & pv_loaded & ~pv_room)
            ),
        ]
        return m
