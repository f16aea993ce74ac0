"""Steps between layers: those of a queue, their time by hand, and what hides them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from firmware_model.host.jobs import Job
from firmware_model.host.tasks import job_tokens
from firmware_model.host.vector_job import VectorJob
from firmware_model.models.compiler import compile_network
from paro.config import Config, ParoError
from sim.estimate.machine import Machine
from sim.estimate.vector_steps import BLOCK_STEPS, CROSS_STEPS, Row, VectorStep, vector_time
from sim.estimate.workloads import Workload, check_fits, load_workload
from tests.firmware_model.models.small_transformers import (
    CONFIG,
    HEADS,
    Example,
    cogvideox,
    wan,
)

ARRAY = Config(rows=16, cols=32, axi_bits=512, vector_channels=16384)


def steps_of(jobs: Sequence[Job | VectorJob]) -> Counter[tuple]:
    """Rows of all tokens by what is done to them."""
    head_dim = HEADS["attention_head_dim"]
    width = HEADS["num_attention_heads"] * head_dim
    rows = {head_dim: Row.HEAD, width: Row.TOKEN, 4 * width: Row.HIDDEN}
    found: Counter[tuple] = Counter()
    for job in jobs:
        if isinstance(job, VectorJob):
            kind = (rows[job.channels], len(job.passes), job.seconds, job.sends_bytes)
            found[kind] += job_tokens(job)
    return found


def as_counted(steps: Sequence[VectorStep], tokens: int) -> Counter[tuple]:
    """The same of what estimates count."""
    found: Counter[tuple] = Counter()
    for step in steps:
        heads = HEADS["num_attention_heads"] if step.row is Row.HEAD else 1
        found[(step.row, step.passes, step.seconds, step.makes_bytes)] += tokens * heads
    return found


def test_steps_are_those_of_a_queue():
    network, items, _ = Example(cogvideox).block(0)
    jobs = [task.job for task in compile_network(network, items[:1], CONFIG).tasks]
    assert steps_of(jobs) == as_counted(BLOCK_STEPS, network.tokens.count)


def test_steps_around_a_cross_attention_are_those_of_a_queue():
    """Between the first sum and the second, the text's rows left out, in a block of Wan."""
    network, items, _ = Example(wan).block(0)
    jobs = [task.job for task in compile_network(network, items[:1], CONFIG).tasks]
    sums = [n for n, job in enumerate(jobs) if isinstance(job, VectorJob) and job.seconds == 1]
    tokens = network.tokens.count
    crossed = [job for job in jobs[sums[0] + 1 : sums[1] + 1] if job_tokens(job) == tokens]
    assert steps_of(crossed) == as_counted(CROSS_STEPS, tokens)


def test_bytes_by_hand():
    """A norm, INT8, a gate: words in and out, words to bytes, two words in and one out."""
    norm, quantize, *_, gate = BLOCK_STEPS
    assert [step.bytes_moved(100) for step in (norm, quantize, gate)] == [400, 300, 600]


@pytest.mark.parametrize("cores", [2, 600])
def test_long_layers_hide_the_vector_unit(cores):
    workload = load_workload("cogvideox-5b")
    machine = Machine(config=ARRAY, cores=cores)
    busy = vector_time(workload, machine, 0, [0, 0, 0, 0]).busy_seconds
    long = 1e9 * busy  # cycles
    hidden = vector_time(workload, machine, 4 * long, [long, long, long, long])
    assert hidden.busy_seconds == busy
    assert 0 <= hidden.exposed_seconds < 0.05 * busy


def test_a_single_item_hides_little():
    workload = load_workload("cogvideox-5b").model_copy(update={"guidance_passes": 1})
    machine = Machine(config=ARRAY, cores=2)
    alone = vector_time(workload, machine, 1e9, [1e9, 1e9, 1e9, 1e9])
    assert 0.5 * alone.busy_seconds < alone.exposed_seconds <= alone.busy_seconds


def test_without_work_of_the_cores_all_is_exposed():
    workload, machine = load_workload("cogvideox-2b"), Machine(config=ARRAY, cores=2)
    found = vector_time(workload, machine, 0, [0, 0, 0, 0])
    assert found.exposed_seconds == pytest.approx(found.busy_seconds, rel=0.01)
    assert np.isclose(found.moved_bytes / workload.tokens, (46 + 3 * 4) * workload.width)


def test_a_device_without_the_unit_counts_nothing():
    machine = Machine(config=ARRAY.changed(vector_channels=0), cores=2)
    found = vector_time(load_workload("cogvideox-5b"), machine, 1e9, [1e9] * 4)
    assert (found.busy_seconds, found.exposed_seconds, found.moved_bytes) == (0, 0, 0)


def test_rows_that_do_not_fit():
    workload: Workload = load_workload("cogvideox-5b")
    with pytest.raises(ParoError, match="4096 does not fit rows of 12288 channels"):
        check_fits(workload, ARRAY.changed(vector_channels=4096))
