"""The block scheduler: what it issues and asks for, under random stalls."""

import random

import pytest

from paro.config import Config
from paro.config.formats import Operand
from rtl.core.blocks import SLOTS
from rtl.core.scheduler import BlockScheduler
from rtl.interfaces import CODES_PER_BEAT
from tests.rtl.simulate import simulate


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
    config = Config(rows=4, cols=4, block=16, head_dim=32)
    scheduler = BlockScheduler(config)
    rows, columns = -(-query_tokens // 16), -(-key_tokens // 16)
    codes = [
        [rng.randint(1, 3) if rng.random() < density else 0 for _ in range(columns)]
        for _ in range(rows)
    ]
    for row in codes:
        row[rng.randrange(columns)] |= 1
    beats = []
    for row in codes:
        padded = row + [0] * (-columns % CODES_PER_BEAT)
        beats += [padded[i : i + CODES_PER_BEAT] for i in range(0, len(padded), CODES_PER_BEAT)]
    fetches, blocks = [], []
    for i, row in enumerate(codes):
        fetches.append((Operand.Q, i))
        live = [j for j, code in enumerate(row) if code]
        for j in live:
            fetches += [(Operand.K, j), (Operand.V, j)]
            keys = min(16, key_tokens - 16 * j)
            queries = min(16, query_tokens - 16 * i)
            blocks.append((row[j], j == live[0], j == live[-1], keys, queries))
    got_fetches, got_blocks, held = [], [], dict.fromkeys(Operand, 0)

    async def give_codes(ctx) -> None:
        for beat in beats:
            while rng.random() < 0.3:
                await ctx.tick()
            ctx.set(scheduler.codes.payload, beat)
            ctx.set(scheduler.codes.valid, 1)
            await ctx.tick().until(scheduler.codes.ready)
            ctx.set(scheduler.codes.valid, 0)

    async def take_blocks(ctx) -> None:
        while True:
            _, _, valid, payload = await ctx.tick().sample(
                scheduler.blocks.valid, scheduler.blocks.payload
            )
            if valid:
                got_blocks.append(
                    (payload.code, payload.first, payload.last, payload.keys, payload.queries)
                )

    async def release(ctx) -> None:
        while True:
            rates = {operand: 0.02 if operand == slow else 0.3 for operand in Operand}
            free = [o for o, rate in rates.items() if held[o] and rng.random() < rate]
            ctx.set(scheduler.release, sum(1 << operand for operand in free))
            for operand in free:
                held[operand] -= 1
            await ctx.tick()

    async def testbench(ctx) -> None:
        ctx.set(scheduler.command.payload, {"query_tokens": query_tokens, "key_tokens": key_tokens})
        ctx.set(scheduler.command.valid, 1)
        await ctx.tick()
        ctx.set(scheduler.command.valid, 0)
        limit = 1000 + 100 * len(fetches)
        while len(got_fetches) < len(fetches) or len(got_blocks) < len(blocks):
            limit -= 1
            assert limit, "nothing is asked for any more"
            ctx.set(scheduler.fetch.ready, rng.random() < 0.7)
            _, _, valid, ready, operand, block, loads = await ctx.tick().sample(
                scheduler.fetch.valid,
                scheduler.fetch.ready,
                scheduler.fetch.payload.operand,
                scheduler.fetch.payload.block,
                scheduler.load_valid,
            )
            if valid and ready:
                got_fetches.append((Operand(operand), block))
                held[Operand(operand)] += 1
                assert held[Operand(operand)] <= SLOTS, "fetched without room"
            assert loads == (1 << operand if valid and ready else 0)
        await ctx.tick().repeat(5)
        assert ctx.get(scheduler.idle)

    simulate(scheduler, testbench, give_codes, take_blocks, release)
    assert got_fetches == fetches
    assert got_blocks == blocks


@pytest.mark.parametrize("skipped", [16, 160])
def test_skipped_blocks_cost_no_cycles_of_their_own(skipped: int) -> None:
    """Sixteen skipped codes pass in the one cycle of their beat."""
    config = Config(rows=4, cols=4, block=16, head_dim=32)
    issued_at: dict[int, list[int]] = {}
    for gap in (0, skipped):
        scheduler = BlockScheduler(config)
        columns = gap + 2
        codes = [1] + [0] * gap + [1] + [0] * (-columns % CODES_PER_BEAT)
        beats = [codes[i : i + CODES_PER_BEAT] for i in range(0, len(codes), CODES_PER_BEAT)]
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
