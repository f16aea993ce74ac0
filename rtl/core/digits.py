"""Signed power-of-two digits: their layout and the encoders at the array's edge.

A PE multiplies by digits, not by numbers: a digit is zero or plus or minus a power of two. One
*digit word* feeds the four lanes of one PE for one cycle: one element of four digits (8 bit), two
elements of two (4 bit) or four elements of one (2 bit).

P needs ten powers (2**0 .. 2**9) but a lane shifts by eight places only. Each lane therefore has
its own window: odd lanes shift by two places more, by wiring. In 8- and 4-bit words the digits of
an element are sorted, so that the small one sits in an even lane and the large one in an odd lane.
In 2-bit words every lane must hold every digit; there the operand of the even lanes is multiplied
by four at the array's edge, so that all windows start at 2**2. K, which starts at 2**0, then comes
out four times too large, which the drain undoes (`rtl/core/logits.py`).
"""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config import formats
from rtl.lib.delay import delay_line

__all__ = ["Digit", "DigitWord", "KeyEncoder", "WeightEncoder", "digit_word_bits"]

#: Places by which an odd lane shifts on top of its digit's ``shift``.
ODD_LANE_SHIFT = 2


class Digit(data.Struct):
    """One lane's digit: ``nonzero * (-1)**negative * 2**shift`` in the window of its lane."""

    shift: unsigned(3)
    negative: unsigned(1)
    nonzero: unsigned(1)


DigitWord = data.ArrayLayout(Digit, formats.LANES)
digit_word_bits = Shape.cast(DigitWord).width


def _nearest_power(magnitude: Value) -> Value:
    """One-hot power of two nearest to an unsigned value (ties up); 0 for 0.

    The value must be at most 2**(len - 1), so that rounding up stays inside its width.
    """
    width = len(magnitude)
    leading = [
        magnitude[i] & ~magnitude[i + 1 :].any() if i + 1 < width else magnitude[i]
        for i in range(width)
    ]
    rounds_up = [Const(0, 1)] + [leading[i] & magnitude[i - 1] for i in range(1, width)]
    return Cat(
        (leading[i] & ~rounds_up[i]) | (rounds_up[i - 1] if i else Const(0, 1))
        for i in range(width)
    )


def _distance(a: Value, b: Value) -> tuple[Value, Value]:
    """Magnitude of a - b for unsigned values, and whether it is negative."""
    below, above = a - b, b - a
    return Mux(below[-1], above, below)[: len(a)], below[-1]


def _exponent(power: Value) -> Value:
    """Binary logarithm of a one-hot value (0 for 0), 4 bits."""
    return Cat(Cat(power[i] for i in range(len(power)) if i >> bit & 1).any() for bit in range(4))


def _digit(exponent: Value, negative: Value, nonzero: Value) -> Value:
    """Pack a `Digit`, with zero digits canonical (all bits 0)."""
    return Mux(nonzero, Cat(exponent[:3], negative, Const(1, 1)), 0)


def _sorted_pair(
    large: Value, large_negative: Value, small: Value, small_negative: Value
) -> tuple[Value, Value]:
    """Place two one-hot digits in an even and an odd lane.

    The larger goes to the odd lane, unless it is below that lane's window; the smaller is then 0.
    """
    fits_odd = large[ODD_LANE_SHIFT:].any()
    odd = _digit(_exponent(large[ODD_LANE_SHIFT:]), large_negative, fits_odd)
    even = Mux(
        fits_odd,
        _digit(_exponent(small), small_negative, small.any()),
        _digit(_exponent(large[:ODD_LANE_SHIFT]), large_negative, large.any()),
    )
    return even, odd


def _widened(value: Value, positions: int) -> Value:
    """A value with one bit more than its radix-4 positions have."""
    sign = value[-1] if value.shape().signed else Const(0, 1)
    return Cat(value, sign.replicate(2 * positions + 1 - len(value)))


def _triple(value: Value, positions: int) -> Value:
    """Three times a value, as wide as `_naf` needs it."""
    own = _widened(value, positions)
    return (own.as_signed() + (own.as_signed() << 1))[: len(own)]


def _naf(value: Value, triple: Value, positions: int) -> list[tuple[Value, Value]]:
    """Non-adjacent form of a signed value: (one-hot pair, negative) per radix-4 position.

    The digits of v stand where 3v (from `_triple`) and v differ, one place up: positive where 3v
    has the bit, negative where v has it (Prodinger).
    """
    own = _widened(value, positions)
    plus, minus = (triple & ~own)[1:], (own & ~triple)[1:]
    nonzero = plus | minus
    return [(nonzero[2 * i : 2 * i + 2], minus[2 * i : 2 * i + 2].any()) for i in range(positions)]


