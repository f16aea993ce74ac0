"""The token walker against the permutation of the orders."""

import itertools
import random

import pytest

from firmware_model.choices import ORDERS
from paro.config import Config
from rtl.accelerator.token_walker import TokenWalker
from tests.rtl.accelerator.heads import HeadShape
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver, Sender

SMALL = Config(rows=4, cols=4, block=16, head_dim=32)
LARGE = Config(rows=8, cols=8, block=64, max_tokens=2**20)

HEADS = [
    HeadShape((3, 5, 7)),
    HeadShape((4, 6, 5), prefix=21),
    HeadShape((4, 6, 5), suffix=17),
    HeadShape((2, 9, 4), prefix=16, suffix=16),
    HeadShape((5, 3, 11), prefix=9, suffix=30),
    HeadShape((1, 1, 40), prefix=1, suffix=2),
    HeadShape((6, 7, 1), prefix=3),
]


def walk_of(
    config: Config,
    head: HeadShape,
    requests,
    rng,
    stall: float,
    *,
    again: bool = True,
    jumps: bool = True,
):
    """Tokens of the requests, and the cycles in which each request's were taken."""
    walker = TokenWalker(config, again=again, jumps=jumps)
    payloads = [{"position": first, "tokens": tokens} for first, tokens in requests]
    receiver = Receiver(walker.tokens, rng, stall)

    async def testbench(ctx) -> None:
        await receiver.receive(ctx, sum(tokens for _, tokens in requests))
        await ctx.tick()
        assert ctx.get(walker.request.ready)

    async def set_walk(ctx) -> None:
        ctx.set(walker.walk, head.walk)

    simulate(walker, testbench, set_walk, Sender(walker.request, payloads, rng, stall).send)
    got, times, index = [], [], 0
    for _, tokens in requests:
        items = receiver.items[index : index + tokens]
        assert [item.last for item in items] == [0] * (tokens - 1) + [1]
        got.append([item.token for item in items])
        times.append(receiver.times[index : index + tokens])
        index += tokens
    return got, times


@pytest.mark.parametrize("config", [SMALL, LARGE], ids=["b16", "b64"])
@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("order", range(len(ORDERS)), ids=ORDERS)
def test_tokens_of_blocks_in_any_sequence(config, head, order, seed) -> None:
    rng = random.Random(seed)
    head = HeadShape(head.grid, head.prefix, head.suffix, order)
    blocks = head.blocks(config.block)
    requests = list(blocks)
    for _ in range(6):  # a block twice (K, V), its successor, then a jump
        index = rng.randrange(len(blocks))
        requests += [blocks[index]] * rng.randint(1, 3)
        requests += blocks[index + 1 : index + 2]
    got, _ = walk_of(config, head, requests, rng, 0.2, again=rng.random() < 0.5)
    permutation = head.permutation
    assert got == [permutation[first : first + tokens] for first, tokens in requests]


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("order", range(len(ORDERS)), ids=ORDERS)
def test_without_jumps(head, order, seed) -> None:
    """All blocks, one after the other, two times."""
    rng = random.Random(seed)
    head = HeadShape(head.grid, head.prefix, head.suffix, order)
    requests = 2 * list(head.blocks(SMALL.block))
    got, times = walk_of(SMALL, head, requests, rng, 0.0, again=False, jumps=False)
    permutation = head.permutation
    assert got == [permutation[first : first + tokens] for first, tokens in requests]
    assert all(after[0] - before[-1] <= 3 for before, after in itertools.pairwise(times))


def test_long_sequence(seed) -> None:
    """Jumps in a head of nearly 2**20 tokens, every bit of whose coordinates matters."""
    rng = random.Random(seed)
    head = HeadShape((61, 113, 152), prefix=226, suffix=77, order=ORDERS.index("WHF"))
    blocks = head.blocks(LARGE.block)
    requests = [blocks[-1], *rng.sample(blocks, 12), blocks[-2], blocks[-1]]
    got, _ = walk_of(LARGE, head, requests, rng, 0.0)
    permutation = head.permutation
    assert got == [permutation[first : first + tokens] for first, tokens in requests]


@pytest.mark.parametrize("early", [False, True], ids=["with-request", "before-request"])
def test_forgets_the_head_before(early) -> None:
    """The same positions in another order, without a reset between."""
    walker = TokenWalker(SMALL, again=True, jumps=True)
    heads = [HeadShape((4, 5, 6), order=order) for order in range(len(ORDERS))]
    got = []

    async def testbench(ctx) -> None:
        ctx.set(walker.tokens.ready, 1)
        for head in heads:
            await ctx.tick().until(walker.request.ready)
            ctx.set(walker.walk, head.walk)
            ctx.set(walker.forget, 1)
            if early:
                await ctx.tick()
                ctx.set(walker.forget, 0)
                await ctx.tick()
            ctx.set(walker.request.payload, {"position": 48, "tokens": 16})
            ctx.set(walker.request.valid, 1)
            await ctx.tick()
            ctx.set(walker.forget, 0)
            ctx.set(walker.request.valid, 0)
            tokens = []
            while len(tokens) < 16:
                _, _, valid, token = await ctx.tick().sample(
                    walker.tokens.valid, walker.tokens.payload.token
                )
                if valid:
                    tokens.append(token)
            got.append(tokens)

    simulate(walker, testbench)
    assert got == [head.permutation[48:64] for head in heads]


@pytest.mark.parametrize("again", [True, False], ids=["again", "once"])
def test_latency(again, seed) -> None:
    """A token a cycle; only a jump into the grid waits for its coordinates."""
    head = HeadShape((4, 8, 8), prefix=16, suffix=16, order=3)
    jump = TokenWalker.jump_cycles(SMALL)
    requests = [(0, 16), (0, 16), (16, 16), (64, 16), (64, 16), (96, 16), (112, 16), (112, 16)]
    requests += [(32, 16), (272, 16), (240, 16), (256, 16), (0, 16), (256, 16)]
    expected = [2, 1, 1, jump, 1, jump, 1, 1, jump, 2, jump, 1, 2, 2]
    if not again:  # what was asked for before is a jump, or found at once at position 0
        expected[1], expected[4], expected[7] = 2, jump, jump
    _, times = walk_of(SMALL, head, requests, random.Random(seed), 0.0, again=again)
    assert all(t[-1] - t[0] == 15 for t in times)
    waits = [after[0] - before[-1] - 1 for before, after in itertools.pairwise(times)]
    assert waits == expected[1:]
