"""Linear layers in the accelerator's queue, beside heads and chained with them through memory."""

import random

import numpy as np
import pytest
import torch

from firmware_model.host.image import place_jobs
from firmware_model.host.jobs import Job, LayerJob
from firmware_model.host.tasks import Buffer, Columns, Task
from firmware_model.reference.jobs import layer_job
from firmware_model.reference.linear import (
    fit_outputs,
    quantize_inputs,
    quantize_weights,
)
from firmware_model.reference.outputs import model_outputs
from paro.config import PRESETS, Config
from paro.config.registers import Cause
from sim.cosim.accelerator import AcceleratorTarget
from sim.cosim.accelerator_scenario import Step
from sim.cycles.bursts import head_fields
from sim.cycles.memory import Memory
from sim.verify.chains import Chain, cut_outputs, make_chain
from sim.verify.images import changed, changed_bytes
from tests.sim.accelerator_runs import assert_exact, play
from tests.sim.cosim.checks import assert_exact as assert_all_exact
from tests.sim.cosim.checks import simulate
from tests.sim.cosim.test_layers import NARROW, mixed_queue, odd_layers

TINY = PRESETS["tiny"].changed(axi_bits=64)
CONFIGS = {
    "tiny": TINY,
    "narrow": NARROW,
    "8x8-b16-d64": Config(rows=8, cols=8, block=16, head_dim=64, axi_bits=64),
    "4x8-b32-d32-axi512": Config(rows=4, cols=8, block=32, head_dim=32, axi_bits=512),
    "8x8-b64-d32": Config(rows=8, cols=8, block=64, head_dim=32, axi_bits=64, max_tokens=1000),
    "ulx3s": PRESETS["ulx3s"],
    "video": PRESETS["video"],
    "large": PRESETS["large"],
}
#: Difference from the cycle model, as a part of the cycles taken.
TOLERANCE = 0.01


def run_queue(config: Config, jobs: list[Job], memory: Memory, build_dir, tmp_path, simulator):
    target = AcceleratorTarget(memory)
    simulation = simulate(target, config, jobs, build_dir, tmp_path, simulator)
    assert_all_exact(config, jobs, simulation)
    predicted = target.predict(config, jobs).total_cycles
    assert simulation.total_cycles is not None
    assert abs(predicted - simulation.total_cycles) <= TOLERANCE * simulation.total_cycles


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
@pytest.mark.parametrize("memory", [Memory(), Memory((1, 90), 7)], ids=["ideal", "stalls"])
def test_odd_sizes(simulator, memory, build_dir, tmp_path, seed) -> None:
    jobs: list[Job] = [shape.job(TINY, seed + i) for i, shape in enumerate(odd_layers(TINY))]
    run_queue(TINY, jobs, memory, build_dir, tmp_path, simulator)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if config.rows * config.cols < 32 else pytest.mark.slow)
        for name, config in CONFIGS.items()
    ],
)
def test_queues_of_heads_and_layers(name, build_dir, tmp_path, seed) -> None:
    config, generator = CONFIGS[name], random.Random(seed)
    jobs = mixed_queue(config, 5, generator)
    memory = Memory((3, 60), generator.choice((None, 5)))
    run_queue(config, jobs, memory, build_dir, tmp_path, "verilator")


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(16))
def test_many_queues(round_, build_dir, tmp_path, seed) -> None:
    generator = random.Random(seed + round_)
    config = list(CONFIGS.values())[round_ % 6]
    jobs = mixed_queue(config, generator.randrange(1, 6), generator)
    memory = Memory(generator.choice(((0, 0), (30, 30), (1, 200))), generator.choice((None, 3)))
    run_queue(config, jobs, memory, build_dir, tmp_path, "verilator")


@pytest.mark.parametrize("layout", [{"misalign": (4, 60, 8)}, {"row_padding": 12}])
def test_layers_anywhere_in_memory(layout, build_dir, tmp_path, seed) -> None:
    jobs = [shape.job(TINY, seed + i) for i, shape in enumerate(odd_layers(TINY))]
    image = place_jobs(TINY, jobs, 0x10000, **layout)
    done = play(TINY, [image], [Step()], build_dir, tmp_path, Memory((1, 40), 3))
    assert_exact(done, 0, [model_outputs(TINY, job) for job in jobs])


@pytest.mark.parametrize("memory", [Memory(), Memory((1, 120), 11)], ids=["ideal", "stalls"])
@pytest.mark.parametrize(
    "name",
    ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("8x8-b16-d64", "ulx3s"))],
)
def test_a_chain_through_memory(name, memory, build_dir, tmp_path, seed) -> None:
    """Three heads and four layers in one queue, from one start, without the host in between."""
    config = CONFIGS[name]
    chain = make_chain(config, seed)
    image = place_jobs(config, chain.tasks, 0x10000)
    done = play(config, [image], [Step()], build_dir, tmp_path, memory)
    assert_exact(done, 0, chain.words)


