"""The code reader: every code once and in order, no unit asked for without room."""

import random

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from firmware_model.host.superblocks import code_words, shared_code_words
from paro.config import PRESETS, Config
from rtl.accelerator.code_reader import WAITING_UNITS, CodeReader, code_rows
from rtl.bus.axi import Destination
from rtl.interfaces import CODES_PER_BEAT
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver

SHAPES = [(1, 1), (3, 17), (1, 300), (5, 16), (40, 33), (2, 1)]


class UnitSource:
    """The memory's side of a reader: takes its runs, sends their units when there is room."""

    def __init__(self, reader: CodeReader, config: Config, memory: bytes, rng, stall: float):
        self._reader, self._unit_bytes, self._memory = reader, config.load_bytes, memory
        self._rng, self._stall = rng, stall
        self.asked: list[int] = []  # addresses of units that are not sent yet
        self.sent = 0

    async def take_runs(self, ctx) -> None:
        runs = self._reader.runs
        while True:
            ctx.set(runs.ready, self._rng.random() >= self._stall)
            _, _, valid, ready, run = await ctx.tick().sample(runs.valid, runs.ready, runs.payload)
            if valid and ready:
                assert run.destination == Destination.CODES
                assert run.units >= 1
                units = range(run.units)
                self.asked += [run.address + index * self._unit_bytes for index in units]

    async def send_units(self, ctx) -> None:
        units, rng = self._reader.units, self._rng
        while True:
            for _ in range(rng.randrange(30) if rng.random() < self._stall / 4 else 0):
                await ctx.tick()
            if self.asked and rng.random() >= self._stall:
                address = self.asked.pop(0)
                unit = self._memory[address : address + self._unit_bytes]
                assert len(unit) == self._unit_bytes, "read beyond the last unit"
                ctx.set(units.payload, int.from_bytes(unit, "little"))
                ctx.set(units.valid, 1)
                _, _, ready = await ctx.tick().sample(units.ready)
                assert ready, "a unit was asked for without room"
                ctx.set(units.valid, 0)
                self.sent += 1
            else:
                await ctx.tick()


@pytest.mark.parametrize("config", [PRESETS["tiny"], PRESETS["ulx3s"], PRESETS["large"]])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_codes_of_heads(config: Config, stall: float, seed: int) -> None:
    rng = random.Random(seed)
    reader = CodeReader(config)
    unit_bytes = config.load_bytes
    memory = bytes(rng.getrandbits(8) | 1 for _ in range(4096))
    heads = []
    for rows, blocks in SHAPES:
        words = rows * -(-blocks // CODES_PER_BEAT)
        units = -(-4 * words // unit_bytes)
        heads.append((4 * rng.randrange((4096 - units * unit_bytes) // 4), rows, blocks, words))
    source = UnitSource(reader, config, memory, rng, stall)
    receiver = Receiver(reader.codes, rng, stall)

    async def testbench(ctx) -> None:
        want: list[int] = []
        for address, rows, blocks, words in heads:
            request = {"address": address, "rows": rows, "key_blocks": blocks, "passes": 1}
            assert ctx.get(reader.idle)
            ctx.set(reader.request.payload, request)
            ctx.set(reader.request.valid, 1)
            await ctx.tick().until(reader.request.ready)
            ctx.set(reader.request.valid, 0)
            assert not ctx.get(reader.idle)
            before = source.sent
            # Nobody takes codes at first: it reads ahead until it is full.
            await ctx.tick().repeat(150)
            units = -(-4 * words // unit_bytes)
            assert source.sent - before == min(units, WAITING_UNITS)
            want += [
                int.from_bytes(memory[address + 4 * i : address + 4 * i + 4], "little")
                for i in range(words)
            ]
            # Then units one by one, each time until it is full again.
            for units_taken in range(5, 10):
                first = len(want) - words + units_taken * unit_bytes // 4
                await receiver.receive(ctx, min(first, len(want) - 1))
                await ctx.tick().repeat(60)
                assert not ctx.get(reader.idle), "codes are left"
            await receiver.receive(ctx, len(want))
            await ctx.tick().repeat(2)
            assert ctx.get(reader.idle)
            assert not source.asked
            assert source.sent - before == units
        assert [item.as_bits() for item in receiver.items] == want

    simulate(reader, testbench, source.take_runs, source.send_units)


class CodeRows(wiring.Component):
    """`code_rows` of its inputs, a cycle later."""

    def __init__(self, config: Config):
        self._config = config
        super().__init__({"last_row": In(10), "linear": In(1), "rows": Out(12)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.rows.eq(code_rows(self._config, self.last_row, self.linear))
        return m


@pytest.mark.parametrize("query_rows", [1, 2, 8, 16])
def test_rows_of_words(query_rows: int) -> None:
    """As many as the host lays out, of heads and of layers."""
    config = Config(rows=4, cols=4, block=16, head_dim=32, query_rows=query_rows)
    counter = CodeRows(config)

    async def testbench(ctx) -> None:
        for rows in (1, 2, 3, 8, 9, 33, 1024):
            codes = np.ones((rows, 35), np.uint8)
            for linear, words in (
                (0, code_words(codes, config)),
                (1, shared_code_words(codes, config)),
            ):
                ctx.set(counter.last_row, rows - 1)
                ctx.set(counter.linear, linear)
                await ctx.tick()
                assert 3 * ctx.get(counter.rows) == len(words), (rows, linear)

    simulate(counter, testbench)
