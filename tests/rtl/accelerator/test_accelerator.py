"""What registers do to the accelerator and tell of it; its engine is a stand-in."""

import random
from collections import Counter
from typing import Any

import pytest
from amaranth.hdl import Module

from paro.config import Config
from paro.config.registers import ADDRESS_BITS, Cause, find_register
from rtl.accelerator.accelerator import Accelerator
from rtl.accelerator.engine import Engine
from rtl.bus.axi_lite import Response, axi_lite_signature
from tests.rtl.accelerator.test_register_file import Master
from tests.rtl.simulate import simulate

CONFIG = Config(rows=4, cols=4, block=16, head_dim=32)
START, RESET, INTERRUPT = 1, 2, 4
BUSY, DONE, ERROR = 1, 2, 4
BASE = 0x12_3456_7894


class StandIn(Engine):
    """Ports of the engine alone."""

    def elaborate(self, platform):
        return Module()


class Device:
    """An accelerator, its registers by name, and what its engine is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int):
        made: list[StandIn] = []

        def make(config: Config) -> StandIn:
            made.append(StandIn(config))
            return made[-1]

        monkeypatch.setattr("rtl.accelerator.accelerator.Engine", make)
        self.accelerator = Accelerator(CONFIG)
        self._made, self.told = made, Counter[str]()
        members = axi_lite_signature(ADDRESS_BITS).members
        registers = type("Registers", (), {})()
        registers.s_axil = type("Bus", (), {})()
        for name in members:
            setattr(registers.s_axil, name, getattr(self.accelerator, f"s_axil_{name}"))
        self._master = Master(registers, random.Random(seed), 0.2)

    @property
    def engine(self) -> Any:
        return self._made[0]

    async def write(self, ctx: Any, name: str, value: int) -> None:
        offset = find_register(name).offset
        assert await self._master.write(ctx, offset, value) == Response.OKAY

    async def read(self, ctx: Any, name: str) -> int:
        value, response = await self._master.read(ctx, find_register(name).offset)
        assert response == Response.OKAY
        return value

    async def status(self, ctx: Any) -> tuple[int, Cause]:
        """BUSY, DONE and ERROR, and the cause."""
        word = await self.read(ctx, "STATUS")
        return word & 7, Cause(word >> 4)

    async def prepare(self, ctx: Any, base: int = BASE, count: int = 3) -> None:
        await self.write(ctx, "QUEUE_BASE_LO", base % 2**32)
        await self.write(ctx, "QUEUE_BASE_HI", base >> 32)
        await self.write(ctx, "QUEUE_COUNT", count)

    async def start(self, ctx: Any, word: int = START) -> None:
        """Start and wait until the engine may answer."""
        await self.write(ctx, "CONTROL", word)
        await ctx.tick().repeat(3)

    async def rest(self, ctx: Any) -> None:
        """Let the engine become quiet."""
        ctx.set(self.engine.quiet, 1)
        await ctx.tick().repeat(3)

    async def pulse(self, ctx: Any, name: str, value: int = 1) -> None:
        """One cycle of an engine's output."""
        ctx.set(getattr(self.engine, name), value)
        await ctx.tick()
        ctx.set(getattr(self.engine, name), 0)

    async def watch(self, ctx: Any) -> None:
        """Count the cycles in which the engine is started and those in which it is stopped."""
        while True:
            _, _, start, stop = await ctx.tick().sample(self.engine.start, self.engine.stop)
            self.told.update(start=start, stop=stop)

    def simulate(self, testbench: Any) -> None:
        simulate(self.accelerator, testbench, self.watch)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, seed: int) -> Device:
    return Device(monkeypatch, seed)


def test_a_queue(device: Device) -> None:
    """A start takes the registers over, which may then change; the engine ends it."""

    async def testbench(ctx: Any) -> None:
        await device.prepare(ctx)
        assert await device.status(ctx) == (0, Cause.NONE)
        await device.start(ctx, START | INTERRUPT)
        await device.prepare(ctx, base=0, count=9)
        assert device.told["start"] == 1
        assert (ctx.get(device.engine.base), ctx.get(device.engine.count)) == (BASE, 3)
        assert await device.status(ctx) == (BUSY, Cause.NONE)
        await device.pulse(ctx, "head_done")
        assert await device.read(ctx, "HEADS_DONE") == 1
        assert not ctx.get(device.accelerator.irq)
        await device.pulse(ctx, "done")
        assert ctx.get(device.accelerator.irq)
        assert await device.status(ctx) == (DONE, Cause.NONE)
        cycles = await device.read(ctx, "CYCLES_LO")
        assert cycles == await device.read(ctx, "CYCLES_LO") > 0, "it counts while busy alone"

    device.simulate(testbench)
    assert device.told == {"start": 1, "stop": 0}


@pytest.mark.parametrize("flag", [DONE, ERROR])
def test_a_start_clears_what_was_reported(device: Device, flag: int) -> None:
    """Without an acknowledgement: busy never stands beside what an earlier queue left."""

    async def testbench(ctx: Any) -> None:
        await device.prepare(ctx)
        await device.start(ctx, START | INTERRUPT)
        if flag == DONE:
            await device.pulse(ctx, "head_done")
            await device.pulse(ctx, "done")
        else:
            await device.pulse(ctx, "cause", Cause.EMPTY_ROW)
            await device.rest(ctx)
        cause = Cause.NONE if flag == DONE else Cause.EMPTY_ROW
        assert await device.status(ctx) == (flag, cause)
        assert ctx.get(device.accelerator.irq)
        await device.start(ctx, START | INTERRUPT)
        assert await device.status(ctx) == (BUSY, cause)
        assert not ctx.get(device.accelerator.irq)
        assert await device.read(ctx, "HEADS_DONE") == 0
        await device.pulse(ctx, "done")
        assert await device.status(ctx) == (DONE, cause)

    device.simulate(testbench)
    assert device.told["start"] == 2


