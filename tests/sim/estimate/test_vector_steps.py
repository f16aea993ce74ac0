"""Steps between layers: those of a queue, their time by hand, and what hides them."""

import numpy as np
import pytest

from firmware_model.host.tasks import job_tokens
from firmware_model.host.vector_job import VectorJob
from firmware_model.models.device_program import device_program
from paro.config import Config, ParoError
from sim.estimate.machine import Machine
from sim.estimate.vector_steps import BLOCK_STEPS, Row, vector_time
from sim.estimate.workloads import Workload, check_fits, load_workload
from tests.firmware_model.models.small_transformers import CONFIG, HEADS, Example, cogvideox

ARRAY = Config(rows=16, cols=32, axi_bits=512, vector_channels=16384)


def test_steps_are_those_of_a_queue():
    """Rows of all tokens, by what is done to them, in a block of CogVideoX."""
    network, items, _ = Example(cogvideox).block(0)
    program = device_program(network, items[:1], CONFIG)
    heads, head_dim = HEADS["num_attention_heads"], HEADS["attention_head_dim"]
    width = heads * head_dim
    rows = {head_dim: Row.HEAD, width: Row.TOKEN, 4 * width: Row.HIDDEN}
    found: dict[tuple, int] = {}
    for task in program.tasks:
        job = task.job
        if isinstance(job, VectorJob):
            kind = (rows[job.channels], len(job.passes), job.seconds, job.sends_bytes)
            found[kind] = found.get(kind, 0) + job_tokens(job)
    wanted: dict[tuple, int] = {}
    for step in BLOCK_STEPS:
        kind = (step.row, step.passes, step.seconds, step.makes_bytes)
        count = network.tokens.count * (heads if step.row is Row.HEAD else 1)
        wanted[kind] = wanted.get(kind, 0) + count
    assert found == wanted


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
