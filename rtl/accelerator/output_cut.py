"""Output cut: output words of 16 bits as they are, or as words of 8."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.descriptor import OUT_CUT_MAX
from paro.config.formats import OPERAND_MAX, OUT_BITS
from rtl import interfaces
from rtl.lib.contract import Contracts

__all__ = ["OutputCut"]


class OutputCut(wiring.Component):
    """Shifts, rounds and saturates output words to 8 bits, and joins two beats to one.

    Members
    -------
    cut : In
        Places of the shift; 0: words stay as they are. It changes when no beat is on its way.
    input : In, stream
        Of the core's O.
    output : Out, stream
        As wide.

    Latency
    -------
    0 cycles if ``cut`` is 0, else 1 cycle from every second beat.
    """

    def __init__(self, config: Config):
        signature = interfaces.o_signature(config)
        self._words = config.output_words
        super().__init__(
            {
                "cut": In(range(OUT_CUT_MAX + 1)),
                "input": In(signature),
                "output": Out(stream.Signature(signature.members["payload"].shape)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cuts = self.cut != 0
        narrow = Signal(OUT_BITS // 2 * self._words)
        for index in range(self._words):
            # One place less than the shift: the last one rounds.
            halves = Signal(signed(OUT_BITS + 1), name=f"halves_{index}")
            total = Signal(signed(OUT_BITS + 1), name=f"total_{index}")
            m.d.comb += [
                halves.eq((self.input.payload[index] << 1) >> self.cut),
                total.eq((halves + 1) >> 1),
                narrow.word_select(index, OUT_BITS // 2).eq(
                    Mux(
                        total > OPERAND_MAX,
                        OPERAND_MAX,
                        Mux(total < -OPERAND_MAX, -OPERAND_MAX, total),
                    )
                ),
            ]
        pair = Signal(OUT_BITS * self._words)
        second = Signal()
        full = Signal()
        taken = self.input.valid & self.input.ready & cuts
        m.d.comb += [
            self.output.payload.as_value().eq(Mux(cuts, pair, self.input.payload.as_value())),
            self.output.valid.eq(Mux(cuts, full, self.input.valid)),
            self.input.ready.eq(Mux(cuts, ~full | self.output.ready, self.output.ready)),
        ]
        Contracts(m, platform, self).asks_constant(self.cut, "cut", unless=~full & ~second)
        with m.If(full & self.output.ready):
            m.d.sync += full.eq(0)
        with m.If(taken):
            m.d.sync += [second.eq(~second), full.eq(second)]
            m.d.sync += pair.eq(pair >> len(narrow) | narrow << len(narrow))
        return m
