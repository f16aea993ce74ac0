"""Linear layers on the generated core, bit for bit and cycle for cycle."""

import random

import pytest

from firmware_model.host.jobs import Job
from paro.config import PRESETS, Config
from sim.cosim.core import CoreTarget
from sim.cosim.work import ideal_cycles
from sim.cycles.cycle_model import LayerWork, predict
from sim.verify.layers import LayerShape
from tests.sim.cosim.checks import assert_as_predicted, assert_exact, simulate
from tests.sim.inputs import Shape

TINY = PRESETS["tiny"]
#: More keys in a block than channels of a head: blocks of fewer tokens.
NARROW = Config(rows=4, cols=4, block=64, head_dim=32, max_tokens=256)
CONFIGS = {
    **PRESETS,
    "narrow": NARROW,
    "4x8-b32": Config(rows=4, cols=8, block=32, head_dim=32),
    "16x16-b16": Config(rows=16, cols=16, block=16, head_dim=32),
}


def run(config: Config, jobs: list[Job], target: CoreTarget, build_dir, tmp_path, simulator):
    simulation = simulate(target, config, jobs, build_dir, tmp_path, simulator)
    assert_exact(config, jobs, simulation)
    assert_as_predicted(target, config, jobs, simulation)
    return simulation


def odd_layers(config: Config) -> list[LayerShape]:
    """No multiples of blocks, one of everything, one channel beyond a block and a chunk."""
    block, chunk = config.block, config.head_dim
    return [
        LayerShape(block // 2 + 1, 2 * chunk + 5, block + 3, outliers=True),
        LayerShape(1, 1, 1, codes=2),
        LayerShape(config.layer_tokens + 1, chunk, 1, codes=1, biased=False),
        LayerShape(3, chunk + 1, block, codes=3),
    ]


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
@pytest.mark.parametrize("stalls", [None, 7])
def test_odd_sizes(simulator, stalls, build_dir, tmp_path, seed) -> None:
    jobs: list[Job] = [shape.job(TINY, seed + i) for i, shape in enumerate(odd_layers(TINY))]
    run(TINY, jobs, CoreTarget(5, stalls), build_dir, tmp_path, simulator)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if config.rows * config.cols <= 64 else pytest.mark.slow)
        for name, config in CONFIGS.items()
        if name != "tiny"
    ],
)
def test_every_preset(name, build_dir, tmp_path, seed) -> None:
    config = CONFIGS[name]
    jobs: list[Job] = [shape.job(config, seed + i) for i, shape in enumerate(odd_layers(config))]
    run(config, jobs, CoreTarget(20, seed % 2 or None), build_dir, tmp_path, "verilator")


def mixed_queue(config: Config, jobs: int, generator: random.Random) -> list[Job]:
    """Heads and layers in any order, of a few tokens to some blocks."""
    queue: list[Job] = []
    for _ in range(jobs):
        number = generator.randrange(2**20)
        if generator.random() < 0.4:
            bits = generator.choice((2.0, 4.8, 8.0))
            grid = (generator.randrange(4, 40), 1, 1)
            queue.append(Shape(grid, mean_bits=bits).job(config, number % 6, number))
        else:
            layer = LayerShape(
                tokens=generator.randrange(1, 2 * config.block),
                inputs=generator.randrange(1, generator.choice((2, 5, 30)) * config.head_dim),
                outputs=generator.randrange(1, 3 * config.block),
                codes=generator.choice((None, None, 0, 1, 3)),
                outliers=generator.random() < 0.3,
            )
            queue.append(layer.job(config, number))
    return queue


@pytest.mark.parametrize(
    "round_", [0, *(pytest.param(round_, marks=pytest.mark.slow) for round_ in (1, 2))]
)
def test_queues_of_heads_and_layers(round_, build_dir, tmp_path, seed) -> None:
    generator = random.Random(seed + round_)
    config = (TINY, CONFIGS["4x8-b32"], CONFIGS["16x16-b16"])[round_]
    jobs = mixed_queue(config, 7, generator)
    target = CoreTarget(generator.choice((0, 3, 50)), generator.choice((None, 11)))
    run(config, jobs, target, build_dir, tmp_path, "verilator")


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(24))
def test_many_queues(round_, build_dir, tmp_path, seed) -> None:
    generator = random.Random(seed + round_)
    config = CONFIGS[sorted(set(CONFIGS) - {"small", "large"})[round_ % (len(CONFIGS) - 2)]]
    jobs = mixed_queue(config, generator.randrange(1, 6), generator)
    target = CoreTarget(generator.choice((0, 1, 30, 200)), generator.choice((None, round_ + 1)))
    run(config, jobs, target, build_dir, tmp_path, "verilator")


def test_a_reset_in_a_layer(build_dir, tmp_path, seed) -> None:
    jobs: list[Job] = [shape.job(TINY, seed + i) for i, shape in enumerate(odd_layers(TINY))]
    target = CoreTarget(3, 5, reset_at=1500)
    simulation = simulate(target, TINY, jobs, build_dir, tmp_path)
    assert_exact(TINY, jobs, simulation)


def test_zero_tiles_cost_nothing(build_dir, tmp_path, seed) -> None:
    """Half of the tiles at code 0 take half of the cycles, but for a constant."""
    whole = LayerShape(16, 64 * 32, 16, codes=2).job(TINY, seed)
    half = LayerShape(16, 64 * 32, 16, codes=2).job(TINY, seed)
    half.codes[:, ::2] = 0
    cycles = []
    for number, job in enumerate((whole, half)):
        jobs: list[Job] = [job]
        folder = tmp_path / str(number)
        cycles.append(run(TINY, jobs, CoreTarget(), build_dir, folder, "verilator").cycles[0])
    saved = ideal_cycles(TINY, whole) - ideal_cycles(TINY, half)
    assert abs(cycles[0] - cycles[1] - saved) <= 8


@pytest.mark.parametrize("preset", ["ulx3s", "video", "wide"])
def test_full_rate(preset, seed) -> None:
    """By the cycle model, which is exact: 512 tokens x 1024 x 1024, and a small layer."""
    config = PRESETS[preset]
    for tokens, channels, codes, limit in (
        (512, 1024, None, 1.02),
        (64, 128, 2, 1.10),
        (64, 128, 3, 1.10),
    ):
        job = LayerShape(tokens, channels, channels, codes).job(config, seed)
        work = LayerWork(job.device_codes(), job.tokens, job.outputs)
        cycles = predict(config, [work]).total_cycles
        assert cycles <= limit * ideal_cycles(config, job)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["ulx3s", "video", "wide"])
def test_full_rate_in_rtl(preset, build_dir, tmp_path, seed) -> None:
    config = PRESETS[preset]
    job = LayerShape(512, 1024, 1024).job(config, seed)
    simulation = run(config, [job], CoreTarget(30), build_dir, tmp_path, "verilator")
    assert simulation.total_cycles is not None
    assert simulation.total_cycles <= 1.02 * ideal_cycles(config, job)
