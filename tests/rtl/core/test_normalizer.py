"""The normaliser: a lane against section 6 of docs/numerics.md, the whole under stalls."""

import random
from collections import deque
from typing import Any

import pytest

from paro.config import PRESETS, Config
from rtl.core.blocks import SLOTS
from rtl.core.normalizer import Normalizer, NormalizerLane
from rtl.core.output_accumulator import OutputAccumulator
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver


def normalised(numerator: int, denominator: int) -> tuple[int, int, int]:
    """Places and reciprocal of a denominator, and the output word."""
    exponent = denominator.bit_length() - 1
    reciprocal = min(2 ** (exponent + 17) // denominator, 2**17 - 1)
    aligned = 2 * numerator >> exponent - 15
    return exponent - 15, reciprocal, min(aligned * reciprocal + 2**17 >> 18, 2**15 - 1)


@pytest.mark.parametrize("config", [Config(), PRESETS["tiny"]])
def test_lane(config: Config, seed: int) -> None:
    """Numerators up to their denominators, of either sign: the largest word is 2^15 - 1."""
    rng = random.Random(seed)
    lane = NormalizerLane(config)
    cases = []
    for exponent in range(15, config.denominator_bits):
        low = 1 << exponent
        for denominator in (low, low + 1, 2 * low - 1, rng.randrange(low, 2 * low)):
            largest = min(denominator, 2 ** (config.numerator_bits - 1) - 1)
            numerators = (largest, largest - 1, 0, rng.randrange(largest))
            cases += [(sign * value, denominator) for value in numerators for sign in (1, -1)]
    got: list[int] = []

    async def testbench(ctx: Any) -> None:
        # One a cycle: the numerator, its reciprocal two cycles later, the word at the end.
        results = [normalised(*case) for case in cases]
        for cycle in range(len(cases) + lane.LATENCY):
            if cycle >= lane.LATENCY:
                got.append(ctx.get(lane.word))
            if cycle < len(cases):
                ctx.set(lane.numerator, cases[cycle][0])
                ctx.set(lane.places, results[cycle][0])
            if 2 <= cycle < len(cases) + 2:
                ctx.set(lane.reciprocal, results[cycle - 2][1])
            await ctx.tick()

    simulate(lane, testbench)
    want = [normalised(*case)[2] for case in cases]
    assert max(want) == 2**15 - 1
    assert min(want) == -(2**15)
    assert got == want


@pytest.mark.parametrize(
    "config", [PRESETS["tiny"], Config(rows=4, cols=16, block=16, head_dim=32)]
)
@pytest.mark.parametrize("slow", ["nothing", "o", "queries", "groups", "memory", "all"])
def test_rows(config: Config, slow: str, seed: int) -> None:
    """Every word once and in order; none is read before it is complete or while another reads."""
    rng = random.Random(seed)
    normalizer = Normalizer(config)
    words, parts = config.output_words, config.head_dim // config.output_words
    slowest = {"o": 0.2, "queries": 0.1, "groups": 0.05, "memory": 0.3}
    rates = {name: rate if slow in (name, "all") else 1.0 for name, rate in slowest.items()}
    # Groups of R queries that are whole and that are not, in both slots.
    rows = [config.rows + 1, config.rows - 1, config.block, 1, config.block - 2]
    denominators = [[rng.randrange(2**15, 2**20) for _ in range(count)] for count in rows]
    numerators = [
        [[[rng.randint(-low, low) for _ in range(words)] for _ in range(parts)] for low in row]
        for row in denominators
    ]
    want = [
        [normalised(value, denominator)[2] for value in beat]
        for row, beats in zip(denominators, numerators, strict=True)
        for denominator, query in zip(row, beats, strict=True)
        for beat in query
    ]
    receiver = Receiver(normalizer.o, rng, 1 - rates["o"])
    done, reads = [], []

    async def take(ctx: Any) -> None:
        await receiver.receive(ctx, len(want))

    async def testbench(ctx: Any) -> None:
        queries = deque(
            (index == len(row) - 1, *normalised(0, denominator)[:2])
            for row in denominators
            for index, denominator in enumerate(row)
        )
        groups = deque(
            (row, group)
            for row, count in enumerate(rows)
            for group in range(-(-count // config.rows))
        )
        complete: set[tuple[int, int]] = set()
        arriving: deque[Any] = deque([None] * OutputAccumulator.READ_LATENCY)
        row, sent, offered = 0, 0, False
        while len(receiver.items) < len(want):
            # A row's groups are complete once the slot of the row before the last is free.
            group = bool(groups) and groups[0][0] < row + SLOTS and rng.random() < rates["groups"]
            ctx.set(normalizer.groups_complete, group)
            offered = bool(queries) and (offered or rng.random() < rates["queries"])
            ctx.set(normalizer.queries.valid, offered)
            if queries:
                last, places, reciprocal = queries[0]
                ctx.set(
                    normalizer.queries.payload,
                    {"last": last, "places": places, "reciprocal": reciprocal},
                )
            free = rng.random() < rates["memory"]
            ctx.set(normalizer.read_ready, free)
            beat = arriving.popleft()
            if beat is None:
                beat = [rng.getrandbits(config.numerator_bits - 1) for _ in range(words)]
            ctx.set(normalizer.numerators, beat)
            (
                _,
                _,
                read,
                slot,
                query,
                part,
                taken,
                row_done,
                idle,
                valid,
                ready,
            ) = await ctx.tick().sample(
                normalizer.read,
                normalizer.read_slot,
                normalizer.read_query,
                normalizer.read_part,
                normalizer.queries.ready,
                normalizer.row_done,
                normalizer.idle,
                normalizer.o.valid,
                normalizer.o.ready,
            )
            assert idle == (len(reads) == sent)
            sent += valid and ready
            arriving.append(None)
            if read:
                assert free, "another reads"
                assert offered, "without a reciprocal"
                assert slot == row % SLOTS
                assert (row, query // config.rows) in complete, "not complete"
                reads.append((row, query, part))
                arriving[-1] = numerators[row][query][part]
            if group:
                complete.add(groups.popleft())
            if taken and offered:
                queries.popleft()
                offered = False
            if row_done:
                done.append(row)
                row += 1

    simulate(normalizer, testbench, take)
    assert [list(item) for item in receiver.items] == want
    assert done == list(range(len(rows)))
    assert reads == [
        (row, query, part)
        for row, count in enumerate(rows)
        for query in range(count)
        for part in range(parts)
    ]
