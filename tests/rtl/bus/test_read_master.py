"""The read master: every unit of every run, the rules of AXI4, errors, stop, rates."""

import itertools
import random
from collections.abc import Iterable
from typing import Any

import pytest

from rtl.bus.axi import Destination
from rtl.bus.axi_lite import Response
from rtl.bus.read_master import ReadMaster
from tests.rtl.bus.axi_memory import PAGE, AxiMemory, config_with
from tests.rtl.simulate import simulate

#: Bits of the port, bytes of a unit.
WIDTHS = list(itertools.product([64, 128, 256, 512], [4, 8, 16, 32, 64]))

Run = tuple[int, int, int]  # address, units, destination


def read_master(axi_bits: int, load_bytes: int) -> ReadMaster:
    return ReadMaster(config_with(axi_bits=axi_bits, load_bytes=load_bytes))


def random_runs(rng: random.Random, memory: AxiMemory, unit_bytes: int, words: int) -> list[Run]:
    """Runs of any alignment and of very different lengths; some cross 4 KiB."""
    runs = []
    while words > 0:
        units = rng.choice([1, 1, 2, rng.randint(1, 9), rng.randint(1, 400)])
        units = min(units, max(1, 4 * words // unit_bytes))
        length = units * unit_bytes
        if rng.random() < 0.3:
            page = memory.base + PAGE * rng.randrange(1, memory.size // PAGE - 1)
            address = page - 4 * rng.randrange(length // 4 + 2)
        else:
            address = memory.base + 4 * rng.randrange((memory.size - length) // 4 + 1)
        address = max(memory.base, min(address, memory.base + memory.size - length))
        runs.append((address, units, rng.choice(list(Destination))))
        words -= length // 4
    return runs


class Bench:
    """Gives runs, takes units; both as fast as `stall` lets them."""

    def __init__(self, master: ReadMaster, memory: AxiMemory, rng: random.Random, stall: float):
        self.master, self.memory, self.rng, self.stall = master, memory, rng, stall
        self.units: list[tuple[bytes, int]] = []
        self.taken: list[Run] = []
        self.failed: list[int] = []
        self.bursts = self.beats = 0

    async def give(self, ctx: Any, runs: Iterable[Run]) -> None:
        port = self.master.runs
        for run in runs:
            while self.rng.random() < self.stall:
                await ctx.tick()
            address, units, destination = run
            ctx.set(port.payload, {"address": address, "units": units, "destination": destination})
            ctx.set(port.valid, 1)
            ready = False
            while not ready:  # `until` cannot be left when a test ends
                _, _, ready = await ctx.tick().sample(port.ready)
            self.taken.append(run)
            ctx.set(port.valid, 0)

    async def take(self, ctx: Any) -> None:
        port = self.master.units
        held = None
        stop = 0
        while True:
            ctx.set(port.ready, not stop and self.rng.random() >= self.stall)
            _, _, valid, ready, unit, destination, stop = await ctx.tick().sample(
                port.valid,
                port.ready,
                port.payload.data.as_value(),
                port.payload.destination,
                self.master.stop,
            )
            if stop:
                assert not valid
                continue
            if held is not None:
                assert valid, "a unit was withdrawn"
                assert (unit, destination) == held, "a unit changed"
            held = (unit, destination) if valid and not ready else None
            if valid and ready:
                length = len(port.payload.data.as_value()) // 8
                self.units.append((unit.to_bytes(length, "little"), destination))

    async def watch(self, ctx: Any) -> None:
        """`idle` in every cycle, the strobes, the failures."""
        master, run = self.master, self.master.runs
        left = 0  # beats of the runs that were taken
        unit_bytes = len(master.units.payload.data.as_value()) // 8
        beat_bytes = len(master.axi.rdata) // 8
        while True:
            before = self.memory.outstanding
            _, _, valid, ready, start, units, *sampled = await ctx.tick().sample(
                *(run.valid, run.ready, run.payload.address, run.payload.units),
                master.idle,
                master.stop,
                master.axi.arvalid,
                master.burst,
                master.beat,
                master.failed,
                master.failed_address,
            )
            idle, stop, arvalid, burst, beat, failed, address = sampled
            assert idle == (not before and not arvalid and (stop or not left))
            self.bursts += burst
            self.beats += beat
            left -= beat
            if valid and ready:
                left += -(-(start + units * unit_bytes) // beat_bytes) - start // beat_bytes
            if failed:
                self.failed.append(address)

    async def serve(self, ctx: Any) -> None:
        await self.memory.serve_reads(ctx, self.master.axi)

    async def until(self, ctx: Any, condition: Any, limit: int) -> int:
        for cycle in range(limit):
            if condition():
                return cycle
            await ctx.tick()
        raise AssertionError(f"not within {limit} cycles")


def expected_units(memory: AxiMemory, runs: list[Run], unit_bytes: int) -> list[tuple[bytes, int]]:
    return [
        (memory.read(address + i * unit_bytes, unit_bytes), destination)
        for address, units, destination in runs
        for i in range(units)
    ]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize(("axi_bits", "load_bytes"), WIDTHS)
def test_units_of_runs(axi_bits: int, load_bytes: int, stall: float, seed: int) -> None:
    rng = random.Random(seed)
    master = read_master(axi_bits, load_bytes)
    memory = AxiMemory(rng=rng, stall=stall, latency=(1, 200 if stall else 20))
    runs = random_runs(rng, memory, load_bytes, words=1000)
    bench = Bench(master, memory, rng, stall)
    expected = expected_units(memory, runs, load_bytes)

    async def testbench(ctx: Any) -> None:
        await bench.give(ctx, runs)
        await bench.until(ctx, lambda: len(bench.units) == len(expected), 60000)
        await ctx.tick().repeat(20)

    simulate(master, testbench, bench.serve, bench.take, bench.watch)
    assert bench.units == expected
    assert not bench.failed
    assert (bench.bursts, bench.beats) == (len(memory.bursts), memory.beats)
    assert memory.beats == sum(beats for _, beats in memory.bursts)
    # Only beats that a run has bytes in are read, each once.
    beat_bytes = axi_bits // 8
    assert memory.beats == sum(
        (address + units * load_bytes - 1) // beat_bytes - address // beat_bytes + 1
        for address, units, _ in runs
    )


@pytest.mark.parametrize("error", [Response.SLVERR, Response.DECERR])
@pytest.mark.parametrize(("axi_bits", "load_bytes"), [(64, 16), (256, 4), (512, 64)])
def test_failed_beats_are_told_with_their_burst(
    axi_bits: int, load_bytes: int, seed: int, error: Response
) -> None:
    rng = random.Random(seed)
    master = read_master(axi_bits, load_bytes)
    beat_bytes = axi_bits // 8
    memory = AxiMemory(rng=rng, latency=(1, 50), error=error)
    beats = range(memory.base, memory.base + memory.size, beat_bytes)
    memory.bad = set(rng.sample(beats, len(beats) // 10))
    runs = random_runs(rng, memory, load_bytes, words=1500)
    bench = Bench(master, memory, rng, 0.2)
    expected = expected_units(memory, runs, load_bytes)

    async def testbench(ctx: Any) -> None:
        await bench.give(ctx, runs)
        await bench.until(ctx, lambda: len(bench.units) == len(expected), 40000)

    simulate(master, testbench, bench.serve, bench.take, bench.watch)
    assert bench.units == expected
    assert bench.failed
    assert bench.failed == memory.failed


@pytest.mark.parametrize(("axi_bits", "load_bytes"), [(64, 8), (64, 64), (512, 8)])
@pytest.mark.parametrize("attempt", range(3))
def test_stop(axi_bits: int, load_bytes: int, attempt: int, seed: int) -> None:
    """Begun bursts end, nothing else begins, and arriving data is dropped, until `idle`."""
    rng = random.Random(seed)
    master = read_master(axi_bits, load_bytes)
    memory = AxiMemory(rng=rng, latency=(1, 100), stall=0.5)
    runs = random_runs(rng, memory, load_bytes, words=8000)
    # At 0.98 units are hardly taken: data waits in the lanes and on the bus.
    bench = Bench(master, memory, rng, rng.choice([0.0, 0.4, 0.98]))
    expected = expected_units(memory, runs, load_bytes)
    bursts, delay = rng.randint(1, 12), rng.randint(0, 120)

    async def give(ctx: Any) -> None:
        await bench.give(ctx, runs)

    async def testbench(ctx: Any) -> None:
        await bench.until(ctx, lambda: len(memory.bursts) >= bursts, 20000)
        await ctx.tick().repeat(delay)
        await ctx.delay(1e-7)  # after the other processes' part of the clock's edge
        ctx.set(master.stop, 1)
        offered, begun = ctx.get(master.axi.arvalid), len(memory.bursts)
        taken = len(bench.taken)
        await bench.until(ctx, lambda: ctx.get(master.idle), 20000)
        await ctx.delay(1e-7)
        assert not memory.outstanding
        assert len(memory.bursts) == begun + offered
        for _ in range(300):
            assert ctx.get(master.idle)
            assert not ctx.get(master.axi.arvalid)
            await ctx.tick()
        assert len(memory.bursts) == begun + offered
        assert len(bench.taken) == taken

    simulate(master, testbench, bench.serve, bench.take, bench.watch, give)
    assert bench.units == expected[: len(bench.units)]
    assert len(bench.units) < len(expected)


def cycles_of(master: ReadMaster, memory: AxiMemory, runs: list[Run], load_bytes: int) -> int:
    """Cycles from the first run to the last unit, nothing but the memory's latency in the way."""
    bench = Bench(master, memory, memory.rng, 0.0)
    expected = expected_units(memory, runs, load_bytes)
    cycles = 0

    async def testbench(ctx: Any) -> None:
        nonlocal cycles
        cycles = await bench.until(ctx, lambda: len(bench.units) == len(expected), 20000)

    async def give(ctx: Any) -> None:
        await bench.give(ctx, runs)

    simulate(master, testbench, bench.serve, bench.take, bench.watch, give)
    assert bench.units == expected
    return cycles


LATENCY = 30


@pytest.mark.parametrize("offset", [0, 4])
@pytest.mark.parametrize(("axi_bits", "load_bytes"), WIDTHS)
def test_rate_of_a_long_run(axi_bits: int, load_bytes: int, offset: int, seed: int) -> None:
    """A unit a cycle, or a beat a cycle if a unit is wider."""
    memory = AxiMemory(rng=random.Random(seed), stall=0.0, latency=(LATENCY, LATENCY), size=1 << 16)
    steps = 400
    units = steps // max(1, 8 * load_bytes // axi_bits)
    master = read_master(axi_bits, load_bytes)
    cycles = cycles_of(master, memory, [(memory.base + offset, units, 0)], load_bytes)
    assert cycles - LATENCY <= steps / 0.95


@pytest.mark.parametrize(
    ("axi_bits", "load_bytes", "units"),
    [(512, 64, 1), (512, 32, 1), (128, 16, 4), (128, 8, 2), (64, 4, 1), (64, 4, 2), (64, 32, 2)],
)
def test_rate_of_short_runs(axi_bits: int, load_bytes: int, units: int, seed: int) -> None:
    """Aligned runs follow each other without a lost cycle, like the rows of tokens."""
    rng = random.Random(seed)
    memory = AxiMemory(rng=rng, stall=0.0, latency=(20, 20))
    length = units * load_bytes
    places = range(memory.base, memory.base + memory.size, max(length, axi_bits // 8))
    runs = [(rng.choice(places), units, i % 7) for i in range(300)]
    cycles = cycles_of(read_master(axi_bits, load_bytes), memory, runs, load_bytes)
    steps = len(runs) * units * max(1, 8 * load_bytes // axi_bits)
    assert cycles - LATENCY <= steps / 0.95


def test_latencies() -> None:
    master = read_master(128, 16)
    axi = master.axi

    async def cycles_until(ctx: Any, signal: Any) -> int:
        cycles = 0
        while not ctx.get(signal):
            await ctx.tick()
            cycles += 1
        return cycles

    async def testbench(ctx: Any) -> None:
        ctx.set(axi.arready, 1)
        ctx.set(master.runs.payload, {"address": 0x1000, "units": 1, "destination": 0})
        ctx.set(master.runs.valid, 1)
        await ctx.tick()
        ctx.set(master.runs.valid, 0)
        assert 1 + await cycles_until(ctx, axi.arvalid) == 3
        await ctx.tick().repeat(10)
        ctx.set(axi.rlast, 1)
        ctx.set(axi.rresp, 2)
        ctx.set(axi.rvalid, 1)
        await ctx.tick()
        ctx.set(axi.rvalid, 0)
        assert ctx.get(master.failed)
        assert 1 + await cycles_until(ctx, master.units.valid) == 2

    simulate(master, testbench)


@pytest.mark.parametrize(("axi_bits", "load_bytes"), [(64, 8), (512, 64)])
@pytest.mark.parametrize("hostile", ["below", "above", "last", "first", "between"])
def test_no_burst_begins_outside_of_the_windows(
    axi_bits: int, load_bytes: int, hostile: str, seed: int
) -> None:
    """Legal runs are read in full; of a hostile one, no burst outside begins, nor any after it."""
    rng = random.Random(seed)
    master = read_master(axi_bits, load_bytes)
    memory = AxiMemory(rng=rng, latency=(1, 30))
    # Pages 1, 2 and 4, 5 of the memory; the third window is closed.
    first = memory.base // PAGE + 1
    windows = [(first, first + 1), (first + 3, first + 4), (first + 5, first)]
    units = PAGE // load_bytes
    legal = [(memory.base + PAGE * page, units, 0) for page in (1, 4, 2, 5)]
    begins = {
        "below": memory.base,
        "above": memory.base + 6 * PAGE,
        "last": (1 << 40) - PAGE,
        "first": 0,
        "between": memory.base + 2 * PAGE + PAGE // 2,  # leaves its window in the middle
    }
    bench = Bench(master, memory, rng, 0.3)
    expected = expected_units(memory, legal, load_bytes)

    async def give(ctx: Any) -> None:
        await bench.give(ctx, legal)
        await bench.until(ctx, lambda: len(bench.units) == len(expected), 20000)
        assert not ctx.get(master.refused)
        await bench.give(ctx, [(begins[hostile], units, 0), *legal])

    async def testbench(ctx: Any) -> None:
        for index, (low, high) in enumerate(windows):
            ctx.set(master.windows[index].first, low)
            ctx.set(master.windows[index].last, high)
        await bench.until(ctx, lambda: ctx.get(master.refused), 20000)
        outside = begins[hostile] + (PAGE // 2 if hostile == "between" else 0)
        assert ctx.get(master.refused_address) == outside
        await ctx.tick().repeat(300)
        assert ctx.get(master.refused)
        ctx.set(master.stop, 1)
        await ctx.delay(1e-7)
        await bench.until(ctx, lambda: ctx.get(master.idle), 2000)

    simulate(master, testbench, bench.serve, bench.take, give)
    legal_bytes = sum(beats for _, beats in memory.bursts) * axi_bits // 8
    assert legal_bytes == len(legal) * PAGE + (PAGE // 2 if hostile == "between" else 0)
    pages = {address // PAGE - memory.base // PAGE for address, _ in memory.bursts}
    assert pages == {1, 2, 4, 5}
