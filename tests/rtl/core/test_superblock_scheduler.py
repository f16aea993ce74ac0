"""The superblock scheduler: the blocks of several rows, one load of K and V for all of them."""

import random
from typing import Any

import numpy as np
import pytest

from firmware_model.host.superblocks import code_words, shared_code_words
from paro.config import Config
from paro.config.formats import Kind, Operand
from tests.rtl.core.test_scheduler import Bench, random_codes
from tests.rtl.simulate import simulate
from tests.rtl.streams import Sender


def config_of(rows: int) -> Config:
    return Config(rows=4, cols=4, block=16, head_dim=32, query_rows=rows)


def beats_of(words: np.ndarray) -> list[list[int]]:
    """Words of codes as beats of sixteen."""
    return [[int(word) >> 2 * i & 3 for i in range(16)] for word in words]


async def give_command(ctx: Any, scheduler: Any, command: dict[str, Any]) -> None:
    ctx.set(scheduler.command.payload, command)
    ctx.set(scheduler.command.valid, 1)
    await ctx.tick()
    ctx.set(scheduler.command.valid, 0)


class Watch:
    """What a scheduler asks for and issues."""

    def __init__(self, bench: Bench):
        self.bench = bench
        self.fetches: list[tuple[Operand, int, int]] = []
        self.blocks: list[dict[str, int]] = []
        self.ended: list[int] = []
        self.layer_rows: list[int] = []
        self.slot_of_row: dict[int, int] = {}

    async def run(self, ctx: Any, limit: int) -> bool:
        """Watch until the scheduler rests; whether it found a row empty."""
        bench, scheduler = self.bench, self.bench.scheduler
        for _ in range(limit):
            ctx.set(scheduler.fetch.ready, bench.rng.random() < 0.7)
            _, _, loads, fetch, slot, issued, block, ended, row, begun = await ctx.tick().sample(
                scheduler.load_valid,
                scheduler.fetch.payload,
                scheduler.load.slot,
                scheduler.blocks.valid,
                scheduler.blocks.payload,
                scheduler.ended_rows.valid,
                scheduler.ended_rows.payload,
                scheduler.layer_rows.valid,
            )
            if loads:
                bench.take_fetch(Operand(fetch.operand), fetch.block, slot)
                self.fetches.append((Operand(fetch.operand), fetch.block, fetch.chunk))
                if fetch.operand == Operand.Q:
                    self.slot_of_row[fetch.block % bench.config.query_rows] = slot
            if issued:
                assert block.query_slot == self.slot_of_row[block.row]
                names = ("code", "first", "last", "keys", "queries", "row", "keeps", "linear")
                self.blocks.append({name: int(block[name]) for name in names})
            if ended:
                self.ended.append(row)
            self.layer_rows += [1] * begun
            if ctx.get(scheduler.empty_row):
                return True
            if ctx.get(scheduler.idle):
                return False
        raise AssertionError("it does not end")


