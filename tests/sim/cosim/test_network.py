"""A network's blocks in the accelerator, from one start: every tensor in memory is the model's."""

import dataclasses
import random
from pathlib import Path

import pytest

from firmware_model.host.image import Image
from firmware_model.host.vector_job import VectorJob
from firmware_model.models.compiler import compile_network
from firmware_model.models.device_program import DeviceProgram
from paro.config import Config
from paro.config.descriptor import DESCRIPTOR, DESCRIPTOR_BYTES
from paro.config.registers import Cause
from sim.cosim.accelerator_scenario import Step
from sim.cycles.memory import Memory
from tests.firmware_model.models.memory_player import MemoryPlayer
from tests.firmware_model.models.small_network import small_items, small_network
from tests.firmware_model.models.test_compiler import touched
from tests.sim.accelerator_runs import play
from tests.sim.cosim.network_runs import SHARED, assert_memory, run_exactly

CONFIGS = {
    "8x8": SHARED,
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
    return compile_network(network, given, config), wanted


def run_blocks(
    name: str, memory: str, simulator: str, build_dir: Path, tmp_path: Path, seed: int
) -> None:
    program, wanted = blocks(CONFIGS[name], seed)
    run_exactly(program, wanted, MEMORIES[memory], build_dir, tmp_path, simulator)


def test_a_block(build_dir, tmp_path, seed):
    run_blocks("8x8", "stalls", "verilator", build_dir, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", CONFIGS)
def test_blocks(name, memory, build_dir, tmp_path, seed):
    run_blocks(name, memory, "verilator", build_dir, tmp_path, seed)


@pytest.mark.slow
def test_a_block_under_icarus(build_dir, tmp_path, seed):
    run_blocks("4x4", "stalls", "icarus", build_dir, tmp_path, seed)


def spoiled(image: Image, place: int, change) -> Image:
    """The image with other bytes in the descriptor of a job, or in what it leads to."""
    data = bytearray(image.data)
    change(data, image.queue_base - image.base + DESCRIPTOR_BYTES * place)
    return dataclasses.replace(image, data=bytes(data))


def field_bytes(name: str, start: int) -> slice:
    """Bytes of a 40-bit field of a descriptor."""
    field = next(field for field in DESCRIPTOR if field.name == name)
    return slice(start + field.offset // 8, start + field.offset // 8 + 5)


def vector_steps(program: DeviceProgram) -> list[int]:
    return [place for place, task in enumerate(program.tasks) if isinstance(task.job, VectorJob)]


def test_faults_of_vector_steps(build_dir, tmp_path, seed):
    """A bad program, operands and outputs out of range: told, of the right job; then exact."""
    program, wanted = blocks(CONFIGS["8x8"], seed, items=1)
    image = program.image(0x1000, reuse=False)
    steps = vector_steps(program)
    outside = (2**30).to_bytes(5, "little")

    def no_program(data: bytearray, start: int) -> None:
        address = int.from_bytes(data[field_bytes("codes_address", start)], "little")
        data[address - image.base] ^= 1

    def leads_outside(name: str):
        def change(data: bytearray, start: int) -> None:
            data[field_bytes(name, start)] = outside

        return change

    faults = [
        (steps[1], no_program, Cause.BAD_PROGRAM),
        (steps[0], leads_outside("q_address"), Cause.READ_OUTSIDE),
        (steps[2], leads_outside("k_address"), Cause.READ_OUTSIDE),
        (steps[-1], leads_outside("v_address"), Cause.READ_OUTSIDE),
        (steps[1], leads_outside("o_address"), Cause.WRITE_OUTSIDE),
        (steps[0], leads_outside("q_scales_address"), Cause.WRITE_OUTSIDE),
    ]
    images = [image, *(spoiled(image, place, change) for place, change, _ in faults)]
    plays = [Step(index) for index in range(1, len(images))]
    run = play(program.config, images, [*plays, Step(keeps_memory=True)], build_dir, tmp_path)
    for (place, _, cause), step in zip(faults, run.steps, strict=False):
        assert step.error is not None
        assert (step.error.cause, step.error.head) == (cause.name, place)
        if cause != Cause.BAD_PROGRAM:
            assert step.error.address == 2**30
    assert_memory(program, image, run, wanted)


@pytest.mark.parametrize("kind", ["read_error", "write_error"])
def test_bus_errors_in_mid_block(kind, build_dir, tmp_path, seed):
    """Wherever the memory fails: the burst's address and its job; the next queue is exact."""
    program, wanted = blocks(CONFIGS["8x8"], seed)
    image = program.image(0x1000, reuse=False)
    rng = random.Random(seed)
    afters = [rng.randrange(1, 6000 if kind == "read_error" else 900) for _ in range(6)]
    steps = [Step(disturb=kind, after=after) for after in afters]
    run = play(program.config, [image], [*steps, Step(keeps_memory=True)], build_dir, tmp_path)
    fields = MemoryPlayer(program.config, program.tasks, image).fields
    for step in run.steps[:-1]:
        error = step.error
        assert error is not None
        assert error.cause == kind.upper()
        assert error.address == step.disturbed_burst
        task, values = program.tasks[error.head], fields[error.head]
        read, written = touched(program.config, values, task.job)
        own = read if kind == "read_error" else written
        beat = program.config.axi_bits // 8
        burst = {(error.address + byte) // 4 for byte in range(0, 64 * beat, 4)}
        queue = range(image.queue_base, image.queue_base + DESCRIPTOR_BYTES * len(fields))
        small = values["codes_address"], values["k_address"], values["k_scales_address"]
        # Programs, tables, codes and scales are small, and begin with their address.
        near = any(0 <= error.address - start + beat < 8192 for start in small)
        assert own & burst or (kind == "read_error" and (near or error.address in queue))
    assert_memory(program, image, run, wanted)
