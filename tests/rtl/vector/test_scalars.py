"""Scalars of groups, against section 8 of docs/numerics.md in Python's integers."""

import math
import random
from typing import Any

import pytest

from paro.config.vector_formats import NORM_CHANNELS_MAX, PRODUCT_SHIFT_MAX, WORD_MAX
from paro.config.vector_program import Reduce
from rtl.vector.scalars import ScalarUnit
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver, Sender

LANES = 4
DEPTH = NORM_CHANNELS_MAX // LANES


def total(reduce: Reduce, value: int, rng: random.Random, **fields: int) -> dict[str, Any]:
    return {
        "reduce": reduce,
        "bank": rng.randrange(2),
        "index": rng.randrange(64),
        "value": value % (1 << 48),
        **fields,
    }


def sums(rng: random.Random) -> list[tuple[dict[str, Any], Any]]:
    cases = []
    for beats in (1, 2, 3, 288, DEPTH):
        n = beats * LANES
        for value in (n * WORD_MAX, -n * WORD_MAX, 0, 1, -1, n // 4, -n // 4, n // 4 - 1):
            cases.append((beats, value))
        cases += [(beats, rng.randint(-n * WORD_MAX, n * WORD_MAX)) for _ in range(4)]
    return [
        (
            total(Reduce.SUM, value, rng, beats=beats - 1),
            (4 * value + beats * LANES) // (2 * beats * LANES),
        )
        for beats, value in cases
    ]


def squares(rng: random.Random) -> list[tuple[dict[str, Any], Any]]:
    values = [1, 2, 3, 4, 2**32, 2**34 - 1, 2**34, 2**48 - 1, 2**46]
    values += [(rng.randrange(2**16, 2**17)) ** 2 - rng.randrange(2) for _ in range(8)]
    values += [rng.randrange(1, 1 << rng.randrange(1, 49)) for _ in range(24)]
    found = []
    for value in values:
        places = rng.choice((0, 9, 14, 17))
        h = (value.bit_length() - 1) // 2
        root = math.isqrt(value << 2 * (16 - h) if h <= 16 else value >> 2 * (h - 16))
        factor = min(2**33 // root, 2**17 - 1)
        shift = min(17 + h - places, PRODUCT_SHIFT_MAX)
        found.append((total(Reduce.SQUARES, value, rng, places=places), (factor, shift)))
    return found


def largest(rng: random.Random) -> list[tuple[dict[str, Any], Any, int]]:
    values = [0, 1, 2, 127, 128, 129, 255, 256, 2**14, WORD_MAX]
    values += [rng.randrange(1 << rng.randrange(1, 16)) for _ in range(20)]
    found = []
    for value in values:
        for places, bits in ((2, 17), (0, 17), (1, 17), (-7, 8), (-15, 8), (-15, 17), (-3, 17)):
            mantissa = max(value, 1) << places if places >= 0 else -(-value >> -places)
            mantissa = min(max(mantissa, 1), 2**bits - 1)
            reached = mantissa >> places if places >= 0 else mantissa << -places
            e = reached.bit_length() - 1
            scalar = 127 * 2 ** (e + 10) // reached, e + 10
            given = total(Reduce.LARGEST, value, rng, places=places, short=int(bits == 8))
            found.append((given, scalar, mantissa))
    return found


@pytest.mark.parametrize("stall", [0.0, 0.7])
def test_every_total(stall, seed):
    """In a mixed order; each within its latency where nothing stalls."""
    rng = random.Random(seed)
    cases: list[tuple[Any, ...]] = [*sums(rng), *squares(rng), *largest(rng)]
    rng.shuffle(cases)
    unit = ScalarUnit(lanes=LANES, depth=DEPTH, banks=2)
    sender = Sender(unit.totals, [case[0] for case in cases], rng, stall)
    scales = [case[2] for case in cases if len(case) == 3]
    receiver = Receiver(unit.mantissas, rng, stall)
    times: list[int] = []

    async def watch(ctx: Any) -> None:
        waiting, found = list(reversed(cases)), unit.found
        for cycle in range(100 * len(cases)):
            if not waiting:
                return
            _, _, done, mean, index, middle, factor, shift = await ctx.tick().sample(
                *(unit.done, found.mean, found.index),
                *(found.middle, found.factor, found.shift),
            )
            if done:
                given, wanted, *_ = waiting.pop()
                is_sum = given["reduce"] == Reduce.SUM
                assert (middle if is_sum else (factor, shift)) == wanted, given
                assert (index, mean) == (given["index"], is_sum)
                times.append(cycle)
        raise AssertionError(f"{len(waiting)} totals without scalars")

    async def take(ctx: Any) -> None:
        await receiver.receive(ctx, len(scales))

    simulate(unit, watch, take, sender.send)
    assert list(receiver.items) == scales
    if not stall:
        for (given, *_), before, after in zip(cases[1:], times, times[1:], strict=False):
            most = {
                Reduce.SUM: unit.MEAN_LATENCY,
                Reduce.SQUARES: unit.ROOT_LATENCY,
                Reduce.LARGEST: unit.LARGEST_LATENCY + max(0, -given.get("places", 0)),
            }[given["reduce"]]
            # Its sender needs a cycle to offer the next one.
            assert after - before <= most + 2, given
