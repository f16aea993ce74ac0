"""A network's blocks in the accelerator, from one start: every tensor in memory is the model's."""

from pathlib import Path

import pytest
import torch

from firmware_model.host.image import Image
from firmware_model.models.device_program import DeviceProgram, device_program
from paro.config import Config
from sim.cosim.accelerator import AcceleratorRun
from sim.cosim.accelerator_scenario import Step
from sim.cycles.memory import Memory
from tests.firmware_model.models.small_network import small_items, small_network
from tests.sim.accelerator_runs import play

CONFIGS = {
    "8x8": Config(rows=8, cols=8, block=16, head_dim=32, vector_channels=256, axi_bits=64),
    "4x4": Config(rows=4, cols=4, block=16, head_dim=32, vector_channels=256),
    "16x16": Config(rows=16, cols=16, block=16, head_dim=32, vector_channels=256),
    "8x8-s2": Config(rows=8, cols=8, block=16, head_dim=32, vector_channels=512, query_rows=2),
    "8x8-g2": Config(
        rows=8, cols=8, block=16, head_dim=32, vector_channels=256, cores=2, key_slots=4
    ),
}
MEMORIES = {"ideal": Memory(), "stalls": Memory((1, 90), 7), "far": Memory((150, 200))}


def blocks(config: Config, seed: int, items: int = 2) -> tuple[DeviceProgram, list[dict]]:
    """A queue of a block's runs, and every tensor of each."""
    given = small_items(seed, items)
    network = small_network(given, config, seed)
    wanted = [network.run(item.inputs, item.parameters) for item in given]
    return device_program(network, given, config), wanted


def assert_tensors(program: DeviceProgram, image: Image, run: AcceleratorRun, wanted) -> None:
    """Compare all that is in memory in the end."""
    compared = 0
    for item, tensors in enumerate(wanted):
        for name in program.tensors[item]:
            got, want = program.integers(image, run.memories[-1], item, name), tensors[name]
            if isinstance(got, tuple):
                assert torch.equal(got[1], want[1]), f"mantissas of {name}"
                got, want = got[0], want[0]
            assert torch.equal(got, want), name
            compared += 1
    assert compared > 12 * len(wanted)


def run_blocks(
    name: str, memory: str, simulator: str, build_dir: Path, tmp_path: Path, seed: int
) -> None:
    program, wanted = blocks(CONFIGS[name], seed)
    image = program.image(0x1000, reuse=False)
    steps = [Step(keeps_memory=True)]
    run = play(program.config, [image], steps, build_dir, tmp_path, MEMORIES[memory], simulator)
    assert run.steps[0].error is None, run.steps[0].error
    assert_tensors(program, image, run, wanted)
    counters = run.steps[0].counters
    assert counters is not None
    assert counters.heads_done == len(program.tasks)
    busy = counters.stages["qk"]["busy"] + counters.stages["pv"]["busy"]
    print(f"{counters.cycles} cycles, the array works in {busy / counters.cycles:.2f} of them")


def test_a_block(build_dir, tmp_path, seed):
    run_blocks("8x8", "stalls", "verilator", build_dir, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", CONFIGS)
def test_blocks(name, memory, simulator, build_dir, tmp_path, seed):
    run_blocks(name, memory, simulator, build_dir, tmp_path, seed)
