"""Runs of blocks and of outputs: the bytes they cover, in order, and how few they are."""

import itertools
import random
from dataclasses import dataclass, field

import pytest

from firmware_model.choices import ORDERS
from paro.config import Config
from paro.config.descriptor import ROW_STRIDE_BITS
from paro.config.formats import Operand
from rtl.accelerator.address_generator import AddressGenerator
from rtl.accelerator.output_addresses import OutputAddresses
from rtl.bus.axi import Destination
from tests.rtl.accelerator.heads import HeadShape
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver, Sender

CONFIGS = {
    "lt1": Config(rows=4, cols=4, block=16, head_dim=32),
    "lt4": Config(rows=8, cols=8, block=16, head_dim=64),
    "d256": Config(rows=4, cols=4, block=16, head_dim=256),
    "lt16": Config(rows=32, cols=32, block=64, head_dim=128, max_tokens=2**20),
}
GRID = (3, 7, 5)


@dataclass
class Placed:
    """A head in memory."""

    shape: HeadShape
    rng: random.Random
    row_bytes: int
    dense: bool
    base: list[int] = field(init=False)
    stride: list[int] = field(init=False)
    scales: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.base = [4 * self.rng.randrange(2**37) for _ in Operand]
        self.scales = [4 * self.rng.randrange(2**37) for _ in range(2)]
        gaps = [0] * 3 if self.dense else [4 * self.rng.randrange(1, 2**17) for _ in Operand]
        self.stride = [self.row_bytes + gap for gap in gaps]

    @property
    def payload(self) -> dict:
        return {
            "walk": self.shape.walk,
            "base": self.base,
            "row_stride": self.stride,
            "scales": self.scales,
        }


def covered(run, unit_bytes: int) -> list[int]:
    """Addresses of the run's words of two bytes, the narrowest output unit."""
    return list(range(run.address, run.address + run.units * unit_bytes, 2))


def rows(tokens: list[int], base: int, stride: int, row_bytes: int) -> list[int]:
    return [a for t in tokens for a in range(base + t * stride, base + t * stride + row_bytes, 2)]


