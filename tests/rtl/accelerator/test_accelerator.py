"""Registers and control of the accelerator; its engine is a stand-in."""

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from amaranth.hdl import Module

from paro.config import Config
from paro.config.registers import (
    PAGE_NUMBER_BITS,
    REGISTER_ADDRESS_BITS,
    WINDOWS,
    Cause,
    find_register,
    window_name,
)
from rtl.accelerator.accelerator import Accelerator
from rtl.accelerator.engine import Engine
from rtl.bus.axi_lite import Response, axi_lite_signature
from tests.rtl.bus.axi_lite_master import AxiLiteMaster
from tests.rtl.simulate import simulate

CONFIG = Config(rows=4, cols=4, block=16, head_dim=32)
START, RESET, INTERRUPT = 1, 2, 4
BUSY, DONE, ERROR = 1, 2, 4
BASE = 0x12_3456_7894


class StandIn(Engine):
    """Ports of the engine alone."""

    def elaborate(self, platform):
        return Module()


class Host:
    """The host of an accelerator: its registers by name; counts the engine's starts and stops."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int):
        made: list[StandIn] = []

        def make(config: Config) -> StandIn:
            made.append(StandIn(config))
            return made[-1]

        monkeypatch.setattr("rtl.accelerator.accelerator.Engine", make)
        self.accelerator = Accelerator(CONFIG)
        self._made, self.commands = made, Counter[str]()
        members = axi_lite_signature(REGISTER_ADDRESS_BITS).members
        bus = SimpleNamespace(
            **{name: getattr(self.accelerator, f"s_axil_{name}") for name in members}
        )
        self._master = AxiLiteMaster(bus, random.Random(seed), 0.2)

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
            self.commands.update(start=start, stop=stop)

    def simulate(self, testbench: Any) -> None:
        simulate(self.accelerator, testbench, self.watch)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, seed: int) -> Host:
    return Host(monkeypatch, seed)


def test_a_queue(host: Host) -> None:
    """A start takes the registers over, which may then change; the engine ends it."""

    async def testbench(ctx: Any) -> None:
        await host.prepare(ctx)
        assert await host.status(ctx) == (0, Cause.NONE)
        await host.start(ctx, START | INTERRUPT)
        await host.prepare(ctx, base=0, count=9)
        assert host.commands["start"] == 1
        assert (ctx.get(host.engine.base), ctx.get(host.engine.count)) == (BASE, 3)
        assert await host.status(ctx) == (BUSY, Cause.NONE)
        await host.pulse(ctx, "head_done")
        assert await host.read(ctx, "HEADS_DONE") == 1
        assert not ctx.get(host.accelerator.irq)
        await host.pulse(ctx, "done")
        assert ctx.get(host.accelerator.irq)
        assert await host.status(ctx) == (DONE, Cause.NONE)
        cycles = await host.read(ctx, "CYCLES_LO")
        assert cycles == await host.read(ctx, "CYCLES_LO") > 0, "it counts while busy alone"

    host.simulate(testbench)
    assert host.commands == {"start": 1, "stop": 0}


@pytest.mark.parametrize("flag", [DONE, ERROR])
def test_a_start_clears_what_was_reported(host: Host, flag: int) -> None:
    """Without an acknowledgement: busy is never 1 together with the flags of an earlier queue."""

    async def testbench(ctx: Any) -> None:
        await host.prepare(ctx)
        await host.start(ctx, START | INTERRUPT)
        if flag == DONE:
            await host.pulse(ctx, "head_done")
            await host.pulse(ctx, "done")
        else:
            await host.pulse(ctx, "cause", Cause.EMPTY_ROW)
            await host.rest(ctx)
        cause = Cause.NONE if flag == DONE else Cause.EMPTY_ROW
        assert await host.status(ctx) == (flag, cause)
        assert ctx.get(host.accelerator.irq)
        await host.start(ctx, START | INTERRUPT)
        assert await host.status(ctx) == (BUSY, cause)
        assert not ctx.get(host.accelerator.irq)
        assert await host.read(ctx, "HEADS_DONE") == 0
        await host.pulse(ctx, "done")
        assert await host.status(ctx) == (DONE, cause)

    host.simulate(testbench)
    assert host.commands["start"] == 2


@pytest.mark.parametrize(
    ("base", "count", "cause"),
    [
        (BASE, 0, Cause.EMPTY_QUEUE),
        (BASE + 1, 1, Cause.BAD_QUEUE_BASE),
        (BASE + 2, 1, Cause.BAD_QUEUE_BASE),
        (BASE + 2, 0, Cause.EMPTY_QUEUE),
    ],
)
def test_starts_that_are_refused(host: Host, base: int, count: int, cause: Cause) -> None:
    """An error, at rest, and nothing else: the flags of the queue before stay."""

    async def testbench(ctx: Any) -> None:
        await host.prepare(ctx)
        await host.start(ctx)
        await host.pulse(ctx, "head_done")
        await host.pulse(ctx, "done")
        cycles = await host.read(ctx, "CYCLES_LO")
        await host.prepare(ctx, base, count)
        await host.start(ctx)
        assert await host.status(ctx) == (DONE | ERROR, cause)
        assert await host.read(ctx, "CYCLES_LO") == cycles
        assert await host.read(ctx, "HEADS_DONE") == 1
        await host.prepare(ctx)
        await host.start(ctx)
        assert await host.status(ctx) == (BUSY, cause)

    host.simulate(testbench)
    assert host.commands == {"start": 2, "stop": 0}


def test_a_start_while_busy(host: Host) -> None:
    """Refused in work and while a queue is given up; the queue goes on, and is done beside it."""

    async def testbench(ctx: Any) -> None:
        await host.prepare(ctx)
        await host.start(ctx)
        await host.start(ctx)
        assert await host.status(ctx) == (BUSY | ERROR, Cause.BUSY)
        assert host.commands["start"] == 1
        await host.pulse(ctx, "done")
        assert await host.status(ctx) == (DONE | ERROR, Cause.BUSY)
        await host.write(ctx, "STATUS", ERROR)
        assert await host.status(ctx) == (DONE, Cause.BUSY)
        await host.start(ctx)
        await host.write(ctx, "CONTROL", RESET)
        assert await host.status(ctx) == (BUSY, Cause.BUSY)
        await host.start(ctx)
        assert await host.status(ctx) == (BUSY | ERROR, Cause.BUSY)
        assert ctx.get(host.engine.stop)
        await host.rest(ctx)
        await host.write(ctx, "STATUS", ERROR)
        assert await host.status(ctx) == (0, Cause.BUSY)

    host.simulate(testbench)
    assert host.commands["start"] == 2


@pytest.mark.parametrize("word", [RESET, RESET | START])
def test_reset(host: Host, word: int) -> None:
    """At rest nothing, in work the queue is given up when the engine is quiet; a start in the same
    write is ignored.
    """

    async def testbench(ctx: Any) -> None:
        await host.prepare(ctx)
        await host.write(ctx, "CONTROL", word)
        assert await host.status(ctx) == (0, Cause.NONE)
        assert host.commands == {"start": 0, "stop": 0}
        await host.start(ctx)
        await host.write(ctx, "CONTROL", word | INTERRUPT)
        for _ in range(5):
            assert await host.status(ctx) == (BUSY, Cause.NONE)
        await host.rest(ctx)
        assert await host.status(ctx) == (0, Cause.NONE)
        assert not ctx.get(host.accelerator.irq)
        assert (await host.read(ctx, "QUEUE_COUNT"), host.commands["start"]) == (3, 1)
        assert await host.read(ctx, "CONTROL") == INTERRUPT
        await host.start(ctx)
        assert await host.status(ctx) == (BUSY, Cause.NONE)

    host.simulate(testbench)
    assert host.commands["start"] == 2


@pytest.mark.parametrize(
    ("cause", "head", "address"),
    [
        (Cause.READ_ERROR, 7, 0x98_7654_3210),
        (Cause.WRITE_ERROR, 1, 0x98_7654_3210),
        (Cause.READ_OUTSIDE, 7, 0x98_7654_3000),
        (Cause.WRITE_OUTSIDE, 1, 0x98_7654_3000),
    ],
)
def test_errors_of_the_engine(host: Host, cause: Cause, head: int, address: int) -> None:
    """Reported at once, with the head that is read or written; busy until the engine is quiet."""

    async def testbench(ctx: Any) -> None:
        await host.prepare(ctx)
        await host.start(ctx)
        await host.pulse(ctx, "head_done")
        ctx.set(host.engine.head, 7)
        ctx.set(host.engine.error_address, address)
        await host.pulse(ctx, "cause", cause)
        ctx.set(host.engine.error_address, 0)
        assert await host.status(ctx) == (BUSY | ERROR, cause)
        assert await host.read(ctx, "ERROR_HEAD") == head
        low = await host.read(ctx, "ERROR_ADDRESS_LO")
        high = await host.read(ctx, "ERROR_ADDRESS_HI")
        assert high << 32 | low == address
        await host.pulse(ctx, "cause", Cause.EMPTY_ROW)
        await host.pulse(ctx, "done")
        assert await host.status(ctx) == (BUSY | ERROR, cause), "a later error is not reported"
        await host.rest(ctx)
        assert await host.status(ctx) == (ERROR, cause)

    host.simulate(testbench)


def test_windows_reach_the_engine(host: Host) -> None:
    """Open after reset; then as written, each in its place."""

    async def testbench(ctx: Any) -> None:
        last = (1 << PAGE_NUMBER_BITS) - 1
        windows = host.engine.windows
        for index in range(len(WINDOWS)):
            assert (ctx.get(windows[index].first), ctx.get(windows[index].last)) == (0, last)
        for index, window in enumerate(WINDOWS):
            await host.write(ctx, window_name(window, "first"), 0x100 + index)
            await host.write(ctx, window_name(window, "last"), last - index)
        for index, window in enumerate(WINDOWS):
            assert ctx.get(windows[index].first) == 0x100 + index
            assert ctx.get(windows[index].last) == last - index
            assert await host.read(ctx, window_name(window, "last")) == last - index

    host.simulate(testbench)
