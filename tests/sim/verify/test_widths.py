"""Accumulators hold the largest value that they may reach, in all configurations."""

import random

import pytest

from firmware_model.reference.digits import key_table
from paro.config import PRESETS, Config, formats
from paro.config.config import BLOCKS, HEAD_DIMS, TOKENS_MAX
from sim.verify.widths import Interval, Width, accumulator_widths

#: Registers whose last bit is needed in some configuration: what is reached is no idle bound.
NEEDED = {
    ("PE", "accumulator"),
    ("LogitLane", "score_1"),
    ("LogitLane", "by_key"),
    ("LogitLane", "scaled"),
    ("SoftmaxLane", "block_sum"),
    ("RowStateLane", "new_denominator"),
    ("OutputLane", "total"),
    ("NormalizerLane", "aligned"),
    ("NormalizerLane", "product"),
    ("GroupTotals", "sofar"),
}


def configs(seed: int) -> list[Config]:
    """Every block, head size and array shape; least, most and odd numbers of tokens."""
    rng = random.Random(seed)
    found = list(PRESETS.values())
    for block in BLOCKS:
        for head_dim in HEAD_DIMS:
            for tokens in (64, TOKENS_MAX, rng.randrange(65, TOKENS_MAX)):
                side = rng.choice([size for size in (4, 8, 16, 32, 64) if size <= block])
                cols = min(side, head_dim)
                found.append(
                    Config(rows=side, cols=cols, block=block, head_dim=head_dim, max_tokens=tokens)
                )
    return found


def widths(seed: int) -> list[Width]:
    return [width for config in configs(seed) for width in accumulator_widths(config)]


def test_every_accumulator_holds_what_it_may_reach(seed):
    found = widths(seed)
    assert len(found) > 30 * 25
    assert [width for width in found if not width.fits] == []
    full = {(width.component, width.register) for width in found if not width.spare}
    assert full >= NEEDED


@pytest.mark.parametrize(
    ("name", "less", "register"),
    [
        ("accumulator_bits", 1, "accumulator"),
        ("score_bits", 1, "score_1"),
        ("block_sum_bits", 1, "block_sum"),
        ("denominator_bits", 1, "new_denominator"),
        ("numerator_bits", 1, "total"),
        ("key_scale_shift", 1, "scaled"),
    ],
)
def test_a_bit_less_is_found(name, less, register, monkeypatch):
    """Of a block of 64 x 64 at 131,072 tokens, each with a bit less than `Config` derives."""
    config = PRESETS["ulx3s"]
    value = getattr(config, name)
    monkeypatch.setattr(Config, name, property(lambda self: value - less))
    broken = {width.register for width in accumulator_widths(config) if not width.fits}
    assert register in broken


def test_extremes_are_those_of_sums():
    """The intervals of sums against sums of operands themselves."""
    config = PRESETS["tiny"]
    reached = {(width.component, width.register): width for width in accumulator_widths(config)}
    operands = range(-formats.OPERAND_MAX, formats.OPERAND_MAX + 1)
    largest = max(
        abs(a * int(k)) for bits in (2, 4, 8) for k in key_table(bits)[1:] for a in operands
    )
    assert reached["LogitLane", "score_1"].high == config.head_dim * largest
    tokens = config.max_tokens << formats.P_FRAC
    assert reached["OutputLane", "total"].high == tokens * formats.OPERAND_MAX
    assert reached["RowStateLane", "new_denominator"].high == tokens << formats.DENOMINATOR_FRAC


def test_intervals(seed):
    """Against all members of random ones."""
    rng = random.Random(seed)
    for _ in range(50):
        a, b = (Interval(*sorted(rng.randrange(-40, 40) for _ in "ab")) for _ in "ab")
        places = rng.randrange(5)
        of_a, of_b = (range(each.low, each.high + 1) for each in (a, b))
        for got, values in (
            (a + b, [x + y for x in of_a for y in of_b]),
            (a * b, [x * y for x in of_a for y in of_b]),
            (a.times(places), [x * places for x in of_a]),
            (a.shifted(places), [x >> places for x in of_a]),
            (a.rounded(places), [x + (1 << places >> 1) >> places for x in of_a]),
            (a.hull(b), [*of_a, *of_b]),
        ):
            assert (got.low, got.high) == (min(values), max(values))
