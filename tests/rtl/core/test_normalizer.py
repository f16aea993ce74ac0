"""The normaliser: a lane against sections 6, 7 of docs/numerics.md, the whole under stalls."""

import random
from collections import deque
from typing import Any

import pytest

from paro.config import PRESETS, Config
from paro.config.formats import OUT_SHIFTS, SUM_SHIFT_MAX
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


def scaled(total: int, sum_shift: int, scale: int, out_shift: int, bias: int) -> int:
    """Word of a layer."""
    product = (total >> sum_shift) * scale
    word = (product + (1 << out_shift - 1) >> out_shift) + bias
    return max(-(2**15) + 1, min(word, 2**15 - 1))


@pytest.mark.parametrize("config", [Config(), PRESETS["tiny"]])
def test_lane_of_a_layer(config: Config, seed: int) -> None:
    """Every input comes in the cycle of its stage, and other ones in the cycles around it."""
    rng = random.Random(seed)
    lane = NormalizerLane(config)
    cases = []
    for sum_shift in range(SUM_SHIFT_MAX + 1):
        largest = (2**17 << sum_shift) - 1
        for index, out_shift in enumerate(OUT_SHIFTS):
            for total in (largest, -largest - 1, 0, rng.randint(-largest, largest)):
                scale = rng.choice((2**17 - 1, 0, rng.randrange(2**17)))
                bias = rng.choice((2**15 - 1, -(2**15) + 1, 0, rng.randrange(-99, 99)))
                cases.append((total, sum_shift, scale, out_shift, bias, index))
    rng.shuffle(cases)
    got: list[int] = []

    async def testbench(ctx: Any) -> None:
        def give(cycle: int, later: int, port: Any, value: Any) -> None:
            if 0 <= cycle - later < len(cases):
                ctx.set(port, value(cases[cycle - later]))

        for cycle in range(len(cases) + lane.LAYER_LATENCY):
            if cycle >= lane.LAYER_LATENCY:
                got.append(ctx.get(lane.layer_word))
            give(cycle, 0, lane.numerator, lambda case: case[0])
            give(cycle, 0, lane.places, lambda case: case[1] + 1)
            give(cycle, 2, lane.reciprocal, lambda case: case[2])
            give(cycle, 3, lane.out_shift, lambda case: case[5])
            give(cycle, 4, lane.bias, lambda case: case[4])
            await ctx.tick()

    simulate(lane, testbench)
    want = [scaled(*case[:5]) for case in cases]
    assert {2**15 - 1, -(2**15) + 1} < set(want)
    assert got == want


