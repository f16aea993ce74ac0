"""The cycle model of clusters: what must hold; `tests/sim/cosim/test_cluster.py` has the RTL."""

import itertools
import random

import numpy as np
import pytest

from firmware_model.host import superblocks
from firmware_model.host.image import place_jobs
from paro.config import Config, ParoError
from sim.cosim.work import job_work
from sim.cycles.cycle_model import (
    CoreWork,
    LayerWork,
    Prediction,
    predict,
    predict_accelerator,
    predict_heads,
)
from sim.cycles.memory import Memory
from sim.verify.layers import LayerShape
from tests.sim.inputs import TINY, Shape

CLUSTERS = [(2, 1, 2), (2, 4, 4), (4, 1, 8), (4, 2, 2), (8, 1, 4), (8, 8, 2)]
clusters = pytest.mark.parametrize(("cores", "query_rows", "key_slots"), CLUSTERS)


def cluster(cores: int, query_rows: int, key_slots: int) -> Config:
    values = {"cores": cores, "query_rows": query_rows, "key_slots": key_slots}
    return TINY.changed(**values)


def random_codes(generator: random.Random, rows: int, columns: int) -> np.ndarray:
    codes = generator.choices(range(4), (4, 2, 2, 1), k=rows * columns)
    found = np.array(codes, np.uint8).reshape(rows, columns)
    found[~found.any(axis=1), generator.randrange(columns)] = 1
    return found


def busy(prediction: Prediction) -> list[int]:
    """Cycles in which each core's array works."""
    return [core["qk"]["busy"] + core["pv"]["busy"] for core in prediction.cores]


@clusters
def test_cores_with_equal_work_hardly_wait(cores, query_rows, key_slots):
    """Every row has the same codes: each core is as fast as alone with its own rows."""
    config, alone = cluster(cores, query_rows, key_slots), cluster(1, query_rows, key_slots)
    rows = 2 * config.wave_rows
    row = np.array([3, 0, 1, 2, 0, 3, 3, 1], np.uint8)
    together = predict(config, [CoreWork(row[None].repeat(rows, 0), 16 * rows, 16 * 8)])
    own = rows // cores
    single = predict(alone, [CoreWork(row[None].repeat(own, 0), 16 * own, 16 * 8)])
    assert busy(together) == busy(single) * cores
    assert single.total_cycles <= together.total_cycles <= single.total_cycles + 16 * cores
    layer = LayerWork(row[None].repeat(3, 0), 16 * rows, 48)
    share = LayerWork(layer.codes, 16 * own, 48)
    single = predict(alone, [share]).total_cycles
    # Weights of a tile are there when all cores have asked for the inputs before them.
    assert single <= predict(config, [layer]).total_cycles <= 1.05 * single + 16 * cores


@clusters
def test_a_core_waits_for_others_and_no_longer(cores, query_rows, key_slots, seed):
    """No cluster is faster than its busiest core alone, or slower than one core with all rows."""
    config, alone = cluster(cores, query_rows, key_slots), cluster(1, query_rows, key_slots)
    generator = random.Random(seed)
    rows, columns = 2 * config.wave_rows + generator.randrange(cores), 19
    codes = random_codes(generator, rows, columns)
    together = predict(config, [CoreWork(codes, 16 * rows, 16 * columns)])
    singles = [
        predict(alone, [CoreWork(codes[own], 16 * len(own), 16 * columns)])
        for own in superblocks.deal(rows, config)
    ]
    assert busy(together) == [busy(single)[0] for single in singles]
    assert together.total_cycles >= max(single.total_cycles for single in singles)
    one = predict(alone, [CoreWork(codes, 16 * rows, 16 * columns)])
    assert together.total_cycles < one.total_cycles
    assert sum(busy(together)) == busy(one)[0]
    assert all(counts["busy"] >= 0 for core in together.cores for counts in core.values())


@clusters
@pytest.mark.parametrize("memory", [Memory(), Memory((1, 90), 7)], ids=["ideal", "stalls"])
def test_rows_leave_wave_by_wave(cores, query_rows, key_slots, memory, seed):
    config, generator = cluster(cores, query_rows, key_slots), random.Random(seed)
    tokens = 16 * config.wave_rows + generator.randrange(1, 16 * config.wave_rows)
    jobs = [
        Shape((tokens, 1, 1), mean_bits=3.0).job(config, 2, seed % 1000),
        Shape((1, 1, 1)).job(config, 0, 1),
        LayerShape(tokens, 50, 40).job(config, 3),
    ]
    works = [job_work(config, job) for job in jobs]
    found = predict_accelerator(config, works, place_jobs(config, jobs, 0x10000), memory)
    ends = found.row_ends[0]
    waves = [ends[i : i + config.wave_rows] for i in range(0, len(ends), config.wave_rows)]
    assert all(one.max() < other.min() for one, other in itertools.pairwise(waves))
    # A layer's output blocks are waves of their own.
    blocks = found.row_ends[2].reshape(-1, config.blocks_of(40))
    for first in range(0, len(blocks), config.wave_rows):
        part = blocks[first : first + config.wave_rows]
        assert (part[:, :-1].max(axis=0) < part[:, 1:].min(axis=0)).all()
    assert all((np.diff(np.sort(rows)) > 0).all() for rows in found.row_ends)
    assert found.row_ends[0].max() < found.row_ends[1].min() < found.row_ends[2].min()


def test_cores_without_rows_rest(seed):
    config = cluster(8, 1, 2)
    job = Shape((40, 1, 1)).job(config, 0, seed % 1000)
    image = place_jobs(config, [job], 0x10000)
    found = predict_accelerator(config, [job_work(config, job)], image, Memory())
    assert [cycles > 0 for cycles in busy(found)] == [True] * 3 + [False] * 5
    total = found.total_cycles
    assert found.cores[7]["scheduler"]["starved"] >= total - 2 * config.block


def test_slower_memory_is_never_faster(seed):
    config, generator = cluster(4, 2, 4), random.Random(seed)
    codes = np.stack([random_codes(generator, 20, 20) for _ in range(4)])
    cycles = [
        predict_heads(config, codes, 316, 316, memory_latency=latency).cycles
        for latency in (0, 30, 200, 1000)
    ]
    assert (np.diff(cycles, axis=0) >= 0).all()
    assert (cycles[-1] > cycles[0]).all()


def test_stalls_of_streams_are_refused():
    work = CoreWork(np.ones((1, 1), np.uint8), 16, 16)
    with pytest.raises(ParoError, match="stalls of 2 cores' streams are not followed"):
        predict(cluster(2, 1, 2), [work], stall_seed=1)
