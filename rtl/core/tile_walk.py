"""Tile walk: the tiles of the operation in progress, their steps, and the addresses of a step."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data

from paro.config import Config, formats
from paro.config.formats import Operation
from rtl.core.blocks import block_layout
from rtl.core.operations import by_operation
from rtl.lib.arithmetic import log2

__all__ = ["TileWalk", "tile_layout"]


def tile_layout(config: Config) -> data.StructLayout:
    """Descriptor of a finished tile, for its consumers.

    ``operation`` and ``block`` that it belongs to; ``slot`` of the operands that its consumer still
    reads (K scales and rescales); ``output_slot``; ``row_group`` and ``col_group``, its place in
    units of array rows and columns; ``last`` tile of its block.
    """
    return data.StructLayout(
        {
            "operation": Operation,
            "block": block_layout(config),
            "slot": range(config.key_slots),
            "output_slot": range(config.row_slots),
            "row_group": unsigned(log2(config.block // config.rows)),
            "col_group": unsigned(log2(max(config.block, config.head_dim) // config.cols)),
            "last": 1,
        }
    )


class TileWalk:
    """Walks over the tiles of an operation and the steps of each tile.

    QK of a block (and a block of a linear layer, whose inputs are the queries): for each group of C
    queries, for each group of R keys, a tile with reduction over head_dim. PV: for each group of R
    queries, for each group of C channels, a tile with reduction over the block's keys. A step
    consumes one digit word per row: 1, 2 or 4 elements of the reduction.

    It is no component: its methods add statements to the module of the sequencer, which decides
    when the walk begins, advances and ends.

    Parameters
    ----------
    config : Config
        Array shape, block and head_dim.

    Members
    -------
    active : Signal
        An operation is in progress.
    operation, block : Signal
        Which one, of which block.
    key_slot, weight_slot, value_slot, output_slot : Signal
        Slots of its operands and of its result; that of its queries is the block's.
    row_group, col_group, step : Signal
        Its tile, and the step of the tile.
    at_last_step, at_last_tile : Value
        The step is the last one of its tile, the tile the last one of the operation.
    chunk, phase : Signal
        Four elements of the reduction that the step belongs to, and which digit word of them it
        takes; driven by `place_in_reduction`.
    """

    def __init__(self, config: Config):
        # Columns of each operation's result, elements of its reduction.
        columns = {Operation.QK: config.block, Operation.PV: config.head_dim}
        self._reduction = {Operation.QK: config.head_dim, Operation.PV: config.block}
        self._col_groups = {operation: cols // config.cols for operation, cols in columns.items()}
        longest = max(self._reduction.values())
        row_groups = config.block // config.rows

        self.active = Signal()
        self.operation = Signal(Operation)
        self.block = Signal(block_layout(config))
        self.key_slot = Signal(range(config.key_slots))
        self.weight_slot = Signal()
        self.value_slot = Signal(range(config.key_slots))
        self.output_slot = Signal(range(config.row_slots))

        self.row_group = Signal(range(row_groups))
        self.col_group = Signal(range(max(self._col_groups.values())))
        self.step = Signal(range(longest))
        # Compared one step ahead: a tile has at least four steps.
        self._second_last_step = Signal(range(longest), name="second_last_step")
        self.at_last_step = Signal()
        self._at_last_row = self.row_group == row_groups - 1
        last_col = by_operation(
            self.operation,
            {operation: groups - 1 for operation, groups in self._col_groups.items()},
        )
        if config.layer_tokens < config.block:
            last_col = Mux(self.block.linear, config.layer_tokens // config.cols - 1, last_col)
        self._at_last_col = self.col_group == last_col
        self.at_last_tile = self._at_last_row & self._at_last_col

        self.chunk = Signal(range(longest // formats.LANES))
        self.phase = Signal(2)

    def begin(
        self, m: Module, operation: Value, blocks: Mapping[Operation, Any], output_slot: Value
    ) -> None:
        """Begin an operation on its block; the end of the one before has left the first place."""
        m.d.sync += [
            self.active.eq(1),
            self.operation.eq(operation),
            self.output_slot.eq(output_slot),
            self.block.eq(by_operation(operation, blocks)),
            # A tile has a digit word for each 4, 2 or 1 elements of the reduction.
            self._second_last_step.eq(
                by_operation(
                    operation,
                    {
                        each: (length >> ~blocks[each].code) - 2
                        for each, length in self._reduction.items()
                    },
                )
            ),
        ]

    def advance(self, m: Module) -> None:
        """Go on by one step, from the last one of the operation to the first."""
        m.d.sync += [
            self.step.eq(self.step + 1),
            self.at_last_step.eq(self.step == self._second_last_step),
        ]
        row, col = (self.row_group, self._at_last_row), (self.col_group, self._at_last_col)
        with m.If(self.at_last_step):
            m.d.sync += [self.step.eq(0), self.at_last_step.eq(0)]
            with m.Switch(self.operation):
                with m.Case(Operation.PV):
                    self._next_tile(m, inner=col, outer=row)
                with m.Default():  # QK
                    self._next_tile(m, inner=row, outer=col)

    @staticmethod
    def _next_tile(m: Module, inner: tuple[Signal, Value], outer: tuple[Signal, Value]) -> None:
        """Go on by one tile; a loop is its counter of groups and whether this is the last one."""
        (inner_group, at_last_inner), (outer_group, at_last_outer) = inner, outer
        m.d.sync += inner_group.eq(Mux(at_last_inner, 0, inner_group + 1))
        with m.If(at_last_inner):
            m.d.sync += outer_group.eq(Mux(at_last_outer, 0, outer_group + 1))

    def end(self, m: Module) -> None:
        """End the operation; the operands of the next one of its kind lie in the other slots."""
        m.d.sync += self.active.eq(0)
        with m.Switch(self.operation):
            with m.Case(Operation.PV):
                m.d.sync += [
                    self.weight_slot.eq(~self.weight_slot),
                    self.value_slot.eq(self.next_slot(self.value_slot)),
                ]
            with m.Default():  # QK
                m.d.sync += self.key_slot.eq(self.next_slot(self.key_slot))

    def next_slot(self, slot: Value) -> Value:
        """Return the slot of K or V of the block after this one."""
        return (slot + ~self.block.keeps)[: len(slot)]

    def place_in_reduction(self, m: Module) -> None:
        """Find ``chunk`` and ``phase`` of the step."""
        step = self.step
        with m.Switch(self.block.code):
            with m.Case(1):
                m.d.comb += self.chunk.eq(step)
            with m.Case(2):
                m.d.comb += [self.chunk.eq(step >> 1), self.phase.eq(step[0])]
            with m.Default():
                m.d.comb += [self.chunk.eq(step >> 2), self.phase.eq(step[:2])]

    def key_address(self) -> Value:
        """Address of the step's keys in QK, see `rtl.core.operand_buffers.KeyBuffer`."""
        return Cat(self._chunk_of(Operation.QK), self.row_group, self.key_slot)

    def query_address(self) -> Value:
        """Address of the step's queries in QK, see `rtl.core.operand_buffers.QueryBuffer`."""
        return Cat(self._chunk_of(Operation.QK), self._col_of(Operation.QK), self.block.query_slot)

    def value_address(self) -> Value:
        """Address of the step's values in PV, see `rtl.core.operand_buffers.ValueBuffer`."""
        return Cat(self._col_of(Operation.PV), self._chunk_of(Operation.PV), self.value_slot)

    def weight_address(self) -> Value:
        """Address of the step's weights in PV, see `rtl.core.softmax.SoftmaxUnit`."""
        words = log2(self._reduction[Operation.PV])
        return Cat(self.step[:words], self.row_group, self.weight_slot)

    def _chunk_of(self, operation: Operation) -> Value:
        return self.chunk[: log2(self._reduction[operation] // formats.LANES)]

    def _col_of(self, operation: Operation) -> Value:
        return self.col_group[: log2(self._col_groups[operation])]

    def describe_tile(self, m: Module, tile: Any) -> None:
        """Drive a `tile_layout` with the tile in progress."""
        m.d.comb += [
            tile.operation.eq(self.operation),
            tile.block.eq(self.block),
            tile.slot.eq(
                by_operation(
                    self.operation,
                    {Operation.QK: self.key_slot, Operation.PV: self.weight_slot},
                )
            ),
            tile.output_slot.eq(self.output_slot),
            tile.row_group.eq(self.row_group),
            tile.col_group.eq(self.col_group),
            tile.last.eq(self.at_last_tile),
        ]
