"""The processing element: four digit lanes, an accumulator and a drain register."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from rtl.core.digits import ODD_LANE_SHIFT, Digit, DigitWord

__all__ = ["PE", "LaneOperands", "PEControl", "add_with_carry"]

#: Operands of the four lanes: INT8, and two bits more for four times INT8 in the even lanes.
LaneOperands = data.StructLayout({f"lane_{i}": signed(8 if i % 2 else 10) for i in range(4)})

#: Sums of two and of four lanes, each at most 127 * 512.
_PAIR_BITS, _PRODUCT_BITS = 18, 19


class PEControl(data.Struct):
    """Control of all PEs in a cycle, aligned to the accumulator: two cycles after the operands."""

    accumulate: unsigned(1)  # add the product
    first: unsigned(1)  # ... to zero: the first step of a tile
    load: unsigned(1)  # copy the accumulator, whose tile is complete, to the drain register
    shift: unsigned(1)  # move the drain chain on by one row


def add_with_carry(a: Value, b: Value, carry: Value, width: int) -> Value:
    """Sum of two signed values and a carry on one carry chain (the carry enters below bit 0)."""

    def extend(value: Value) -> Value:
        return Cat(value, value[-1].replicate(width - len(value)))

    return (Cat(Const(1, 1), extend(a)) + Cat(carry, extend(b)))[1 : width + 1].as_signed()


class PE(wiring.Component):
    """One PE: in each cycle the sum of four operand-times-digit products joins the accumulator.

    Parameters
    ----------
    config : Config
        Fixes the accumulator's width.

    Members
    -------
    operands : In, `LaneOperands`
        INT8 operand of each lane (Q in QK, V in PV), from the column.
    word : In, `DigitWord`
        Digits of the four lanes (K in QK, P in PV), from the row.
    control : In, `PEControl`
        See there.
    drain_in : In, signed(accumulator_bits)
        Drain register of the row below.
    drain : Out, signed(accumulator_bits)
        Drain register: the finished tile, while the next one accumulates.

    Latency
    -------
    Operands to accumulator 3 cycles; one step a cycle.
    """

    DATA_ONLY = True

    OPERANDS = LaneOperands
    WORD = DigitWord

    def __init__(self, config: Config):
        self._bits = config.accumulator_bits
        super().__init__(
            {
                "operands": In(self.OPERANDS),
                "word": In(self.WORD),
                "control": In(PEControl),
                "drain_in": In(signed(self._bits)),
                "drain": Out(signed(self._bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Four one's complements need four carries: each adder takes one, the accumulator the last.
        (low, low_carry), (high, high_carry) = (
            self._pair(m, name, 2 * pair) for pair, name in enumerate(("low", "high"))
        )
        product = Signal(signed(_PRODUCT_BITS))
        carry = Signal()
        m.d.sync += [
            product.eq(add_with_carry(low, high, low_carry, _PRODUCT_BITS)),
            carry.eq(high_carry),
        ]

        accumulator = Signal(signed(self._bits))
        with m.If(self.control.accumulate):
            base = Mux(self.control.first, 0, accumulator)
            m.d.sync += accumulator.eq(add_with_carry(base, product, carry, self._bits))
        with m.If(self.control.load):
            m.d.sync += self.drain.eq(accumulator)
        with m.Elif(self.control.shift):
            m.d.sync += self.drain.eq(self.drain_in)
        return m

    def _pair(self, m: Module, name: str, first: int) -> tuple[Signal, Signal]:
        """Sum of two neighbouring lanes, a cycle later, and the carry that it still lacks."""
        even, odd = (
            self._lane(m, index, self.operands[f"lane_{index}"], self.word[index])
            for index in (first, first + 1)
        )
        total, carry = Signal(signed(_PAIR_BITS), name=name), Signal(name=f"{name}_carry")
        m.d.sync += [
            total.eq(add_with_carry(even, odd, self.word[first].negative, _PAIR_BITS)),
            carry.eq(self.word[first + 1].negative),
        ]
        return total, carry

    def _lane(self, m: Module, index: int, operand: Value, digit: Digit) -> Value:
        """Operand shifted by the digit; one's complement where that is negative.

        A barrel shifter of three stages, each a select of two shifted copies: with the zero gate
        in the first and the inversion in the last stage that is one 4-input LUT a bit and stage.
        """
        width = len(operand)
        once = Signal(signed(width + 1), name=f"lane_{index}_shift_1")
        by_four = Signal(signed(width + 5), name=f"lane_{index}_shift_4")
        by_two = Signal(signed(width + 7), name=f"lane_{index}_shift_2")
        m.d.comb += [
            once.eq(Mux(digit.nonzero, Mux(digit.shift[0], operand << 1, operand), 0)),
            by_four.eq(Mux(digit.shift[2], once << 4, once)),
            by_two.eq(
                Mux(digit.shift[1], by_four << 2, by_four) ^ digit.negative.replicate(width + 7)
            ),
        ]
        if index % 2 == 0:
            return by_two
        # The odd lanes' window: shifted in ones where the value is inverted.
        return Cat(digit.negative.replicate(ODD_LANE_SHIFT), by_two).as_signed()