def _naf_lanes(pairs: Sequence[tuple[Value, Value]]) -> list[Value]:
    """Digits of the four lanes for one 8-bit element in its non-adjacent form.

    With five positions the lanes skip one that is zero: lanes below it take their own position,
    the others the next one up. If none is zero, position 0 is dropped.
    """
    positions = len(pairs)
    lanes = []
    for lane in range(formats.LANES):
        shift = 2 * lane - (ODD_LANE_SHIFT if lane % 2 else 0)

        def digit(position: int, base: int) -> Value:
            pair, negative = pairs[position]
            # The pair is one of 00, 01, 10: its upper bit is the low bit of the exponent.
            return _digit(Const(base, 3) | pair[1], negative, pair.any())

        own = digit(lane, shift)
        if positions == formats.LANES:
            lanes.append(own)
        else:
            # A zero at this lane's position or below has been skipped already, unless it is absent.
            skipped = Cat(~pairs[position][0].any() for position in range(lane + 1)).any()
            nothing_skipped_above = Cat(
                ~pairs[position][0].any() for position in range(lane + 1, positions)
            ).any()
            lanes.append(Mux(skipped | ~nothing_skipped_above, digit(lane + 1, shift + 2), own))
    return lanes


class KeyEncoder(wiring.Component):
    """Four INT8 key channels to one digit word.

    Four rounding units serve both narrow widths: the odd ones round elements; the even ones round
    an element each (2 bit) or the rest that the odd ones leave (4 bit).

    Members
    -------
    channels : In, 4 x signed(8)
        Four consecutive channels of one key, -127 .. 127.
    code : In, 2
        Block code: 1, 2, 3 for 2, 4, 8 bit.
    phase : In, 2
        Which digit word of the four channels: 0 (2 bit), 0 .. 1 (4 bit), 0 .. 3 (8 bit).
    word : Out, `DigitWord`
        Digits.

    Latency
    -------
    `LATENCY` cycles, one word a cycle.
    """

    DATA_ONLY = True

    LATENCY = 5

    channels: In(data.ArrayLayout(signed(8), formats.LANES))
    code: In(2)
    phase: In(2)
    word: Out(DigitWord)

    def elaborate(self, platform):
        m = Module()

        code = delay_line(m, self.code, self.LATENCY - 1, "code")

        # 8 bit. 1: the element; 2: times three; 3, 4: its digits.
        element_1, element_2 = (Signal(signed(8), name=f"element_{i}") for i in (1, 2))
        triple_2 = Signal(2 * formats.LANES + 1)
        naf_3, naf_4 = (Signal(digit_word_bits, name=f"naf_{i}") for i in (3, 4))
        m.d.sync += [
            element_1.eq(self.channels[self.phase]),
            element_2.eq(element_1),
            triple_2.eq(_triple(element_1, formats.LANES)),
            naf_3.eq(Cat(_naf_lanes(_naf(element_2, triple_2, formats.LANES)))),
            naf_4.eq(naf_3),
        ]
        singles, doubles = [], []
        for i in range(2):
            # 1: the elements of the word.
            upper_1, lower_1 = (Signal(signed(8), name=f"{n}_{i}_1") for n in ("upper", "lower"))
            pair = Mux(self.phase[0], self.channels[2 + i], self.channels[i])
            m.d.sync += [
                upper_1.eq(Mux(self.code == 2, pair, self.channels[2 * i + 1])),
                lower_1.eq(self.channels[2 * i]),
            ]
            # 2: magnitudes.
            upper_2, lower_2 = (Signal(8, name=f"{n}_{i}_2") for n in ("upper", "lower"))
            # 3: the odd units round.
            power_3 = Signal(8, name=f"power_{i}_3")
            upper_3, lower_3 = (Signal(8, name=f"{n}_{i}_3") for n in ("upper", "lower"))
            # 4: the rest that they leave.
            power_4, lower_4 = (Signal(8, name=f"{n}_{i}_4") for n in ("power", "lower"))
            rest, rest_negative = _distance(upper_3, power_3)
            m.d.sync += [
                upper_2.eq(Mux(upper_1[-1], -upper_1, upper_1)),
                lower_2.eq(Mux(lower_1[-1], -lower_1, lower_1)),
                power_3.eq(_nearest_power(upper_2)),
                upper_3.eq(upper_2),
                lower_3.eq(lower_2),
                power_4.eq(power_3),
                lower_4.eq(Mux(code[3] == 2, rest, lower_3)),
            ]
            upper_sign, lower_sign = (
                [Signal(name=f"{n}_sign_{i}_{stage}") for stage in (2, 3, 4)]
                for n in ("upper", "lower")
            )
            m.d.sync += [
                upper_sign[0].eq(upper_1[-1]),
                upper_sign[1].eq(upper_sign[0]),
                upper_sign[2].eq(upper_sign[1]),
                lower_sign[0].eq(lower_1[-1]),
                lower_sign[1].eq(lower_sign[0]),
                lower_sign[2].eq(Mux(code[3] == 2, upper_sign[1] ^ rest_negative, lower_sign[1])),
            ]
            # 5: the even units round.
            rounded = Signal(8, name=f"rounded_{i}")
            m.d.comb += rounded.eq(_nearest_power(lower_4))
            singles += [
                _digit(_exponent(rounded), lower_sign[2], rounded.any()),
                _digit(_exponent(power_4), upper_sign[2], power_4.any()),
            ]
            doubles += _sorted_pair(power_4, upper_sign[2], rounded, lower_sign[2])
        with m.Switch(code[-1]):
            with m.Case(1):
                m.d.sync += self.word.as_value().eq(Cat(singles))
            with m.Case(2):
                m.d.sync += self.word.as_value().eq(Cat(doubles))
            with m.Default():
                m.d.sync += self.word.as_value().eq(naf_4)
        return m


