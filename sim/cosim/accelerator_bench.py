"""The cocotb bench of the accelerator: the host driver, against cocotbext-axi's memory.

Runs inside the simulator, in a folder with ``scenario.json`` and one file an image
(`sim.cosim.accelerator` writes them). It leaves ``result.json`` and the outputs of every step.
"""

import json
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

from firmware_model.host.driver import DeviceError, Driver
from firmware_model.host.image import Image, load_image
from paro.config import ParoError
from sim.cycles.stalls import CHANNELS, generator_seed, stall_rates

#: Nanoseconds of a clock.
PERIOD = 10
#: Clocks for which reset is held.
RESET_CYCLES = 4
#: Clocks between two looks at how far the accelerator is.
LOOK_CYCLES = 4000
#: Chances that a channel of the registers pauses in a clock, when stalls are on.
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


class AxiBench:
    """Plays the steps of a scenario.

    Parameters
    ----------
    dut : cocotb handle
        `sim.cosim.accelerator_harness`.
    scenario : dict
        Content of ``scenario.json``, see `sim.cosim.accelerator.Scenario`.
    images : list of Image
        What the steps refer to.
    """

    def __init__(self, dut: Any, scenario: dict[str, Any], images: list[Image]):
        self.dut = dut
        self.scenario = scenario
        self.images = images
        self.memory: Any = AxiRam(
            AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=scenario["memory_bytes"]
        )
        self.registers: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        self.driver = Driver(CocotbTransport(self.registers, self.memory))
        #: Address and beats of every burst of this step.
        self.bursts: dict[str, list[tuple[int, int]]] = {"read": [], "write": []}
        self.record(self.memory.read_if.ar_channel, "ar", self.bursts["read"])
        self.record(self.memory.write_if.aw_channel, "aw", self.bursts["write"])
        seed = scenario["stall_seed"]
        dut.latency_low.value = scenario["latency_low"]
        dut.latency_span.value = scenario["latency_span"]
        dut.stall_seed.value = generator_seed(seed)
        rates = stall_rates(seed)
        for channel in CHANNELS:
            getattr(dut, f"{channel}_stall_rate").value = rates[channel]
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
        """Let every channel of the registers pause at random, each at a rate of its own."""

        def pauses(rate: float):
            own = random.Random(generator.getrandbits(32))
            while True:
                yield own.random() < rate

        read, write = self.registers.read_if, self.registers.write_if
        for channel in (
            *(read.ar_channel, read.r_channel),
            *(write.aw_channel, write.w_channel, write.b_channel),
        ):
            channel.set_pause_generator(pauses(generator.choice(STALL_RATES)))

    async def reset(self) -> None:
        """Reset accelerator and memory port; the memory keeps its content."""
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, RESET_CYCLES)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 1)

    async def play(self) -> list[dict[str, Any]]:
        """All steps; returns what each of them found."""
        Clock(self.dut.clk, PERIOD, "ns").start()
        await self.reset()
        results = []
        config = await self.driver.identify()
        if config.model_dump() != self.scenario["configuration"]:
            raise ParoError(f"the accelerator says that it is {config}")
        for number, step in enumerate(self.scenario["steps"]):
            results.append(await self.step(number, **step))
        return results

    async def step(
        self, number: int, image: int, disturb: str | None, after: int, response: int
    ) -> dict[str, Any]:
        """Work on one image, disturbed or not."""
        dut, driver, placed = self.dut, self.driver, self.images[image]
        if disturb in ("read_error", "write_error"):
            await self.reset()
            getattr(dut, f"{disturb}_at").value = after
            dut.error_response.value = response
        for bursts in self.bursts.values():
            bursts.clear()
        await driver.load(placed)
        before = self.contents()
        await driver.start(placed, interrupt=True)
        error: DeviceError | None = None
        try:
            if disturb in ("control_reset", "hard_reset", "start_again"):
                await ClockCycles(dut.clk, after)
            if disturb == "control_reset":
                await driver.reset()
            if disturb == "hard_reset":
                await self.reset()
            if disturb in ("control_reset", "hard_reset"):
                check_strays(placed, before, self.contents())
                return {"disturbed": disturb}
            if disturb == "start_again":
                await driver.start(placed, interrupt=True)
            await self.wait()
        except DeviceError as reported:
            error = reported
            if disturb == "start_again":
                await self.wait()
        finally:
            dut.read_error_at.value = 0
            dut.write_error_at.value = 0
        if await driver.busy():
            raise ParoError("the accelerator is busy when its driver says that it is at rest")
        check_strays(placed, before, self.contents())
        result: dict[str, Any] = {"disturbed": disturb}
        if disturb in ("read_error", "write_error"):
            result["disturbed_burst"] = self.burst_of(disturb, after)
        if error is not None:
            result["error"] = {
                "cause": error.cause.name,
                "head": error.head,
                "address": error.address,
                "sentence": str(error),
                "heads_done": (await driver.progress())["heads_done"],
            }
        if error is None or disturb == "start_again":
            outputs = await driver.outputs(placed)
            save_file(
                {f"head_{i}": words.numpy() for i, words in enumerate(outputs)},
                f"outputs_{number}.safetensors",
            )
            result["counters"] = await driver.counters()
            result["bursts"] = {name: list(bursts) for name, bursts in self.bursts.items()}
        return result

    def burst_of(self, disturb: str, number: int) -> int | None:
        """Address of the burst with that beat (read), that response (write), from 1."""
        for address, beats in self.bursts[disturb.removesuffix("_error")]:
            number -= beats if disturb == "read_error" else 1
            if number <= 0:
                return address
        return None

    def contents(self) -> np.ndarray:
        """All memory."""
        return np.frombuffer(self.memory.read(0, self.scenario["memory_bytes"]), np.uint8)

    async def wait(self) -> None:
        """Wait for the interrupt, tell how far the accelerator is, and look for errors."""
        limit = self.scenario["idle_limit"]
        last, silent = None, 0
        while not int(self.dut.irq.value):
            await First(RisingEdge(self.dut.irq), ClockCycles(self.dut.clk, LOOK_CYCLES))
            beats = await self.driver.progress()
            silent = 0 if beats != last else silent + LOOK_CYCLES
            last = beats
            Path("progress").write_text(str(beats["heads_done"]))
            if silent > limit:
                raise ParoError(f"the accelerator did not move a beat for {silent} clocks")
        await self.driver.wait()


def check_strays(image: Image, before: np.ndarray, after: np.ndarray) -> None:
    """Raise ParoError if a byte has changed that is not of the image's outputs."""
    changed = before != after
    row = np.arange(2 * image.head_dim)
    for head in image.heads:
        changed[head.o_address + head.tokens.numpy()[:, None] * head.o_row_stride + row] = False
    if changed.any():
        raise ParoError(f"the accelerator wrote to {int(changed.argmax()):#x}: no output is there")


@cocotb.test()
async def play(dut: Any) -> None:
    """Play ``scenario.json``."""
    logging.getLogger("cocotb").setLevel(logging.WARNING)
    scenario = json.loads(Path("scenario.json").read_text())
    images = [load_image(Path(name)) for name in scenario["images"]]
    bench = AxiBench(dut, scenario, images)
    failure, steps = None, []
    try:
        steps = await bench.play()
    except ParoError as error:
        failure = str(error)
    Path("result.json").write_text(json.dumps({"failure": failure, "steps": steps}))
    assert failure is None, failure