def fewest_runs(tokens: list[int], dense: bool) -> int:
    """Runs where only neighbours of a dense matrix are joined."""
    joined = sum(after == before + 1 for before, after in itertools.pairwise(tokens))
    return len(tokens) - joined * dense


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "strided"])
@pytest.mark.parametrize("order", range(len(ORDERS)), ids=ORDERS)
def test_blocks(config, dense, order, seed) -> None:
    rng = random.Random(seed)
    shape = HeadShape(GRID, prefix=rng.randrange(20), suffix=rng.randrange(20), order=order)
    head = Placed(shape, rng, config.head_dim, dense)
    blocks, permutation = shape.blocks(config.block), shape.permutation
    sequence = [(operand, index) for index in range(len(blocks)) for operand in Operand]
    sequence += [(rng.choice(list(Operand)), rng.randrange(len(blocks))) for _ in range(8)]
    requests, expected = [], []
    for operand, index in sequence:
        first, tokens = blocks[index]
        requests.append({"operand": operand, "position": first, "tokens": tokens})
        if operand != Operand.V:
            units = -(-tokens // config.load_tokens)
            address = head.scales[operand] + 4 * first
            expected.append((Destination[f"{operand.name}_SCALES"], units, address))
        expected.append((operand, permutation[first : first + tokens]))
    generator = AddressGenerator(config)
    receiver = Receiver(generator.runs, rng, 0.3)
    total = sum(
        1 if isinstance(of, Destination) else fewest_runs(rest[0], dense) for of, *rest in expected
    )

    async def set_head(ctx) -> None:
        ctx.set(generator.head, head.payload)

    async def testbench(ctx) -> None:
        await receiver.receive(ctx, total)
        await ctx.tick()
        assert ctx.get(generator.idle)
        await ctx.tick().repeat(50)
        assert not ctx.get(generator.runs.valid)

    send = Sender(generator.request, requests, rng, 0.3).send
    simulate(generator, testbench, set_head, send)
    runs = iter(receiver.items)
    for of, *rest in expected:
        if isinstance(of, Destination):
            run = next(runs)
            assert (run.destination, run.units, run.address) == (of, *rest)
            continue
        tokens = rest[0]
        mine = [next(runs) for _ in range(fewest_runs(tokens, dense))]
        assert {run.destination for run in mine} == {Destination[of.name]}
        assert [a for run in mine for a in covered(run, config.load_bytes)] == rows(
            tokens, head.base[of], head.stride[of], config.head_dim
        )


@pytest.mark.parametrize(
    ("order", "dense", "runs"), [("FHW", True, 1), ("FHW", False, 16), ("WHF", True, 16)]
)
def test_runs_of_a_block(order, dense, runs, seed) -> None:
    """Natural order and dense rows: one run. Frames innermost: a run a token."""
    rng = random.Random(seed)
    config = CONFIGS["lt4"]
    head = Placed(HeadShape((4, 4, 4), order=ORDERS.index(order)), rng, config.head_dim, dense)
    generator = AddressGenerator(config)
    receiver = Receiver(generator.runs, rng, 0.0)

    async def testbench(ctx) -> None:
        ctx.set(generator.head, head.payload)
        ctx.set(generator.request.payload, {"operand": Operand.V, "position": 16, "tokens": 16})
        ctx.set(generator.request.valid, 1)
        await ctx.tick()
        ctx.set(generator.request.valid, 0)
        await receiver.receive(ctx, runs)
        await ctx.tick()
        assert ctx.get(generator.idle)

    simulate(generator, testbench)
    assert sum(run.units for run in receiver.items) == 16 * config.head_dim // config.load_bytes
    assert receiver.times[-1] - receiver.times[0] == runs - 1, "a run a cycle"


def test_latency(seed) -> None:
    """K, then V of the same block, then K of the next: no jump between them."""
    config = CONFIGS["lt4"]
    head = Placed(HeadShape((4, 4, 4), order=ORDERS.index("WHF")), random.Random(seed), 64, True)
    generator = AddressGenerator(config)
    receiver = Receiver(generator.runs, random.Random(seed), 0.0)
    requests = [
        {"operand": operand, "position": position, "tokens": 16}
        for position in (16, 32)
        for operand in (Operand.K, Operand.V)
    ]

    async def testbench(ctx) -> None:
        ctx.set(generator.head, head.payload)
        await receiver.receive(ctx, 2 * (1 + 16 + 16))

    send = Sender(generator.request, requests, random.Random(seed), 0.0).send
    simulate(generator, testbench, send)
    starts = [
        time
        for time, run in zip(receiver.times, receiver.items, strict=True)
        if run.destination == Destination.K_SCALES
    ]
    # V takes its 16 tokens and 3 cycles; the run of K's scales is there a cycle after its request.
    assert starts[1] - receiver.times[16] - 1 == (16 + 3) + 1


def test_far_tokens() -> None:
    """The largest stride and index: no bit of the product is lost."""
    config = CONFIGS["lt16"]
    shape = HeadShape((1, 1, 2**20 - 8), suffix=8)
    generator = AddressGenerator(config)
    receiver = Receiver(generator.runs, random.Random(), 0.0)
    stride = 2**ROW_STRIDE_BITS - 4

    async def testbench(ctx) -> None:
        ctx.set(generator.head.walk, shape.walk)
        ctx.set(generator.head.row_stride[Operand.V], stride)
        ctx.set(generator.head.base[Operand.V], 2**20)
        payload = {"operand": Operand.V, "position": 2**20 - 64, "tokens": 64}
        ctx.set(generator.request.payload, payload)
        ctx.set(generator.request.valid, 1)
        await ctx.tick()
        ctx.set(generator.request.valid, 0)
        await receiver.receive(ctx, 64)

    simulate(generator, testbench)
    tokens = range(2**20 - 64, 2**20)
    assert [run.address for run in receiver.items] == [2**20 + t * stride for t in tokens]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "strided"])
