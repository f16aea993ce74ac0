"""Processing elements to choose from: other multipliers in the place of `rtl.core.pe.PE`.

All have the members of `rtl.core.pe.PE` and its stages: a register after sums of two lanes or after
multipliers, one after their sum, the accumulator and the drain register. So any of them can be put
into `rtl.core.array.PEArray`. They differ in how a product is formed. Signed digits are inverted;
the ones still to be added enter the adders as carries, two of them late and from the row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config, formats
from rtl.core.digits import ODD_LANE_SHIFT, Digit, DigitWord
from rtl.core.pe import PE, LaneOperands, LateCarries, PEControl, add_with_carry

__all__ = ["CANDIDATES", "Candidate"]

_LANES = range(formats.LANES)
_FourOperands = data.ArrayLayout(signed(8), formats.LANES)


class _CandidatePE(wiring.Component):
    """Common part of the candidates; members and latency are those of `rtl.core.pe.PE`.

    A subclass has the shapes ``OPERANDS``, ``WORD`` and ``PRODUCT`` and forms the product from its
    lanes' registers; with ``CLEARED`` the first step of a tile begins at zero. ``ACCUMULATOR_BITS``
    stands in place of the configuration's.
    """

    OPERANDS: Any = _FourOperands
    WORD: Any
    CARRIES: tuple[int, ...] = ()
    PRODUCT: Shape
    CLEARED = True
    ACCUMULATOR_BITS: int | None = None

    def __init__(self, config: Config):
        self._bits = self.ACCUMULATOR_BITS or config.accumulator_bits
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

    def _product(self, m: Module) -> Value:
        """Product of the operands of the cycle before, less a carry where the row has late ones."""
        raise NotImplementedError

    def elaborate(self, platform):
        m = Module()
        product, accumulator = Signal(self.PRODUCT), Signal(signed(self._bits))
        m.d.sync += product.eq(self._product(m))
        base = Mux(self.control.first, 0, accumulator) if self.CLEARED else accumulator
        if self.CARRIES:
            total = add_with_carry(base, product, self.carries.total, self._bits)
        else:
            total = base + product
        with m.If(self.control.accumulate):
            m.d.sync += accumulator.eq(total)
        with m.If(self.control.load):
            m.d.sync += self.drain.eq(accumulator)
        with m.Elif(self.control.shift):
            m.d.sync += self.drain.eq(self.drain_in)
        return m


class PlainMAC(_CandidatePE):
    """One product of two numbers of `BITS`, in two halves that are added after their registers."""

    BITS = 8
    OPERANDS = signed(BITS)
    WORD = signed(BITS)
    PRODUCT = signed(2 * BITS)

    def _product(self, m: Module) -> Value:
        half = self.BITS // 2
        lower, upper = Signal(signed(self.BITS + half)), Signal(signed(self.BITS + half))
        m.d.sync += [
            lower.eq(self.operands * self.word[:half]),
            upper.eq(self.operands * self.word[half:].as_signed()),
        ]
        return add_with_carry(lower, upper.shift_left(half), Const(0, 1), 2 * self.BITS)


class WideMAC(PlainMAC):
    """`PlainMAC` of 16 bits, as Sanger and ViTCoD have it, for sums of 511 products and more.

    It fits no array of ours, whose accumulators and drain are those of the configuration.
    """

    BITS = 16
    OPERANDS = signed(BITS)
    WORD = signed(BITS)
    PRODUCT = signed(2 * BITS)
    ACCUMULATOR_BITS = 40


class FourMACs(_CandidatePE):
    """Four products of two INT8 numbers."""

    WORD = data.ArrayLayout(signed(8), formats.LANES)
    PRODUCT = signed(18)

    def _product(self, m: Module) -> Value:
        products = [Signal(signed(16), name=f"product_{i}") for i in _LANES]
        m.d.sync += [own.eq(self.operands[i] * self.word[i]) for i, own in enumerate(products)]
        # Of plain sums Yosys would make one adder of four, with more LUTs.
        no_carry = Const(0, 1)
        low = add_with_carry(products[0], products[1], no_carry, 17)
        high = add_with_carry(products[2], products[3], no_carry, 17)
        return add_with_carry(low, high, no_carry, 18)


class _FixedWord(data.Struct):
    """Two bits of a two's complement number for each lane, lowest first."""

    bits: data.ArrayLayout(2, formats.LANES)
    pairs: unsigned(1)  # lanes 0, 1 and lanes 2, 3 hold one element each: 4 and 8 bit
    quad: unsigned(1)  # all lanes hold one element: 8 bit


