"""Queues of networks on the generated accelerator: every tensor in memory is the model's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firmware_model.host.image import Image
from firmware_model.models.device_program import DeviceProgram
from paro.config import Config
from sim.cosim.accelerator import AcceleratorRun
from sim.cosim.accelerator_scenario import Step
from sim.cycles.memory import Memory
from tests.firmware_model.models.network_tensors import assert_tensors
from tests.sim.accelerator_runs import play

#: What the benches of several files share, and so compile once.
SHARED = Config(rows=8, cols=8, block=16, head_dim=32, vector_channels=256, axi_bits=64)


def assert_memory(
    program: DeviceProgram, image: Image, run: AcceleratorRun, wanted: Sequence[Mapping[str, Any]]
) -> None:
    """Compare all that is in memory in the end."""
    assert assert_tensors(program, image, run.memories[-1], wanted) > 12 * len(wanted)


def run_exactly(
    program: DeviceProgram,
    wanted: Sequence[Mapping[str, Any]],
    memory: Memory,
    build_dir: Path,
    run_dir: Path,
    simulator: str = "verilator",
) -> None:
    """Compute a queue from one start, and compare every tensor."""
    image = program.image(0x1000, reuse=False)
    steps = [Step(keeps_memory=True)]
    run = play(program.config, [image], steps, build_dir, run_dir, memory, simulator)
    assert run.steps[0].error is None, run.steps[0].error
    assert_memory(program, image, run, wanted)
    counters = run.steps[0].counters
    assert counters is not None
    assert counters.heads_done == len(program.tasks)
    busy = counters.stages["qk"]["busy"] + counters.stages["pv"]["busy"]
    print(f"{counters.cycles} cycles, the array works in {busy / counters.cycles:.2f} of them")
