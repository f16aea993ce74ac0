"""Fetch merge: one order of all cores' fetches, each block of K and V once, at random."""

import random

import pytest

from firmware_model.host.superblocks import deal
from paro.config import Config
from paro.config.formats import Operand
from rtl.accelerator.fetch_merge import FetchMerge
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver, Sender

Fetch = tuple[Operand, int, int]  # operand, block, superblock


def fetches_of(config: Config, live: list[list[int]], rows: list[int]) -> list[Fetch]:
    """What a core asks for: Q with a row's first block, K and V of each column with a live one."""
    fetches: list[Fetch] = []
    for superblock, first in enumerate(range(0, len(rows), config.query_rows)):
        begun = set()
        own = list(enumerate(rows))[first : first + config.query_rows]
        for column in sorted({column for _, row in own for column in live[row]}):
            loaded = False
            for number, row in own:
                if column not in live[row]:
                    continue
                if row not in begun:
                    begun.add(row)
                    fetches.append((Operand.Q, number, superblock))
                if not loaded:
                    loaded = True
                    fetches.append((Operand.K, column, superblock))
            fetches.append((Operand.V, column, superblock))
    return fetches


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize(("cores", "query_rows", "rows"), [(2, 1, 7), (4, 2, 19), (8, 1, 3)])
def test_each_block_is_fetched_once(cores, query_rows, rows, stall, seed) -> None:
    rng = random.Random(seed)
    config = Config(rows=4, cols=4, block=16, head_dim=32, cores=cores, query_rows=query_rows)
    merge = FetchMerge(config)
    live = [sorted(rng.sample(range(24), rng.randrange(1, 9))) for _ in range(rows)]
    shares = [share.tolist() for share in deal(rows, config)]
    wanted = [fetches_of(config, live, share) for share in shares]
    expected = expected_loads(config, live)
    run_head(merge, wanted, rng, stall, expected, shares, rows + len(expected))


def expected_loads(config: Config, live: list[list[int]]) -> list[tuple[Operand, int, int]]:
    """Operand, block and mask of cores of each load of K and V, in order."""
    shares = deal(len(live), config)
    loads = []
    for first in range(0, len(live), config.wave_rows):
        wave = range(first, min(first + config.wave_rows, len(live)))
        for column in sorted({column for row in wave for column in live[row]}):
            mask = sum(
                1 << core
                for core, share in enumerate(shares)
                if any(column in live[row] for row in share.tolist() if row in wave)
            )
            loads += [(Operand.K, column, mask), (Operand.V, column, mask)]
    return loads


def run_head(merge, wanted, rng, stall, expected, shares, count) -> None:
    receiver = Receiver(merge.output, rng, stall)

    def sender(core: int):
        async def send(ctx) -> None:
            items = [
                {"operand": operand, "block": block, "chunk": 0, "superblock": superblock & 1}
                for operand, block, superblock in wanted[core]
            ]
            if items:
                ctx.set(merge.working, ctx.get(merge.working) | 1 << core)
            await Sender(merge.fetches[core], items, rng, stall).send(ctx)
            ctx.set(merge.working, ctx.get(merge.working) & ~(1 << core))

        return send

    async def receive(ctx) -> None:
        await receiver.receive(ctx, count)

    simulate(merge, receive, *(sender(core) for core in range(len(wanted))))
    loads = [
        (Operand(item.operand), item.block, item.cores)
        for item in receiver.items
        if item.operand != Operand.Q
    ]
    assert loads == expected
    for core, share in enumerate(shares):
        of_core = [
            item.block
            for item in receiver.items
            if item.operand == Operand.Q and item.cores == 1 << core
        ]
        assert sorted(of_core) == sorted(share)