class FixedLanes(_CandidatePE):
    """Four lanes of 8 x 2 bit, added with the weights of the block's width (Bit Fusion's way)."""

    WORD = _FixedWord
    PRODUCT = signed(16)

    def _product(self, m: Module) -> Value:
        pairs, quad = self.word.pairs, self.word.quad
        # Where a number ends its upper bit counts negative.
        ends = (~pairs, ~quad, ~pairs, Const(1, 1))
        lanes = []
        for index in _LANES:
            operand, bits = self.operands[index], self.word.bits[index]
            negative = bits[1] & ends[index]
            lower, upper = (
                Signal(signed(8), name=f"lower_{index}"),
                Signal(signed(9), name=f"upper_{index}"),
            )
            m.d.comb += [
                lower.eq(Mux(bits[0], operand, 0)),
                upper.eq(Mux(bits[1], operand.shift_left(1) ^ negative.replicate(9), 0)),
            ]
            lanes.append(add_with_carry(lower, upper, negative, 10))
        low, high, quad_now = Signal(signed(12)), Signal(signed(12)), Signal()
        m.d.sync += [
            low.eq(lanes[0] + Mux(pairs, lanes[1].shift_left(2), lanes[1])),
            high.eq(lanes[2] + Mux(pairs, lanes[3].shift_left(2), lanes[3])),
            quad_now.eq(quad),
        ]
        return low + Mux(quad_now, high.shift_left(4), high)


class _DigitLanes(_CandidatePE):
    """Four lanes, each a multiple of its operand, shifted and with a sign."""

    CARRIES = (1, 3)
    #: Bits of a lane's signed value.
    LANE_BITS: int

    def _product(self, m: Module) -> Value:
        low, high = (Signal(signed(self.LANE_BITS + 1), name=name) for name in ("low", "high"))
        for total, index in ((low, 0), (high, 2)):
            even, odd = self._lane(m, index), self._lane(m, index + 1)
            negative = self.word[index].negative
            m.d.sync += total.eq(add_with_carry(even, odd, negative, self.LANE_BITS + 1))
        return add_with_carry(low, high, self.carries.product, self.LANE_BITS + 2)

    def _lane(self, m: Module, index: int) -> Value:
        """Value of a lane, in one's complement if it is negative."""
        raise NotImplementedError

    def _shifted(
        self, m: Module, index: int, value: Value, stages: Sequence[tuple[Value, int]]
    ) -> Value:
        """Shift by the places of the chosen stages, one select each, and invert in the last one."""
        for stage, (chosen, places) in enumerate(stages):
            width = min(len(value) + places, self.LANE_BITS)
            shifted = Signal(signed(width), name=f"lane_{index}_stage_{stage}")
            m.d.comb += shifted.eq(Mux(chosen, value.shift_left(places), value))
            value = shifted
        inverted = value ^ self.word[index].negative.replicate(self.LANE_BITS)
        return inverted[: self.LANE_BITS].as_signed()


class _ShiftedPair(data.Struct):
    """``(-1)**negative * value * 2**shift``."""

    value: unsigned(2)
    shift: unsigned(3)  # 0 .. 6
    negative: unsigned(1)


class ShiftLanes(_DigitLanes):
    """Four lanes of 0 .. 3 with a sign and a shift: numbers from their leading bit on."""

    WORD = data.ArrayLayout(_ShiftedPair, formats.LANES)
    LANE_BITS = 16
    PRODUCT = signed(18)

    def _lane(self, m: Module, index: int) -> Value:
        operand, digit = self.operands[index], self.word[index]
        multiple = Signal(signed(10), name=f"lane_{index}_multiple")
        m.d.comb += multiple.eq(
            Mux(digit.value[0], operand, 0) + Mux(digit.value[1], operand.shift_left(1), 0)
        )
        return self._shifted(m, index, multiple, [(digit.shift[i], 1 << i) for i in range(3)])


class _Radix4Digit(data.Struct):
    """``(-1)**negative * (nonzero << two) * 4**position``."""

    nonzero: unsigned(1)
    two: unsigned(1)
    position: unsigned(2)
    negative: unsigned(1)


class Radix4Lanes(_DigitLanes):
    """Four lanes of -2 .. 2 in four radix-4 positions."""

    WORD = data.ArrayLayout(_Radix4Digit, formats.LANES)
    LANE_BITS = 15
    PRODUCT = signed(17)

    def _lane(self, m: Module, index: int) -> Value:
        operand, digit = self.operands[index], self.word[index]
        first = Signal(signed(12), name=f"lane_{index}_first")
        m.d.comb += first.eq(
            Mux(digit.nonzero, Mux(digit.position[1], operand.shift_left(4), operand), 0)
        )
        return self._shifted(m, index, first, [(digit.two, 1), (digit.position[0], 2)])


class _WideRadix4Digit(data.Struct):
    """``(-1)**negative * (one + 2 * two) * 4**position``; not both ``one`` and ``two``."""

    one: unsigned(1)
    two: unsigned(1)
    position: unsigned(3)  # 0 .. 4
    negative: unsigned(1)


