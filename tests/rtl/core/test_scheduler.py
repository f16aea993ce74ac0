"""The block scheduler: what it issues and asks for, under random stalls."""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from paro.config import Config
from paro.config.formats import Kind, Operand
from rtl.core.blocks import SLOTS
from rtl.core.scheduler import BlockScheduler
from rtl.core.superblock_scheduler import SuperblockScheduler
from rtl.interfaces import CODES_PER_BEAT
from tests.rtl.simulate import simulate
from tests.rtl.streams import Sender

CONFIG = Config(rows=4, cols=4, block=16, head_dim=32)


def random_codes(rng: random.Random, rows: int, columns: int, density: float) -> list[list[int]]:
    """Codes of some block rows, each with a live block."""
    codes = [
        [rng.randint(1, 3) if rng.random() < density else 0 for _ in range(columns)]
        for _ in range(rows)
    ]
    for row in codes:
        row[rng.randrange(columns)] |= 1
    return codes


def beats_of(row: list[int]) -> list[list[int]]:
    """Codes of a block row as they are sent."""
    padded = row + [0] * (-len(row) % CODES_PER_BEAT)
    return [padded[i : i + CODES_PER_BEAT] for i in range(0, len(padded), CODES_PER_BEAT)]


@dataclass
class Bench:
    """Everything around the scheduler: codes and stalls at random, one operand's buffers slow."""

    query_tokens: int
    key_tokens: int
    slow: Operand
    rng: random.Random
    config: Config = CONFIG
    fetches: list[tuple[Operand, int]] = field(default_factory=list)
    blocks: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        superblocks = self.config.query_rows > 1
        self.scheduler = (SuperblockScheduler if superblocks else BlockScheduler)(self.config)
        self.held = dict.fromkeys(Operand, 0)
        self.query_slots: list[int] = []  # that are not free
        self.slots = {Operand.Q: self.config.row_slots, Operand.K: SLOTS, Operand.V: SLOTS}

    def expected(
        self, codes: list[list[int]]
    ) -> tuple[list[tuple[Operand, int]], list[tuple[int, ...]]]:
        """Fetches; blocks with their code, first and last of the row, keys and queries."""
        fetches: list[tuple[Operand, int]] = []
        blocks: list[tuple[int, ...]] = []
        for i, row in enumerate(codes):
            fetches.append((Operand.Q, i))
            live = [j for j, code in enumerate(row) if code]
            for j in live:
                fetches += [(Operand.K, j), (Operand.V, j)]
                keys = min(16, self.key_tokens - 16 * j)
                queries = min(16, self.query_tokens - 16 * i)
                blocks.append((row[j], j == live[0], j == live[-1], keys, queries))
        return fetches, blocks

    async def take_blocks(self, ctx: Any) -> None:
        blocks = self.scheduler.blocks
        while True:
            _, _, valid, payload = await ctx.tick().sample(blocks.valid, blocks.payload)
            if valid:
                self.blocks.append(
                    (payload.code, payload.first, payload.last, payload.keys, payload.queries)
                )

    async def release(self, ctx: Any) -> None:
        while True:
            rates = {operand: 0.02 if operand == self.slow else 0.3 for operand in Operand}
            free = [o for o, rate in rates.items() if self.held[o] and self.rng.random() < rate]
            ctx.set(self.scheduler.release, sum(1 << operand for operand in free))
            for operand in free:
                self.held[operand] -= 1
            if Operand.Q in free:
                slot = self.query_slots.pop(self.rng.randrange(len(self.query_slots)))
                ctx.set(self.scheduler.released_query_slot, slot)
            await ctx.tick()

    def take_fetch(self, operand: Operand, block: int, slot: int) -> None:
        self.fetches.append((operand, block))
        self.held[operand] += 1
        assert self.held[operand] <= self.slots[operand], "fetched without room"
        if operand == Operand.Q:
            assert slot not in self.query_slots, "fetched into a slot that is not free"
            self.query_slots.append(slot)

    async def take_fetches(self, ctx: Any, number: int, blocks: int) -> None:
        """Give the command; take fetches until there are ``number``, and as many blocks."""
        scheduler = self.scheduler
        ctx.set(
            scheduler.command.payload,
            {"query_tokens": self.query_tokens, "key_tokens": self.key_tokens},
        )
        ctx.set(scheduler.command.valid, 1)
        await ctx.tick()
        ctx.set(scheduler.command.valid, 0)
        limit = 1000 + 100 * number
        while len(self.fetches) < number or len(self.blocks) < blocks:
            limit -= 1
            assert limit, "nothing is asked for any more"
            ctx.set(scheduler.fetch.ready, self.rng.random() < 0.7)
            _, _, valid, ready, operand, block, loads, slot = await ctx.tick().sample(
                scheduler.fetch.valid,
                scheduler.fetch.ready,
                scheduler.fetch.payload.operand,
                scheduler.fetch.payload.block,
                scheduler.load_valid,
                scheduler.load.slot,
            )
            if valid and ready:
                self.take_fetch(Operand(operand), block, slot)
            assert loads == (1 << operand if valid and ready else 0)
        await ctx.tick().repeat(5)
        assert ctx.get(scheduler.idle)


