"""The head queue: descriptors in, heads or faults out."""

import random

import pytest

from paro.config import PRESETS, Config
from paro.config.descriptor import (
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    OUT_CUT_MAX,
    pack_descriptor,
    unpack_descriptor,
)
from paro.config.formats import OUT_SHIFTS, SUM_SHIFT_MAX, Kind
from paro.config.registers import Cause
from rtl.accelerator.head_queue import HeadQueue
from rtl.bus.axi import Destination
from tests.rtl.accelerator.heads import HeadShape
from tests.rtl.simulate import simulate

TINY, LARGE = PRESETS["tiny"], PRESETS["large"]


def random_descriptor(config, rng: random.Random) -> dict[str, int]:
    """Values of a legal descriptor."""
    grid = (rng.randrange(1, 9), rng.randrange(1, 9), rng.randrange(1, 9))
    shape = HeadShape(grid, rng.randrange(9), rng.randrange(9), rng.randrange(6))
    tokens = shape.walk["tokens"]
    row = rng.randrange(-(-tokens // config.block))
    values = {name: value for name, value in shape.walk.items() if name != "tokens"}
    inner = values["middle_extent"] * values["inner_extent"]
    values |= {
        "block": config.block,
        "head_dim": config.head_dim,
        "key_tokens": tokens,
        "first_block_row": row,
        "query_tokens": rng.randint(1, tokens - row * config.block),
        "outer_extent": grid[0] * grid[1] * grid[2] // inner,
    }
    for operand in "qkvo":
        values[f"{operand}_row_stride"] = 4 * rng.randrange(config.head_dim // 2, 2**18)
    for array in ("q", "k", "v", "o", "q_scales", "k_scales", "codes"):
        values[f"{array}_address"] = 4 * rng.randrange(2**37)
    return values


class UnitSource:
    """The memory's side of a queue: answers each run with its units."""

    def __init__(self, queue: HeadQueue, config, base: int, memory: bytes, rng: random.Random):
        self._queue, self._unit_bytes = queue, config.load_bytes
        self._base, self._memory, self._rng = base, memory, rng
        self.runs: list[int] = []  # addresses

    async def serve(self, ctx) -> None:
        runs = self._queue.runs
        while True:
            ctx.set(runs.ready, self._rng.random() < 0.5)
            _, _, valid, ready, run = await ctx.tick().sample(runs.valid, runs.ready, runs.payload)
            if valid and ready:
                ctx.set(runs.ready, 0)
                assert run.destination == Destination.DESCRIPTOR
                assert run.units * self._unit_bytes == DESCRIPTOR_BYTES
                self.runs.append(run.address)
                await self._send_units(ctx, run.address - self._base)

    async def _send_units(self, ctx, offset: int) -> None:
        units = self._queue.units
        for at in range(offset, offset + DESCRIPTOR_BYTES, self._unit_bytes):
            while self._rng.random() < 0.3:
                await ctx.tick()
            unit = int.from_bytes(self._memory[at : at + self._unit_bytes], "little")
            ctx.set(units.payload, unit)
            ctx.set(units.valid, 1)
            await ctx.tick().until(units.ready)
            ctx.set(units.valid, 0)


def play(config, images: list[bytes], rng: random.Random) -> tuple[list[dict[str, int]], int, int]:
    """Play a queue; returns the heads, the fault and the index at the end."""
    queue = HeadQueue(config)
    base = 4 * rng.randrange(2**37)
    source = UnitSource(queue, config, base, b"".join(images), rng)
    heads: list[dict[str, int]] = []
    end: list[int] = []

    async def testbench(ctx) -> None:
        assert ctx.get(queue.idle)
        ctx.set(queue.base, base)
        ctx.set(queue.count, len(images))
        ctx.set(queue.start, 1)
        await ctx.tick()
        ctx.set(queue.start, 0)
        ctx.set(queue.base, 0)
        ctx.set(queue.count, 0)
        for _ in range(400 * len(images)):
            ctx.set(queue.heads.ready, rng.random() < 0.1)
            _, _, valid, ready, head, index, fault, idle = await ctx.tick().sample(
                queue.heads.valid,
                queue.heads.ready,
                queue.heads.payload,
                queue.index,
                queue.fault,
                queue.idle,
            )
            if valid:
                assert index == len(heads)
                assert len(source.runs) == index + 1, "the next descriptor is read too early"
            if valid and ready:
                heads.append({field.name: head[field.name] for field in DESCRIPTOR})
            if fault or idle:
                end[:] = [fault, index]
                break
        ctx.set(queue.heads.ready, 1)
        for _ in range(40):
            _, _, valid, fault = await ctx.tick().sample(queue.heads.valid, queue.fault)
            assert not valid
            assert fault == end[0]

    simulate(queue, testbench, source.serve)
    expected = range(base, base + DESCRIPTOR_BYTES * len(source.runs), DESCRIPTOR_BYTES)
    assert source.runs == list(expected)
    return heads, end[0], end[1]


@pytest.mark.parametrize("config", [TINY, LARGE])
def test_good_descriptors(config, seed: int) -> None:
    rng = random.Random(seed)
    images = [pack_descriptor(**random_descriptor(config, rng)) for _ in range(6)]
    heads, fault, index = play(config, images, rng)
    assert heads == [unpack_descriptor(image) for image in images]
    assert (fault, index) == (Cause.NONE, 6)


def changed(image: bytes, **values: int) -> bytes:
    word = int.from_bytes(image, "little")
    for field in DESCRIPTOR:
        if field.name in values:
            mask = (1 << field.width) - 1
            word = word & ~(mask << field.offset) | (values[field.name] & mask) << field.offset
    return word.to_bytes(DESCRIPTOR_BYTES, "little")


@pytest.mark.parametrize(
    ("cause", "names"),
    [
        (Cause.BAD_DESCRIPTOR, ("magic", "version")),
        (Cause.BAD_SHAPE, ("block", "head_dim")),
        (Cause.BAD_TOKENS, ("first_block_row", "query_tokens", "prefix_tokens", "suffix_tokens")),
        (Cause.BAD_ALIGNMENT, tuple(f"{operand}_row_stride" for operand in "qkvo")),
    ],
)
def test_bits_that_must_be_as_they_are(cause: Cause, names: tuple[str, ...], seed: int) -> None:
    """A bit that makes these fields too large, misaligned or another constant is seen."""
    rng = random.Random(seed)
    for name in names:
        field = next(field for field in DESCRIPTOR if field.name == name)
        for bit in {0, field.width - 1, *rng.sample(range(field.width), 4)}:
            values = random_descriptor(TINY, rng)
            good = pack_descriptor(**values)
            if name.endswith("_row_stride") and 2 <= bit < 20:
                continue
            if cause == Cause.BAD_TOKENS and 2**bit <= values["key_tokens"]:
                continue
            word = unpack_descriptor(good)[name]
            bad = changed(good, **{name: word ^ 1 << bit})
            images = [good, bad] if rng.random() < 0.2 else [bad]
            heads, fault, index = play(TINY, images, rng)
            assert (Cause(fault), index) == (cause, len(images) - 1), (name, bit)
            assert len(heads) == len(images) - 1


def layer(config, **changes: int) -> bytes:
    """A layer at every bound; unlike a head it may have more tokens than outputs."""
    good = pack_descriptor(
        kind=Kind.LINEAR,
        block=config.block,
        head_dim=config.head_dim,
        query_tokens=config.max_tokens,
        key_tokens=3,
        chunks=config.chunks_max,
        sum_shift=SUM_SHIFT_MAX,
        out_shift=len(OUT_SHIFTS) - 1,
        out_cut=OUT_CUT_MAX,
        after=1,
        **{f"{operand}_row_stride": 2**20 - 4 for operand in "qko"},
        **{f"{array}_address": 0 for array in ("q", "k", "o", "q_scales", "k_scales", "codes")},
    )
    return changed(good, **changes)


@pytest.mark.parametrize("config", [TINY, LARGE])
@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, Cause.NONE),
        ({"chunks": 0}, Cause.BAD_LAYER),
        ({"chunks": 2**12 - 1}, Cause.BAD_LAYER),
        ({"sum_shift": SUM_SHIFT_MAX + 1}, Cause.BAD_LAYER),
        ({"out_cut": OUT_CUT_MAX + 1}, Cause.BAD_LAYER),
        ({"kind": 2}, Cause.BAD_KIND),
        ({"kind": 15}, Cause.BAD_KIND),
        ({"query_tokens": 0}, Cause.BAD_TOKENS),
        ({"key_tokens": 0}, Cause.BAD_TOKENS),
        ({"query_tokens": 2**32 - 1}, Cause.BAD_TOKENS),
        ({"key_tokens": 2**32 - 1}, Cause.BAD_TOKENS),
        ({"first_block_row": 2**32 - 1}, Cause.NONE),
        ({"prefix_tokens": 9, "suffix_tokens": 2**32 - 1}, Cause.NONE),
        ({"outer_extent": 0, "middle_extent": 0, "inner_extent": 0}, Cause.NONE),
        ({"k_address": 2}, Cause.BAD_ALIGNMENT),
        ({"o_row_stride": 2**20}, Cause.BAD_ALIGNMENT),
    ],
)
def test_layers(config, changes: dict, cause: Cause, seed: int) -> None:
    """Bounds are legal, what lies beyond is not, and the order of tokens is ignored."""
    heads, fault, index = play(config, [layer(config, **changes)], random.Random(seed))
    assert (Cause(fault), index) == (cause, cause == Cause.NONE)
    assert len(heads) == (cause == Cause.NONE)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, Cause.NONE),
        ({"first_block_row": 1}, Cause.BAD_TOKENS),
        ({"first_block_row": 2**27}, Cause.BAD_TOKENS),
        ({"kind": Kind.ATTENTION, "first_block_row": 1}, Cause.NONE),
        ({"kind": Kind.LINEAR, "first_block_row": 1}, Cause.NONE),
        ({"query_tokens": 0}, Cause.BAD_TOKENS),
        ({"middle_extent": 0}, Cause.BAD_TOKENS),
        ({"chunks": 0}, Cause.BAD_LAYER),
        ({"kind": 3}, Cause.BAD_KIND),
    ],
)
def test_vector_steps(changes: dict, cause: Cause, seed: int) -> None:
    """They have a head's order, from its first token on."""
    config = TINY.changed(vector_channels=128)
    step = layer(config, kind=Kind.VECTOR, key_tokens=100, query_tokens=50)
    heads, fault, index = play(config, [changed(step, **changes)], random.Random(seed))
    assert (Cause(fault), index) == (cause, cause == Cause.NONE)
    assert len(heads) == (cause == Cause.NONE)