class WideRadix4Lanes(_DigitLanes):
    """Four lanes of -2 .. 2 in five radix-4 positions: all of P's, in every lane."""

    WORD = data.ArrayLayout(_WideRadix4Digit, formats.LANES)
    LANE_BITS = 17
    PRODUCT = signed(19)

    def _lane(self, m: Module, index: int) -> Value:
        operand, digit = self.operands[index], self.word[index]
        multiple = Signal(signed(9), name=f"lane_{index}_multiple")
        m.d.comb += multiple.eq(Mux(digit.one, operand, Mux(digit.two, operand.shift_left(1), 0)))
        stages = [(digit.position[i], 2 << i) for i in (2, 1, 0)]
        return self._shifted(m, index, multiple, stages)


def _reordered_lane(m: Module, index: int, operand: Value, digit: Digit) -> Value:
    """Operand shifted by the digit, the largest shift first; one's complement if it is negative."""
    width = len(operand)
    by_four = Signal(signed(width + 4), name=f"lane_{index}_shift_4")
    once = Signal(signed(width + 5), name=f"lane_{index}_shift_1")
    by_two = Signal(signed(width + 7), name=f"lane_{index}_shift_2")
    m.d.comb += [
        by_four.eq(Mux(digit.nonzero, Mux(digit.shift[2], operand.shift_left(4), operand), 0)),
        once.eq(Mux(digit.shift[0], by_four.shift_left(1), by_four)),
        by_two.eq(
            Mux(digit.shift[1], once.shift_left(2), once) ^ digit.negative.replicate(width + 7)
        ),
    ]
    return by_two


class ReorderedPE(PE):
    """`rtl.core.pe.PE` with the largest shift first, and the inversion last."""

    def _lane(self, m: Module, index: int, operand: Value, digit: Digit) -> Value:
        return _reordered_lane(m, index, operand, digit)


class RunningPE(_DigitLanes):
    """`ReorderedPE` whose accumulator is never cleared.

    Sums are taken modulo 2**accumulator_bits over all tiles. The running total drains: a tile
    is its difference to the total before, to be taken where the array drains.
    """

    OPERANDS = LaneOperands
    WORD = DigitWord
    LANE_BITS = 17
    PRODUCT = signed(19)
    CLEARED = False

    def _lane(self, m: Module, index: int) -> Value:
        digit = self.word[index]
        lane = _reordered_lane(m, index, self.operands[f"lane_{index}"], digit)
        # The window of odd lanes begins higher.
        window = Cat(digit.negative.replicate(ODD_LANE_SHIFT), lane).as_signed()
        return window if index % 2 else lane


@dataclass(frozen=True)
class Candidate:
    """A processing element and its abilities.

    Parameters
    ----------
    summary : str
        In words.
    pe : type
        Component with the members of `rtl.core.pe.PE`.
    macs : tuple of int
        Products in a cycle with a narrow operand of 8, 4 and 2 bits.
    number_format : str, optional
        Name in `firmware_model.reference.number_formats.FORMATS` of its arithmetic; none for what
        stands here for its cost alone.
    placed : bool
        Whether the study places an array of it; of others it knows the area alone.
    """

    summary: str
    pe: type[Any]
    macs: tuple[int, int, int]
    number_format: str | None
    placed: bool = True


_ONE, _FOUR, _LANED = (1, 1, 1), (4, 4, 4), (1, 2, 4)

#: The candidates by name.
CANDIDATES: dict[str, Candidate] = {
    "mac": Candidate("plain 8 x 8 MAC", PlainMAC, _ONE, "int8"),
    "mac-16": Candidate(
        "plain 16 x 16 MAC, accumulator of 40 bits", WideMAC, _ONE, None, placed=False
    ),
    "4-mac": Candidate("four plain 8 x 8 MACs", FourMACs, _FOUR, "int8"),
    "fixed": Candidate("four 8 x 2 lanes, fixed weights", FixedLanes, _LANED, "linear"),
    "shift": Candidate("four lanes of 0..3, sign, shift by 0..6", ShiftLanes, _LANED, "paper"),
    "radix4": Candidate("four radix-4 lanes, 4 positions", Radix4Lanes, _LANED, "digit-4"),
    "radix4-5": Candidate(
        "four radix-4 lanes, 5 positions", WideRadix4Lanes, _LANED, "digit", placed=False
    ),
    "paro": Candidate("rtl/core/pe.py: powers of two, odd-lane window", PE, _LANED, "digit"),
    "reordered": Candidate("rtl/core/pe.py, largest shift first", ReorderedPE, _LANED, "digit"),
    "running": Candidate(
        "the same, accumulator never cleared", RunningPE, _LANED, "digit", placed=False
    ),
}
