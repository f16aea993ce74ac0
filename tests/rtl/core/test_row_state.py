"""The row state lane against section 5 of docs/numerics.md, in plain integers."""

import random

from paro.config import PRESETS, Config
from paro.config.formats import RESCALE_MAX
from rtl.core.blocks import SLOTS
from rtl.core.row_state import RowState, RowStateLane
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver


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


def test_denominators_wait_for_four_rows(seed: int) -> None:
    """Of the rows in the two output slots and of two that are ahead, while nobody takes them."""
    rng = random.Random(seed)
    config = PRESETS["tiny"]
    state = RowState(config)
    lanes, chunks = config.softmax_lanes, config.block // config.softmax_lanes
    rows = 2 * SLOTS
    want = []

    async def testbench(ctx) -> None:
        for row in range(rows):
            queries = rng.randint(1, config.block)
            for chunk in range(chunks):
                sums = [rng.randint(256, 16 * 512) for _ in range(lanes)]
                want.append((queries, chunk, [128 * value for value in sums]))
                ctx.set(state.chunk, chunk)
                await ctx.tick()
                ctx.set(state.update, 1)
                ctx.set(state.slot, row % SLOTS)
                ctx.set(state.first, 1)
                ctx.set(state.last, 1)
                ctx.set(state.queries, queries)
                ctx.set(state.maxima, [rng.randint(-2047, 2047) for _ in range(lanes)])
                ctx.set(state.block_sums, sums)
                await ctx.tick()
                ctx.set(state.update, 0)
            await ctx.tick().repeat(RowStateLane.LATENCY + 2)
        receiver = Receiver(state.chunks, rng, 0.3)
        await receiver.receive(ctx, len(want), limit=20 * len(want))
        got = [(item.queries, item.chunk, list(item.denominators)) for item in receiver.items]
        assert got == want

    simulate(state, testbench)
