"""The R x C array of PEs: operands broadcast along columns, digits along rows, drained upwards."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro_config import Config
from rtl.library import replicate
from rtl.pe import PE, PEControl

__all__ = ["ArrayStep", "PEArray"]


class ArrayStep(data.Struct):
    """One cycle of work, given with its operands."""

    valid: unsigned(1)
    first: unsigned(1)  # first step of a tile
    last: unsigned(1)  # last step of a tile


class PERow(wiring.Component):
    """One row of PEs: a digit word and the control are common to all columns.

    Members are those of `PE`, with ``operands``, ``drain_in`` and ``drain`` one per column.
    """

    DATA_ONLY = True

    def __init__(self, config: Config, pe: type[Any] = PE):
        self._config, self._pe = config, pe
        drains = data.ArrayLayout(signed(config.accumulator_bits), config.cols)
        super().__init__(
            {
                "operands": In(data.ArrayLayout(pe.OPERANDS, config.cols)),
                "word": In(pe.WORD),
                "control": In(PEControl),
                "drain_in": In(drains),
                "drain": Out(drains),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        for col, pe in enumerate(
            replicate(m, platform, "paro_pe", lambda: self._pe(config), config.cols)
        ):
            m.d.comb += [
                pe.operands.eq(self.operands[col]),
                pe.word.eq(self.word),
                pe.control.eq(self.control),
                pe.drain_in.eq(self.drain_in[col]),
                self.drain[col].eq(pe.drain),
            ]
        return m


class PEArray(wiring.Component):
    """Output-stationary array: PE (r, c) accumulates the tile element (r, c) over its reduction.

    In QK rows are keys and columns are queries, in PV rows are queries and columns are channels:
    the narrow operand always enters along rows, the INT8 operand along columns.

    Parameters
    ----------
    config : Config
        Array shape and accumulator width.
    pe : type
        What the array is made of: `PE`, or a component with the same members; the shapes of its
        ``operands`` and ``word`` are its attributes ``OPERANDS`` and ``WORD``.

    Members
    -------
    step : In, `ArrayStep`
        Work of this cycle.
    operands : In, C x `LaneOperands`
        INT8 operands of the step (of another PE: what that takes).
    words : In, R x `DigitWord`
        Digits of the step (likewise).
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

    LATENCY = 4

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
        pair_step, product_step = Signal(ArrayStep), Signal(ArrayStep)
        groups = config.cols // config.drain_words
        group, next_group = Signal(range(groups)), Signal(range(groups))
        last_group = group == groups - 1
        control = Signal(PEControl)
        m.d.comb += next_group.eq(Mux(control.load | last_group, 0, group + 1))
        m.d.sync += [
            pair_step.eq(self.step),
            product_step.eq(pair_step),
            group.eq(next_group),
            control.accumulate.eq(pair_step.valid),
            control.first.eq(pair_step.first),
            control.load.eq(product_step.valid & product_step.last),
            control.shift.eq(next_group == groups - 1),
            self.drained_first.eq(control.load),
        ]
        rows = replicate(m, platform, "paro_pe_row", lambda: PERow(config, self._pe), config.rows)
        for index, row in enumerate(rows):
            m.d.comb += [
                row.operands.eq(self.operands),
                row.word.eq(self.words[index]),
                row.control.eq(control),
            ]
            if index + 1 < config.rows:
                m.d.comb += row.drain_in.eq(rows[index + 1].drain)
        top = rows[0].drain
        with m.Switch(group):
            for index in range(groups):
                with m.Case(index):
                    for word in range(config.drain_words):
                        m.d.comb += self.drained[word].eq(top[index * config.drain_words + word])
        return m