@pytest.mark.parametrize("config", [TINY, LARGE])
@pytest.mark.parametrize(("name", "by"), [("query_tokens", 1), ("key_tokens", 1), ("chunks", 1)])
def test_one_more_than_a_layer_may_have(config, name: str, by: int, seed: int) -> None:
    most = config.chunks_max if name == "chunks" else config.max_tokens
    rng = random.Random(seed)
    assert play(config, [layer(config, **{name: most})], rng)[1] == Cause.NONE
    bad = Cause.BAD_LAYER if name == "chunks" else Cause.BAD_TOKENS
    assert play(config, [layer(config, **{name: most + by})], rng)[1] == bad


def test_outputs_that_this_accelerator_cannot_cut(seed: int) -> None:
    """Where a row is not whole pairs of beats, INT8 outputs are refused, of heads too."""
    config, rng = Config(rows=64, cols=64, block=64, head_dim=64), random.Random(seed)
    assert not config.cuts_outputs
    assert play(config, [layer(config)], rng)[1] == Cause.BAD_LAYER
    assert play(config, [layer(config, out_cut=0)], rng)[1] == Cause.NONE
    assert play(config, [bounded(config, out_cut=8)], rng)[1] == Cause.BAD_LAYER


def bounded(config, **changes: int) -> bytes:
    """A descriptor at every bound: all tokens that there may be, of a grid of one token."""
    block, most = config.block, config.max_tokens
    values = {
        "key_tokens": most,
        "first_block_row": most // block - 1,
        "query_tokens": block,
        "prefix_tokens": most - 6,
        "suffix_tokens": 5,
        **{f"{axis}_extent": 1 for axis in ("outer", "middle", "inner")},
        **{f"{axis}_stride": 1 for axis in ("outer", "middle", "inner")},
    }
    good = pack_descriptor(
        block=block,
        head_dim=config.head_dim,
        **values,
        **{f"{operand}_row_stride": 2**20 - 4 for operand in "qkvo"},
        **{f"{array}_address": 0 for array in ("q", "k", "v", "o", "q_scales", "k_scales")},
        codes_address=2**40 - 4,
    )
    return changed(good, **{name: values.get(name, 0) + by for name, by in changes.items()})