@pytest.mark.parametrize(
    "name", ["tiny", "narrow", pytest.param("8x8-b64-d32", marks=pytest.mark.slow)]
)
def test_jobs_with_other_cuts(name, build_dir, tmp_path, seed) -> None:
    """Each job's words by its own cut, whatever the one before it has."""
    config, generator = CONFIGS[name], random.Random(seed)
    jobs = mixed_queue(config, 6, generator)
    tasks = [Task(job, cut) for job, cut in zip(jobs, (8, 0, 3, 3, 1, 0), strict=True)]
    expected = []
    for job, task in zip(jobs, tasks, strict=True):
        expected.append(cut_outputs(model_outputs(config, job), task.out_cut))
    image = place_jobs(config, tasks, 0x10000, misalign=(4, 12, 0, 60), row_padding=36)
    done = play(config, [image], [Step()], build_dir, tmp_path, Memory((1, 60), seed))
    assert_exact(done, 0, expected)


def test_a_chain_without_waiting_is_wrong(build_dir, tmp_path, seed) -> None:
    """The flag that makes a job wait is needed: without it, stale memory is read."""
    chain, hidden = Chain(TINY, 12, seed), Buffer("hidden", 12, TINY.head_dim)
    x8 = np.random.default_rng(seed).integers(-127, 128, (12, 40)).astype(np.int8)
    middle = chain.layer(x8, TINY.head_dim, 7, output=Columns(hidden))
    chain.layer(middle, 30, 7, inputs={"q": Columns(hidden)})
    image = place_jobs(TINY, chain.tasks, 0x10000)
    broken = image
    for number in range(len(chain.tasks)):
        broken = changed(broken, number, after=0)
    done = play(TINY, [broken], [Step()], build_dir, tmp_path)
    same = [np.array_equal(*pair) for pair in zip(done.outputs[0], chain.words, strict=True)]
    assert same == [True, False]


#: What makes a layer's descriptor of `TINY` unusable, by cause.
BAD = {
    Cause.BAD_KIND: [{"kind": 2}, {"kind": 15}],
    Cause.BAD_LAYER: [
        {"chunks": 0},
        {"chunks": TINY.chunks_max + 1},
        {"sum_shift": 13},
        {"out_cut": 9},
    ],
    Cause.BAD_TOKENS: [
        {"query_tokens": 0},
        {"query_tokens": TINY.max_tokens + 1},
        {"key_tokens": TINY.max_tokens + 1},
    ],
    Cause.BAD_ALIGNMENT: [{"k_address": 0x10002}, {"o_row_stride": 2**20}],
}


def test_layers_that_are_refused(build_dir, tmp_path, seed) -> None:
    """The cause is told, in the first job or the second, and the next queue is exact."""
    jobs = [shape.job(TINY, seed + i) for i, shape in enumerate(odd_layers(TINY)[:2])]
    good = place_jobs(TINY, jobs, 0x10000)
    images, steps, told = [good], [], []
    for cause, changes in BAD.items():
        for number, change in enumerate(changes):
            images.append(changed(good, number % 2, **change))
            steps += [Step(len(images) - 1), Step(0)]
            told += [(cause.name, number % 2), None]
    images.append(changed_bytes(good, head_fields(good, 0)["codes_address"], bytes(4)))
    steps += [Step(len(images) - 1), Step(0)]
    told += [("EMPTY_ROW", 0), None]
    done = play(TINY, images, steps, build_dir, tmp_path, Memory((1, 20)))
    expected = [model_outputs(TINY, job) for job in jobs]
    for number, wanted in enumerate(told):
        error = done.steps[number].error
        assert (error and (error.cause, error.head)) == wanted, number
        if wanted is None:
            assert_exact(done, number, expected)


@pytest.mark.parametrize("kind", ["control_reset", "hard_reset", "read_error", "write_error"])
def test_chains_that_are_given_up(kind, build_dir, tmp_path, seed) -> None:
    """At any time, and at once the whole chain again, exact: nothing is left of either."""
    generator = random.Random(seed)
    chain = make_chain(TINY, seed)
    image, memory = place_jobs(TINY, chain.tasks, 0x10000), Memory((1, 30))
    (whole,) = play(TINY, [image], [Step()], build_dir, tmp_path, memory).steps
    assert whole.counters is not None
    most = {"read_error": whole.counters.read_beats, "write_error": whole.counters.write_bursts}
    last = most.get(kind, whole.counters.cycles)
    steps = [s for _ in range(4) for s in (Step(0, kind, generator.randrange(1, last)), Step(0))]
    done = play(TINY, [image], steps, build_dir, tmp_path, memory)
    for number in range(1, len(steps), 2):
        error = done.steps[number - 1].error
        assert (error and error.cause) == (kind.upper() if kind in most else None)
        assert_exact(done, number, chain.words)


def test_many_input_channels(build_dir, tmp_path, seed) -> None:
    """16,384 inputs of one token and one output."""
    generator = torch.Generator().manual_seed(seed)
    inputs = quantize_inputs(torch.randn(1, 16384, generator=generator))
    codes = torch.randint(1, 4, (1, 16384 // TINY.head_dim), generator=generator).byte()
    weights = quantize_weights(torch.randn(1, 16384, generator=generator), codes)
    job: LayerJob = layer_job(inputs, weights, fit_outputs(inputs, weights, None, TINY))
    run_queue(TINY, [job], Memory((20, 20)), build_dir, tmp_path, "verilator")
