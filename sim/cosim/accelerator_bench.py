"""The cocotb bench of the accelerator: the host driver, against cocotbext-axi's memory.

Runs inside the simulator, in a folder with a `sim.cosim.accelerator_scenario.Scenario` and its
images, and leaves a `Result` and the outputs of every step that ended.
"""

import logging
import random
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam
from safetensors.numpy import save_file

from firmware_model.host.driver import AcceleratorError, Driver
from firmware_model.host.image import Image, load_image
from paro.config import ParoError
from sim.cosim.accelerator_scenario import (
    PROGRESS_FILE,
    RESULT_FILE,
    SCENARIO_FILE,
    ReportedError,
    Result,
    Scenario,
    Step,
    StepResult,
    memory_file,
    outputs_file,
)
from sim.cosim.exchange import load_dataclass, save_dataclass
from sim.cycles.stalls import CHANNELS, generator_seed

#: Nanoseconds of a clock.
PERIOD = 10
#: Cycles for which reset is held.
RESET_CYCLES = 4
#: Cycles between two looks at how far the accelerator is.
LOOK_CYCLES = 4000
#: Chances that a channel of the registers stalls in a clock, when stalls are on.
STALL_RATES = (0.0, 0.1, 0.3, 0.6)


class CocotbTransport:
    """`firmware_model.host.driver.Transport` of a simulated accelerator."""

    def __init__(self, registers: AxiLiteMaster, memory: Any):
        self._registers, self._memory = registers, memory

    async def read32(self, address: int) -> int:
        """Read a register through AXI4-Lite."""
        return await self._registers.read_dword(address)

    async def write32(self, address: int, value: int) -> None:
        """Write a register through AXI4-Lite."""
        await self._registers.write_dword(address, value)

    async def read(self, address: int, count: int) -> bytes:
        """Read memory, as the host of the memory."""
        return bytes(self._memory.read(address, count))

    async def write(self, address: int, data: bytes) -> None:
        """Write memory, as the host of the memory."""
        self._memory.write(address, data)


