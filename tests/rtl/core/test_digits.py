"""Encoders against the tables of the golden reference, exhaustively."""

import pytest

from firmware_model.reference.digits import key_value, probability_value
from paro.config.formats import CODE_BITS, LANES
from rtl.core.digits import ODD_LANE_SHIFT, KeyEncoder, WeightEncoder
from tests.rtl.simulate import simulate

CODES = (1, 2, 3)


def lane_value(word: int, lane: int, code: int) -> int:
    """Value of a lane's digit, as a PE multiplies it (2-bit words: operands times four)."""
    digit = word >> (5 * lane) & 31
    shift, negative, nonzero = digit & 7, digit >> 3 & 1, digit >> 4
    if not nonzero:
        assert digit == 0, "a zero digit has all bits 0"
        return 0
    shift += ODD_LANE_SHIFT if code == 1 or lane % 2 else 0
    return (-1) ** negative << shift


def test_every_key_at_every_width() -> None:
    encoder = KeyEncoder()

    async def testbench(ctx) -> None:
        for value in range(-127, 128):
            channels = [value, -value, 127 - abs(value), (37 * value) % 255 - 127]
            ctx.set(encoder.channels, channels)
            for code in CODES:
                ctx.set(encoder.code, code)
                for phase in range(CODE_BITS[code] // 2):
                    ctx.set(encoder.phase, phase)
                    await ctx.tick().repeat(encoder.LATENCY)
                    word = ctx.get(encoder.word).as_bits()
                    lanes = [lane_value(word, lane, code) for lane in range(LANES)]
                    per_element = CODE_BITS[code] // 2
                    elements = LANES // per_element
                    got = [
                        sum(lanes[per_element * i : per_element * (i + 1)]) for i in range(elements)
                    ]
                    expected = [
                        key_value(channel, CODE_BITS[code])
                        for channel in channels[elements * phase : elements * (phase + 1)]
                    ]
                    # K comes out of a 2-bit word four times too large (rtl/core/digits.py).
                    frame = 4 if code == 1 else 1
                    assert got == [frame * value for value in expected], (channels, code, phase)

    simulate(encoder, testbench)


@pytest.mark.parametrize("code", CODES)
def test_every_weight(code: int) -> None:
    encoder = WeightEncoder()

    async def testbench(ctx) -> None:
        ctx.set(encoder.code, code)
        for weight in range(513):
            ctx.set(encoder.weight, weight)
            await ctx.tick().repeat(encoder.LATENCY)
            expected = probability_value(weight, CODE_BITS[code])
            assert ctx.get(encoder.value) == expected, weight
            word = ctx.get(encoder.word).as_bits()
            lanes = [lane_value(word, lane, code) for lane in range(LANES)]
            per_element = CODE_BITS[code] // 2
            for element in range(LANES // per_element):
                digits = lanes[per_element * element : per_element * (element + 1)]
                assert sum(digits) == expected, (weight, lanes)

    simulate(encoder, testbench)
