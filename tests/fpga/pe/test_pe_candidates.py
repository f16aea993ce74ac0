"""Every candidate against plain integers, at each width that its format has."""

import random

import pytest

from firmware_model.reference.digits import key_value, radix4_digits
from fpga.pe.pe_candidates import CANDIDATES, ReorderedPE, RunningPE
from fpga.pe.pe_study import CONFIG
from paro.config import Config
from rtl.core.array import PEArray
from rtl.core.digits import ODD_LANE_SHIFT
from rtl.core.pe import PE
from tests.rtl.simulate import simulate

#: Steps of the tiles that are summed.
TILES = (1, 2, 5, 16, 33)


def two_bits(values, bits):
    """Two's complement of each value, cut into the bits of four lanes."""
    digits = [(value >> place) & 3 for value in values for place in range(0, bits, 2)]
    return {"bits": digits, "pairs": bits >= 4, "quad": bits == 8}


def shifted_pairs(values, bits):
    """Sign, leading bits, shift: a number of at most ``bits - 1`` significant bits."""
    word = []
    for value in values:
        size = abs(value)
        shift = max(size.bit_length() - (bits - 1), 0)
        for lane in range(bits // 2):
            part = size >> shift >> 2 * lane
            word.append({"value": part & 3, "shift": shift + 2 * lane, "negative": value < 0})
            assert bits == 2 or lane < bits // 2 - 1 or part < 4
    return word


def radix4(values, bits):
    """(digit, position) of each lane; a digit is -2 .. 2."""
    lanes = []
    for value in values:
        digits = [(d, i) for i, d in enumerate(radix4_digits(value)) if d]
        assert len(digits) <= bits // 2
        lanes += digits + [(0, 0)] * (bits // 2 - len(digits))
    return lanes


def radix4_word(values, bits):
    return [
        {"nonzero": d != 0, "two": abs(d) == 2, "position": i, "negative": d < 0}
        for d, i in radix4(values, bits)
    ]


def wide_radix4_word(values, bits):
    return [
        {"one": abs(d) == 1, "two": abs(d) == 2, "position": i, "negative": d < 0}
        for d, i in radix4(values, bits)
    ]


def window_word(values, bits):
    """Digits for the lanes of `rtl.core.pe.PE`, whose odd ones shift by two places more."""
    if bits == 8:
        digits = [d * 4**i for i, d in enumerate((radix4_digits(values[0]) + [0] * 4)[:4])]
    elif bits == 4:
        pairs = [[d * 4**i for i, d in enumerate(radix4_digits(value)) if d] for value in values]
        digits = [d for pair in pairs for d in [0, *pair][-2:]]
    else:
        # The operands of the even lanes come four times as large.
        digits = [d // 4 if lane % 2 == 0 else d for lane, d in enumerate(values)]
    word = []
    for lane, digit in enumerate(digits):
        shift = abs(digit).bit_length() - 1 - (ODD_LANE_SHIFT if lane % 2 else 0)
        assert digit == 0 or 0 <= shift <= 7
        word.append({"nonzero": digit != 0, "negative": digit < 0, "shift": max(shift, 0)})
    return word


def any_integer(rng, bits):
    return rng.randint(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def leading_bits(rng, bits):
    size = rng.randint(0, 127)
    dropped = max(size.bit_length() - (bits - 1), 0)
    return rng.choice((-1, 1)) * (size >> dropped << dropped)


def few_digits(rng, bits):
    return key_value(rng.randint(-127, 127), bits)


def weight(rng, bits):
    """P up to 512, with all its digits in four of the five positions."""
    while True:
        value = rng.choice((rng.randint(0, 512), 512, 342))
        digits = [d for d in radix4_digits(value) if d]
        if len(digits) <= bits // 2:
            return value


def windowed(rng, bits):
    """Values whose digits lie in the windows of the lanes that hold them."""
    if bits == 2:
        return rng.choice((-1, 1)) * 2 ** rng.randint(2, 9)
    if bits == 8:
        return rng.randint(-127, 127)
    small, large = rng.choice((-1, 1)) * 2 ** rng.randint(0, 3), 2 ** rng.randint(5, 9)
    return rng.choice((-1, 1)) * (large + rng.choice((0, small)))


WINDOWED = ("paro", "reordered", "running")
#: Bits of the operands of those that have one width.
PLAIN = {"mac": 8, "4-mac": 8, "mac-16": 16}
#: How values become a word, and what values are tried.
ENCODERS = {
    "mac": [(lambda values, bits: values[0], any_integer)],
    "mac-16": [(lambda values, bits: values[0], any_integer)],
    "4-mac": [(lambda values, bits: values, any_integer)],
    "fixed": [(two_bits, any_integer)],
    "shift": [(shifted_pairs, leading_bits)],
    "radix4": [(radix4_word, few_digits)],
    "radix4-5": [(wide_radix4_word, few_digits), (wide_radix4_word, weight)],
    **{name: [(window_word, windowed)] for name in WINDOWED},
}


def operand_lanes(name, operands, bits):
    """Each operand in all lanes of its element."""
    if name in ("mac", "mac-16"):
        return operands[0]
    lanes = [operand for operand in operands for _ in range(4 // len(operands))]
    if name not in WINDOWED:
        return lanes
    return {f"lane_{i}": x * (4 if bits == 2 and i % 2 == 0 else 1) for i, x in enumerate(lanes)}


@pytest.mark.parametrize("name", CANDIDATES)
def test_products_are_exact_at_each_width(name, seed):
    rng = random.Random(seed)
    candidate = CANDIDATES[name]
    for encode, draw in ENCODERS[name]:
        steps, expected = [], []
        for width, macs in zip((8, 4, 2), candidate.macs, strict=True):
            bits = PLAIN.get(name, width)
            wide = PLAIN.get(name, 8)
            largest = 2 ** (wide - 1) - 1
            for length in TILES:
                total = 0
                for step in range(length):
                    operands = [
                        rng.choice((-largest, largest, any_integer(rng, wide))) for _ in range(macs)
                    ]
                    values = [draw(rng, bits) for _ in range(macs)]
                    total += sum(a * b for a, b in zip(operands, values, strict=True))
                    lanes, word = operand_lanes(name, operands, bits), encode(values, bits)
                    steps.append((lanes, word, step == 0, step == length - 1))
                expected.append(total)
        assert drained_tiles(candidate.pe, steps) == expected


def test_a_wide_mac_holds_sums_beyond_32_bits():
    lowest = -(2**15)
    steps = [(lowest, lowest, step == 0, step == 510) for step in range(511)]
    assert drained_tiles(CANDIDATES["mac-16"].pe, steps) == [511 * lowest**2]


def test_the_reordered_lane_equals_the_lane_of_the_core(seed):
    """Any operands and any digits, also those that no encoder makes."""
    rng = random.Random(seed)
    steps = []
    for step in range(400):
        operands = {f"lane_{i}": rng.randint(*((-512, 511), (-128, 127))[i % 2]) for i in range(4)}
        word = [
            {
                "nonzero": rng.randint(0, 1),
                "negative": rng.randint(0, 1),
                "shift": rng.randint(0, 7),
            }
            for _ in range(4)
        ]
        steps.append((operands, word, step % 8 == 0, step % 8 == 7))
    assert drained_tiles(ReorderedPE, steps) == drained_tiles(PE, steps)


def is_negative(step, lanes, index):
    """Sign of a lane's digit that a late carry stands for; 0 if there is no step or no carry."""
    return 0 if step is None or not lanes else step[1][lanes[index]]["negative"]


def drained_tiles(pe_class, steps):
    """Run steps of (operands, word, first, last) without gaps; what drains after each last one."""
    pe = pe_class(CONFIG)
    drained = []

    async def testbench(ctx) -> None:
        paired, before, long_before = None, None, None
        for now in [*steps, None, None, None]:
            if now is not None:
                ctx.set(pe.operands, now[0])
                ctx.set(pe.word, now[1])
            product, total = (
                is_negative(step, pe.CARRIES, index) for index, step in enumerate((paired, before))
            )
            ctx.set(pe.carries, {"product": product, "total": total})
            ctx.set(
                pe.control,
                {
                    "accumulate": before is not None,
                    "first": before is not None and before[2],
                    "load": long_before is not None and long_before[3],
                    "shift": 0,
                },
            )
            await ctx.tick()
            if long_before is not None and long_before[3]:
                drained.append(ctx.get(pe.drain))
            paired, before, long_before = now, paired, before
        ctx.set(pe.control, {"accumulate": 0, "first": 0, "load": 0, "shift": 1})
        ctx.set(pe.drain_in, -4321)
        await ctx.tick()
        assert ctx.get(pe.drain) == -4321

    simulate(pe, testbench)
    if pe_class is RunningPE:
        wrap = 1 << CONFIG.accumulator_bits
        pairs = zip([0, *drained[:-1]], drained, strict=True)
        return [(b - a + wrap // 2) % wrap - wrap // 2 for a, b in pairs]
    return drained


def test_an_array_of_any_candidate(seed):
    """The array's wiring with a PE that is not its own: a product of two matrices."""
    rng = random.Random(seed)
    config = Config(rows=4, cols=8, block=16, head_dim=32)
    array = PEArray(config, CANDIDATES["mac"].pe)
    rows = [[any_integer(rng, 8) for _ in range(4)] for _ in range(16)]
    columns = [[any_integer(rng, 8) for _ in range(8)] for _ in range(16)]
    products = [
        sum(row[r] * column[c] for row, column in zip(rows, columns, strict=True))
        for r in range(4)
        for c in range(8)
    ]

    async def testbench(ctx) -> None:
        for step, (row, column) in enumerate(zip(rows, columns, strict=True)):
            ctx.set(array.step, {"valid": 1, "first": step == 0, "last": step == 15})
            ctx.set(array.words, row)
            ctx.set(array.operands, column)
            await ctx.tick()
        ctx.set(array.step, {"valid": 0, "first": 0, "last": 0})
        drained = []
        for cycle in range(array.LATENCY - 1 + config.drain_cycles):
            assert ctx.get(array.drained_first) == (cycle == array.LATENCY - 1)
            if cycle >= array.LATENCY - 1:
                drained += [ctx.get(array.drained[i]) for i in range(config.drain_words)]
            await ctx.tick()
        assert drained == products

    simulate(array, testbench)
