"""The code reader: every code once and in order, no unit asked for without room."""

import random

import pytest

from paro.config import PRESETS, Config
from rtl.accelerator.code_reader import WAITING_UNITS, CodeReader
from rtl.bus.axi import Destination
from rtl.interfaces import CODES_PER_BEAT
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver

SHAPES = [(1, 1), (3, 17), (1, 300), (5, 16), (40, 33), (2, 1)]


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
    asked: list[int] = []  # addresses of units that are not given yet
    given = [0, 0]  # units given, words taken when they were
    receiver = Receiver(reader.codes, rng, stall)

    async def grant(ctx) -> None:
        while True:
            ctx.set(reader.runs.ready, rng.random() >= stall)
            _, _, valid, ready, run = await ctx.tick().sample(
                reader.runs.valid, reader.runs.ready, reader.runs.payload
            )
            if valid and ready:
                assert run.destination == Destination.CODES
                assert run.units >= 1
                asked.extend(run.address + index * unit_bytes for index in range(run.units))

    async def answer(ctx) -> None:
        while True:
            for _ in range(rng.randrange(30) if rng.random() < stall / 4 else 0):
                await ctx.tick()
            if asked and rng.random() >= stall:
                address = asked.pop(0)
                unit = memory[address : address + unit_bytes]
                assert len(unit) == unit_bytes, "read beyond the last unit"
                ctx.set(reader.units.payload, int.from_bytes(unit, "little"))
                ctx.set(reader.units.valid, 1)
                _, _, ready = await ctx.tick().sample(reader.units.ready)
                assert ready, "a unit was asked for without room"
                ctx.set(reader.units.valid, 0)
                given[0] += 1
            else:
                await ctx.tick()

    async def testbench(ctx) -> None:
        want: list[int] = []
        for address, rows, blocks, words in heads:
            request = {"address": address, "rows": rows, "key_blocks": blocks}
            assert ctx.get(reader.idle)
            ctx.set(reader.request.payload, request)
            ctx.set(reader.request.valid, 1)
            await ctx.tick().until(reader.request.ready)
            ctx.set(reader.request.valid, 0)
            assert not ctx.get(reader.idle)
            before = given[0]
            # Nobody takes codes at first: it reads ahead until it is full.
            await ctx.tick().repeat(150)
            units = -(-4 * words // unit_bytes)
            assert given[0] - before == min(units, WAITING_UNITS)
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
            assert not asked
            assert given[0] - before == units
        assert [item.as_bits() for item in receiver.items] == want

    simulate(reader, testbench, grant, answer)
