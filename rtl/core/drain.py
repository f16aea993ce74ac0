"""Router of finished tiles: scores to the logit unit, partial outputs to the accumulator."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.formats import Operation
from rtl.core.array import PEArray
from rtl.core.operations import is_operation
from rtl.core.tile_walk import tile_layout
from rtl.lib.contract import Contracts
from rtl.lib.delay import delayed

__all__ = ["DrainRouter", "drained_layout"]


def drained_layout(config: Config) -> data.StructLayout:
    """``drain_words`` elements of a tile: array ``row``, column group ``part``, of ``tile``."""
    return data.StructLayout(
        {
            "words": data.ArrayLayout(signed(config.accumulator_bits), config.drain_words),
            "row": range(config.rows),
            "part": range(config.cols // config.drain_words),
            "last": 1,
            "tile": tile_layout(config),
        }
    )


class DrainRouter(wiring.Component):
    """Labels the drained words with their tile and their place in it.

    Members
    -------
    tile : In, `tile_layout`
        From the sequencer, with the words of the tile's last step.
    drained, drained_first : In
        From the array.
    output : Out, `drained_layout`
        One cycle after ``drained``; ``last`` marks the last words of a tile.
    score_valid, partial_valid : Out, 1
        ``output`` belongs to QK, to PV or a linear layer.
    keys_valid : Out, 1
        ``output`` belongs to QK or a linear layer: it was multiplied by keys.
    """

    #: Cycles from the sequencer's ``tile`` to the array's ``drained_first``.
    DELAY = 1 + PEArray.LATENCY
    #: Cycles from ``drained`` to ``output``.
    LATENCY = 1

    def __init__(self, config: Config):
        self._config = config
        words = data.ArrayLayout(signed(config.accumulator_bits), config.drain_words)
        super().__init__(
            {
                "tile": In(tile_layout(config)),
                "drained": In(words),
                "drained_first": In(1),
                "output": Out(drained_layout(config)),
                "score_valid": Out(1),
                "partial_valid": Out(1),
                "keys_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        layout = tile_layout(config)
        arriving = delayed(m, self.tile, self.DELAY, "tile")

        # The tile is known in the cycle of its first words and held for the others.
        held = Signal(layout)
        tile = Signal(layout)
        m.d.comb += tile.eq(Mux(self.drained_first, arriving, held))
        m.d.sync += held.eq(tile)

        index = Signal(range(config.drain_cycles))
        draining = Signal()
        now = Signal(range(config.drain_cycles))
        valid = Signal()
        last = Signal()
        m.d.comb += [
            now.eq(Mux(self.drained_first, 0, index)),
            valid.eq(self.drained_first | draining),
            last.eq(now == config.drain_cycles - 1),
        ]
        m.d.sync += [index.eq(now + 1), draining.eq(valid & ~last)]
        Contracts(m, platform, self).asks(
            ~(self.drained_first & draining), "a tile has drained before the next one does"
        )
        of_values = is_operation(tile.operation, Operation.PV)
        partial = of_values | tile.block.linear
        part_bits = len(self.output.part)
        m.d.sync += [
            self.output.words.eq(self.drained),
            self.output.part.eq(now[:part_bits]),
            self.output.row.eq(now[part_bits:]),
            self.output.last.eq(last),
            self.output.tile.eq(tile),
            self.score_valid.eq(valid & ~partial),
            self.partial_valid.eq(valid & partial),
            self.keys_valid.eq(valid & ~of_values),
        ]
        return m
