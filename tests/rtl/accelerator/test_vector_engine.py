"""Vector steps from memory to memory against the golden reference, under stalls."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from firmware_model.reference.vector import (
    Constants,
    Norm,
    add,
    make_rotation,
    multiply,
    normalize,
    quantize_tokens,
    rotate,
    scale,
)
from paro.config import Config
from paro.config.vector_program import (
    SECOND_ROW,
    Added,
    Left,
    Partner,
    Reduce,
    Right,
    pack_program,
)
from rtl.accelerator.vector_engine import VectorEngine
from tests.rtl.accelerator.heads import HeadShape
from tests.rtl.simulate import simulate

CONFIGS = {
    "4x4": Config(rows=4, cols=4, block=16, head_dim=32, vector_channels=128),
    "16x16": Config(rows=16, cols=16, block=64, head_dim=32, vector_channels=128),
}
PROGRAM, TABLES, ROWS, SECONDS, OUTPUTS, SCALES = (0x1000 * place for place in range(1, 7))


@dataclass
class Play:
    """A step, its memory, and what it must leave there."""

    header: dict[str, int]
    passes: list[dict[str, int]]
    tables: list[torch.Tensor]
    words: torch.Tensor  # [tokens, channels], in memory's order
    seconds: torch.Tensor | None
    expected: torch.Tensor  # likewise
    mantissas: torch.Tensor | None = None  # in memory's order
    shape: HeadShape = field(default_factory=lambda: HeadShape((1, 1, 7), 0, 0, 0))

    def memory(self) -> bytearray:
        memory = bytearray(0x8000)

        def place(address: int, values: np.ndarray) -> None:
            memory[address : address + values.nbytes] = values.tobytes()

        program = pack_program(self.header, self.passes)
        memory[PROGRAM : PROGRAM + len(program)] = program
        if self.tables:
            place(TABLES, torch.stack(self.tables).numpy().astype("<i2"))
        place(ROWS, self.words.numpy().astype("<i2"))
        if self.seconds is not None:
            place(SECONDS, self.seconds.numpy().astype("<i2"))
        return memory

    def step(self, config: Config) -> dict[str, Any]:
        channels = self.words.shape[1]
        tokens = len(self.words)
        shared = {"tokens": tokens, "chunks": channels // config.head_dim}
        word_bytes = 1 if self.header["int8"] else 2
        seconds = 0 if self.seconds is None else 2 * self.seconds.shape[1]
        return {
            "rows": {
                **shared,
                "walk": self.shape.walk,
                "seconds": 0,
                "bank_step": 0,
                "base": ROWS,
                "row_stride": 2 * channels,
                "second_base": SECONDS,
                "second_stride": seconds,
            },
            "outputs": {
                **shared,
                "rows": 0,
                "int8": 0,
                "mantissas": 0,
                "bank_step": 0,
                "base": OUTPUTS,
                "row_stride": word_bytes * channels,
                "scales": SCALES,
            },
            "program": PROGRAM,
            "tables": TABLES,
            "index": 5,
            "too_wide": 0,
        }


def random_words(rng: random.Random, *shape: int, size: int = 9999) -> torch.Tensor:
    made = [rng.randint(-size, size) for _ in range(int(np.prod(shape)))]
    return torch.tensor(made).reshape(shape)


def constants(rng: random.Random, channels: int) -> Constants:
    return Constants(random_words(rng, channels), 14, random_words(rng, channels, size=99))


NORM = {"group": 32, "left": Left.CENTRED}


def layer_input(rng: random.Random) -> Play:
    """LayerNorm, scale and shift, INT8 by token: rows and mantissas."""
    channels, tokens = 64, 5
    words, affine = random_words(rng, tokens, channels), constants(rng, channels)
    norm = Norm(channels, True, 977, 12)
    made = scale(normalize(words, norm), affine)
    x8, mantissas = quantize_tokens(made, channels, 2, 17)
    whole = {"group": channels}
    squares = {**whole, "left": Left.CENTRED, "right": Right.ITSELF, "reduce": Reduce.SQUARES}
    passes = [
        {**whole, "loads": 1, "keeps": 1, "reduce": Reduce.SUM},
        {**squares, "epsilon": 977, "places": 12},
        {**whole, "left": Left.CENTRED, "right": Right.FACTOR, "keeps": 1, "kept": 1},
        {
            **whole,
            "row": 1,
            "others": 1,
            "added": Added.STREAM,
            "addends": 2,
            "shift": 14,
            "keeps": 1,
            "reduce": Reduce.LARGEST,
            "places": 2,
        },
        {**whole, "right": Right.FACTOR, "bytes": 1, "sends": 1},
    ]
    header = {"tables": 3, "seconds": 0, "rows": 1, "int8": 1, "mantissas": 1}
    tables = [torch.ones_like(affine.factor), affine.factor, affine.offset]
    shape = HeadShape((1, 1, tokens), 0, 0, 0)
    return Play(header, passes, tables, words, None, x8.long(), mantissas[:, 0], shape)


def keys(rng: random.Random) -> Play:
    """A head of K, in its order: rotation with an offset, INT8, mantissas of 8 bits."""
    shape = HeadShape((2, 3, 2), rng.randrange(3), rng.randrange(1, 3), rng.randrange(6))
    tokens, channels = len(shape.permutation), 32
    words = random_words(rng, tokens, channels)
    angles = torch.tensor([[rng.uniform(-7, 7) for _ in range(channels // 2)]] * tokens)
    rotation = make_rotation(angles * torch.arange(tokens).unsqueeze(1), "halves")
    offset = random_words(rng, channels, size=999)
    x8, mantissas = quantize_tokens(rotate(words, rotation, offset), channels, -7, 8)
    group = {"group": channels}
    second = {**group, "others": SECOND_ROW, "shift": 14}
    passes = [
        {**group, "loads": 1, "keeps": 1},
        {**second, "added": Added.STREAM, "addends": 1, "keeps": 1, "kept": 1},
        {
            **second,
            "added": Added.ROW,
            "partner": Partner.HALVES,
            "keeps": 1,
            "kept": 1,
            "reduce": Reduce.LARGEST,
            "places": -7,
            "short": 1,
        },
        {**group, "row": 1, "right": Right.FACTOR, "bytes": 1, "sends": 1},
    ]
    header = {"tables": 2, "seconds": 2, "rows": 1, "int8": 1, "mantissas": 1}
    seconds = torch.cat([rotation.cos, rotation.sin], dim=1)
    tables = [torch.ones(channels).long(), offset]
    return Play(header, passes, tables, words, seconds, x8.long(), mantissas[:, 0], shape)


def residual(rng: random.Random) -> Play:
    """A sum with a gate, of words."""
    channels, tokens = 128, 6
    words, base = random_words(rng, tokens, channels), random_words(rng, tokens, channels)
    gate = Constants(constants(rng, channels).factor, 14, torch.zeros(channels).long())
    fields = {"loads": 1, "added": Added.STREAM, "addends": SECOND_ROW, "shift": 14, "sends": 1}
    header = {"tables": 1, "seconds": 1, "rows": 1, "int8": 0, "mantissas": 0}
    shape = HeadShape((1, 1, tokens), 0, 0, 0)
    made = add(words, gate, base)
    passes = [{"group": channels, **fields}]
    return Play(header, passes, [gate.factor], words, base, made, None, shape)


def product(rng: random.Random) -> Play:
    """A gated activation, of one token."""
    channels = 32
    words, other = random_words(rng, 1, channels), random_words(rng, 1, channels)
    header = {"tables": 0, "seconds": 1, "rows": 1, "int8": 0, "mantissas": 0}
    passes = [{"group": channels, "loads": 1, "others": SECOND_ROW, "shift": 9, "sends": 1}]
    shape = HeadShape((1, 1, 1), 0, 0, 0)
    return Play(header, passes, [], words, other, multiply(words, other, 9), None, shape)


class FakeMemory:
    """Serves runs one after the other, each a while after it was asked for."""

    def __init__(self, engine: VectorEngine, config: Config, rng: random.Random, stall: float):
        self.engine, self.config, self.rng, self.stall = engine, config, rng, stall
        self.bytes = bytearray()
        self.asked: list[int] = []

    async def take_runs(self, ctx: Any) -> None:
        runs = self.engine.runs
        while True:
            ctx.set(runs.ready, self.rng.random() >= self.stall)
            _, _, valid, ready, run = await ctx.tick().sample(runs.valid, runs.ready, runs.payload)
            if valid and ready:
                size = self.config.load_bytes
                self.asked += [run.address + size * unit for unit in range(run.units)]

    async def send_units(self, ctx: Any) -> None:
        units, size = self.engine.units, self.config.load_bytes
        while True:
            if not self.asked or self.rng.random() < self.stall:
                await ctx.tick()
                continue
            address = self.asked.pop(0)
            word = int.from_bytes(self.bytes[address : address + size], "little")
            ctx.set(units.payload, word)
            ctx.set(units.valid, 1)
            taken = False
            while not taken:
                _, _, taken = await ctx.tick().sample(units.ready)
            ctx.set(units.valid, 0)

    def writer(self, index: int) -> Any:
        async def write(ctx: Any) -> None:
            runs, words = self.engine.write_runs[index], self.engine.write_data[index]
            size = self.config.output_bytes
            while True:
                ctx.set(runs.ready, 1)
                _, _, valid, run = await ctx.tick().sample(runs.valid, runs.payload)
                ctx.set(runs.ready, 0)
                if not valid:
                    continue
                for unit in range(run.units):
                    while self.rng.random() < self.stall:
                        await ctx.tick()
                    # All data of a run is there with it.
                    assert ctx.get(words.valid)
                    ctx.set(words.ready, 1)
                    _, _, beat = await ctx.tick().sample(words.payload)
                    ctx.set(words.ready, 0)
                    first = run.address + size * unit
                    data = np.array(list(beat)).astype("<i2").tobytes()
                    self.bytes[first : first + size] = data

        return write


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", CONFIGS)
def test_steps(name, stall, seed):
    """One step after the other: every byte of its outputs, and none beside them."""
    rng, config = random.Random(seed), CONFIGS[name]
    plays = [make(rng) for make in (product, layer_input, keys, residual)]
    engine = VectorEngine(config)
    memory = FakeMemory(engine, config, rng, stall)

    async def work(ctx: Any) -> None:
        for play in plays:
            memory.bytes = play.memory()
            before = bytes(memory.bytes)
            ctx.set(engine.written, 0)
            ctx.set(engine.steps.payload, play.step(config))
            ctx.set(engine.steps.valid, 1)
            await ctx.tick().until(engine.steps.ready)
            ctx.set(engine.steps.valid, 0)
            for _ in range(20_000):
                await ctx.tick()
                if ctx.get(engine.rests):
                    break
            assert ctx.get(engine.rests)
            assert ctx.get(engine.index) == 5
            for _ in range(200):  # what has been passed on is written
                await ctx.tick()
            ctx.set(engine.written, 1)
            assert ctx.get(engine.step_done)
            await ctx.tick()
            assert ctx.get(engine.idle)
            compare(play, before, bytes(memory.bytes), config)

    simulate(
        engine,
        work,
        memory.take_runs,
        memory.send_units,
        memory.writer(0),
        memory.writer(1),
    )


def compare(play: Play, before: bytes, after: bytes, config: Config) -> None:
    kind = "<i1" if play.header["int8"] else "<i2"
    rows = play.expected.numpy().astype(kind)
    expected = bytearray(before)
    expected[OUTPUTS : OUTPUTS + rows.nbytes] = rows.tobytes()
    if play.mantissas is not None:
        ordered = play.mantissas.numpy()[play.shape.permutation].astype("<u4").tobytes()
        ordered += bytes(-len(ordered) % config.output_bytes)
        expected[SCALES : SCALES + len(ordered)] = ordered
    assert after == bytes(expected)


@pytest.mark.parametrize("wrong", ["magic", "no passes", "too wide"])
def test_faults(wrong, seed):
    config = CONFIGS["4x4"]
    engine = VectorEngine(config)
    play = product(random.Random(seed))
    memory = FakeMemory(engine, config, random.Random(seed), 0.0)
    memory.bytes = play.memory()
    if wrong == "magic":
        memory.bytes[PROGRAM] ^= 1
    elif wrong == "no passes":
        memory.bytes[PROGRAM + 2] &= 0xF8
    step = {**play.step(config), "too_wide": int(wrong == "too wide")}

    async def work(ctx: Any) -> None:
        ctx.set(engine.steps.payload, step)
        ctx.set(engine.steps.valid, 1)
        await ctx.tick()
        ctx.set(engine.steps.valid, 0)
        for _ in range(200):
            await ctx.tick()
        assert ctx.get(engine.fault) == 15
        assert not ctx.get(engine.rests)
        assert not ctx.get(engine.idle)

    simulate(engine, work, memory.take_runs, memory.send_units)