class AcceleratorBench:
    """Plays the steps of a scenario.

    Parameters
    ----------
    dut : cocotb handle
        `sim.cosim.accelerator_harness`.
    scenario : Scenario
        What to play.
    images : list of Image
        What the steps refer to.
    """

    def __init__(self, dut: Any, scenario: Scenario, images: list[Image]):
        self.dut = dut
        self.scenario = scenario
        self.images = images
        self.memory: Any = AxiRam(
            AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=scenario.memory_bytes
        )
        self.registers: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        self.driver = Driver(CocotbTransport(self.registers, self.memory))
        #: Address and beats of every burst of this step.
        self.bursts: dict[str, list[tuple[int, int]]] = {"read": [], "write": []}
        self.record(self.memory.read_if.ar_channel, "ar", self.bursts["read"])
        self.record(self.memory.write_if.aw_channel, "aw", self.bursts["write"])
        seed = scenario.stall_seed
        dut.latency_low.value = scenario.latency_low
        dut.latency_span.value = scenario.latency_span
        dut.stall_seed.value = generator_seed(seed)
        for channel in CHANNELS:
            getattr(dut, f"{channel}_stall_rate").value = scenario.stall_rates[channel]
        dut.read_error_at.value = 0
        dut.write_error_at.value = 0
        dut.error_response.value = 0
        if seed is not None:
            self.stall_registers(random.Random(seed))

    def record(self, channel: Any, name: str, bursts: list[tuple[int, int]]) -> None:
        """Keep every burst whose address the memory takes."""
        receive = channel.recv

        async def recorded():
            address = await receive()
            bursts.append(
                (int(getattr(address, f"{name}addr")), int(getattr(address, f"{name}len")) + 1)
            )
            return address

        channel.recv = recorded

    def stall_registers(self, generator: random.Random) -> None:
        """Let every channel of the registers stall at random, each at a rate of its own."""

        def stalls(rate: float):
            own = random.Random(generator.getrandbits(32))
            while True:
                yield own.random() < rate

        read, write = self.registers.read_if, self.registers.write_if
        for channel in (
            *(read.ar_channel, read.r_channel),
            *(write.aw_channel, write.w_channel, write.b_channel),
        ):
            channel.set_pause_generator(stalls(generator.choice(STALL_RATES)))

    async def reset(self) -> None:
        """Reset accelerator and memory port; the memory keeps its content."""
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, RESET_CYCLES)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 1)

    async def play(self) -> list[StepResult]:
        """All steps; returns what each of them found."""
        Clock(self.dut.clk, PERIOD, "ns").start()
        await self.reset()
        config = await self.driver.identify()
        if config.model_dump() != self.scenario.configuration:
            raise ParoError(f"the accelerator says that it is {config}")
        return [await self.step(number, step) for number, step in enumerate(self.scenario.steps)]

    async def step(self, number: int, step: Step) -> StepResult:
        """Work on one image, disturbed or not."""
        driver, image = self.driver, self.images[step.image]
        await self.arm(step)
        for bursts in self.bursts.values():
            bursts.clear()
        await driver.load(image)
        before = self.contents()
        await driver.start(image, interrupt=True)
        if step.disturb in ("control_reset", "hard_reset"):
            await ClockCycles(self.dut.clk, step.after)
            await (driver.reset() if step.disturb == "control_reset" else self.reset())
            check_strays(image, before, self.contents())
            return StepResult()
        error = await self.work(image, step)
        if await driver.busy():
            raise ParoError("the accelerator is busy when its driver says that it is at rest")
        check_strays(image, before, self.contents())
        reported, burst = await self.reported(error), self.disturbed_burst(step)
        if error is not None and step.disturb != "start_again":
            return StepResult(reported, burst)
        outputs = await driver.outputs(image)
        save_file({f"head_{i}": words for i, words in enumerate(outputs)}, outputs_file(number))
        if step.keeps_memory:
            data = self.contents()[image.base : image.base + len(image.data)]
            Path(memory_file(number)).write_bytes(data.tobytes())
        counters = await driver.counters()
        bursts = {name: list(bursts) for name, bursts in self.bursts.items()}
        return StepResult(reported, burst, counters, bursts)

    async def arm(self, step: Step) -> None:
        """Have the memory port give the error of a step, counted from a reset."""
        if step.disturb in ("read_error", "write_error"):
            await self.reset()
            getattr(self.dut, f"{step.disturb}_at").value = step.after
            self.dut.error_response.value = int(step.response)

    async def work(self, image: Image, step: Step) -> AcceleratorError | None:
        """Wait for the end of a queue that was started; returns the error that is reported.

        A second start in the midst of it is an error that does not end it.
        """
        error = None
        try:
            if step.disturb == "start_again":
                await ClockCycles(self.dut.clk, step.after)
                await self.driver.start(image, interrupt=True)
            await self.wait()
        except AcceleratorError as reported:
            error = reported
            if step.disturb == "start_again":
                await self.wait()
        finally:
            self.dut.read_error_at.value = 0
            self.dut.write_error_at.value = 0
        return error

    async def reported(self, error: AcceleratorError | None) -> ReportedError | None:
        """Record of an error."""
        if error is None:
            return None
        return ReportedError(
            cause=error.cause.name,
            head=error.head,
            address=error.address,
            sentence=str(error),
            heads_done=(await self.driver.progress())["heads_done"],
        )

    def disturbed_burst(self, step: Step) -> int | None:
        """Address of the burst whose beat (read) or response (write) became an error."""
        if step.disturb not in ("read_error", "write_error"):
            return None
        number = step.after
        for address, beats in self.bursts[step.disturb.removesuffix("_error")]:
            number -= beats if step.disturb == "read_error" else 1
            if number <= 0:
                return address
        return None

    def contents(self) -> np.ndarray:
        """All memory."""
        return np.frombuffer(self.memory.read(0, self.scenario.memory_bytes), np.uint8)

    async def wait(self) -> None:
        """Wait for the interrupt, tell how far the accelerator is, and look for errors."""
        limit = self.scenario.idle_limit
        last, silent = None, 0
        while not int(self.dut.irq.value):
            await First(RisingEdge(self.dut.irq), ClockCycles(self.dut.clk, LOOK_CYCLES))
            beats = await self.driver.progress()
            silent = 0 if beats != last else silent + LOOK_CYCLES
            last = beats
            Path(PROGRESS_FILE).write_text(str(beats["heads_done"]))
            if silent > limit:
                raise ParoError(f"the accelerator did not move a beat for {silent} cycles")
        await self.driver.wait()


def check_strays(image: Image, before: np.ndarray, after: np.ndarray) -> None:
    """Raise ParoError if a byte has changed that is not of the image's outputs."""
    changed = before != after
    for placed in image.outputs:
        row = np.arange(placed.word_bytes * placed.row_words)
        changed[placed.o_address + placed.tokens[:, None] * placed.o_row_stride + row] = False
        changed[placed.mantissas.start : placed.mantissas.stop] = False
    if changed.any():
        raise ParoError(f"the accelerator wrote to {int(changed.argmax()):#x}: no output is there")


@cocotb.test()
async def play(dut: Any) -> None:
    """Play the scenario of the folder."""
    logging.getLogger("cocotb").setLevel(logging.WARNING)
    scenario = load_dataclass(Scenario, Path(SCENARIO_FILE))
    images = [load_image(Path(name)) for name in scenario.images]
    bench = AcceleratorBench(dut, scenario, images)
    try:
        result = Result(None, await bench.play())
    except ParoError as error:
        result = Result(str(error))
    save_dataclass(result, Path(RESULT_FILE))
    assert result.failure is None, result.failure
