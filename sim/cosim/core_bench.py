"""The cocotb bench of the core: points the harness to its beats, and watches.

Runs inside the simulator, in a folder with a `sim.cosim.core_scenario.Scenario` and the streams'
beats, and leaves a `Result` and, from the harness, ``o.hex``. It wakes only when `status` has a bit
set.
"""

from collections import deque
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from sim.cosim.core_scenario import (
    PROGRESS_FILE,
    RESULT_FILE,
    SCENARIO_FILE,
    CommandResult,
    Result,
    Scenario,
)
from sim.cosim.exchange import load_dataclass, save_dataclass
from sim.cycles.stalls import ROWS, STREAMS, generator_seed, stall_rates

#: Periods of the clock for which reset is held.
RESET_CYCLES = 3
#: Cycles after the last output in which nothing may happen and `busy` must fall.
QUIET_CYCLES = 300
#: Events that the core's contract forbids.
FORBIDDEN = {
    "empty_row": "the core reports a block row without a live block",
    "broken": "the core withdrew or changed an offered beat, or it holds X",
}


class CheckFailed(Exception):
    """The core did what its contract forbids."""


class CoreBench:
    """Plays all commands of a scenario, one directly after the other.

    Parameters
    ----------
    dut : cocotb handle
        `sim.cosim.core_harness`.
    scenario : Scenario
        What to play.
    """

    def __init__(self, dut: Any, scenario: Scenario):
        self.dut = dut
        self.scenario = scenario
        self.commands = scenario.commands
        self.results: list[CommandResult] = []

    def begin(self) -> None:
        """Offer the first command; nothing has been asked for yet."""
        self.accepted = -1  # the last command taken
        self.codes_of = 0  # command whose codes are offered
        self.finished = 0  # commands whose outputs are complete
        self.results = [CommandResult() for _ in self.commands]
        self.pending: dict[str, deque[tuple[int, int, int]]] = {name: deque() for name in "qkv"}
        self.playing = dict.fromkeys("qkv", False)
        self.rows = deque(row for command in self.commands for row in command.rows)
        self.discarded = int(self.dut.o_beats.value)
        self.goal = self.discarded + self.commands[0].output_beats
        self.dut.output_goal.value = self.goal
        cycle = int(self.dut.cycle.value)
        self.send("command", 0, 1, cycle)
        self.send("codes", *self.commands[0].codes, cycle)

    def send(self, stream: str, first: int, count: int, asked: int) -> None:
        """Let a player send some beats that were asked for in cycle ``asked``."""
        getattr(self.dut, f"{stream}_first").value = first
        getattr(self.dut, f"{stream}_count").value = count
        getattr(self.dut, f"{stream}_after").value = asked + self.scenario.memory_latency

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
        dut, bits = self.dut, self.scenario.status_bits
        self.drive_constants()
        Clock(dut.clk, 10, "ns").start()
        await self.reset()
        self.begin()
        if self.scenario.reset_at is not None:
            dut.alarm_at.value = int(dut.cycle.value) + self.scenario.reset_at
        while self.finished < len(self.commands):
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
        dut, seed = self.dut, self.scenario.stall_seed
        dut.stall_seed.value = generator_seed(seed)
        rates = stall_rates(seed)
        for stream in (*STREAMS, *((ROWS,) if ROWS in self.scenario.status_bits else ())):
            getattr(dut, f"{stream}_stall_rate").value = rates[stream]
        dut.idle_limit.value = self.scenario.idle_limit
        dut.alarm_at.value = 2**32 - 1
        dut.output_goal.value = 0

    def react(self, events: set[str]) -> None:
        """Handle what happens at this clock edge."""
        cycle = int(self.dut.cycle.value)
        self.check(events)
        if "command" in events:
            self.take_command(cycle)
        if "codes" in events:
            self.codes_of += 1
            more = self.codes_of < len(self.commands)
            first, count = self.commands[self.codes_of].codes if more else (0, 0)
            self.send("codes", first, count, cycle)
        if "fetch" in events:
            self.fetch(int(self.dut.request.value), cycle)
        self.send_blocks(events, cycle)
        if ROWS in events:
            self.end_row(int(self.dut.row.value))
        if "output_goal" in events:
            self.end_command(cycle)

    def check(self, events: set[str]) -> None:
        """Raise CheckFailed if the core hangs or breaks its contract."""
        if "hung" in events:
            raise CheckFailed(f"no transfer on any stream for {self.scenario.idle_limit} cycles")
        for event, sentence in FORBIDDEN.items():
            if event in events:
                raise CheckFailed(sentence)

    def take_command(self, cycle: int) -> None:
        """Note that a command was taken, and offer the next."""
        self.accepted += 1
        result = self.results[self.accepted]
        result.start, result.activity_start = cycle, self.activity()
        following = self.accepted + 1
        self.send("command", following, int(following < len(self.commands)), cycle)

    def send_blocks(self, events: set[str], cycle: int) -> None:
        """Let idle players of Q, K and V begin the next block that was asked for."""
        for stream, queue in self.pending.items():
            done = stream in events
            if queue and (done or not self.playing[stream]):
                self.send(stream, *queue.popleft())
                self.playing[stream] = True
            elif done:
                self.send(stream, 0, 0, cycle)
                self.playing[stream] = False

    def end_command(self, cycle: int) -> None:
        """Note that all outputs of a command came."""
        result = self.results[self.finished]
        result.end, result.activity_end = cycle, self.activity()
        self.finished += 1
        if self.finished < len(self.commands):
            self.goal += self.commands[self.finished].output_beats
            self.dut.output_goal.value = self.goal

    def activity(self) -> list[int]:
        """Counters of the stages' activities, in order."""
        value = int(self.dut.activity_counts.value)
        bits = self.scenario.counter_bits
        count = len(self.dut.activity_counts) // bits
        return [value >> bits * index & (1 << bits) - 1 for index in range(count)]

    def fetch(self, request: int, cycle: int) -> None:
        """Queue the block that the core asks for."""
        operand = request & 3
        block, chunk = (
            request >> low & (1 << width) - 1
            for low, width in (self.scenario.fetch_block, self.scenario.fetch_chunk)
        )
        names = self.scenario.operands
        if self.accepted < 0 or operand >= len(names):
            raise CheckFailed(f"fetch of operand {operand}, block {block} in no run")
        command = self.commands[self.accepted]
        blocks = command.fetch[names[operand]]
        if command.chunks:
            block = block * command.chunks + chunk
        if block >= len(blocks):
            raise CheckFailed(
                f"run {self.accepted}: fetch of {names[operand]} block {block} of {len(blocks)}"
            )
        self.pending[names[operand].lower()].append((*blocks[block], cycle))
        if names[operand] == "Q":
            with Path(PROGRESS_FILE).open("ab") as progress:
                progress.write(b".")

    def end_row(self, place: int) -> None:
        """Check that the next row to leave is the one that was expected."""
        if not self.rows or place != self.rows[0]:
            raise CheckFailed(f"row {place} of a superblock leaves; legal: {list(self.rows)[:1]}")
        self.rows.popleft()

    async def stay_quiet(self) -> None:
        """Check that nothing follows the last output."""
        for _ in range(QUIET_CYCLES):
            await RisingEdge(self.dut.clk)
            if int(self.dut.status.value) & ~(1 << self.scenario.status_bits["alarm"]):
                raise CheckFailed("the core goes on after its last output")
        if int(self.dut.busy.value):
            raise CheckFailed(f"the core is still busy {QUIET_CYCLES} cycles after its last output")
        if any(self.playing.values()) or self.codes_of != len(self.commands):
            raise CheckFailed("the core finished without taking all its operands")
        if ROWS in self.scenario.status_bits and self.rows:
            raise CheckFailed(f"the core did not tell of {len(self.rows)} rows that left")
        if int(self.dut.o_beats.value) != self.goal:
            raise CheckFailed("the core sent more outputs than there are")

    def result(self, failure: str | None) -> Result:
        """What came of it."""
        return Result(
            failure=failure,
            commands=self.results,
            cycles=int(self.dut.cycle.value),
            outputs_discarded=self.discarded,
        )


@cocotb.test()
async def play(dut: Any) -> None:
    """Play the scenario of the folder."""
    bench = CoreBench(dut, load_dataclass(Scenario, Path(SCENARIO_FILE)))
    failure = None
    try:
        await bench.play()
    except CheckFailed as error:
        failure = str(error)
    save_dataclass(bench.result(failure), Path(RESULT_FILE))
    assert failure is None, failure
