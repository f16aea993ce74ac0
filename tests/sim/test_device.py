"""The generated accelerator against the integer model, bit for bit, through its AXI ports."""

import dataclasses
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firmware_model import DEMO_CAPTURE
from firmware_model.calibrate import Goal, calibrate
from firmware_model.capture import load_capture
from firmware_model.driver import HeadJob, Image, place_heads
from firmware_model.integer import integer_attention
from firmware_model.quantize import quantize_head
from paro_config import PRESETS, Config
from paro_config.descriptor import DESCRIPTOR, DESCRIPTOR_BYTES, unpack_descriptor
from paro_config.registers import STAGES, Cause
from sim.cosim import ideal_cycles, wanted_bytes
from sim.device import DeviceRun, Memory, Step, run_device
from sim.simulators import get_simulator
from sim.stimulus import Run
from tests.sim.conftest import random_capture, random_codes

TINY = Config(rows=4, cols=4, block=16, head_dim=32, axi_bits=64)
ULX3S = PRESETS["ulx3s"]
#: An operand's beat is wider than the memory port.
NARROW_PORT = Config(rows=16, cols=16, block=64, head_dim=64, axi_bits=64)
LARGE = (
    Config(rows=8, cols=8, block=16, head_dim=32, axi_bits=64),
    Config(rows=16, cols=16, block=64, head_dim=64, axi_bits=512),
    Config(rows=16, cols=16, block=16, head_dim=32, axi_bits=256),
    Config(rows=4, cols=16, block=32, head_dim=128, axi_bits=512),
)
PAGE = 4096


