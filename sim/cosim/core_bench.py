"""The cocotb bench: tells the harness which beats go where, and watches.

Runs inside the simulator, in a folder with ``stimulus.json`` (see `sim.cosim.core_stimulus`), and
leaves ``result.json`` and, from the harness, ``o.hex``. It wakes only when `status` has a bit set.
"""

import json
from collections import deque
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from sim.cycles.stalls import STREAMS, generator_seed, stall_rates

#: Periods of the clock for which reset is held.
RESET_CYCLES = 3
#: Clocks after the last output in which nothing may happen and `busy` must fall.
QUIET_CYCLES = 300


class CheckFailed(Exception):
    """The core did what its contract forbids."""


class Bench:
    """Plays all runs of a stimulus, one directly after the other.

    Parameters
    ----------
    dut : cocotb handle
        `sim.cosim.core_harness`.
    stimulus : dict
        Content of ``stimulus.json``.
    """

    def __init__(self, dut: Any, stimulus: dict[str, Any]):
        self.dut = dut
        self.runs: list[dict[str, Any]] = stimulus["runs"]
        self.settings = stimulus
        self.bits: dict[str, int] = stimulus["status_bits"]
        self.results: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Offer the first command; nothing has been asked for yet."""
        self.offered = 0  # commands offered
        self.accepted = -1  # run of the last command taken
        self.codes_run = 0  # run whose codes are offered
        self.finished = 0  # runs whose outputs are complete
        self.results = [{} for _ in self.runs]
        self.pending: dict[str, deque[tuple[int, int, int]]] = {name: deque() for name in "qkv"}
        self.playing = dict.fromkeys("qkv", False)
        self.discarded = int(self.dut.o_beats.value)
        self.goal = self.discarded + self.runs[0]["output_beats"]
        self.dut.output_goal.value = self.goal
        cycle = int(self.dut.cycle.value)
        self.send("command", 0, 1, cycle)
        first, count = self.runs[0]["codes"]
        self.send("codes", first, count, cycle)

    def send(self, stream: str, first: int, count: int, asked: int) -> None:
        """Let a player send some beats that were asked for in cycle ``asked``."""
        getattr(self.dut, f"{stream}_first").value = first
        getattr(self.dut, f"{stream}_count").value = count
        getattr(self.dut, f"{stream}_after").value = asked + self.settings["memory_latency"]

    async def reset(self) -> None:
        """Reset core and harness; everything on its way is lost."""
        self.dut.rst.value = 1
        for stream in ("command", "codes", "q", "k", "v"):
            self.send(stream, 0, 0, 0)
        for _ in range(RESET_CYCLES):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0

    async def play(self) -> None:
        """Everything, from power-up to the quiet end."""
        dut, bits = self.dut, self.bits
        self.drive_constants()
        Clock(dut.clk, 10, "ns").start()
        await self.reset()
        self.begin()
        reset_at = self.settings["reset_at"]
        if reset_at is not None:
            dut.alarm_at.value = int(dut.cycle.value) + reset_at
        while self.finished < len(self.runs):
            await RisingEdge(dut.clk)
            status = int(dut.status.value)
            if not status:
                await RisingEdge(dut.wake)
                continue
            if status >> bits["alarm"] & 1:
                await self.reset()
                self.begin()
                continue
            self.react({name for name, bit in bits.items() if status >> bit & 1})
        await self.stay_quiet()

    def drive_constants(self) -> None:
        """Inputs that do not change."""
        dut, seed = self.dut, self.settings["stall_seed"]
        dut.stall_seed.value = generator_seed(seed)
        rates = stall_rates(seed)
        for stream in STREAMS:
            getattr(dut, f"{stream}_stall_rate").value = rates[stream]
        dut.idle_limit.value = self.settings["idle_limit"]
        dut.alarm_at.value = 2**32 - 1
        dut.output_goal.value = 0

    def react(self, events: set[str]) -> None:
        """Handle what happens at this clock edge."""
        cycle = int(self.dut.cycle.value)
        if "hung" in events:
            raise CheckFailed(f"no transfer on any stream for {self.settings['idle_limit']} cycles")
        if "empty_row" in events:
            raise CheckFailed("the core reports a block row without a live block")
        if "broken" in events:
            raise CheckFailed("the core withdrew or changed an offered beat, or it holds X")
        if "command" in events:
            self.accepted += 1
            self.results[self.accepted]["start"] = cycle
            self.results[self.accepted]["activity_start"] = self.activity()
            self.send("command", self.accepted + 1, int(self.accepted + 1 < len(self.runs)), cycle)
        if "codes" in events:
            self.codes_run += 1
            more = self.codes_run < len(self.runs)
            first, count = self.runs[self.codes_run]["codes"] if more else (0, 0)
            self.send("codes", first, count, cycle)
        if "fetch" in events:
            self.fetch(int(self.dut.request.value), cycle)
        for stream, queue in self.pending.items():
            done = stream in events
            if queue and (done or not self.playing[stream]):
                self.send(stream, *queue.popleft())
                self.playing[stream] = True
            elif done:
                self.send(stream, 0, 0, cycle)
                self.playing[stream] = False
        if "output_goal" in events:
            self.results[self.finished]["end"] = cycle
            self.results[self.finished]["activity_end"] = self.activity()
            self.finished += 1
            if self.finished < len(self.runs):
                self.goal += self.runs[self.finished]["output_beats"]
                self.dut.output_goal.value = self.goal

    def activity(self) -> list[int]:
        """Counters of the stages' activities, in order."""
        value = int(self.dut.activity_counts.value)
        bits = self.settings["counter_bits"]
        count = len(self.dut.activity_counts) // bits
        return [value >> bits * index & (1 << bits) - 1 for index in range(count)]

    def fetch(self, request: int, cycle: int) -> None:
        """Queue the block that the core asks for."""
        operand, block = request & 3, request >> self.settings["fetch_block_offset"]
        names = self.settings["operands"]
        if self.accepted < 0 or operand >= len(names):
            raise CheckFailed(f"fetch of operand {operand}, block {block} in no run")
        blocks = self.runs[self.accepted]["fetch"][names[operand]]
        if block >= len(blocks):
            raise CheckFailed(
                f"run {self.accepted}: fetch of {names[operand]} block {block} of {len(blocks)}"
            )
        self.pending[names[operand].lower()].append((*blocks[block], cycle))
        if names[operand] == "Q":
            with Path("progress").open("ab") as progress:
                progress.write(b".")

    async def stay_quiet(self) -> None:
        """Check that nothing follows the last output."""
        for _ in range(QUIET_CYCLES):
            await RisingEdge(self.dut.clk)
            if int(self.dut.status.value) & ~(1 << self.bits["alarm"]):
                raise CheckFailed("the core goes on after its last output")
        if int(self.dut.busy.value):
            raise CheckFailed(f"the core is still busy {QUIET_CYCLES} cycles after its last output")
        if any(self.playing.values()) or self.codes_run != len(self.runs):
            raise CheckFailed("the core finished without taking all its operands")
        if int(self.dut.o_beats.value) != self.goal:
            raise CheckFailed("the core sent more outputs than there are")

    def result(self, failure: str | None) -> dict[str, Any]:
        """What ``result.json`` holds."""
        return {
            "failure": failure,
            "runs": self.results,
            "cycles": int(self.dut.cycle.value),
            "outputs_discarded": self.discarded,
        }


@cocotb.test()
async def play(dut: Any) -> None:
    """Play ``stimulus.json``."""
    bench = Bench(dut, json.loads(Path("stimulus.json").read_text()))
    failure = None
    try:
        await bench.play()
    except CheckFailed as error:
        failure = str(error)
    Path("result.json").write_text(json.dumps(bench.result(failure)))
    assert failure is None, failure
