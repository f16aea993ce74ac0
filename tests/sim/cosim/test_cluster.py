"""Clusters: cores that share loads of K and V give the words of the integer model, in any deal."""

import random

import pytest

from firmware_model.host.jobs import Job
from paro.config import Config
from sim.cosim.run import imbalance
from sim.cosim.work import wanted_bytes
from sim.cycles.memory import Memory
from tests.sim.cosim.test_accelerator import FEW, MIXED
from tests.sim.cosim.test_accelerator_superblocks import (
    STALLS,
    WIDE,
    ending_in_turn,
    layers,
    random_queue,
    run_queue,
    short_queue,
)
from tests.sim.inputs import TINY, Shape, make_jobs


def cluster(cores: int, query_rows: int, key_slots: int = 2, config: Config = TINY) -> Config:
    return config.changed(cores=cores, query_rows=query_rows, key_slots=key_slots)


SHAPES = {
    "g2-s1": cluster(2, 1),
    "g2-s2-w4": cluster(2, 2, 4),
    "g4-s1-w4": cluster(4, 1, 4),
    "g4-s4": cluster(4, 4),
}


@pytest.mark.parametrize(
    ("shape", "memory"),
    [
        pytest.param("g2-s1", Memory(), id="g2-s1-ideal"),
        pytest.param("g4-s4", STALLS, id="g4-s4-stalls"),
        *(
            pytest.param(shape, memory, id=f"{shape}-{name}", marks=pytest.mark.slow)
            for shape, memory, name in [
                ("g2-s1", STALLS, "stalls"),
                ("g2-s2-w4", Memory(), "ideal"),
                ("g2-s2-w4", STALLS, "stalls"),
                ("g4-s1-w4", Memory(), "ideal"),
                ("g4-s1-w4", STALLS, "stalls"),
                ("g4-s4", Memory(), "ideal"),
            ]
        ),
    ],
)
def test_heads_and_layers(shape, memory, build_dir, tmp_path, seed) -> None:
    """In every order, with text, partial blocks and waves; layers in between."""
    config = SHAPES[shape]
    jobs: list[Job] = list(make_jobs(config, (*MIXED, WIDE), seed))
    jobs.append(ending_in_turn(config, random.Random(seed)))
    for index, layer in enumerate(layers(config, seed)):
        jobs.insert(2 * index, layer)
    layout = {"misalign": (4, 60, 0, 8), "row_padding": 12} if memory == STALLS else {}
    run_queue(config, jobs, (build_dir, tmp_path), memory, **layout)


@pytest.mark.slow
def test_results_and_bytes(build_dir, tmp_path, seed) -> None:
    """Words do not depend on cores and rows; K and V come once for all of them, and none waits."""
    reads, cycles = {}, {}
    for cores, query_rows in ((1, 2), (2, 2), (4, 2)):
        config = cluster(cores, query_rows, 4)
        jobs: list[Job] = [Shape((32, 1, 16), mean_bits=4.8).job(config, 1, seed)]
        step = run_queue(config, jobs, (build_dir, tmp_path / f"{cores}"), Memory((5, 5)))
        assert step.counters is not None
        assert len(step.counters.cores) == cores
        assert step.counters.read_beats * config.axi_bits // 8 >= wanted_bytes(config, jobs)["read"]
        reads[cores], cycles[cores] = step.counters.read_beats, step.counters.cycles
        busiest = imbalance(step.counters.cores)
        assert busiest is not None
        assert busiest <= 1.05
    assert reads[4] < 0.6 * reads[2] < 0.4 * reads[1]
    assert cycles[4] < cycles[1] / 4 / 0.94
    assert cycles[2] < cycles[1] / 2 / 0.94


@pytest.mark.parametrize(
    ("shape", "memory"),
    [
        pytest.param("g2-s1", STALLS, id="g2-s1-stalls"),
        pytest.param("g4-s4", Memory((200, 200)), id="g4-s4-slow"),
        pytest.param("g2-s2-w4", STALLS, id="g2-s2-w4-stalls", marks=pytest.mark.slow),
        pytest.param("g4-s1-w4", Memory(), id="g4-s1-w4-ideal", marks=pytest.mark.slow),
    ],
)
def test_short_jobs_wait_for_their_turn(shape, memory, build_dir, tmp_path, seed) -> None:
    """Of fewer rows than cores, too; cycles are those of the model, every one."""
    config = SHAPES[shape]
    run_queue(config, short_queue(config, seed), (build_dir, tmp_path), memory)


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(6))
def test_many_queues(round_, build_dir, tmp_path, seed) -> None:
    generator = random.Random(seed + round_)
    config = list(SHAPES.values())[round_ % 4]
    jobs, memory = random_queue(config, generator, blocks=19)
    run_queue(config, jobs, (build_dir, tmp_path), memory)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "simulator"),
    [
        (cluster(4, 2, 4, Config(rows=8, cols=8)), "verilator"),
        (cluster(2, 8, 2, Config(rows=8, cols=8)), "verilator"),
        (cluster(2, 2, 2, Config(rows=16, cols=16, block=16, head_dim=32)), "verilator"),
        (cluster(2, 2, 4), "icarus"),
    ],
    ids=["4-8x8", "2-8x8-s8", "2-16x16-b16", "icarus"],
)
def test_large(config, simulator, build_dir, tmp_path, seed) -> None:
    generator = random.Random(seed)
    jobs: list[Job] = [*make_jobs(config, FEW, seed), ending_in_turn(config, generator)]
    jobs += [*layers(config, seed), *make_jobs(config, (WIDE,), seed)]
    memory = Memory((1, 60), seed if simulator == "verilator" else None)
    run_queue(config, jobs, (build_dir, tmp_path), memory, simulator)
