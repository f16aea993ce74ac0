"""Superblocks in the core: the same words from one load of K and V for several block rows.

The cycle model predicts them as it does single rows.
"""

import random

import numpy as np
import pytest

from firmware_model.host.jobs import Job
from paro.config import Config
from sim.cosim.core import CoreTarget
from sim.cosim.target import Simulation
from tests.sim.cosim.checks import assert_as_predicted, assert_exact, simulate
from tests.sim.cosim.test_layers import mixed_queue, odd_layers
from tests.sim.inputs import Shape

TINY = {"rows": 4, "cols": 4, "block": 16, "head_dim": 32}
LARGER = {
    "8x8-b64-d64": {"rows": 8, "cols": 8},
    "16x16-b16-d32": {"rows": 16, "cols": 16, "block": 16, "head_dim": 32},
    "4x8-b32-d32": {"rows": 4, "cols": 8, "block": 32, "head_dim": 32},
    "4x4-b64-d32": {"rows": 4, "cols": 4, "block": 64, "head_dim": 32},
}


def run(config: Config, jobs: list[Job], target: CoreTarget, build_dir, tmp_path) -> Simulation:
    simulation = simulate(target, config, jobs, build_dir, tmp_path)
    assert_exact(config, jobs, simulation)
    assert_as_predicted(target, config, jobs, simulation)
    return simulation


def queue(config: Config, seed: int, jobs: int = 6) -> list[Job]:
    """Heads and layers: partial blocks and superblocks, rows that end in any order."""
    layers: list[Job] = [shape.job(config, seed + i) for i, shape in enumerate(odd_layers(config))]
    heads: list[Job] = [
        Shape((9, 1, 13), (3, 2), mean_bits=2.0).job(config, 2, seed),
        Shape((18, 1, 16), mean_bits=3.0, rows=range(1, 16)).job(config, 0, seed),
    ]
    return [*layers, *heads, *mixed_queue(config, jobs, random.Random(seed))]


@pytest.mark.parametrize(
    ("rows", "key_slots"),
    [(2, 2), (4, 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 4), (2, 8)))],
)
def test_queues_are_exact(rows, key_slots, build_dir, tmp_path, seed) -> None:
    """With every stream ready, then with a slow memory and stalls everywhere."""
    config = Config(**TINY, query_rows=rows, key_slots=key_slots)
    jobs = queue(config, seed)
    for latency, stalls in ((0, None), (30, seed)):
        run(config, jobs, CoreTarget(latency, stalls), build_dir, tmp_path)


def test_keys_load_once_and_the_array_never_waits(build_dir, tmp_path, seed) -> None:
    """Words do not depend on the rows of a superblock, nor does the time; loads of K and V do."""
    loads, cycles, words = [], [], []
    for rows in (1, 2, 4):
        config = Config(**TINY, query_rows=rows)
        jobs: list[Job] = [Shape((32, 1, 16), mean_bits=4.8).job(config, 1, seed)]
        simulation = run(config, jobs, CoreTarget(5), build_dir, tmp_path)
        assert simulation.total_cycles is not None
        assert simulation.stages["load_k"]["busy"] == simulation.stages["load_v"]["busy"]
        loads.append(simulation.stages["load_k"]["busy"])
        cycles.append(simulation.total_cycles)
        words.append(simulation.words[0])
    assert all(np.array_equal(words[0], other) for other in words[1:])
    assert max(cycles) < 1.001 * min(cycles)
    # Five of six blocks are live: nearly every column serves all rows.
    assert loads[1] < 0.6 * loads[0]
    assert loads[2] < 0.32 * loads[0]


@pytest.mark.slow
@pytest.mark.parametrize("stalls", [False, True])
@pytest.mark.parametrize("rows", [2, 4, 8, 16])
@pytest.mark.parametrize("name", LARGER)
def test_larger_arrays_are_exact(name, rows, stalls, build_dir, tmp_path, seed) -> None:
    config = Config(**LARGER[name], query_rows=rows)
    jobs = queue(config, seed, jobs=3)
    run(config, jobs, CoreTarget(20 * stalls, seed if stalls else None), build_dir, tmp_path)


@pytest.mark.slow
def test_icarus_has_the_same_words(build_dir, tmp_path, seed) -> None:
    """It begins with X in every register."""
    config = Config(**TINY, query_rows=4)
    jobs = queue(config, seed)
    simulation = simulate(CoreTarget(5, seed), config, jobs, build_dir, tmp_path, "icarus")
    assert_exact(config, jobs, simulation)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2, 8])
def test_a_reset_in_mid_superblock_leaves_nothing_behind(rows, build_dir, tmp_path, seed) -> None:
    config = Config(**TINY, query_rows=rows)
    jobs = queue(config, seed, jobs=2)
    generator = random.Random(seed)
    for _ in range(4):
        target = CoreTarget(5, seed, reset_at=generator.randrange(2, 8000))
        assert_exact(config, jobs, simulate(target, config, jobs, build_dir, tmp_path))