@pytest.mark.parametrize("slow", Operand)
@pytest.mark.parametrize("rows", [2, 4, 16])
@pytest.mark.parametrize(
    ("query_tokens", "key_tokens", "density"),
    [(16, 16, 1.0), (150, 300, 0.4), (70, 1000, 0.03), (64, 530, 1.0)],
)
def test_each_column_once(
    query_tokens: int, key_tokens: int, density: float, rows: int, slow: Operand, seed: int
) -> None:
    """K and V of a column of a superblock are asked for once, Q of a row before its first block."""
    rng = random.Random(seed)
    config = config_of(rows)
    codes = random_codes(rng, -(-query_tokens // 16), -(-key_tokens // 16), density)
    fetches: list[tuple[Operand, int, int]] = []
    blocks: list[dict[str, int]] = []
    ended: list[int] = []
    for begin in range(0, len(codes), rows):
        group = codes[begin : begin + rows]
        for column in range(len(group[0])):
            live = [place for place, row in enumerate(group) if row[column]]
            for place in live:
                row = group[place]
                first, last = not any(row[:column]), not any(row[column + 1 :])
                if first:
                    fetches.append((Operand.Q, begin + place, column))
                if place == live[0]:
                    fetches += [(Operand.K, column, column), (Operand.V, column, column)]
                if last:
                    ended.append(place)
                blocks.append(
                    {
                        "code": row[column],
                        "first": first,
                        "last": last,
                        "keys": min(16, key_tokens - 16 * column),
                        "queries": min(16, query_tokens - 16 * (begin + place)),
                        "row": place,
                        "keeps": place != live[-1],
                        "linear": 0,
                    }
                )
    bench = Bench(query_tokens, key_tokens, slow, rng, config)
    watch = Watch(bench)
    beats = beats_of(code_words(np.array(codes, np.uint8), config))
    sender = Sender(bench.scheduler.codes, beats, rng, 0.3)

    async def testbench(ctx: Any) -> None:
        command = {"query_tokens": query_tokens, "key_tokens": key_tokens}
        await give_command(ctx, bench.scheduler, command)
        assert not await watch.run(ctx, 1000 + 100 * len(fetches) + 20 * len(blocks))

    simulate(bench.scheduler, testbench, sender.send, bench.release)
    assert watch.fetches == fetches
    assert watch.blocks == blocks
    assert watch.ended == ended


@pytest.mark.parametrize("rows", [2, 8])
def test_a_weight_tile_serves_all_blocks_of_tokens(rows: int, seed: int) -> None:
    """Of a layer, weights are asked for once for a superblock of tokens, inputs for each block."""
    rng = random.Random(seed)
    config = config_of(rows)
    tokens, outputs = 16 * rows + 20, 21
    codes = random_codes(rng, 2, 40, 0.4)
    fetches: list[tuple[Operand, int, int]] = []
    ended: list[int] = []
    for begin, count in ((0, rows), (rows, 2)):
        for output_block, row in enumerate(codes):
            for chunk in (index for index, code in enumerate(row) if code):
                fetches += [
                    (Operand.Q, begin, chunk),
                    (Operand.K, output_block, chunk),
                    *((Operand.Q, begin + place, chunk) for place in range(1, count)),
                ]
            ended += range(count)
    bench = Bench(tokens, outputs, Operand.K, rng, config)
    watch = Watch(bench)
    words = shared_code_words(np.array(codes, np.uint8), config)
    sender = Sender(bench.scheduler.codes, beats_of(words) * 2, rng, 0.3)

    async def testbench(ctx: Any) -> None:
        command = {"query_tokens": tokens, "key_tokens": outputs, "chunks": 40}
        await give_command(ctx, bench.scheduler, command | {"kind": Kind.LINEAR})
        assert not await watch.run(ctx, 1000 + 100 * len(fetches))

    simulate(bench.scheduler, testbench, sender.send, bench.release)
    assert watch.fetches == fetches
    assert watch.ended == ended
    assert len(watch.layer_rows) == len(ended)
    assert all(block["linear"] for block in watch.blocks)


@pytest.mark.parametrize("fault", ["empty", "fewer", "more"])
def test_rows_that_do_not_end_are_reported(fault: str, seed: int) -> None:
    """A row without a live block, with fewer of them than was said, or with more."""
    rng = random.Random(seed)
    config = config_of(2)
    codes = np.array([[1] * 20, [2] * 20], np.uint8)
    if fault == "empty":
        codes[1] = 0
    words = code_words(codes, config)
    if fault == "fewer":
        words[5] = 0  # the second row's codes after the first sixteen
    if fault == "more":
        words[0] = 1  # the second row is said to have none after them
    bench = Bench(32, 320, Operand.K, rng, config)
    watch = Watch(bench)
    codes_port = bench.scheduler.codes

    async def send(ctx: Any) -> None:
        ctx.set(codes_port.valid, 1)
        for beat in beats_of(words):
            ctx.set(codes_port.payload, beat)
            ready = 0
            while not ready:
                _, _, ready = await ctx.tick().sample(codes_port.ready)

    async def testbench(ctx: Any) -> None:
        await give_command(ctx, bench.scheduler, {"query_tokens": 32, "key_tokens": 320})
        assert await watch.run(ctx, 10_000)

    simulate(bench.scheduler, testbench, send, bench.release)
