"""The cocotb bench of the accelerator: the host driver, and the memory of the harness.

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
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer
from cocotbext.axi import AxiLiteBus, AxiLiteMaster
from safetensors.numpy import save_file

from firmware_model.host.driver import AcceleratorError, Driver
from firmware_model.host.image import Image, load_image
from paro.config import ParoError
from paro.config.registers import REGISTER_ADDRESS_BITS, REGISTERS, find_register
from rtl.bus.axi_lite import Response
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
    memory_start,
    outputs_file,
)
from sim.cosim.axi_memory import BURSTS_FILE, CONTENTS_FILE, VIOLATIONS
from sim.cosim.exchange import load_dataclass, save_dataclass
from sim.cycles.stalls import CHANNELS, REGISTER_CHANNELS, generator_seed

#: Nanoseconds of a clock.
PERIOD = 10
#: Cycles for which reset is held.
RESET_CYCLES = 4
#: Cycles between two looks at how far the accelerator is.
LOOK_CYCLES = 4000
#: Chances, of 256, that a channel of the registers stalls in a clock, when stalls are on.
STALL_RATES = (0, 26, 77, 154)
#: Places without a register that are probed, at least, and values that registers are given.
_PROBED_GAPS, _PATTERNS = 20, (0xFFFFFFFF, 0x55555555, 0xAAAAAAAA, 0)


class HarnessMemory:
    """Memory of the harness, by way of files.

    Parameters
    ----------
    dut : cocotb handle
        `sim.cosim.accelerator_harness`.
    size : int
        Bytes that it shall have.
    word : int
        Bytes of a beat.
    """

    def __init__(self, dut: Any, size: int, word: int):
        self._dut, self._size, self._word = dut, size, word
        dut.memory_load.value = dut.memory_save.value = 0
        dut.memory_words.value = size // word
        self.begin_at(0)

    def begin_at(self, start: int) -> None:
        """Have the memory begin at an address; its content stays."""
        self.start = start
        self._dut.memory_base.value = start

    async def read(self, address: int, count: int) -> bytes:
        """Read bytes from any address on."""
        first, words = self._words(address, count)
        await self._exchange("save", first, words)
        lines = Path(CONTENTS_FILE).read_text().splitlines()
        digits = "".join(line for line in lines if not line.startswith("//"))
        beats = np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(words, self._word)
        start = address - self.start - first * self._word
        return beats[:, ::-1].tobytes()[start : start + count]

    async def write(self, address: int, data: bytes) -> None:
        """Write bytes to any address on."""
        first, words = self._words(address, len(data))
        start = address - self.start - first * self._word
        if start or len(data) < words * self._word:
            old = await self.read(self.start + first * self._word, words * self._word)
            data = old[:start] + data + old[start + len(data) :]
        beats = np.frombuffer(data, np.uint8).reshape(words, self._word)[:, ::-1]
        Path(CONTENTS_FILE).write_text(beats.tobytes().hex("\n", self._word) + "\n")
        await self._exchange("load", first, words)

    async def contents(self) -> np.ndarray:
        """All bytes: uint8 [size]."""
        return np.frombuffer(await self.read(self.start, self._size), np.uint8)

    def _words(self, address: int, count: int) -> tuple[int, int]:
        """First word of a range of bytes, and how many words there are."""
        address -= self.start
        if not 0 <= address < address + count <= self._size:
            raise ParoError(f"no memory at {self.start + address:#x}, {count} bytes")
        first = address // self._word
        return first, -(-(address + count) // self._word) - first

    async def _exchange(self, direction: str, first: int, words: int) -> None:
        """Let the simulator read or write the file."""
        dut, order = self._dut, getattr(self._dut, f"memory_{direction}")
        dut.memory_first.value, dut.memory_last.value = first, first + words - 1
        order.value = 1
        await ClockCycles(dut.clk, 2)
        order.value = 0
        await ClockCycles(dut.clk, 1)


class CocotbTransport:
    """`firmware_model.host.driver.Transport` of a simulated accelerator."""

    def __init__(self, registers: AxiLiteMaster, memory: HarnessMemory):
        self._registers, self._memory = registers, memory

    async def read32(self, address: int) -> int:
        """Read a register through AXI4-Lite."""
        return await self._registers.read_dword(address)

    async def write32(self, address: int, value: int) -> None:
        """Write a register through AXI4-Lite."""
        await self._registers.write_dword(address, value)

    async def read(self, address: int, count: int) -> bytes:
        """Read memory, as the host of the memory."""
        return await self._memory.read(address, count)

    async def write(self, address: int, data: bytes) -> None:
        """Write memory, as the host of the memory."""
        await self._memory.write(address, data)


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
        word = scenario.configuration["axi_bits"] // 8
        self.memory = HarnessMemory(dut, scenario.memory_bytes, word)
        self.registers: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        self.driver = Driver(CocotbTransport(self.registers, self.memory))
        self.word = word
        #: Lines of `BURSTS_FILE` before this step.
        self.bursts_before = 0
        #: Bursts of the last step of each image that ended.
        self.ended: dict[int, dict[str, list[tuple[int, int]]]] = {}
        seed = scenario.stall_seed
        dut.latency_low.value = scenario.latency_low
        dut.latency_span.value = scenario.latency_span
        dut.stall_seed.value = generator_seed(seed)
        for channel in CHANNELS:
            getattr(dut, f"{channel}_stall_rate").value = scenario.stall_rates[channel]
        dut.read_error_at.value = 0
        dut.write_error_at.value = 0
        dut.error_response.value = 0
        generator = random.Random(seed)
        for channel in REGISTER_CHANNELS:
            rate = 0 if seed is None else generator.choice(STALL_RATES)
            getattr(dut, f"{channel}_stall_rate").value = rate

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
        self.bursts_before = len(_burst_lines())
        self.memory.begin_at(memory_start(image.base))
        await driver.load(image)
        before = await self.memory.contents()
        await driver.start(image, interrupt=True)
        if step.disturb in ("control_reset", "hard_reset", "start_and_reset"):
            await self.give_up(step)
            self.check_protocol()
            self.check_strays(image, before, await self.memory.contents())
            return StepResult()
        error = await self.work(image, step)
        if await driver.busy():
            raise ParoError("the accelerator is busy when its driver says that it is at rest")
        self.check_protocol()
        after = await self.memory.contents()
        self.check_strays(image, before, after)
        reported, burst = await self.reported(error), self.disturbed_burst(step)
        if error is not None and step.disturb != "start_again":
            return StepResult(reported, burst)
        outputs = await driver.outputs(image)
        save_file({f"head_{i}": words for i, words in enumerate(outputs)}, outputs_file(number))
        if step.keeps_memory:
            first = image.base - self.memory.start
            data = after[first : first + len(image.data)]
            Path(memory_file(number)).write_bytes(data.tobytes())
        counters = await driver.counters()
        bursts = self.ended[step.image] = self.bursts()
        if not self.scenario.keeps_bursts:
            bursts = {}
        return StepResult(reported, burst, counters, bursts)

    async def arm(self, step: Step) -> None:
        """Reset if the step asks for it; an error of the memory port is counted from a reset."""
        is_error = step.disturb in ("read_error", "write_error")
        if step.resets or is_error:
            await self.reset()
        if step.probes:
            await self.probe()
        if is_error:
            getattr(self.dut, f"{step.disturb}_at").value = self.error_at(step)
            self.dut.error_response.value = int(step.response)

    async def give_up(self, step: Step) -> None:
        """Reset in the midst of the work, or begin it anew and reset at once."""
        if step.disturb == "hard_reset":
            await ClockCycles(self.dut.clk, step.after)
            await self.reset()
            return
        if step.disturb == "control_reset":
            await ClockCycles(self.dut.clk, step.after)
        else:
            await self.driver.reset()
            control = find_register("CONTROL")
            orders = [control.field(name).mask for name in ("start", "reset")]
            writes = [
                self.registers.init_write(control.offset, order.to_bytes(4, "little"))
                for order in orders
            ]
            for write in writes:
                await write.wait()
        await self.driver.reset()

    async def probe(self) -> None:
        """Read and write every register at rest, and places without one; values are as before."""
        places = {register.offset: register for register in REGISTERS}
        gaps = [place for place in range(0, 1 << REGISTER_ADDRESS_BITS, 4) if place not in places]
        for place in (*places, *gaps[:: len(gaps) // _PROBED_GAPS]):
            register = places.get(place)
            found = await self.registers.read(place, 4)
            legal = register is not None
            _check_response(found.resp, place, "a read", legal=legal)
            plain = legal and all(field.access == "rw" for field in register.fields)
            patterns = (*_PATTERNS, int.from_bytes(found.data, "little")) if plain else (0,)
            for pattern in patterns:
                # Byte by byte, as hosts may.
                for byte, value in enumerate(pattern.to_bytes(4, "little")):
                    answer = await self.registers.write(place + byte, bytes([value]))
                    writable = legal and register.access == "rw"
                    _check_response(answer.resp, place, "a write", legal=writable)
                if plain and register is not None:
                    mask = sum(field.mask for field in register.fields)
                    read = await self.registers.read_dword(place)
                    if read != pattern & mask:
                        raise ParoError(f"{register.name} reads as {read:#x} after {pattern:#x}")

    def error_at(self, step: Step) -> int:
        """Number of the beat, or response, that shall be an error."""
        is_read, before = step.disturb == "read_error", 0
        bursts = self.ended.get(step.image, {}).get("read" if is_read else "write", [])
        for address, beats in bursts:
            if step.address is not None and 0 <= step.address - address < beats * self.word:
                return before + 1 + (step.address - address) // self.word * is_read
            before += beats if is_read else 1
        return step.after

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
        number = self.error_at(step)
        for address, beats in self.bursts()[step.disturb.removesuffix("_error")]:
            number -= beats if step.disturb == "read_error" else 1
            if number <= 0:
                return address
        return None

    def bursts(self) -> dict[str, list[tuple[int, int]]]:
        """Address and beats of every burst of this step that the memory took."""
        bursts: dict[str, list[tuple[int, int]]] = {"read": [], "write": []}
        for line in _burst_lines()[self.bursts_before :]:
            kind, address, beats = line.split()
            burst = (self.memory.start + int(address), int(beats))
            bursts["read" if kind == "r" else "write"].append(burst)
        return bursts

    def check_strays(self, image: Image, before: np.ndarray, after: np.ndarray) -> None:
        """Raise ParoError if a byte has changed that is not of the image's outputs."""
        changed, start = before != after, self.memory.start
        for placed in image.outputs:
            row = np.arange(placed.word_bytes * placed.row_words) - start
            changed[placed.o_address + placed.tokens[:, None] * placed.o_row_stride + row] = False
            changed[placed.mantissas.start - start : placed.mantissas.stop - start] = False
        if changed.any():
            place = start + int(changed.argmax())
            raise ParoError(f"the accelerator wrote to {place:#x}: no output is there")

    def check_protocol(self) -> None:
        """Raise ParoError if the accelerator has broken a rule of AXI4."""
        violation = VIOLATIONS[int(self.dut.violation.value)]
        if violation:
            raise ParoError(f"the accelerator breaks AXI4: {violation}")

    async def wait(self) -> None:
        """Wait for the interrupt, tell how far the accelerator is, and look for errors."""
        limit = self.scenario.idle_limit
        last, silent = None, 0
        while not int(self.dut.irq.value):
            await First(RisingEdge(self.dut.irq), Timer(LOOK_CYCLES * PERIOD, "ns"))
            beats = await self.driver.progress()
            silent = 0 if beats != last else silent + LOOK_CYCLES
            last = beats
            Path(PROGRESS_FILE).write_text(str(beats["heads_done"]))
            if silent > limit:
                raise ParoError(f"the accelerator did not move a beat for {silent} cycles")
        await self.driver.wait()


def _burst_lines() -> list[str]:
    return Path(BURSTS_FILE).read_text().splitlines()


def _check_response(response: Any, place: int, what: str, *, legal: bool) -> None:
    """Raise ParoError unless a register answered as it must."""
    if (int(response) == Response.OKAY) != legal:
        raise ParoError(f"{what} of the register at {place:#x} is answered with {response!r}")


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
