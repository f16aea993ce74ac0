"""The row state lane against section 5 of docs/numerics.md, in plain integers."""

import random

from paro_config import Config
from paro_config.formats import RESCALE_MAX
from rtl.row_state import RowStateLane
from tests.rtl.simulate import simulate


def rshift(value: int, places: int) -> int:
    return (value + (1 << places >> 1)) >> places


def test_joining_blocks(seed: int) -> None:
    rng = random.Random(seed)
    config = Config()
    lane = RowStateLane(config)
    largest = 2**config.denominator_bits - 2**24
    cases = [(True, -2047, 300, 2047, 5), (False, 2047, 32768, -2047, largest), (False, 5, 1, 5, 9)]
    for _ in range(400):
        spread = rng.choice([1, 3, 20, 70, 2047])
        old = rng.randint(-spread, spread)
        cases.append(
            (
                rng.random() < 0.1,
                max(-2047, min(2047, old + rng.randint(-spread, spread))),
                rng.randint(256, 64 * 512),
                old,
                rng.randint(256, largest),
            )
        )

    async def testbench(ctx) -> None:
        for first, maximum, block_sum, old_maximum, old in cases:
            ctx.set(lane.first, first)
            ctx.set(lane.maximum, maximum)
            ctx.set(lane.block_sum, block_sum)
            ctx.set(lane.old_maximum, old_maximum)
            ctx.set(lane.old_denominator, old)
            await ctx.tick().repeat(lane.LATENCY)
            new_maximum = maximum if first else max(maximum, old_maximum)
            by_old = min(new_maximum - old_maximum, RESCALE_MAX)
            by_new = min(new_maximum - maximum, RESCALE_MAX)
            total = (
                128 * block_sum if first else rshift(old, by_old) + rshift(128 * block_sum, by_new)
            )
            assert ctx.get(lane.new_maximum) == new_maximum
            assert ctx.get(lane.new_denominator) == total
            if not first:
                shift_old, shift = ctx.get(lane.rescale.shift_old), ctx.get(lane.rescale.shift)
                assert (shift if shift_old else 0, 0 if shift_old else shift) == (by_old, by_new)

    simulate(lane, testbench)