@dataclass(frozen=True)
class Shape:
    """A head of some tokens. Frames and text are counted in sixteenths of a block."""

    grid: tuple[int, int, int]
    text: tuple[int, int] = (0, 0)
    rows: range | None = None
    mean_bits: float = 3.0

    def job(self, config: Config, order: int, seed: int) -> HeadJob:
        unit = config.block // 16
        grid = (unit * self.grid[0], *self.grid[1:])
        prefix, suffix = (unit * tokens for tokens in self.text)
        tokens = prefix + grid[0] * grid[1] * grid[2] + suffix
        capture = dataclasses.replace(
            random_capture(tokens, config.head_dim, seed, heads=1),
            grid=grid,
            prefix_tokens=prefix,
            suffix_tokens=suffix,
        )
        codes = random_codes(-(-tokens // config.block), self.mean_bits, seed)
        head = quantize_head(capture, 0, order, config)
        return HeadJob(head, codes, grid, prefix, suffix, self.rows)


#: Six heads for the six orders: partial blocks, whole blocks, less than a block, some rows of many.
MIXED = (
    Shape((3, 4, 3), (3, 2)),
    Shape((2, 3, 5), mean_bits=4.8),
    Shape((1, 1, 7), (4, 5), mean_bits=8.0),
    Shape((1, 3, 2)),
    Shape((3, 5, 4), (15, 4), range(2, 4)),
    Shape((4, 4, 3), (8, 8), range(1, 3), mean_bits=2.0),
)
#: What a slow configuration gets of them.
FEW = (
    Shape((3, 4, 3), (3, 2), range(2, 3)),
    Shape((1, 1, 7), (4, 5), mean_bits=4.8),
    Shape((4, 4, 3), (8, 8), range(1, 2), mean_bits=2.0),
)


def make_jobs(config: Config, shapes: tuple[Shape, ...], seed: int) -> list[HeadJob]:
    """Heads of these shapes; their orders begin with another one for each seed."""
    return [
        shape.job(config, (seed + index) % 6, seed % 1000 + index)
        for index, shape in enumerate(shapes)
    ]


def play(
    config: Config,
    images: list[Image],
    steps: list[Step],
    build_dir: Path,
    run_dir: Path,
    memory: Memory | None = None,
    simulator: str = "verilator",
) -> DeviceRun:
    done = run_device(
        config, images, steps, get_simulator(simulator), build_dir, run_dir, memory=memory
    )
    assert done.failure is None
    assert len(done.steps) == len(done.outputs) == len(steps)
    return done


def expected_outputs(config: Config, jobs: list[HeadJob]) -> list[torch.Tensor]:
    return [integer_attention(job.head, job.codes, config, job.query_blocks) for job in jobs]


def assert_exact(done: DeviceRun, number: int, expected: list[torch.Tensor]) -> dict[str, Any]:
    """Check the outputs of a step; returns what the bench says of it."""
    step = done.steps[number]
    assert "error" not in step, f"step {number}: {step['error']['sentence']}"
    assert len(done.outputs[number]) == len(expected) > 0
    for head, (got, want) in enumerate(zip(done.outputs[number], expected, strict=True)):
        assert got.shape == want.shape
        wrong = np.argwhere((got != want).numpy())
        assert len(wrong) == 0, f"step {number}, head {head}: {len(wrong)} from {wrong[0]} on"
    return step


def check_counters(config: Config, jobs: list[HeadJob], step: dict[str, Any]) -> None:
    """Check counters against the work and against the bursts that the memory saw."""
    counters, beat_bytes = step["counters"], config.axi_bits // 8
    assert counters["heads_done"] == len(jobs)
    for name in ("read_bursts", "read_beats", "write_bursts", "write_beats"):
        assert counters[name] == step[name] > 0, name
    runs = [Run(job.head, job.codes, job.rows(config)) for job in jobs]
    for direction, wanted in wanted_bytes(config, runs).items():
        moved = beat_bytes * counters[f"{direction}_beats"]
        bursts = counters[f"{direction}_bursts"]
        assert wanted <= moved, direction
        if direction == "write":
            assert moved <= wanted + 2 * beat_bytes * bursts
    stages = counters["stages"]
    assert all(sum(stages[stage].values()) <= counters["cycles"] for stage in STAGES)
    array = stages["qk"]["busy"] + stages["pv"]["busy"]
    ideal = sum(ideal_cycles(config, run) for run in runs)
    whole = all(job.head.tokens % config.block == 0 for job in jobs)
    assert array == ideal if whole else array > ideal
    assert counters["cycles"] > array


CONFIGS = [
    pytest.param(TINY, MIXED, "verilator", id="4x4-b16-d32-axi64"),
    pytest.param(ULX3S, FEW, "verilator", id="8x8-b64-d64-axi128"),
    pytest.param(NARROW_PORT, FEW, "verilator", id="16x16-b64-d64-axi64"),
    *(
        pytest.param(
            config,
            MIXED,
            "verilator",
            id=f"{config.rows}x{config.cols}-b{config.block}-d{config.head_dim}"
            f"-axi{config.axi_bits}",
            marks=pytest.mark.slow,
        )
        for config in LARGE
    ),
    pytest.param(TINY, FEW, "icarus", id="icarus-4x4-b16-d32-axi64", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("config", "shapes", "simulator"), CONFIGS)
@pytest.mark.parametrize("memory", ["fast", "stalls"])
def test_bit_exact(config, shapes, simulator, memory, build_dir, tmp_path, seed):
    """One queue of separate arrays, one of interleaved and badly aligned ones."""
    generator = random.Random(seed)
    separate = make_jobs(config, shapes, seed)
    shape = dataclasses.replace(shapes[0], rows=range(1, 2))
    together = make_jobs(config, (shape,) * 3, seed + 50)
    images = [
        place_heads(config, separate, 0x10000),
        place_heads(
            config,
            together,
            2 * PAGE - 4 * generator.randrange(1, 16),
            interleaved=True,
            alignment=4,
            misalign=(4, 12, 20, 60, 0, 36),
            row_padding=4 * generator.randrange(1, 20),
        ),
    ]
    done = play(
        config,
        images,
        [Step(0), Step(1)],
        build_dir,
        tmp_path,
        Memory((1, 200), seed) if memory == "stalls" else None,
        simulator,
    )
    for number, jobs in enumerate((separate, together)):
        step = assert_exact(done, number, expected_outputs(config, jobs))
        check_counters(config, jobs, step)
