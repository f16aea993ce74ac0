"""The array never waits: cycles of the RTL against digits of live blocks, with a slow memory."""

import pytest
import torch

from firmware_model.calibration.calibrate import calibrate
from firmware_model.calibration.goal import Goal
from firmware_model.capture import load_capture
from firmware_model.host.jobs import HeadJob
from firmware_model.reference.jobs import head_job
from firmware_model.reference.quantize import quantize_head
from paro.config import PRESETS, Config
from sim.cosim.core import CoreTarget
from sim.cosim.target import Simulation
from sim.cosim.work import ideal_cycles
from sim.verify.heads import random_capture
from tests.places import SHARED
from tests.sim.cosim.checks import assert_as_predicted, assert_exact, simulate

#: Its streams begin some cycles after a fetch.
TARGET = CoreTarget(memory_latency=30)
SHAPES = [
    pytest.param(PRESETS["ulx3s"], id="8x8"),
    pytest.param(PRESETS["video"], id="16x16", marks=pytest.mark.slow),
    pytest.param(PRESETS["wide"], id="8x16", marks=pytest.mark.slow),
]


def run_rows(config: Config, rows: torch.Tensor, build_dir, tmp_path) -> tuple[HeadJob, Simulation]:
    """Compute some block rows, exactly, without stalls."""
    blocks = rows.shape[1]
    codes = torch.ones(blocks, blocks, dtype=torch.uint8)
    codes[: len(rows)] = rows
    capture = random_capture(blocks * config.block, config.head_dim, 5)
    job = head_job(capture, quantize_head(capture, 0, 0, config), codes, range(len(rows)))
    return job, run_job(config, job, build_dir, tmp_path)


def run_job(config: Config, job: HeadJob, build_dir, tmp_path) -> Simulation:
    simulation = simulate(TARGET, config, [job], build_dir, tmp_path)
    assert_exact(config, [job], simulation)
    assert_as_predicted(TARGET, config, [job], simulation)
    return simulation


def overhead(config: Config, job: HeadJob, simulation: Simulation) -> float:
    """Cycles over ideal cycles."""
    stages, ideal = simulation.stages, ideal_cycles(config, job)
    assert stages["qk"]["busy"] + stages["pv"]["busy"] == ideal
    assert simulation.total_cycles is not None
    return simulation.total_cycles / ideal


@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize(
    ("widths", "limit"), [((1, 2, 3), 1.02), ((1, 1, 2, 1, 2, 1, 3), 1.02), ((1,), 1.05)]
)
def test_a_row_of_live_blocks(config, widths, limit, build_dir, tmp_path, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(widths), (1, 32), generator=generator)
    rows = torch.tensor(widths, dtype=torch.uint8)[drawn]
    job, simulation = run_rows(config, rows, build_dir, tmp_path)
    assert overhead(config, job, simulation) <= limit


@pytest.mark.parametrize("config", SHAPES)
def test_skipped_blocks_cost_nothing(config, build_dir, tmp_path) -> None:
    """Rows with one live block take the cycles of that block, but for a constant a command."""
    over = {}
    for rows in (2, 8):
        codes = torch.zeros(rows, 64, dtype=torch.uint8)
        for row in range(rows):
            codes[row, 37 * row % 64] = 1
        job, simulation = run_rows(config, codes, build_dir, tmp_path)
        assert simulation.total_cycles is not None
        over[rows] = simulation.total_cycles - ideal_cycles(config, job)
    dense = torch.full((2, 64), 1, dtype=torch.uint8)
    job, simulation = run_rows(config, dense, build_dir, tmp_path)
    assert simulation.total_cycles is not None
    over["dense"] = simulation.total_cycles - ideal_cycles(config, job)
    assert max(over.values()) - min(over.values()) <= 8, over


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="needs the large captures, which are not shipped")
def test_a_whole_head_of_a_video(build_dir, tmp_path) -> None:
    config = PRESETS["video"]
    capture = load_capture(SHARED / "dinov2_video_l3.safetensors")
    plan = calibrate([capture], Goal(avg_bits=3.0, block=config.block))[0].for_capture(capture)
    head = quantize_head(capture, 5, plan.head_order(5), config)
    job = head_job(capture, head, plan.head_codes(5))
    assert overhead(config, job, run_job(config, job, build_dir, tmp_path)) <= 1.10
