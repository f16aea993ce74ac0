"""The walk of the array over an operation: tile after tile, step after step."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data

from paro.config import Config, formats
from paro.config.formats import Operation
from rtl.core.blocks import block_layout, is_pv
from rtl.lib.arithmetic import log2

__all__ = ["TileWalk", "tile_layout"]


def tile_layout(config: Config) -> data.StructLayout:
    """A finished tile, as its consumers know it.

    ``operation``; ``block`` it belongs to; ``slot`` of the operands that its consumer still reads
    (K scales and rescales); ``query_slot`` and ``output_slot``; ``row_group``, ``col_group`` place
    of the tile (in units of array rows and columns); ``last`` tile of its block.
    """
    return data.StructLayout(
        {
            "operation": Operation,
            "block": block_layout(config),
            "slot": 1,
            "query_slot": 1,
            "output_slot": 1,
            "row_group": unsigned(log2(config.block // config.rows)),
            "col_group": unsigned(log2(max(config.block, config.head_dim) // config.cols)),
            "last": 1,
        }
    )


class TileWalk:
    """Where the array is in the operation in progress.

    It is a part of `rtl.core.sequencer.ArraySequencer`, not a component: its registers are those of
    the sequencer.

    QK of a block: for each group of C queries, for each group of R keys, a tile with reduction
    over head_dim. PV: for each group of R queries, for each group of C channels, a tile with
    reduction over the block's keys. A step consumes one digit word per row: 1, 2 or 4 elements of
    the reduction. Another operation is another order of groups and another reduction length: it
    joins in `move`, `start`, `at_last_col` and the addresses.

    Parameters
    ----------
    config : Config
        Array shape, block and head_dim.

    Attributes
    ----------
    active : Signal
        An operation is in progress.
    operation, block : Signal
        Which, of which block.
    key_slot, query_slot, weight_slot, value_slot, output_slot : Signal
        Slots of the operands and of the output, which alternate.
    row_group, col_group, step : Signal
        Place of the tile, and the step within it.
    at_last_step : Signal
    at_last_tile : Value
    """

    def __init__(self, config: Config):
        self._config = config
        longest = max(config.head_dim, config.block)
        self.active = Signal()
        self.operation = Signal(Operation)
        self.block = Signal(block_layout(config))
        self.key_slot = Signal()
        self.query_slot = Signal()
        self.weight_slot = Signal()
        self.value_slot = Signal()
        self.output_slot = Signal()
        self._row_groups = config.block // config.rows
        self._qk_cols, self._pv_cols = config.block // config.cols, config.head_dim // config.cols
        self.row_group = Signal(range(self._row_groups))
        self.col_group = Signal(range(max(self._qk_cols, self._pv_cols)))
        self.step = Signal(range(longest))
        # Digit words per tile: a quarter, half or all of the reduction length, at least four. The
        # last one is seen one step ahead.
        self._second_last_step = Signal(range(longest), name="second_last_step")
        self.at_last_step = Signal()
        self._chunk = Signal(range(longest // formats.LANES), name="chunk")
        self.phase = Signal(2)

    @property
    def is_qk(self) -> Value:
        """The operation in progress is QK."""
        return ~self.is_pv

    @property
    def is_pv(self) -> Value:
        """The operation in progress is PV."""
        return is_pv(self.operation)

    @property
    def at_last_row(self) -> Value:
        """Last group of rows."""
        return self.row_group == self._row_groups - 1

    @property
    def at_last_col(self) -> Value:
        """Last group of columns."""
        return self.col_group == Mux(self.is_pv, self._pv_cols - 1, self._qk_cols - 1)

    @property
    def at_last_tile(self) -> Value:
        """Last tile of the operation."""
        return self.at_last_row & self.at_last_col

    def move(self, m: Module, advance: Value, ending: Value) -> None:
        """Go a step on with ``advance``; the last one, with ``ending``, moves the slots on."""
        with m.If(advance):
            m.d.sync += [
                self.step.eq(self.step + 1),
                self.at_last_step.eq(self.step == self._second_last_step),
            ]
            with m.If(self.at_last_step):
                m.d.sync += [self.step.eq(0), self.at_last_step.eq(0)]
                # QK keeps its group of queries while it walks over the keys; PV walks over the
                # channels.
                with m.If(self.is_pv):
                    self._next_col(m)
                    with m.If(self.at_last_col):
                        self._next_row(m)
                with m.Else():
                    self._next_row(m)
                    with m.If(self.at_last_row):
                        self._next_col(m)
        with m.If(ending):
            m.d.sync += self.active.eq(0)
            with m.If(self.is_pv):
                m.d.sync += [
                    self.weight_slot.eq(~self.weight_slot),
                    self.value_slot.eq(~self.value_slot),
                    self.output_slot.eq(self.output_slot ^ self.block.last),
                ]
            with m.Else():
                m.d.sync += [
                    self.key_slot.eq(~self.key_slot),
                    self.query_slot.eq(self.query_slot ^ self.block.last),
                ]

    def _next_col(self, m: Module) -> None:
        m.d.sync += self.col_group.eq(Mux(self.at_last_col, 0, self.col_group + 1))

    def _next_row(self, m: Module) -> None:
        m.d.sync += self.row_group.eq(Mux(self.at_last_row, 0, self.row_group + 1))

    def start(self, m: Module, start_qk: Value, start_pv: Value, new_qk: Any, new_pv: Any) -> None:
        """Begin QK or PV of a block (views of `block_layout`)."""
        config = self._config
        with m.If(start_qk | start_pv):
            m.d.sync += [
                self.active.eq(1),
                self.operation.eq(start_pv),
                self.block.eq(Mux(start_pv, new_pv, new_qk)),
                self._second_last_step.eq(
                    Mux(
                        start_pv,
                        (config.block >> ~new_pv.code) - 2,
                        (config.head_dim >> ~new_qk.code) - 2,
                    )
                ),
            ]

    def place(self, m: Module) -> None:
        """Find the step's place in the reduction, in elements of four and within them."""
        with m.Switch(self.block.code):
            with m.Case(1):
                m.d.comb += self._chunk.eq(self.step)
            with m.Case(2):
                m.d.comb += [self._chunk.eq(self.step >> 1), self.phase.eq(self.step[0])]
            with m.Default():
                m.d.comb += [self._chunk.eq(self.step >> 2), self.phase.eq(self.step[:2])]

    @property
    def key_address(self) -> Value:
        """Where the step's keys lie. Four elements of the reduction share an address."""
        return Cat(self._channels, self.row_group, self.key_slot)

    @property
    def query_address(self) -> Value:
        """Where the step's queries lie."""
        return Cat(self._channels, self.col_group[: log2(self._qk_cols)], self.query_slot)

    @property
    def value_address(self) -> Value:
        """Where the step's values lie."""
        keys = self._chunk[: log2(self._config.block // formats.LANES)]
        return Cat(self.col_group[: log2(self._pv_cols)], keys, self.value_slot)

    @property
    def weight_address(self) -> Value:
        """Where the step's weights lie."""
        return Cat(self.step[: log2(self._config.block)], self.row_group, self.weight_slot)

    @property
    def _channels(self) -> Value:
        return self._chunk[: log2(self._config.head_dim // formats.LANES)]

    def tile(self, tile: Any) -> list[Any]:
        """Assignments that describe the tile in a view of `tile_layout`."""
        return [
            tile.operation.eq(self.operation),
            tile.block.eq(self.block),
            tile.slot.eq(Mux(self.is_pv, self.weight_slot, self.key_slot)),
            tile.query_slot.eq(self.query_slot),
            tile.output_slot.eq(self.output_slot),
            tile.row_group.eq(self.row_group),
            tile.col_group.eq(self.col_group),
            tile.last.eq(self.at_last_tile),
        ]
