"""The write master: memory afterwards, the rules of AXI4, errors, stop, rates."""

import itertools
import random
from typing import Any

import pytest

from rtl.bus.axi_lite import Response
from rtl.bus.write_master import WriteMaster
from tests.rtl.bus.axi_memory import PAGE, AxiMemory, config_with
from tests.rtl.simulate import simulate

#: Bits of the port, bytes of a unit.
WIDTHS = list(itertools.product([64, 128, 256, 512], [2, 4, 8, 16, 32, 64, 128]))

LATENCY = 30

Run = tuple[int, int]  # address, units


def write_master(axi_bits: int, unit_bytes: int) -> WriteMaster:
    return WriteMaster(config_with(axi_bits=axi_bits, output_words=unit_bytes // 2))


def write_memory(rng: random.Random, **parameters: Any) -> AxiMemory:
    return AxiMemory(rng=rng, most_beats=16, most_outstanding=64, **parameters)


def random_runs(rng: random.Random, memory: AxiMemory, unit_bytes: int, words: int) -> list[Run]:
    """Runs of any alignment and of very different lengths; some cross 4 KiB, some overlap."""
    runs = []
    while words > 0:
        units = rng.choice([1, 1, 2, rng.randint(1, 9), rng.randint(1, 300)])
        units = min(units, max(1, 4 * words // unit_bytes))
        units += units * unit_bytes // 2 % 2
        length = units * unit_bytes
        if rng.random() < 0.3:
            page = memory.base + PAGE * rng.randrange(1, memory.size // PAGE - 1)
            address = page - 4 * rng.randrange(length // 4 + 2)
        else:
            address = memory.base + 4 * rng.randrange((memory.size - length) // 4 + 1)
        address = max(memory.base, min(address, memory.base + memory.size - length))
        runs.append((address, units))
        words -= length // 4
    return runs


class Bench:
    """Gives runs and data, each as fast as `stall` lets it; knows the final memory."""

    def __init__(
        self,
        master: WriteMaster,
        memory: AxiMemory,
        runs: list[Run],
        *,
        stall: float,
    ):
        self.master, self.memory, self.stall, self.runs = master, memory, stall, runs
        self.rng = memory.rng
        self.unit_bytes = len(master.data.payload.as_value()) // 8
        self.units = [
            self.rng.randbytes(self.unit_bytes) for _, units in runs for _ in range(units)
        ]
        self.after = bytearray(memory.bytes)
        units = iter(self.units)
        for address, count in runs:
            for index in range(count):
                offset = address - memory.base + index * self.unit_bytes
                self.after[offset : offset + self.unit_bytes] = next(units)
        self.taken = self.bursts = self.beats = 0
        self.failed: list[int] = []

    async def give_runs(self, ctx: Any) -> None:
        port = self.master.runs
        for address, units in self.runs:
            while self.rng.random() < self.stall:
                await ctx.tick()
            ctx.set(port.payload, {"address": address, "units": units, "destination": 0})
            ctx.set(port.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(port.ready)
            self.taken += 1
            ctx.set(port.valid, 0)
            ctx.set(port.payload, {"address": 0, "units": 0, "destination": 0})

    async def give_data(self, ctx: Any) -> None:
        port = self.master.data
        for unit in self.units:
            while self.rng.random() < self.stall:
                await ctx.tick()
            ctx.set(port.payload.as_value(), int.from_bytes(unit, "little"))
            ctx.set(port.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(port.ready)
            ctx.set(port.valid, 0)

    async def watch(self, ctx: Any) -> None:
        """The strobes, the failures; `idle` while something is begun."""
        master = self.master
        while True:
            outstanding = self.memory.outstanding
            _, _, idle, awvalid, wvalid, burst, beat, failed, address = await ctx.tick().sample(
                master.idle,
                master.axi.awvalid,
                master.axi.wvalid,
                master.burst,
                master.beat,
                master.failed,
                master.failed_address,
            )
            assert not (idle and (outstanding or awvalid or wvalid))
            self.bursts += burst
            self.beats += beat
            if failed:
                self.failed.append(address)

    async def serve(self, ctx: Any) -> None:
        await self.memory.serve_writes(ctx, self.master.axi)

    async def until(self, ctx: Any, condition: Any, limit: int) -> int:
        for cycle in range(limit):
            if condition():
                return cycle
            await ctx.tick()
        raise AssertionError(f"not within {limit} cycles")

    async def until_written(self, ctx: Any, limit: int = 40000) -> int:
        """Wait for `idle` after the last run; then everything must have been written."""
        cycles = await self.until(ctx, lambda: self.taken == len(self.runs), limit)
        await ctx.delay(1e-7)
        cycles += await self.until(ctx, lambda: ctx.get(self.master.idle), limit)
        await ctx.delay(1e-7)
        assert self.memory.bytes == self.after
        assert not self.memory.outstanding
        return cycles

    def simulate(self, testbench: Any) -> None:
        simulate(self.master, testbench, self.serve, self.watch, self.give_runs, self.give_data)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize(("axi_bits", "unit_bytes"), WIDTHS)
def test_memory_after_runs(axi_bits: int, unit_bytes: int, stall: float, seed: int) -> None:
    rng = random.Random(seed)
    memory = write_memory(rng, stall=stall, latency=(1, 200 if stall else 20))
    runs = random_runs(rng, memory, unit_bytes, words=600)
    bench = Bench(write_master(axi_bits, unit_bytes), memory, runs, stall=stall)

    async def testbench(ctx: Any) -> None:
        await bench.until_written(ctx)
        await ctx.tick().repeat(20)

    bench.simulate(testbench)
    assert memory.bytes == bench.after
    assert not bench.failed
    assert (bench.bursts, bench.beats) == (len(memory.bursts), memory.beats)
    beat_bytes = axi_bits // 8
    assert memory.beats == sum(
        (address + units * unit_bytes - 1) // beat_bytes - address // beat_bytes + 1
        for address, units in runs
    )


@pytest.mark.parametrize(("axi_bits", "unit_bytes"), [(64, 2), (128, 32), (512, 16)])
def test_idle_only_when_all_is_written(axi_bits: int, unit_bytes: int, seed: int) -> None:
    """One run at a time: `idle` falls with the run, although its data may come much later."""
    rng = random.Random(seed)
    memory = write_memory(rng, latency=(1, 40))
    bench = Bench(write_master(axi_bits, unit_bytes), memory, [], stall=0.2)
    runs = random_runs(rng, memory, unit_bytes, words=150)

    async def testbench(ctx: Any) -> None:
        for address, units in runs:
            content = rng.randbytes(units * unit_bytes)
            assert ctx.get(bench.master.idle)
            bench.runs = [(address, units)]
            await bench.give_runs(ctx)
            assert not ctx.get(bench.master.idle)
            for _ in range(rng.choice([0, 0, 30])):
                await ctx.tick()
                assert not ctx.get(bench.master.idle)
            bench.units = [content[i : i + unit_bytes] for i in range(0, len(content), unit_bytes)]
            await bench.give_data(ctx)
            await bench.until(ctx, lambda: ctx.get(bench.master.idle), 5000)
            await ctx.delay(1e-7)
            assert memory.read(address, len(content)) == content
            await ctx.tick()

    simulate(bench.master, testbench, bench.serve, bench.watch)


@pytest.mark.parametrize("error", [Response.SLVERR, Response.DECERR])
@pytest.mark.parametrize(("axi_bits", "unit_bytes"), [(64, 16), (256, 4), (512, 64)])
def test_failed_bursts_are_told(axi_bits: int, unit_bytes: int, seed: int, error: Response) -> None:
    rng = random.Random(seed)
    memory = write_memory(rng, latency=(1, 50), error=error)
    beats = range(memory.base, memory.base + memory.size, axi_bits // 8)
    memory.bad = set(rng.sample(beats, len(beats) // 20))
    runs = random_runs(rng, memory, unit_bytes, words=800)
    bench = Bench(write_master(axi_bits, unit_bytes), memory, runs, stall=0.2)

    async def testbench(ctx: Any) -> None:
        await bench.until_written(ctx)
        await ctx.tick().repeat(2)

    bench.simulate(testbench)
    assert bench.failed
    assert bench.failed == memory.failed


@pytest.mark.parametrize(("axi_bits", "unit_bytes"), [(64, 8), (64, 64), (512, 8)])
@pytest.mark.parametrize("attempt", range(4))
def test_stop(axi_bits: int, unit_bytes: int, attempt: int, seed: int) -> None:
    """Begun bursts end and are answered, nothing else begins, until `idle`."""
    rng = random.Random(seed)
    memory = write_memory(rng, latency=(1, 100), stall=rng.choice([0.2, 0.8]))
    runs = random_runs(rng, memory, unit_bytes, words=4000)
    bench = Bench(
        write_master(axi_bits, unit_bytes), memory, runs, stall=rng.choice([0.0, 0.3, 0.9])
    )
    before = bytes(memory.bytes)
    bursts, delay = rng.randint(1, 12), rng.randint(0, 60)
    axi, idle = bench.master.axi, bench.master.idle

    async def testbench(ctx: Any) -> None:
        await bench.until(ctx, lambda: len(memory.bursts) >= bursts, 20000)
        await ctx.tick().repeat(delay)
        await ctx.delay(1e-7)  # after the other processes' part of the clock's edge
        ctx.set(bench.master.stop, 1)
        begun = len(memory.bursts) + ctx.get(axi.awvalid)
        taken = bench.taken
        await bench.until(ctx, lambda: ctx.get(idle), 20000)
        await ctx.delay(1e-7)
        assert not memory.outstanding
        assert memory.beats == sum(beats for _, beats in memory.bursts)
        for _ in range(300):
            assert ctx.get(idle)
            assert not ctx.get(axi.awvalid)
            assert not ctx.get(axi.wvalid)
            await ctx.tick()
        assert len(memory.bursts) == begun
        assert bench.taken == taken

    bench.simulate(testbench)
    assert memory.bytes not in (before, bench.after)


@pytest.mark.parametrize("offset", [0, 4])
@pytest.mark.parametrize(("axi_bits", "unit_bytes"), WIDTHS)
def test_rate_of_a_long_run(axi_bits: int, unit_bytes: int, offset: int, seed: int) -> None:
    """A unit a cycle, or a beat a cycle if a unit is wider."""
    memory = write_memory(random.Random(seed), stall=0.0, latency=(LATENCY, LATENCY), size=1 << 16)
    steps = 400
    units = steps // max(1, 8 * unit_bytes // axi_bits)
    master = write_master(axi_bits, unit_bytes)
    bench = Bench(master, memory, [(memory.base + offset, units)], stall=0.0)
    cycles = 0

    async def testbench(ctx: Any) -> None:
        nonlocal cycles
        cycles = await bench.until_written(ctx)

    bench.simulate(testbench)
    # The last burst is only sent when all of it is there.
    assert cycles - LATENCY - 16 <= steps / 0.95


@pytest.mark.parametrize(
    ("axi_bits", "unit_bytes", "units"), [(64, 8, 16), (128, 16, 8), (128, 2, 64), (512, 128, 2)]
)
def test_rate_of_short_runs(axi_bits: int, unit_bytes: int, units: int, seed: int) -> None:
    """Runs follow each other without a lost cycle, like the rows of tokens, however late answers.

    As many bursts are under way as it takes.
    """
    rng, latency = random.Random(seed), 200
    memory = write_memory(rng, stall=0.0, latency=(latency, latency))
    length = units * unit_bytes
    places = range(memory.base, memory.base + memory.size, length)
    runs = [(address, units) for address in rng.sample(places, 100)]
    bench = Bench(write_master(axi_bits, unit_bytes), memory, runs, stall=0.0)
    cycles = 0

    async def testbench(ctx: Any) -> None:
        nonlocal cycles
        cycles = await bench.until_written(ctx)

    bench.simulate(testbench)
    steps = len(runs) * units * max(1, 8 * unit_bytes // axi_bits)
    assert cycles - latency - 16 <= steps / 0.95


def test_latencies() -> None:
    master = write_master(128, 16)
    axi = master.axi

    async def testbench(ctx: Any) -> None:
        ctx.set(master.runs.payload, {"address": 0x1000, "units": 1, "destination": 0})
        ctx.set(master.runs.valid, 1)
        await ctx.tick()
        ctx.set(master.runs.valid, 0)
        await ctx.tick().repeat(10)
        ctx.set(master.data.valid, 1)
        assert ctx.get(master.data.ready)
        await ctx.tick()
        ctx.set(master.data.valid, 0)
        offered = []
        for _ in range(6):
            offered.append((ctx.get(axi.awvalid), ctx.get(axi.wvalid)))
            await ctx.tick()
        assert offered == [(0, 0), (1, 0), (1, 0), (1, 1), (1, 1), (1, 1)]

    simulate(master, testbench)


@pytest.mark.parametrize(("axi_bits", "unit_bytes"), [(64, 4), (512, 64)])
@pytest.mark.parametrize("hostile", ["below", "above", "between"])
def test_no_burst_begins_outside_of_the_window(
    axi_bits: int, unit_bytes: int, hostile: str, seed: int
) -> None:
    """Legal runs are written; of a hostile one, no byte outside changes, nor any after it."""
    rng = random.Random(seed)
    master, memory = write_master(axi_bits, unit_bytes), write_memory(rng, latency=(1, 30))
    first = memory.base // PAGE + 1  # pages 1 and 2
    units = PAGE // unit_bytes
    page = {"below": 0, "above": 3, "between": 2}[hostile]
    begin = memory.base + PAGE * page + (PAGE // 2 if hostile == "between" else 0)
    legal = [(memory.base + PAGE, units)]
    bench = Bench(master, memory, [*legal, (begin, units), *legal], stall=0.2)
    before = bytes(memory.bytes)

    async def testbench(ctx: Any) -> None:
        ctx.set(master.windows[0].first, first)
        ctx.set(master.windows[0].last, first + 1)
        await bench.until(ctx, lambda: ctx.get(master.refused), 20000)
        outside = begin + (PAGE // 2 if hostile == "between" else 0)
        assert ctx.get(master.refused_address) == outside
        await ctx.tick().repeat(400)
        assert ctx.get(master.refused)
        ctx.set(master.stop, 1)
        await ctx.delay(1e-7)
        await bench.until(ctx, lambda: ctx.get(master.idle), 4000)

    simulate(master, testbench, bench.serve, bench.give_runs, bench.give_data)
    written = b"".join(bench.units[:units])
    assert memory.bytes[PAGE : 2 * PAGE] == written
    half = PAGE // 2 if hostile == "between" else 0
    assert memory.bytes[2 * PAGE + PAGE // 2 :][:half] == b"".join(bench.units[units:])[:half]
    assert memory.bytes[:PAGE] == before[:PAGE]
    assert memory.bytes[2 * PAGE :][: PAGE - half] == before[2 * PAGE :][: PAGE - half]
    assert memory.bytes[3 * PAGE :] == before[3 * PAGE :]
