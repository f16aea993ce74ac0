"""Array sequencer: turns live blocks into tiles and steps, QK and PV on the same array."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro_config import Config, formats
from rtl.array import ArrayStep
from rtl.blocks import block_layout, log2
from rtl.scheduler import SLOTS

__all__ = ["ArraySequencer", "tile_layout"]


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


class ArraySequencer(wiring.Component):
    """Issues one step a cycle: QK of block n + 1 before PV of block n, without a gap in between.

    At most two blocks lie between the start of their QK and the start of their PV. That bound
    is what the logit buffer and the weight buffer are sized for, so that nothing behind
    the array ever has to stop it.

    QK of a block: for each group of C queries, for each group of R keys, a tile with reduction
    over head_dim. PV: for each group of R queries, for each group of C channels, a tile
    with reduction over the block's keys. A step consumes one digit word per row: 1, 2 or 4 elements
    of the reduction.

    Parameters
    ----------
    config : Config
        Array shape, block and head_dim.

    Members
    -------
    scheduled : In, stream of `block_layout`
        Live blocks whose K, V have been asked for.
    weighted : In, stream of `block_layout`
        Blocks whose P lies in the weight buffer.
    started : Out, stream of `block_layout`
        Block whose QK starts; always accepted.
    queries_filled, keys_filled, values_filled : In
        Full slots of the operand buffers.
    take : Out, 3
        Takes a slot of operand i (`formats.Operand`) into use.
    value_release : Out, 1
        The oldest V slot is free.
    output_started : Out, 1
        A row's first PV starts: one output slot is taken.
    output_free : In, 1
        An output slot is free.
    query_address, key_address, value_address, weight_address : Out
        Read addresses of this cycle's step.
    fetch_is_pv, fetch_code, fetch_phase : Out
        Of the step whose words arrive in this cycle, one cycle after its addresses.
    step : Out, `ArrayStep`
        Two cycles after the addresses, with the operands.
    tile : Out, `tile_layout`
        Of the step with ``last``, one cycle after its addresses.
    idle : Out, 1
        No step is being issued.

    Contract
    --------
    Steps with ``last`` are at least ``drain_cycles`` apart; where a tile is shorter, its last
    step waits.
    """

    def __init__(self, config: Config):
        self._config = config
        block = block_layout(config)
        chunks, groups = config.head_dim // formats.LANES, config.block // formats.LANES
        super().__init__(
            {
                "scheduled": In(stream.Signature(block)),
                "weighted": In(stream.Signature(block)),
                "started": Out(stream.Signature(block, always_ready=True)),
                "queries_filled": In(range(SLOTS + 1)),
                "keys_filled": In(range(SLOTS + 1)),
                "values_filled": In(range(SLOTS + 1)),
                "take": Out(3),
                "value_release": Out(1),
                "output_started": Out(1),
                "output_free": In(1),
                "query_address": Out(range(SLOTS * config.block // config.cols * chunks)),
                "key_address": Out(range(SLOTS * config.block // config.rows * config.head_dim)),
                "value_address": Out(range(SLOTS * groups * (config.head_dim // config.cols))),
                "weight_address": Out(range(SLOTS * config.block // config.rows * config.block)),
                "fetch_is_pv": Out(1),
                "fetch_code": Out(2),
                "fetch_phase": Out(2),
                "step": Out(ArrayStep),
                "tile": Out(tile_layout(config)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        longest = max(config.head_dim, config.block)

        # The operation in progress.
        active, is_pv = Signal(), Signal()
        block = Signal(block_layout(config))
        key_slot, query_slot, weight_slot, value_slot, output_slot = (
            Signal(name=f"{name}_slot") for name in ("key", "query", "weight", "value", "output")
        )
        row_groups = config.block // config.rows
        qk_cols, pv_cols = config.block // config.cols, config.head_dim // config.cols
        row_group = Signal(range(row_groups))
        col_group = Signal(range(max(qk_cols, pv_cols)))
        step = Signal(range(longest))

        # Digit words per tile: a quarter, half or all of the reduction length.
        reduction = Mux(is_pv, config.block, config.head_dim)
        last_step = Signal(range(longest))
        m.d.comb += last_step.eq((reduction >> ~block.code) - 1)
        at_last_step = step == last_step
        at_last_row = row_group == row_groups - 1
        at_last_col = col_group == Mux(is_pv, pv_cols - 1, qk_cols - 1)
        at_last_tile = at_last_row & at_last_col

        # A tile may end only when the drain of the one before has ended.
        advance = Signal()
        shortest_tile = config.shortest_reduction // formats.LANES
        if config.drain_cycles > shortest_tile:
            draining = Signal(range(config.drain_cycles))
            m.d.comb += advance.eq(active & ~(at_last_step & draining.any()))
            with m.If(advance & at_last_step):
                m.d.sync += draining.eq(config.drain_cycles - 1)
            with m.Elif(draining.any()):
                m.d.sync += draining.eq(draining - 1)
        else:
            m.d.comb += advance.eq(active)
        ending = advance & at_last_step & at_last_tile

        # QK keeps its group of queries while it walks over the keys; PV walks over the channels.
        with m.If(advance):
            m.d.sync += step.eq(step + 1)
            with m.If(at_last_step):
                m.d.sync += step.eq(0)
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
        start_qk, start_pv = Signal(), Signal()
        m.d.comb += [
            start_qk.eq(
                can_start
                & self.scheduled.valid
                & self.keys_filled.any()
                & (~new_qk.first | self.queries_filled.any())
                & (lead != SLOTS)
            ),
            start_pv.eq(
                can_start
                & ~start_qk
                & self.weighted.valid
                & self.values_filled.any()
                & (~new_pv.first | (outputs != SLOTS))
            ),
            self.scheduled.ready.eq(start_qk),
            self.weighted.ready.eq(start_pv),
            self.started.valid.eq(start_qk),
            self.started.payload.eq(new_qk),
            self.take[formats.Operand.Q].eq(start_qk & new_qk.first),
            self.take[formats.Operand.K].eq(start_qk),
            self.take[formats.Operand.V].eq(start_pv),
            self.output_started.eq(start_pv & new_pv.first),
        ]
        m.d.sync += [
            self.value_release.eq(ending & is_pv),
            lead.eq(lead + start_qk - start_pv),
            outputs.eq(outputs + self.output_started - self.output_free),
        ]
        with m.If(start_qk | start_pv):
            m.d.sync += [
                active.eq(1),
                is_pv.eq(start_pv),
                block.eq(Mux(start_pv, new_pv, new_qk)),
            ]

        # Addresses of the step. Four elements of the reduction share an address of Q and V.
        chunk, phase = Signal(range(longest // formats.LANES)), Signal(2)
        with m.Switch(block.code):
            with m.Case(1):
                m.d.comb += chunk.eq(step)
            with m.Case(2):
                m.d.comb += [chunk.eq(step >> 1), phase.eq(step[0])]
            with m.Default():
                m.d.comb += [chunk.eq(step >> 2), phase.eq(step[:2])]
        m.d.comb += [
            self.query_address.eq(
                Cat(
                    chunk[: log2(config.head_dim // formats.LANES)],
                    col_group[: log2(qk_cols)],
                    query_slot,
                )
            ),
            self.key_address.eq(Cat(step[: log2(config.head_dim)], row_group, key_slot)),
            self.value_address.eq(
                Cat(
                    col_group[: log2(pv_cols)],
                    chunk[: log2(config.block // formats.LANES)],
                    value_slot,
                )
            ),
            self.weight_address.eq(Cat(step[: log2(config.block)], row_group, weight_slot)),
            self.idle.eq(~active),
        ]
        fetched_step = Signal(ArrayStep)
        m.d.sync += [
            fetched_step.valid.eq(advance),
            fetched_step.first.eq(step == 0),
            fetched_step.last.eq(at_last_step),
            self.fetch_is_pv.eq(is_pv),
            self.fetch_code.eq(block.code),
            self.fetch_phase.eq(phase),
            self.step.eq(fetched_step),
            self.tile.is_pv.eq(is_pv),
            self.tile.block.eq(block),
            self.tile.slot.eq(Mux(is_pv, weight_slot, key_slot)),
            self.tile.query_slot.eq(query_slot),
            self.tile.output_slot.eq(output_slot),
            self.tile.row_group.eq(row_group),
            self.tile.col_group.eq(col_group),
            self.tile.last.eq(at_last_tile),
        ]
        return m
