"""Signed power-of-two digits: their layout and the encoders at the array's edge.

A PE multiplies by digits, not by numbers: a digit is zero or plus or minus a power of two. One
*digit word* feeds the four lanes of one PE for one cycle: one element of four digits (8 bit), two
elements of two (4 bit) or four elements of one (2 bit).

P needs ten powers (2**0 .. 2**9) but a lane shifts by eight places only. Each lane therefore has
its own window: odd lanes shift by two places more, by wiring. In 8- and 4-bit words the digits of
an element are sorted, so that the small one sits in an even lane and the large one in an odd lane.
In 2-bit words every lane must hold every digit; there the operand of the even lanes is multiplied
by four at the array's edge, so that all windows start at 2**2. K, which starts at 2**0, then comes
out four times too large, which the drain undoes (`rtl/logits.py`).
"""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro_config import formats

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


def _naf(value: Value, positions: int) -> list[tuple[Value, Value]]:
    """Non-adjacent form of a signed value: (one-hot pair, negative) per radix-4 position.

    The digits of v stand where 3v and v differ, one place up: positive where 3v has the bit,
    negative where v has it (Prodinger).
    """
    width = 2 * positions
    sign = value[-1] if value.shape().signed else Const(0, 1)
    own = Cat(value, sign.replicate(width + 1 - len(value)))
    triple = (own.as_signed() + (own.as_signed() << 1))[: width + 1]
    plus, minus = (triple & ~own)[1:], (own & ~triple)[1:]
    nonzero = plus | minus
    return [(nonzero[2 * i : 2 * i + 2], minus[2 * i : 2 * i + 2].any()) for i in range(positions)]


def _naf_lanes(value: Value, positions: int) -> list[Value]:
    """Digits of the four lanes for one 8-bit element.

    With five positions the lanes skip one that is zero: lanes below it take their own position,
    the others the next one up. If none is zero, position 0 is dropped.
    """
    pairs = _naf(value, positions)
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
    an element each (2 bit) or what the odd ones have left (4 bit).

    Members
    ----------
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

    LATENCY = 3

    channels: In(data.ArrayLayout(signed(8), formats.LANES))
    code: In(2)
    phase: In(2)
    word: Out(DigitWord)

    def elaborate(self, platform):
        m = Module()

        def magnitude(value: Signal) -> Value:
            return Mux(value[-1], -value, value)[:8]

        code_1, code_2 = Signal(2), Signal(2)
        element, naf = Signal(signed(8)), Signal(digit_word_bits)
        m.d.sync += [
            code_1.eq(self.code),
            code_2.eq(code_1),
            element.eq(self.channels[self.phase]),
            naf.eq(Cat(_naf_lanes(element, formats.LANES))),
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
            # 2: the odd units round.
            upper, negative = Signal(8, name=f"upper_{i}"), Signal(name=f"negative_{i}")
            lower = Signal(signed(8), name=f"lower_{i}")
            power = _nearest_power(magnitude(upper_1))
            m.d.sync += [
                upper.eq(power),
                negative.eq(upper_1[-1]),
                lower.eq(Mux(code_1 == 2, magnitude(upper_1) - power, lower_1)),
            ]
            # 3: the even units round.
            rounded = Signal(8, name=f"rounded_{i}")
            m.d.comb += rounded.eq(_nearest_power(magnitude(lower)))
            singles += [
                _digit(_exponent(rounded), lower[-1], rounded.any()),
                _digit(_exponent(upper), negative, upper.any()),
            ]
            doubles += _sorted_pair(upper, negative, rounded, negative ^ lower[-1])
        with m.Switch(code_2):
            with m.Case(1):
                m.d.sync += self.word.as_value().eq(Cat(singles))
            with m.Case(2):
                m.d.sync += self.word.as_value().eq(Cat(doubles))
            with m.Default():
                m.d.sync += self.word.as_value().eq(naf)
        return m


class WeightEncoder(wiring.Component):
    """One softmax weight p to its digits and to the value that the digits stand for.

    Members
    ----------
    weight : In, 10
        p, 0 .. 512 (1.0).
    code : In, 2
        Block code, one cycle after its weight.
    word : Out, `DigitWord`
        2 bit: the digit in all four lanes; 4 bit: the pair in lanes 0, 1 and in lanes 2, 3; 8 bit:
        four digits. The caller takes the lanes of the element's place in the word.
    value : Out, 10
        P, the value of the element's digits.

    Latency
    -------
    2 cycles, one element a cycle.
    """

    weight: In(formats.P_FRAC + 1)
    code: In(2)
    word: Out(DigitWord)
    value: Out(formats.P_FRAC + 1)

    def elaborate(self, platform):
        m = Module()
        bits = formats.P_FRAC + 1
        weight, power = Signal(bits), Signal(bits)
        rest, rest_power = Signal(signed(bits + 1)), Signal(bits)
        naf = Signal(digit_word_bits)
        nearest = _nearest_power(self.weight)
        m.d.sync += [
            weight.eq(self.weight),
            power.eq(nearest),
            rest.eq(self.weight - nearest),
            naf.eq(Cat(_naf_lanes(self.weight, formats.P_POSITIONS))),
        ]
        # |rest| is at most a third of the weight: 8 bits.
        rest_magnitude = Signal(8)
        small = Signal(bits)
        m.d.comb += [
            rest_magnitude.eq(Mux(rest[-1], -rest, rest)),
            rest_power.eq(_nearest_power(rest_magnitude)),
            # One digit starts at 2**2: less is rounded to 4 or to 0.
            small.eq(Mux(power[:2].any(), Mux(weight >= 2, 4, 0), power)),
        ]
        even, odd = _sorted_pair(power, Const(0, 1), rest_power[:8], rest[-1])
        single = _digit(_exponent(small[ODD_LANE_SHIFT:]), Const(0, 1), small.any())
        dropped = Signal(signed(3))  # the lowest digit of five
        pairs = _naf(weight, formats.P_POSITIONS)
        lowest, lowest_negative = pairs[0]
        with m.If(Cat(pair.any() for pair, _ in pairs).all()):
            m.d.comb += dropped.eq(Mux(lowest_negative, -lowest, lowest))
        with m.Switch(self.code):
            with m.Case(1):
                m.d.sync += [self.word.as_value().eq(single.replicate(4)), self.value.eq(small)]
            with m.Case(2):
                m.d.sync += [
                    self.word.as_value().eq(Cat(even, odd, even, odd)),
                    self.value.eq(power + Mux(rest[-1], -rest_power, rest_power)),
                ]
            with m.Default():
                m.d.sync += [self.word.as_value().eq(naf), self.value.eq(weight - dropped)]
        return m
