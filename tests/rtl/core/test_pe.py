"""The PE against integer arithmetic, at its extremes and at random."""

import random

from paro.config import Config
from rtl.core.digits import ODD_LANE_SHIFT
from rtl.core.pe import PE
from tests.rtl.simulate import simulate


def is_negative(step, lane: int) -> bool:
    """Sign of a lane's digit in a step, if there is one."""
    digit = None if step is None else step[1][lane]
    return digit is not None and bool(digit[0])


def test_tiles_accumulate_and_drain(seed: int) -> None:
    rng = random.Random(seed)
    pe = PE(Config())
    #: All lanes at the bound that the accumulator is sized for, then random steps.
    tiles = [
        [[(508, 127, 508, 127), [(0, 7)] * 4]] * 16,
        [[(508, 127, 508, 127), [(1, 7)] * 4]] * 16,
    ]
    for length in (1, 2, 5, 16):
        steps = []
        for _ in range(length):
            operands = tuple(rng.randint(-127, 127) for _ in range(4))
            digits = [rng.choice([None, (rng.randint(0, 1), rng.randint(0, 7))]) for _ in range(4)]
            steps.append([operands, digits])
        tiles.append(steps)
    expected = [
        sum(
            operand * (-1) ** digit[0] * 2 ** (digit[1] + ODD_LANE_SHIFT * (lane % 2))
            for operands, digits in tile
            for lane, (operand, digit) in enumerate(zip(operands, digits, strict=True))
            if digit is not None
        )
        for tile in tiles
    ]
    assert max(map(abs, expected)) == 16 * 4 * 127 * 512

    async def testbench(ctx) -> None:
        # Step, accumulate two cycles later, load another one later: tiles without gaps.
        schedule = [
            (operands, digits, i == 0, i == len(tile) - 1)
            for tile in tiles
            for i, (operands, digits) in enumerate(tile)
        ]
        got, paired, previous, before = [], None, None, None
        for now in [*schedule, None, None, None, None]:
            if now is not None:
                ctx.set(pe.operands, {f"lane_{i}": value for i, value in enumerate(now[0])})
                ctx.set(
                    pe.word,
                    [
                        {"nonzero": 0, "negative": 0, "shift": 0}
                        if digit is None
                        else {"nonzero": 1, "negative": digit[0], "shift": digit[1]}
                        for digit in now[1]
                    ],
                )
            ctx.set(
                pe.carries,
                {"product": is_negative(paired, 0), "total": is_negative(previous, 2)},
            )
            ctx.set(
                pe.control,
                {
                    "accumulate": previous is not None,
                    "first": previous is not None and previous[2],
                    "load": before is not None and before[3],
                    "shift": 0,
                },
            )
            await ctx.tick()
            if before is not None and before[3]:
                got.append(ctx.get(pe.drain))
            paired, previous, before = now, paired, previous
        assert got == expected
        ctx.set(pe.control, {"accumulate": 0, "first": 0, "load": 0, "shift": 1})
        ctx.set(pe.drain_in, -4321)
        await ctx.tick()
        assert ctx.get(pe.drain) == -4321

    simulate(pe, testbench)
