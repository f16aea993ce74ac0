"""The processing element: four digit lanes, an accumulator and a drain register."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from rtl.core.digits import ODD_LANE_SHIFT, Digit, DigitWord

__all__ = ["PE", "LaneOperands", "LateCarries", "PEControl", "add_with_carry"]

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


class LateCarries(data.Struct):
    """Carries that later adders take of a word, each aligned to its adder: see `PE.CARRIES`."""

    product: unsigned(1)  # one cycle after the word
    total: unsigned(1)  # two cycles after it


class PE(wiring.Component):
    """One PE: in each cycle the sum of four operand-times-digit products joins the accumulator.

    A negative digit gives a lane's value in one's complement, so four carries are due. Each of the
    four adders takes one: those of the odd lanes enter where their lanes are added, the others
    later. They are the same in all PEs of a row, which has the registers for them.

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
    carries : In, `LateCarries`
        Signs of the even lanes' digits, from the row.
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
    #: Lanes whose digits' signs are the late carries.
    CARRIES = (0, 2)

    def __init__(self, config: Config):
        self._bits = config.accumulator_bits
        super().__init__(
            {
                "operands": In(self.OPERANDS),
                "word": In(self.WORD),
                "carries": In(LateCarries),
                "control": In(PEControl),
                "drain_in": In(signed(self._bits)),
                "drain": Out(signed(self._bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        low, high = (self._pair(m, name, 2 * pair) for pair, name in enumerate(("low", "high")))
        product = Signal(signed(_PRODUCT_BITS))
        m.d.sync += product.eq(add_with_carry(low, high, self.carries.product, _PRODUCT_BITS))

        accumulator = Signal(signed(self._bits))
        with m.If(self.control.accumulate):
            base = Mux(self.control.first, 0, accumulator)
            m.d.sync += accumulator.eq(
                add_with_carry(base, product, self.carries.total, self._bits)
            )
        with m.If(self.control.load):
            m.d.sync += self.drain.eq(accumulator)
        with m.Elif(self.control.shift):
            m.d.sync += self.drain.eq(self.drain_in)
        return m

    def _pair(self, m: Module, name: str, first: int) -> Signal:
        """Sum of two neighbouring lanes, a cycle later.

        The odd lane's window begins higher: below it the even lane stands alone.
        """
        even, odd = (
            self._lane(m, index, self.operands[f"lane_{index}"], self.word[index])
            for index in (first, first + 1)
        )
        upper = add_with_carry(
            even[ODD_LANE_SHIFT:].as_signed(),
            odd,
            self.word[first + 1].negative,
            _PAIR_BITS - ODD_LANE_SHIFT,
        )
        total = Signal(signed(_PAIR_BITS), name=name)
        m.d.sync += total.eq(Cat(even[:ODD_LANE_SHIFT], upper))
        return total

    def _lane(self, m: Module, index: int, operand: Value, digit: Digit) -> Value:
        """Operand shifted by the digit; one's complement where that is negative.

        A barrel shifter of three stages, each a select of two shifted copies: with the zero gate
        in the first and the inversion in the second that is one 4-input LUT a bit and stage. What
        the last stage shifts in is inverted, too.
        """
        width = len(operand)
        gated = Signal(signed(width), name=f"lane_{index}_gated")
        by_one = Signal(signed(width + 1), name=f"lane_{index}_shift_1")
        by_two = Signal(signed(width + 3), name=f"lane_{index}_shift_2")
        by_four = Signal(signed(width + 7), name=f"lane_{index}_shift_4")
        negative = digit.negative
        m.d.comb += [
            gated.eq(operand & digit.nonzero.replicate(width)),
            by_one.eq(Mux(digit.shift[0], gated << 1, gated)),
            by_two.eq(Mux(digit.shift[1], by_one << 2, by_one) ^ negative.replicate(width + 3)),
            by_four.eq(Mux(digit.shift[2], Cat(negative.replicate(4), by_two), by_two)),
        ]
        return by_four
