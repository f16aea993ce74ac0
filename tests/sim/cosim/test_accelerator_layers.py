"""Linear layers in the accelerator's queue, beside heads and chained with them through memory."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from firmware_model.host.image import Buffer, Columns, Task, place_jobs
from firmware_model.host.jobs import HeadJob, HeadOperands, Job, LayerJob
from firmware_model.reference.jobs import layer_job
from firmware_model.reference.linear import (
    QuantizedInputs,
    cut_words,
    fit_outputs,
    quantize_inputs,
    quantize_weights,
)
from firmware_model.reorder import token_permutation
from paro.config import PRESETS, Config
from paro.config.formats import QUERY_SCALE_BITS
from sim.cosim.accelerator import AcceleratorTarget
from sim.cosim.accelerator_scenario import Step
from sim.cycles.memory import Memory
from tests.firmware_model.host.outputs import model_outputs
from tests.sim.accelerator_runs import assert_exact, play
from tests.sim.cosim.checks import assert_exact as assert_all_exact
from tests.sim.cosim.checks import simulate
from tests.sim.cosim.test_layers import NARROW, mixed_queue, odd_layers
from tests.sim.inputs import random_codes

TINY = Config(**{**PRESETS["tiny"].model_dump(), "axi_bits": 64})
CONFIGS = {
    "tiny": TINY,
    "narrow": NARROW,
    "8x8-b16-d64": Config(rows=8, cols=8, block=16, head_dim=64, axi_bits=64),
    "4x8-b32-d32-axi512": Config(rows=4, cols=8, block=32, head_dim=32, axi_bits=512),
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
        pytest.param(name, marks=() if config.rows * config.cols <= 32 else pytest.mark.slow)
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
    config = list(CONFIGS.values())[round_ % 5]
    jobs = mixed_queue(config, generator.randrange(1, 6), generator)
    memory = Memory(generator.choice(((0, 0), (30, 30), (1, 200))), generator.choice((None, 3)))
    run_queue(config, jobs, memory, build_dir, tmp_path, "verilator")


@pytest.mark.parametrize("layout", [{"misalign": (4, 60, 8)}, {"row_padding": 12}])
def test_layers_anywhere_in_memory(layout, build_dir, tmp_path, seed) -> None:
    jobs = [shape.job(TINY, seed + i) for i, shape in enumerate(odd_layers(TINY))]
    image = place_jobs(TINY, jobs, 0x10000, **layout)
    done = play(TINY, [image], [Step()], build_dir, tmp_path, Memory((1, 40), 3))
    assert_exact(done, 0, [model_outputs(TINY, job) for job in jobs])


class Chain:
    """A queue whose jobs hand results on, and the golden reference of each."""

    def __init__(self, config: Config, tokens: int, seed: int) -> None:
        self.config, self.tokens, self.seed = config, tokens, seed
        self.tasks: list[Task] = []
        self.words: list[np.ndarray] = []

    def layer(self, x8: np.ndarray, outputs: int, cut: int, **places) -> np.ndarray:
        """Append a layer with random weights; returns its output words, cut."""
        seed = self.seed + len(self.tasks)
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(outputs, x8.shape[1], generator=generator)
        shape = self.config.blocks_of(outputs), -(-x8.shape[1] // self.config.head_dim)
        codes = torch.randint(1, 4, shape, generator=generator).byte()
        mx = torch.full((self.tokens,), 2 ** (QUERY_SCALE_BITS - 1)).int()
        inputs = QuantizedInputs(torch.from_numpy(x8), mx, 1.0)
        weights = quantize_weights(weight, codes)
        bias = 1e5 * torch.randn(outputs, generator=generator)
        job = layer_job(inputs, weights, fit_outputs(inputs, weights, bias, self.config))
        return self._append(job, cut, places)

    def head(self, q8, k8, v8, order: int, cut: int, **places) -> np.ndarray:
        """Append a head of operands in the natural order; returns its words in it, cut."""
        grid = (2, 4, self.tokens // 8)
        permutation = token_permutation(grid, self.tokens - 8 * grid[2], order, 0)
        scales = np.full(self.tokens, 37, np.int32)
        q8, k8, v8 = (values[permutation] for values in (q8, k8, v8))
        head = HeadOperands(q8, k8, v8, 50 * scales, scales, permutation, order)
        codes = random_codes(self.config.blocks_of(self.tokens), 4.8, self.seed + order).numpy()
        words = self._append(HeadJob(head, codes, grid, self.tokens - 8 * grid[2]), cut, places)
        natural = np.empty_like(words)
        natural[permutation] = words
        return natural

    def _append(self, job: Job, cut: int, places) -> np.ndarray:
        self.tasks.append(Task(job, cut, **places))
        words = model_outputs(self.config, job)
        if cut:
            words = cut_words(torch.from_numpy(words), cut).numpy()
        self.words.append(words.astype(np.int16))
        return words


def make_chain(config: Config, seed: int) -> Chain:
    """Q, K, V of three heads from one layer, their outputs into another, and two layers more.

    Operands that come from buffers are not placed: their rows in memory are the fill.
    """
    tokens, heads, channels = 2 * config.block + 11, 3, config.head_dim
    chain = Chain(config, tokens, seed)
    generator = np.random.default_rng(seed)
    x8 = generator.integers(-127, 128, (tokens, 2 * channels + 9)).astype(np.int8)
    projected = Buffer("projected", tokens, config.blocks_of(9 * channels) * config.block + 4)
    attended = Buffer("attended", tokens, heads * channels)
    hidden = Buffer("hidden", tokens, -(-(channels + 8) // channels) * channels)
    qkv = chain.layer(x8, 3 * heads * channels, 7, output=Columns(projected))
    parts = []
    for head in range(heads):
        columns = [(3 * head + part) * channels for part in range(3)]
        places = {
            "inputs": {
                name: Columns(projected, first) for name, first in zip("qkv", columns, strict=True)
            },
            "output": Columns(attended, head * channels),
        }
        q8, k8, v8 = (qkv[:, first : first + channels] for first in columns)
        parts.append(chain.head(q8, k8, v8, head + 2, 8, **places))
    together = np.concatenate(parts, axis=1)
    middle = chain.layer(
        together, channels + 8, 6, inputs={"q": Columns(attended)}, output=Columns(hidden)
    )
    chain.layer(middle, 21, 0, inputs={"q": Columns(hidden)})
    chain.layer(together, 5, 0, inputs={"q": Columns(attended)})
    return chain


@pytest.mark.parametrize("memory", [Memory(), Memory((1, 120), 11)], ids=["ideal", "stalls"])
@pytest.mark.parametrize(
    "name", ["tiny", "8x8-b16-d64", pytest.param("ulx3s", marks=pytest.mark.slow)]
)
def test_a_chain_through_memory(name, memory, build_dir, tmp_path, seed) -> None:
    """Three heads and four layers in one queue, from one start, without the host in between."""
    config = CONFIGS[name]
    chain = make_chain(config, seed)
    image = place_jobs(config, chain.tasks, 0x10000)
    done = play(config, [image], [Step()], build_dir, tmp_path, memory)
    assert_exact(done, 0, chain.words)


def test_a_chain_without_waiting_is_wrong(build_dir, tmp_path, seed) -> None:
    """The flag that makes a job wait is needed: without it, stale memory is read."""
    chain, hidden = Chain(TINY, 12, seed), Buffer("hidden", 12, TINY.head_dim)
    x8 = np.random.default_rng(seed).integers(-127, 128, (12, 40)).astype(np.int8)
    middle = chain.layer(x8, TINY.head_dim, 7, output=Columns(hidden))
    chain.layer(middle, 30, 7, inputs={"q": Columns(hidden)})
    image = place_jobs(TINY, chain.tasks, 0x10000)
    data = bytearray(image.data)
    for number in range(len(chain.tasks)):
        at = image.queue_base - image.base + 128 * number + 4 * 31 + 3
        data[at] &= ~4
    broken = dataclasses.replace(image, data=bytes(data))
    done = play(TINY, [broken], [Step()], build_dir, tmp_path)
    same = [np.array_equal(*pair) for pair in zip(done.outputs[0], chain.words, strict=True)]
    assert same == [True, False]


def test_many_input_channels(build_dir, tmp_path, seed) -> None:
    """16,384 inputs of one token and one output."""
    generator = torch.Generator().manual_seed(seed)
    inputs = quantize_inputs(torch.randn(1, 16384, generator=generator))
    codes = torch.randint(1, 4, (1, 16384 // TINY.head_dim), generator=generator).byte()
    weights = quantize_weights(torch.randn(1, 16384, generator=generator), codes)
    job: LayerJob = layer_job(inputs, weights, fit_outputs(inputs, weights, None, TINY))
    run_queue(TINY, [job], Memory((20, 20)), build_dir, tmp_path, "verilator")
