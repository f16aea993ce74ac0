"""The reciprocal unit against exact division."""

import itertools
import random

import pytest

from paro.config import Config
from rtl.core.reciprocal import ReciprocalUnit
from tests.rtl.simulate import simulate


def denominators_of_rows(config: Config, rng: random.Random) -> list[list[int]]:
    """Both ends and some middle of every binade, in rows of few and of many queries."""
    denominators = []
    for exponent in range(15, config.denominator_bits):
        low = 1 << exponent
        denominators += [low, low + 1, 2 * low - 1, rng.randrange(low, 2 * low)]
    rows, sizes = [], itertools.cycle((1, config.block, config.block - 1, 2))
    left = iter(denominators)
    while row := list(itertools.islice(left, next(sizes))):
        rows.append(row)
    return rows


def reciprocal_of(denominator: int) -> tuple[int, int]:
    """Places and reciprocal, by section 6 of docs/numerics.md."""
    exponent = denominator.bit_length() - 1
    return exponent - 15, min(2 ** (exponent + 17) // denominator, 2**17 - 1)


@pytest.mark.parametrize(
    "config",
    [Config(block=64, rows=4, cols=4), Config(block=64, rows=16, cols=16), Config(block=16)],
    ids=lambda config: f"{config.reciprocal_lanes}-of-{config.softmax_lanes}",
)
def test_reciprocals_at_both_ends_of_every_binade(config: Config, seed: int) -> None:
    rng = random.Random(seed)
    unit = ReciprocalUnit(config)
    rows = denominators_of_rows(config, rng)
    given = 0

    async def give(ctx) -> None:
        nonlocal given
        for row in rows:
            padded = row + [0] * (config.block - len(row))
            for chunk in range(config.block // config.softmax_lanes):
                while rng.random() < 0.3:
                    await ctx.tick()
                first = chunk * config.softmax_lanes
                values = padded[first : first + config.softmax_lanes]
                ctx.set(unit.chunks.payload.queries, len(row))
                ctx.set(unit.chunks.payload.chunk, chunk)
                ctx.set(unit.chunks.payload.denominators, values)
                ctx.set(unit.chunks.valid, 1)
                await ctx.tick().until(unit.chunks.ready)
                ctx.set(unit.chunks.valid, 0)
                given += 1

    async def testbench(ctx) -> None:
        got = []
        for row in rows:
            for index in range(len(row)):
                while rng.random() < 0.3:
                    await ctx.tick()
                ctx.set(unit.output.ready, 1)
                (payload,) = await ctx.tick().sample(unit.output.payload).until(unit.output.valid)
                ctx.set(unit.output.ready, 0)
                assert payload.last == (index == len(row) - 1)
                got.append((payload.places, payload.reciprocal))
        # Queries that are absent wait for nobody.
        await ctx.tick().repeat(50 * config.block)
        assert given == len(rows) * config.block // config.softmax_lanes
        assert got == [reciprocal_of(denominator) for row in rows for denominator in row]

    simulate(unit, testbench, give)