@pytest.mark.parametrize("config", [TINY, LARGE])
@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, Cause.NONE),
        ({"prefix_tokens": 1}, Cause.BAD_TOKENS),
        ({"suffix_tokens": 1}, Cause.BAD_TOKENS),
        ({"query_tokens": 1}, Cause.BAD_TOKENS),
        ({"first_block_row": 1}, Cause.BAD_TOKENS),
        ({"key_tokens": 1}, Cause.BAD_TOKENS),
        ({"key_tokens": -1}, Cause.BAD_TOKENS),
        ({"key_tokens": -1, "query_tokens": -1}, Cause.BAD_TOKENS),
        ({"key_tokens": -1, "query_tokens": -1, "prefix_tokens": -1}, Cause.NONE),
        ({"o_row_stride": 2**20}, Cause.BAD_ALIGNMENT),
    ],
)
def test_bounds_are_legal_and_one_more_is_not(config, changes, cause: Cause, seed: int) -> None:
    heads, fault, _ = play(config, [bounded(config, **changes)], random.Random(seed))
    assert Cause(fault) == cause
    assert len(heads) == (cause == Cause.NONE)


@pytest.mark.parametrize(
    "name", ["key_tokens", "query_tokens", "outer_extent", "middle_extent", "inner_extent"]
)
def test_counts_of_none_are_refused(name: str, seed: int) -> None:
    """The other counts are 1, so that nothing else is wrong but for the sum of key tokens."""
    image = changed(bounded(TINY), key_tokens=7, first_block_row=0, query_tokens=1, prefix_tokens=1)
    rng = random.Random(seed)
    assert play(TINY, [image], rng)[1] == Cause.NONE
    assert play(TINY, [changed(image, **{name: 0})], rng)[1] == Cause.BAD_TOKENS


@pytest.mark.parametrize(
    "name", ["q", "k", "v", "o", "q_scales", "k_scales", "codes", *(f"{i}_row" for i in "qkvo")]
)
def test_bytes_between_words_are_refused(name: str, seed: int) -> None:
    name += "_stride" if name.endswith("_row") else "_address"
    rng = random.Random(seed)
    for low in (1, 2, 3):
        image = changed(bounded(TINY), **{name: 0x100 + low})
        assert play(TINY, [image], rng)[1] == Cause.BAD_ALIGNMENT


def test_first_cause_wins(seed: int) -> None:
    rng = random.Random(seed)
    good = pack_descriptor(**random_descriptor(TINY, rng))
    worse = {"q_address": 2}
    for cause, change in (
        (Cause.BAD_ALIGNMENT, {}),
        (Cause.BAD_TOKENS, {"inner_extent": 0}),
        (Cause.BAD_SHAPE, {"head_dim": 128}),
        (Cause.BAD_DESCRIPTOR, {"magic": 0}),
    ):
        worse |= change
        assert play(TINY, [good, changed(good, **worse)], rng)[1:] == (cause, 1)