class Bench:
    """Everything around the normaliser; checks what it reads, and when."""

    def __init__(self, config: Config, rates: dict[str, float], rng: random.Random):
        self.config, self.rates, self.rng = config, rates, rng
        self.words, self.parts = config.output_words, config.head_dim // config.output_words
        self.normalizer = Normalizer(config)
        # Groups of R queries that are whole and that are not, in both slots.
        self.rows = [config.rows + 1, config.rows - 1, config.block, 1, config.block - 2]
        self.denominators = [[rng.randrange(2**15, 2**20) for _ in range(n)] for n in self.rows]
        self.numerators = [
            [[self.random_beat(low) for _ in range(self.parts)] for low in row]
            for row in self.denominators
        ]
        self.queries = deque(
            (index == len(row) - 1, *normalised(0, denominator)[:2])
            for row in self.denominators
            for index, denominator in enumerate(row)
        )
        self.groups = deque(
            (row, group)
            for row, count in enumerate(self.rows)
            for group in range(-(-count // config.rows))
        )
        self.receiver = Receiver(self.normalizer.o, rng, 1 - rates["o"])
        self.complete: set[tuple[int, int]] = set()
        self.arriving: deque[Any] = deque([None] * OutputAccumulator.READ_LATENCY)
        self.reads: list[tuple[int, int, int]] = []
        self.done: list[int] = []
        self.sent = 0
        self.offered = False

    def random_beat(self, low: int) -> list[int]:
        return [self.rng.randint(-low, low) for _ in range(self.words)]

    def happens(self, name: str) -> bool:
        return self.rng.random() < self.rates[name]

    def expected(self) -> list[list[int]]:
        """All words, in their order."""
        return [
            [normalised(value, denominator)[2] for value in beat]
            for row, beats in zip(self.denominators, self.numerators, strict=True)
            for denominator, query in zip(row, beats, strict=True)
            for beat in query
        ]

    def drive(self, ctx: Any) -> tuple[bool, bool]:
        """Set the inputs of a cycle; returns whether a group completes and whether memory is free.

        A row's groups are complete once the slot of the row before the last is free.
        """
        normalizer, config = self.normalizer, self.config
        groups, row = self.groups, len(self.done)
        group = bool(groups) and groups[0][0] < row + SLOTS and self.happens("groups")
        ctx.set(normalizer.groups_complete, group)
        self.offered = bool(self.queries) and (self.offered or self.happens("queries"))
        ctx.set(normalizer.queries.valid, self.offered)
        if self.queries:
            last, places, reciprocal = self.queries[0]
            ctx.set(
                normalizer.queries.payload,
                {"last": last, "places": places, "reciprocal": reciprocal},
            )
        free, turn = self.happens("memory"), self.happens("turn")
        ctx.set(normalizer.read_ready, free)
        ctx.set(normalizer.turn, turn)
        beat = self.arriving.popleft()
        if beat is None:
            beat = [self.rng.getrandbits(config.numerator_bits - 1) for _ in range(self.words)]
        ctx.set(normalizer.numerators, beat)
        return group, free and turn

    def check_read(self, query: int, part: int, free: bool) -> None:
        row = len(self.done)
        assert free, "another reads, or a layer has its turn"
        assert self.offered, "without a reciprocal"
        assert (row, query // self.config.rows) in self.complete, "not complete"
        self.reads.append((row, query, part))
        self.arriving[-1] = self.numerators[row][query][part]

    async def run(self, ctx: Any) -> None:
        normalizer = self.normalizer
        while len(self.receiver.items) < sum(self.rows) * self.parts:
            group, free = self.drive(ctx)
            _, _, read, query, part, *others = await ctx.tick().sample(
                normalizer.read,
                normalizer.read_query,
                normalizer.read_part,
                normalizer.queries.ready,
                normalizer.row_done,
                normalizer.idle,
                normalizer.o.valid,
                normalizer.o.ready,
            )
            taken, row_done, idle, valid, ready = others
            assert idle == (len(self.reads) == self.sent)
            self.sent += valid and ready
            self.arriving.append(None)
            if read:
                self.check_read(query, part, free)
            if group:
                self.complete.add(self.groups.popleft())
            if taken and self.offered:
                self.queries.popleft()
                self.offered = False
            if row_done:
                self.done.append(len(self.done))

    async def take(self, ctx: Any) -> None:
        await self.receiver.receive(ctx, sum(self.rows) * self.parts)


@pytest.mark.parametrize(
    "config", [PRESETS["tiny"], Config(rows=4, cols=16, block=16, head_dim=32)]
)
@pytest.mark.parametrize("slow", ["nothing", "o", "queries", "groups", "memory", "turn", "all"])
def test_rows(config: Config, slow: str, seed: int) -> None:
    """Every word once and in order; none is read before it is complete or while another reads."""
    slowest = {"o": 0.2, "queries": 0.1, "groups": 0.05, "memory": 0.3, "turn": 0.3}
    rates = {name: rate if slow in (name, "all") else 1.0 for name, rate in slowest.items()}
    bench = Bench(config, rates, random.Random(seed))
    simulate(bench.normalizer, bench.run, bench.take)
    assert [list(item) for item in bench.receiver.items] == bench.expected()
    assert bench.done == list(range(len(bench.rows)))
    assert bench.reads == [
        (row, query, part)
        for row, count in enumerate(bench.rows)
        for query in range(count)
        for part in range(bench.parts)
    ]
