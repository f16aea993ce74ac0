"""A dense INT8 array in an FPGA's multipliers: what a core in its LUTs is compared with."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fpga.top import LEDS

__all__ = ["ACCUMULATOR_BITS", "DenseArray", "DenseDesign"]

#: As wide as the accumulators of a core with ``head_dim`` 128.
ACCUMULATOR_BITS = 24


class DenseArray(wiring.Component):
    """Systolic array of INT8 MACs, one multiplier each; its sums stay until a tile is complete.

    Row r has to be given r cycles after row 0, column c c cycles after column 0, as in any such
    array. A row's sums leave at its left end, the leftmost first, in every other cycle.

    Parameters
    ----------
    rows, cols : int

    Members
    -------
    row_words : In, rows x signed(8)
    col_words : In, cols x signed(8)
    first, last : In, rows x 1
        The row's word is the first, or the last, of a tile.
    drained : Out, rows x signed(ACCUMULATOR_BITS)
        The sum of column c follows the row's last word after ``LATENCY`` + 2 c cycles.

    Contract
    --------
    Two words with ``last`` of a row are at least 2 ``cols`` cycles apart.
    """

    LATENCY = 4

    def __init__(self, rows: int, cols: int):
        self._rows, self._cols = rows, cols
        super().__init__(
            {
                "row_words": In(signed(8)).array(rows),
                "col_words": In(signed(8)).array(cols),
                "first": In(1).array(rows),
                "last": In(1).array(rows),
                "drained": Out(signed(ACCUMULATOR_BITS)).array(rows),
            }
        )

    def elaborate(self, platform):
        m = Module()
        col_words = list(self.col_words)
        for row in range(self._rows):
            row_word, first, last = self.row_words[row], self.first[row], self.last[row]
            drains = [
                Signal(signed(ACCUMULATOR_BITS), name=f"drain_{row}_{col}")
                for col in range(self._cols)
            ]
            for col in range(self._cols):
                name = f"{row}_{col}"
                row_held = Signal(signed(8), name=f"row_word_{name}")
                col_held = Signal(signed(8), name=f"col_word_{name}")
                firsts = Signal(2, name=f"first_{name}")
                lasts = Signal(3, name=f"last_{name}")
                product = Signal(signed(16), name=f"product_{name}")
                total = Signal(signed(ACCUMULATOR_BITS), name=f"total_{name}")
                right = drains[col + 1] if col + 1 < self._cols else 0
                m.d.sync += [
                    row_held.eq(row_word),
                    col_held.eq(col_words[col]),
                    firsts.eq(Cat(first, firsts)),
                    lasts.eq(Cat(last, lasts)),
                    product.eq(row_held * col_held),
                    total.eq(Mux(firsts[1], 0, total) + product),
                    drains[col].eq(Mux(lasts[2], total, right)),
                ]
                row_word, col_words[col] = row_held, col_held
                first, last = firsts[0], lasts[0]
            m.d.comb += self.drained[row].eq(drains[0])
        return m


class DenseDesign(wiring.Component):
    """A dense array on a board: its inputs come out of a shift register, its sums go to the LEDs.

    Members
    -------
    leds : Out, LEDS
    """

    def __init__(self, rows: int, cols: int):
        self._rows, self._cols = rows, cols
        super().__init__({"leds": Out(LEDS)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = array = DenseArray(self._rows, self._cols)
        inputs = Cat(*array.row_words, *array.col_words, *array.first, *array.last)
        # Registers of their own: Yosys would take the shift register for that of a row's word.
        chain = Signal(len(inputs), init=1)
        held = Signal(len(inputs))
        outputs = Cat(*array.drained)
        folded = Signal(len(outputs))
        m.d.sync += [
            chain.eq(Cat(chain[-1] ^ chain[len(chain) // 2], chain)),
            held.eq(held ^ chain),
            folded.eq(Cat(folded[-1], folded) ^ outputs),
        ]
        m.d.comb += [inputs.eq(held), self.leds.eq(folded)]
        return m
