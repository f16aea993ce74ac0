"""The reciprocal unit against exact division."""

import random

from paro_config import Config
from rtl.reciprocal import ReciprocalUnit
from tests.rtl.simulate import simulate


def test_reciprocals_at_both_ends_of_every_binade(seed: int) -> None:
    rng = random.Random(seed)
    config = Config(block=16, rows=4, cols=4)
    unit = ReciprocalUnit(config)
    denominators = []
    for exponent in range(15, config.denominator_bits):
        low = 1 << exponent
        denominators += [low, low + 1, 2 * low - 1, rng.randrange(low, 2 * low)]
    rows = [denominators[i : i + 16] for i in range(0, len(denominators), 16)]

    async def memory(ctx) -> None:
        row = 0
        while True:
            _, _, query, done = await ctx.tick().sample(unit.query, unit.rows.ready)
            ctx.set(unit.denominator, rows[row][query] if query < len(rows[row]) else 0)
            row = min(row + bool(done), len(rows) - 1)

    async def testbench(ctx) -> None:
        got = []
        for row in rows:
            ctx.set(unit.rows.payload, {"queries": len(row), "slot": len(got) // 16 % 2})
            ctx.set(unit.rows.valid, 1)
            for index in range(len(row)):
                while rng.random() < 0.3:
                    await ctx.tick()
                ctx.set(unit.output.ready, 1)
                (payload,) = await ctx.tick().sample(unit.output.payload).until(unit.output.valid)
                ctx.set(unit.output.ready, 0)
                assert payload.query == index
                assert payload.last == (index == len(row) - 1)
                got.append((payload.places, payload.reciprocal))
        expected = []
        for denominator in denominators:
            exponent = denominator.bit_length() - 1
            reciprocal = min(2 ** (exponent + 17) // denominator, 2**17 - 1)
            expected.append((exponent - 15, reciprocal))
        assert got == expected

    simulate(unit, testbench, memory)