class WeightEncoder(wiring.Component):
    """One softmax weight p to its digits and to the value that the digits stand for.

    Members
    -------
    weight : In, 10
        p, 0 .. 512 (1.0).
    code : In, 2
        Block code, `LATENCY` - 1 cycles after its weight.
    word : Out, `DigitWord`
        2 bit: the digit in all four lanes; 4 bit: the pair in lanes 0, 1 and in lanes 2, 3; 8 bit:
        four digits. The caller takes the lanes of the element's place in the word.
    value : Out, 10
        P, the value of the element's digits.

    Latency
    -------
    `LATENCY` cycles, one element a cycle.
    """

    LATENCY = 4

    weight: In(formats.P_FRAC + 1)
    code: In(2)
    word: Out(DigitWord)
    value: Out(formats.P_FRAC + 1)

    def elaborate(self, platform):
        m = Module()
        bits, positions = formats.P_FRAC + 1, formats.P_POSITIONS
        weight_1 = Signal(bits)
        power_1 = Signal(bits)
        triple_1 = Signal(2 * positions + 1)
        weight_2 = Signal(bits)
        power_2 = Signal(bits)
        power_3 = Signal(bits)
        rest_2 = Signal(8)  # at most a third of the weight
        negative_2 = Signal()
        negative_3 = Signal()
        pairs_2 = [
            (Signal(2, name=f"pair_{i}"), Signal(name=f"sign_{i}")) for i in range(positions)
        ]
        rest_power_3 = Signal(8)
        small_3 = Signal(bits)
        value_3 = Signal(bits)
        naf_3 = Signal(digit_word_bits)

        # 1: its nearest power, its triple.
        m.d.sync += [
            weight_1.eq(self.weight),
            power_1.eq(_nearest_power(self.weight)),
            triple_1.eq(_triple(self.weight, positions)),
        ]
        # 2: the rest that the power leaves, and the non-adjacent form.
        rest, negative = _distance(weight_1, power_1)
        m.d.sync += [
            weight_2.eq(weight_1),
            power_2.eq(power_1),
            rest_2.eq(rest),
            negative_2.eq(negative),
        ]
        for own, new in zip(pairs_2, _naf(weight_1, triple_1, positions), strict=True):
            m.d.sync += [own[0].eq(new[0]), own[1].eq(new[1])]
        # 3: digits at each width.
        lowest, lowest_negative = pairs_2[0]
        dropped = Signal(signed(3))  # the lowest digit of five
        with m.If(Cat(pair.any() for pair, _ in pairs_2).all()):
            m.d.comb += dropped.eq(Mux(lowest_negative, -lowest, lowest))
        m.d.sync += [
            power_3.eq(power_2),
            negative_3.eq(negative_2),
            rest_power_3.eq(_nearest_power(rest_2)),
            # One digit starts at 2**2: less is rounded to 4 or to 0.
            small_3.eq(Mux(power_2[:2].any(), Mux(weight_2 >= 2, 4, 0), power_2)),
            naf_3.eq(Cat(_naf_lanes(pairs_2))),
            value_3.eq(weight_2 - dropped),
        ]
        # 4: those of the block's width.
        even, odd = _sorted_pair(power_3, Const(0, 1), rest_power_3, negative_3)
        single = _digit(_exponent(small_3[ODD_LANE_SHIFT:]), Const(0, 1), small_3.any())
        with m.Switch(self.code):
            with m.Case(1):
                m.d.sync += [self.word.as_value().eq(single.replicate(4)), self.value.eq(small_3)]
            with m.Case(2):
                m.d.sync += [
                    self.word.as_value().eq(Cat(even, odd, even, odd)),
                    self.value.eq(power_3 + Mux(negative_3, -rest_power_3, rest_power_3)),
                ]
            with m.Default():
                m.d.sync += [self.word.as_value().eq(naf_3), self.value.eq(value_3)]
        return m
