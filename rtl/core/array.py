"""The R x C array of PEs: operands broadcast along columns, digits along rows, drained upwards."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from rtl.core.pe import PE, LateCarries, PEControl
from rtl.lib.library import replicate

__all__ = ["ArrayStep", "PEArray"]


class ArrayStep(data.Struct):
    """One cycle of work, given with its operands."""

    valid: unsigned(1)
    first: unsigned(1)  # first step of a tile
    last: unsigned(1)  # last step of a tile


class PECluster(wiring.Component):
    """Neighbouring PEs with input registers of their own.

    Without them one register would feed a whole row or column, by a wire across the chip to the
    first adder.

    Parameters
    ----------
    config : Config
        Array shape, of which the cluster takes at most `ROWS` rows and `COLS` columns.
    pe : type
        As `PEArray`.

    Members
    -------
    operands, words, control : In
        Those of the PEs, one per column, one per row and one for all.
    drain_in, drain : In, Out
        Drain registers of the row below the cluster, and of its top row; one per column.

    Latency
    -------
    That of the PE and 1 cycle.
    """

    DATA_ONLY = True

    #: Most rows and columns of a cluster. Fewer columns, as a digit has 40 LUTs in each column.
    ROWS, COLS = 4, 2

    def __init__(self, config: Config, pe: type[Any] = PE):
        self._config, self._pe = config, pe
        self.rows, self.cols = self.shape(config)
        drains = data.ArrayLayout(signed(config.accumulator_bits), self.cols)
        super().__init__(
            {
                "operands": In(data.ArrayLayout(pe.OPERANDS, self.cols)),
                "words": In(data.ArrayLayout(pe.WORD, self.rows)),
                "control": In(PEControl),
                "drain_in": In(drains),
                "drain": Out(drains),
            }
        )

    @classmethod
    def shape(cls, config: Config) -> tuple[int, int]:
        """Rows and columns of every cluster of an array."""
        return min(cls.ROWS, config.rows), min(cls.COLS, config.cols)

    def elaborate(self, platform):
        m = Module()
        operands = Signal.like(self.operands)
        words = Signal.like(self.words)
        control = Signal(PEControl)
        m.d.sync += [
            operands.eq(self.operands),
            words.eq(self.words),
            control.eq(self.control),
        ]
        carries = [self._carries(m, word, row) for row, word in enumerate(words)]
        count = self.rows * self.cols
        pes = replicate(m, platform, "pe", lambda: self._pe(self._config), count)
        for index, pe in enumerate(pes):
            row, col = divmod(index, self.cols)
            below = self.drain_in[col] if row == self.rows - 1 else pes[index + self.cols].drain
            m.d.comb += [
                pe.operands.eq(operands[col]),
                pe.word.eq(words[row]),
                pe.carries.eq(carries[row]),
                pe.control.eq(control),
                pe.drain_in.eq(below),
            ]
            if row == 0:
                m.d.comb += self.drain[col].eq(pe.drain)
        return m

    def _carries(self, m: Module, word: Value, row: int) -> Value:
        """Carries that the PEs of a row take of its word, some cycles later."""
        carries = Signal(LateCarries, name=f"carries_{row}")
        if self._pe.CARRIES:
            product, total = (word[lane].negative for lane in self._pe.CARRIES)
            waiting = Signal(name=f"total_carry_{row}")
            m.d.sync += [carries.product.eq(product), waiting.eq(total), carries.total.eq(waiting)]
        return carries


class PEArray(wiring.Component):
    """Output-stationary array: PE (r, c) accumulates the tile element (r, c) over its reduction.

    In QK rows are keys and columns are queries, in PV rows are queries and columns are channels:
    the narrow operand always enters along rows, the INT8 operand along columns.

    Parameters
    ----------
    config : Config
        Array shape and accumulator width.
    pe : type
        Class of the processing elements: `PE`, or a component with the same members, whose
        attributes ``OPERANDS`` and ``WORD`` are the shapes of its ``operands`` and ``word``, and
        whose ``CARRIES`` are as those of `PE`, or empty.

    Members
    -------
    step : In, `ArrayStep`
        Work of this cycle.
    operands : In, C x `LaneOperands`
        INT8 operands of the step (of another PE: its ``OPERANDS``).
    words : In, R x `DigitWord`
        Digits of the step (of another PE: its ``WORD``).
    drained : Out, drain_words x signed(accumulator_bits)
        Elements of a finished tile: row after row, ``drain_words`` columns a cycle.
    drained_first : Out, 1
        ``drained`` is the first group of a tile. It is followed by the ``drain_cycles - 1`` others.

    Latency
    -------
    The step with ``last`` is followed by ``drained_first`` `LATENCY` cycles later.

    Contract
    --------
    Two steps with ``last`` are at least ``drain_cycles`` cycles apart.
    """

    LATENCY = 5

    def __init__(self, config: Config, pe: type[Any] = PE):
        self._config, self._pe = config, pe
        super().__init__(
            {
                "step": In(ArrayStep),
                "operands": In(data.ArrayLayout(pe.OPERANDS, config.cols)),
                "words": In(data.ArrayLayout(pe.WORD, config.rows)),
                "drained": Out(
                    data.ArrayLayout(signed(config.accumulator_bits), config.drain_words)
                ),
                "drained_first": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        groups = config.cols // config.drain_words
        group = Signal(range(groups))
        next_group = Signal(range(groups))
        last_group = group == groups - 1

        # Control goes through the clusters' registers, as operands and words do.
        pair_step, product_step, sum_step = (
            Signal(ArrayStep, name=f"{name}_step") for name in ("pair", "product", "sum")
        )
        control = Signal(PEControl)
        loading = Signal()
        m.d.sync += [
            pair_step.eq(self.step),
            product_step.eq(pair_step),
            sum_step.eq(product_step),
            loading.eq(control.load),
            self.drained_first.eq(loading),
            group.eq(next_group),
        ]
        m.d.comb += [
            next_group.eq(Mux(loading | last_group, 0, group + 1)),
            control.accumulate.eq(product_step.valid),
            control.first.eq(product_step.first),
            control.load.eq(sum_step.valid & sum_step.last),
            control.shift.eq(next_group == groups - 1),
        ]
        tops = self._clusters(m, platform, control)
        with m.Switch(group):
            for index in range(groups):
                with m.Case(index):
                    for word in range(config.drain_words):
                        m.d.comb += self.drained[word].eq(tops[index * config.drain_words + word])
        return m

    def _clusters(self, m: Module, platform: Any, control: Any) -> list[Value]:
        """All clusters, wired; returns the drain registers of the array's top row."""
        rows, cols = PECluster.shape(self._config)
        down, across = self._config.rows // rows, self._config.cols // cols
        clusters = replicate(
            m,
            platform,
            "pe_cluster",
            lambda: PECluster(self._config, self._pe),
            down * across,
        )
        tops = []
        for index, cluster in enumerate(clusters):
            first_row, first_col = index // across * rows, index % across * cols
            m.d.comb += cluster.control.eq(control)
            for row in range(rows):
                m.d.comb += cluster.words[row].eq(self.words[first_row + row])
            for col in range(cols):
                m.d.comb += cluster.operands[col].eq(self.operands[first_col + col])
            if index + across < len(clusters):
                m.d.comb += cluster.drain_in.eq(clusters[index + across].drain)
            if index < across:
                tops += [cluster.drain[col] for col in range(cols)]
        return tops