@pytest.mark.parametrize("order", range(len(ORDERS)), ids=ORDERS)
def test_outputs(config, dense, order, seed) -> None:
    rng = random.Random(seed)
    row_bytes, unit_bytes = 2 * config.head_dim, 2 * config.output_words
    shapes = [HeadShape(GRID, 5, 9, order), HeadShape((2, 2, 31), 0, 3, order)]
    generator = OutputAddresses(config)
    got, expected = [], []

    async def testbench(ctx) -> None:
        for shape in shapes:
            head = Placed(shape, rng, row_bytes, dense)
            blocks, permutation = shape.blocks(config.block), shape.permutation
            row = rng.randrange(len(blocks))
            queries = rng.randint(1, len(permutation) - blocks[row][0])
            tokens = permutation[blocks[row][0] :][:queries]
            parts = [tokens[i : i + config.block] for i in range(0, queries, config.block)]
            payload = {"walk": shape.walk, "base": head.base[0], "row_stride": head.stride[0]}
            assert ctx.get(generator.request.ready)
            ctx.set(generator.head, payload)
            request = {"first_block_row": row, "query_tokens": queries}
            ctx.set(generator.request.payload, request)
            ctx.set(generator.request.valid, 1)
            await ctx.tick()
            ctx.set(generator.request.valid, 0)
            receiver = Receiver(generator.runs, rng, 0.3)
            await receiver.receive(ctx, sum(fewest_runs(part, dense) for part in parts))
            await ctx.tick().repeat(2)
            assert ctx.get(generator.idle)
            got.append([a for run in receiver.items for a in covered(run, unit_bytes)])
            expected.append(rows(tokens, head.base[0], head.stride[0], row_bytes))

    simulate(generator, testbench)
    assert got == expected


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_inputs_and_weights_of_a_layer(config, seed) -> None:
    """Rows of some tokens or output channels, of each one chunk; their scales in one run."""
    rng = random.Random(seed)
    generator = AddressGenerator(config)
    receiver = Receiver(generator.runs, rng, 0.3)
    bases, scales, strides = (
        [4 * rng.randrange(2**bits) for _ in range(3)] for bits in (30, 28, 16)
    )
    requests, expected = [], []
    for _ in range(12):
        operand = rng.choice((Operand.Q, Operand.K))
        first, tokens = config.block * rng.randrange(9), rng.randint(1, config.block)
        chunk = rng.randrange(config.chunks_max)
        requests.append({"operand": operand, "position": first, "tokens": tokens, "chunk": chunk})
        kind = Destination[f"{operand.name}_SCALES"]
        units = -(-tokens // config.load_tokens)
        expected.append((scales[operand] + 4 * first, units, kind))
        base = bases[operand] + chunk * config.head_dim
        units = config.head_dim // config.load_bytes
        expected += [
            (base + token * strides[operand], units, Destination[operand.name])
            for token in range(first, first + tokens)
        ]

    async def testbench(ctx) -> None:
        ctx.set(generator.head.base, bases)
        ctx.set(generator.head.scales, scales[:2])
        ctx.set(generator.head.row_stride, strides)
        await receiver.receive(ctx, len(expected))

    simulate(generator, testbench, Sender(generator.request, requests, rng, 0.3).send)
    assert [(run.address, run.units, run.destination) for run in receiver.items] == expected


@pytest.mark.parametrize("half", [False, True], ids=["16", "8"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_outputs_of_a_layer(config, half, seed) -> None:
    """For each block of tokens, for each output block, that part of each token's row."""
    rng = random.Random(seed)
    generator = OutputAddresses(config)
    tokens, outputs = 2 * config.layer_tokens + 3, rng.randint(1, 3 * config.block)
    blocks, word = -(-outputs // config.block), 1 if half else 2
    base, stride = 4 * rng.randrange(2**20), 4 * rng.randrange(2**10, 2**12)
    step, row = config.layer_tokens, word * config.block
    expected = [
        (base + token * stride + block * row, row // (2 * config.output_words))
        for first in range(0, tokens, step)
        for block in range(blocks)
        for token in range(first, min(first + step, tokens))
    ]
    receiver = Receiver(generator.runs, rng, 0.3)

    async def testbench(ctx) -> None:
        ctx.set(generator.head, {"base": base, "row_stride": stride, "half": half})
        request = {"query_tokens": tokens, "linear": 1, "last_output_block": blocks - 1}
        ctx.set(generator.request.payload, request)
        ctx.set(generator.request.valid, 1)
        await ctx.tick()
        ctx.set(generator.request.valid, 0)
        await receiver.receive(ctx, len(expected))
        await ctx.tick().repeat(2)
        assert ctx.get(generator.idle)

    simulate(generator, testbench)
    assert [(run.address, run.units) for run in receiver.items] == expected


@pytest.mark.parametrize("query_rows", [2, 4])
@pytest.mark.parametrize("linear", [0, 1], ids=["heads", "layers"])
def test_outputs_of_superblocks(linear, query_rows, seed) -> None:
    """Rows of each superblock as they are told; those of a layer for each output block."""
    rng = random.Random(seed)
    config = Config(rows=4, cols=4, block=64, head_dim=32, query_rows=query_rows)
    generator = OutputAddresses(config)
    step = config.layer_tokens if linear else config.block
    requests, places, got, expected = [], [], [], []
    for order in range(len(ORDERS)):
        head = Placed(HeadShape((7, 9, 9), 5, 9, order), rng, 2 * config.head_dim, bool(order % 2))
        row = 0 if linear else rng.randrange(4)
        queries = rng.randint(1, 581 - row * config.block)
        # Without a grid a layer's tokens stand in memory's order.
        walk = {"tokens": 0, "prefix_tokens": 0, "suffix_tokens": 0} if linear else head.shape.walk
        permutation = list(range(581)) if linear else head.shape.permutation
        tokens = permutation[row * config.block :][:queries]
        blocks = [tokens[i : i + step] for i in range(0, queries, step)]
        outputs, addresses = rng.randint(1, 3) if linear else 1, []
        row_bytes = 2 * (config.block if linear else config.head_dim)
        for first in range(0, len(blocks), query_rows):
            superblock = blocks[first : first + query_rows]
            for output in range(outputs):
                chosen = rng.sample(range(len(superblock)), len(superblock))
                places += chosen
                base = head.base[0] + output * row_bytes
                for place in chosen:
                    addresses += rows(superblock[place], base, head.stride[0], row_bytes)
        expected.append(addresses)
        requests.append(
            (
                {"walk": walk, "base": head.base[0], "row_stride": head.stride[0]},
                {
                    "first_block_row": row,
                    "query_tokens": queries,
                    "linear": linear,
                    "last_output_block": outputs - 1,
                },
            )
        )

    async def testbench(ctx) -> None:
        for (head, request), addresses in zip(requests, expected, strict=True):
            ctx.set(generator.head, head)
            ctx.set(generator.request.payload, request)
            ctx.set(generator.request.valid, 1)
            await ctx.tick()
            ctx.set(generator.request.valid, 0)
            receiver, covers = Receiver(generator.runs, rng, 0.3), []
            while len(covers) < len(addresses):
                await receiver.receive(ctx, len(receiver.items) + 1)
                covers += covered(receiver.items[-1], 2 * config.output_words)
            await ctx.tick().repeat(2)
            assert ctx.get(generator.idle)
            got.append(covers)

    send = Sender(generator.places, [{"row": row} for row in places], rng, 0.3).send
    simulate(generator, testbench, send)
    assert got == expected