@pytest.mark.parametrize("slow", Operand)
@pytest.mark.parametrize(
    ("query_tokens", "key_tokens", "density"),
    [(16, 16, 1.0), (40, 300, 0.5), (17, 1000, 0.03), (33, 530, 1.0)],
)
def test_live_blocks_in_order(
    query_tokens: int, key_tokens: int, density: float, slow: Operand, seed: int
) -> None:
    """One operand's buffers are free much later than the others'."""
    rng = random.Random(seed)
    codes = random_codes(rng, -(-query_tokens // 16), -(-key_tokens // 16), density)
    bench = Bench(query_tokens, key_tokens, slow, rng)
    fetches, blocks = bench.expected(codes)
    beats = [beat for row in codes for beat in beats_of(row)]
    sender = Sender(bench.scheduler.codes, beats, rng, 0.3)

    async def testbench(ctx: Any) -> None:
        await bench.take_fetches(ctx, len(fetches), len(blocks))

    simulate(bench.scheduler, testbench, sender.send, bench.take_blocks, bench.release)
    assert bench.fetches == fetches
    assert bench.blocks == blocks


@pytest.mark.parametrize("skipped", [16, 160])
def test_skipped_blocks_cost_no_cycles_of_their_own(skipped: int) -> None:
    """Sixteen skipped codes pass in the one cycle of their beat."""
    issued_at: dict[int, list[int]] = {}
    for gap in (0, skipped):
        scheduler = BlockScheduler(CONFIG)
        columns = gap + 2
        beats = beats_of([1] + [0] * gap + [1])
        issued_at[gap] = []

        async def release_at_once(ctx, scheduler=scheduler) -> None:
            while True:
                _, _, loaded = await ctx.tick().sample(scheduler.load_valid)
                ctx.set(scheduler.release, loaded)

        async def give_codes(ctx, scheduler=scheduler, beats=beats) -> None:
            ctx.set(scheduler.codes.valid, 1)
            for beat in beats:
                ctx.set(scheduler.codes.payload, beat)
                await ctx.tick().until(scheduler.codes.ready)

        async def testbench(
            ctx, scheduler=scheduler, columns=columns, issued=issued_at[gap]
        ) -> None:
            ctx.set(scheduler.fetch.ready, 1)
            ctx.set(scheduler.command.payload, {"query_tokens": 16, "key_tokens": 16 * columns})
            ctx.set(scheduler.command.valid, 1)
            await ctx.tick()
            ctx.set(scheduler.command.valid, 0)
            for cycle in range(100):
                _, _, valid = await ctx.tick().sample(scheduler.blocks.valid)
                if valid:
                    issued.append(cycle)

        simulate(scheduler, testbench, release_at_once, give_codes)
    assert len(issued_at[0]) == len(issued_at[skipped]) == 2
    assert issued_at[skipped][-1] - issued_at[0][-1] <= skipped // CODES_PER_BEAT


Expected = tuple[list[tuple[int, ...]], list[tuple[int, ...]], list[tuple[int, ...]]]


def expected_of_layer(
    config: Config, codes: list[list[int]], tokens: int, outputs: int
) -> Expected:
    """Fetches, blocks and rows of a layer with shifts 7 and 2."""
    fetches: list[tuple[int, ...]] = []
    blocks: list[tuple[int, ...]] = []
    rows: list[tuple[int, ...]] = []
    for token_block in range(-(-tokens // config.layer_tokens)):
        queries = min(config.layer_tokens, tokens - token_block * config.layer_tokens)
        for output_block, row in enumerate(codes):
            rows.append((queries, 7, 2))
            live = [chunk for chunk, code in enumerate(row) if code]
            keys = min(config.block, outputs - output_block * config.block)
            for chunk in live:
                fetches.append((Operand.Q, token_block, chunk))
                fetches.append((Operand.K, output_block, chunk))
                ends = chunk == live[0], chunk == live[-1]
                blocks.append((row[chunk], *ends, 1, keys, queries))
    return fetches, blocks, rows


@pytest.mark.parametrize("slow", [Operand.Q, Operand.K])
@pytest.mark.parametrize(
    "config", [CONFIG, Config(rows=4, cols=4, block=64, head_dim=32, max_tokens=256)]
)
@pytest.mark.parametrize("chunks", [1, 16, 40])
def test_tiles_of_a_layer_in_order(config: Config, chunks: int, slow: Operand, seed: int) -> None:
    """For each block of tokens, for each output block, its live chunks: inputs, then weights."""
    rng = random.Random(seed)
    tokens, outputs = 2 * config.layer_tokens + 3, config.block + 5
    codes = random_codes(rng, 2, chunks, 0.4)
    expected = expected_of_layer(config, codes, tokens, outputs)
    bench = Bench(tokens, outputs, slow, rng, config)
    scheduler = bench.scheduler
    beats = [beat for _ in range(3) for row in codes for beat in beats_of(row)]
    got: Expected = ([], [], [])

    async def testbench(ctx: Any) -> None:
        command = {"query_tokens": tokens, "key_tokens": outputs, "kind": Kind.LINEAR}
        command |= {"chunks": chunks, "sum_shift": 7, "out_shift": 2}
        ctx.set(scheduler.command.payload, command)
        ctx.set(scheduler.command.valid, 1)
        await ctx.tick()
        ctx.set(scheduler.command.valid, 0)
        for _ in range(1000 + 200 * len(expected[0])):
            ctx.set(scheduler.fetch.ready, rng.random() < 0.7)
            _, _, loads, slot, fetch, block_valid, block, row_valid, row = await ctx.tick().sample(
                scheduler.load_valid,
                scheduler.load.slot,
                scheduler.fetch.payload,
                scheduler.blocks.valid,
                scheduler.blocks.payload,
                scheduler.layer_rows.valid,
                scheduler.layer_rows.payload,
            )
            if loads:
                got[0].append((fetch.operand, fetch.block, fetch.chunk))
                bench.take_fetch(Operand(fetch.operand), fetch.block, slot)
            if block_valid:
                ends = block.first, block.last
                got[1].append((block.code, *ends, block.linear, block.keys, block.queries))
            if row_valid:
                got[2].append((row.tokens, row.sum_shift, row.out_shift))
            if ctx.get(scheduler.idle):
                return
        raise AssertionError("it does not end")

    send = Sender(scheduler.codes, beats, rng, 0.3).send
    simulate(scheduler, testbench, send, bench.release)
    assert got == expected