@pytest.mark.parametrize(
    ("base", "count", "cause"),
    [
        (BASE, 0, Cause.EMPTY_QUEUE),
        (BASE + 1, 1, Cause.BAD_QUEUE_BASE),
        (BASE + 2, 1, Cause.BAD_QUEUE_BASE),
        (BASE + 2, 0, Cause.EMPTY_QUEUE),
    ],
)
def test_starts_that_are_refused(device: Device, base: int, count: int, cause: Cause) -> None:
    """An error, at rest, and nothing else: what the queue before left stays."""

    async def testbench(ctx: Any) -> None:
        await device.prepare(ctx)
        await device.start(ctx)
        await device.pulse(ctx, "head_done")
        await device.pulse(ctx, "done")
        cycles = await device.read(ctx, "CYCLES_LO")
        await device.prepare(ctx, base, count)
        await device.start(ctx)
        assert await device.status(ctx) == (DONE | ERROR, cause)
        assert await device.read(ctx, "CYCLES_LO") == cycles
        assert await device.read(ctx, "HEADS_DONE") == 1
        await device.prepare(ctx)
        await device.start(ctx)
        assert await device.status(ctx) == (BUSY, cause)

    device.simulate(testbench)
    assert device.told == {"start": 2, "stop": 0}


def test_a_start_while_busy(device: Device) -> None:
    """Refused in work and while a queue is given up; the queue goes on, and is done beside it."""

    async def testbench(ctx: Any) -> None:
        await device.prepare(ctx)
        await device.start(ctx)
        await device.start(ctx)
        assert await device.status(ctx) == (BUSY | ERROR, Cause.BUSY)
        assert device.told["start"] == 1
        await device.pulse(ctx, "done")
        assert await device.status(ctx) == (DONE | ERROR, Cause.BUSY)
        await device.write(ctx, "STATUS", ERROR)
        assert await device.status(ctx) == (DONE, Cause.BUSY)
        await device.start(ctx)
        await device.write(ctx, "CONTROL", RESET)
        assert await device.status(ctx) == (BUSY, Cause.BUSY)
        await device.start(ctx)
        assert await device.status(ctx) == (BUSY | ERROR, Cause.BUSY)
        assert ctx.get(device.engine.stop)
        await device.rest(ctx)
        await device.write(ctx, "STATUS", ERROR)
        assert await device.status(ctx) == (0, Cause.BUSY)

    device.simulate(testbench)
    assert device.told["start"] == 2


@pytest.mark.parametrize("word", [RESET, RESET | START])
def test_reset(device: Device, word: int) -> None:
    """At rest nothing, in work the queue is given up when the engine is quiet; a start in the same
    write is not looked at.
    """

    async def testbench(ctx: Any) -> None:
        await device.prepare(ctx)
        await device.write(ctx, "CONTROL", word)
        assert await device.status(ctx) == (0, Cause.NONE)
        assert device.told == {"start": 0, "stop": 0}
        await device.start(ctx)
        await device.write(ctx, "CONTROL", word | INTERRUPT)
        for _ in range(5):
            assert await device.status(ctx) == (BUSY, Cause.NONE)
        await device.rest(ctx)
        assert await device.status(ctx) == (0, Cause.NONE)
        assert not ctx.get(device.accelerator.irq)
        assert (await device.read(ctx, "QUEUE_COUNT"), device.told["start"]) == (3, 1)
        assert await device.read(ctx, "CONTROL") == INTERRUPT
        await device.start(ctx)
        assert await device.status(ctx) == (BUSY, Cause.NONE)

    device.simulate(testbench)
    assert device.told["start"] == 2


@pytest.mark.parametrize(
    ("cause", "head", "address"),
    [(Cause.READ_ERROR, 7, 0x98_7654_3210), (Cause.WRITE_ERROR, 1, 0x98_7654_3210)],
)
def test_errors_of_the_engine(device: Device, cause: Cause, head: int, address: int) -> None:
    """Reported at once, with the head that is read or written; busy until the engine is quiet."""

    async def testbench(ctx: Any) -> None:
        await device.prepare(ctx)
        await device.start(ctx)
        await device.pulse(ctx, "head_done")
        ctx.set(device.engine.head, 7)
        ctx.set(device.engine.error_address, address)
        await device.pulse(ctx, "cause", cause)
        ctx.set(device.engine.error_address, 0)
        assert await device.status(ctx) == (BUSY | ERROR, cause)
        assert await device.read(ctx, "ERROR_HEAD") == head
        low = await device.read(ctx, "ERROR_ADDRESS_LO")
        high = await device.read(ctx, "ERROR_ADDRESS_HI")
        assert high << 32 | low == address
        await device.pulse(ctx, "cause", Cause.EMPTY_ROW)
        await device.pulse(ctx, "done")
        assert await device.status(ctx) == (BUSY | ERROR, cause), "what comes later is not told"
        await device.rest(ctx)
        assert await device.status(ctx) == (ERROR, cause)

    device.simulate(testbench)
