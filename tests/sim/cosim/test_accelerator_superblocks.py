"""The accelerator with superblocks: block rows that share loads of K and V leave in any order."""

import dataclasses
import random
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

from firmware_model.host import superblocks
from firmware_model.host.image import Image, place_jobs
from firmware_model.host.jobs import HeadJob, Job
from firmware_model.reference.outputs import model_outputs
from paro.config import Config
from sim.cosim.accelerator_scenario import Step, StepResult
from sim.cosim.work import wanted_bytes
from sim.cycles.bursts import head_fields
from sim.cycles.memory import Memory
from sim.cycles.stalls import stall_rates
from sim.verify.chains import make_chain
from sim.verify.checks import at_once, counters_wrong, cycles_wrong
from sim.verify.images import changed_bytes
from sim.verify.layers import LayerShape
from tests.sim.accelerator_runs import (
    assert_exact,
    counters_of,
    play,
)
from tests.sim.cosim.test_accelerator import FEW, MIXED
from tests.sim.cosim.test_layers import odd_layers
from tests.sim.inputs import TINY, Shape, make_jobs


def with_rows(config: Config, rows: int) -> Config:
    """Configuration with superblocks of so many rows."""
    return config.changed(query_rows=rows)


TWO, FOUR = with_rows(TINY, 2), with_rows(TINY, 4)
SLOW = {
    "8x8-b64-d64-s4": (Config(rows=8, cols=8, query_rows=4), "verilator"),
    "8x8-b64-d64-s8": (Config(rows=8, cols=8, query_rows=8), "verilator"),
    "16x16-b16-d32-s2": (
        Config(rows=16, cols=16, block=16, head_dim=32, axi_bits=256, query_rows=2),
        "verilator",
    ),
    "icarus-s4": (FOUR, "icarus"),
}
STALLS = Memory((1, 90), 7)

#: More than sixteen block columns, with text; not a whole superblock of rows, from the second on.
WIDE = Shape((3, 12, 8), (5, 3), range(1, 8), mean_bits=2.0)


def ending_in_turn(config: Config, generator: random.Random) -> HeadJob:
    """A head whose rows end in any order, some of them in the first sixteen columns."""
    job = Shape((3, 12, 8), (0, 7)).job(config, 3, generator.randrange(1000))
    codes = np.zeros_like(job.codes)
    for row in codes:
        last = generator.randrange(len(row))
        row[last] = generator.randrange(1, 4)
        row[:last] = generator.choices(range(4), (5, 1, 1, 1), k=last)
    return dataclasses.replace(job, codes=codes)


def layers(config: Config, seed: int) -> list[Job]:
    """Layers with a partial superblock of tokens, one with more than sixteen chunks."""
    step, chunk = config.layer_tokens, config.head_dim
    shapes = [
        *odd_layers(config),
        LayerShape(3 * step + 5, 2 * chunk, 2 * config.block + 3),
        LayerShape(5 * step, 18 * chunk, config.block),
    ]
    return [shape.job(config, seed + index) for index, shape in enumerate(shapes)]


def random_queue(
    config: Config, generator: random.Random, *, blocks: int
) -> tuple[list[Job], Memory]:
    """Heads and layers of fewer tokens than so many blocks have, and a memory for them."""
    jobs: list[Job] = []
    for _ in range(6):
        number = generator.randrange(2**20)
        tokens = generator.choice((1, generator.randrange(1, blocks * config.block)))
        if generator.random() < 0.5:
            bits = generator.choice((2.0, 3.0, 8.0))
            jobs.append(Shape((tokens, 1, 1), mean_bits=bits).job(config, number % 6, number))
        else:
            inputs, outputs = generator.randrange(1, 600), generator.randrange(1, 100)
            jobs.append(LayerShape(tokens, inputs, outputs).job(config, number))
    memory = Memory(generator.choice(((0, 0), (30, 30), (1, 200))), generator.choice((None, 3)))
    return jobs, memory


def run_queue(
    config: Config,
    jobs: Sequence[Job],
    folders: tuple[Path, Path],
    memory: Memory,
    simulator: str = "verilator",
    **layout,
) -> StepResult:
    """Play one queue; its outputs are exact, its cycles as predicted."""
    image = place_jobs(config, jobs, 0x10000, **layout)
    done = play(config, [image], [Step()], *folders, memory, simulator)
    step = assert_exact(done, 0, [model_outputs(config, job) for job in jobs])
    assert not list(cycles_wrong(config, image, jobs, memory, step))
    assert not list(counters_wrong(config, image, jobs, step))
    return step


@pytest.mark.parametrize("memory", [Memory(), STALLS], ids=["ideal", "stalls"])
@pytest.mark.parametrize("config", [TWO, FOUR], ids=["s2", "s4"])
def test_heads(config, memory, build_dir, tmp_path, seed) -> None:
    """In every order, with text, partial blocks and superblocks."""
    jobs = make_jobs(config, (*MIXED, WIDE), seed)
    jobs.append(ending_in_turn(config, random.Random(seed)))
    layout = {"misalign": (4, 60, 0, 8), "row_padding": 12} if memory == STALLS else {}
    run_queue(config, jobs, (build_dir, tmp_path), memory, **layout)


@pytest.mark.parametrize("memory", [Memory(), STALLS], ids=["ideal", "stalls"])
@pytest.mark.parametrize("config", [TWO, FOUR], ids=["s2", "s4"])
def test_layers_between_heads(config, memory, build_dir, tmp_path, seed) -> None:
    jobs = layers(config, seed)
    for index, job in enumerate(make_jobs(config, MIXED[:4], seed)):
        jobs.insert(2 * index, job)
    run_queue(config, jobs, (build_dir, tmp_path), memory)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "simulator"), SLOW.values(), ids=SLOW)
def test_large(config, simulator, build_dir, tmp_path, seed) -> None:
    generator = random.Random(seed)
    jobs: list[Job] = [*make_jobs(config, FEW, seed), ending_in_turn(config, generator)]
    jobs += [*layers(config, seed), *make_jobs(config, (WIDE,), seed)]
    memory = Memory((1, 60), seed if simulator == "verilator" else None)
    run_queue(config, jobs, (build_dir, tmp_path), memory, simulator)


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(12))
def test_many_queues(round_, build_dir, tmp_path, seed) -> None:
    generator = random.Random(seed + round_)
    config = (TWO, FOUR, with_rows(TINY, 8))[round_ % 3]
    jobs, memory = random_queue(config, generator, blocks=9)
    run_queue(config, jobs, (build_dir, tmp_path), memory)


@pytest.mark.slow
def test_one_token_layers_behind_slow_writes(build_dir, tmp_path, seed) -> None:
    """Rows of one token each, of which many leave the array while earlier outputs are written."""
    config = Config(rows=4, cols=16, block=16, head_dim=32, axi_bits=64, query_rows=2)
    jobs: list[Job] = []
    for index in range(3):
        jobs += make_jobs(config, (Shape((2, 4, 6), mean_bits=2.0),), seed + index)
        jobs.append(LayerShape(1, 1, 40 * config.block, codes=1).job(config, seed + index))
    memory = Memory(stall_seed=371)
    rates = stall_rates(memory.stall_seed)
    assert rates["ar"] + rates["r"] <= 16
    assert rates["aw"] == rates["w"] == 192
    run_queue(config, jobs, (build_dir, tmp_path), memory)


@pytest.mark.parametrize("memory", [Memory(), STALLS], ids=["ideal", "stalls"])
@pytest.mark.parametrize("config", [TWO, FOUR], ids=["s2", "s4"])
def test_a_chain_through_memory(config, memory, build_dir, tmp_path, seed) -> None:
    chain = make_chain(config, seed)
    image = place_jobs(config, chain.tasks, 0x10000)
    done = play(config, [image], [Step()], build_dir, tmp_path, memory)
    step = assert_exact(done, 0, chain.words)
    assert not list(cycles_wrong(config, image, chain.jobs, memory, step))


@pytest.mark.parametrize(
    "memory", [Memory(), Memory((200, 200)), STALLS], ids=["ideal", "slow", "stalls"]
)
@pytest.mark.parametrize("rows", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_short_jobs_wait_for_their_turn(rows, memory, build_dir, tmp_path, seed) -> None:
    """Of one row or a few: a job begins when outputs of one long before it are written."""
    config = with_rows(TINY, rows)
    run_queue(config, short_queue(config, seed), (build_dir, tmp_path), memory)


def short_queue(config: Config, seed: int) -> list[Job]:
    """Jobs of one row or a few, whose codes are read at once."""
    generator = random.Random(seed)
    jobs: list[Job] = []
    for order in range(16):
        number = generator.randrange(1000)
        if generator.random() < 0.7:
            tokens, bits = generator.choice((1, 1, 1, 5, 17, 40)), generator.choice((2.0, 8.0))
            jobs.append(Shape((tokens, 1, 1), mean_bits=bits).job(config, order % 6, number))
        else:
            tokens, inputs = generator.choice((1, 3, 17)), generator.choice((5, 40))
            layer = LayerShape(tokens, inputs, generator.choice((3, 20)))
            jobs.append(layer.job(config, number))
    assert all(map(at_once, repeat(config), jobs))
    return jobs


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["control_reset", "hard_reset", "read_error", "write_error"])
def test_chains_that_are_given_up(kind, build_dir, tmp_path, seed) -> None:
    """At any time, and at once the whole chain again, exact: no row of the first is left."""
    generator = random.Random(seed)
    chain, folders = make_chain(TWO, seed), (build_dir, tmp_path)
    image, memory = place_jobs(TWO, chain.tasks, 0x10000), Memory((1, 30))
    counters = counters_of(play(TWO, [image], [Step()], *folders, memory).steps[0])
    most = {"read_error": counters.read_beats, "write_error": counters.write_bursts}
    last = most.get(kind, counters.cycles)
    steps = [s for _ in range(4) for s in (Step(0, kind, generator.randrange(1, last)), Step(0))]
    done = play(TWO, [image], steps, *folders, memory)
    for number in range(1, len(steps), 2):
        error = done.steps[number - 1].error
        assert (error and error.cause) == (kind.upper() if kind in most else None)
        assert_exact(done, number, chain.words)


@pytest.mark.parametrize("config", [TINY, TWO, FOUR], ids=["s1", "s2", "s4"])
def test_what_is_read(config, build_dir, tmp_path, seed) -> None:
    """Of aligned arrays just what is wanted: K and V once for each live column of a superblock."""
    jobs: list[Job] = [ending_in_turn(config, random.Random(seed))]
    jobs.append(LayerShape(3 * config.layer_tokens, 17 * 32, 48).job(config, seed))
    counters = counters_of(run_queue(config, jobs, (build_dir, tmp_path), Memory()))
    rest = counters.read_beats * config.axi_bits // 8 - wanted_bytes(config, jobs)["read"]
    # A layer's descriptor, the ends of the last units of scales and of each pass of codes.
    assert 0 <= rest <= 128 + 8 * config.load_bytes


#: Places of head 1's codes as words: of a superblock of two rows, two groups of columns.
MORE, FIRST, SECOND = 0, 1, 2


def changed_codes(image: Image, words: dict[int, int]) -> Image:
    """Image with other words among those of the codes of job 1."""
    start = head_fields(image, 1)["codes_address"]
    for word, value in words.items():
        image = changed_bytes(image, start + 4 * word, value.to_bytes(4, "little"))
    return image


@pytest.mark.parametrize("kind", ["head", "layer"])
def test_codes_that_contradict_themselves(kind, build_dir, tmp_path, seed) -> None:
    """A row that goes on though it was said to have ended, one that does not, one without any."""
    few = make_jobs(TWO, (Shape((1, 1, 9)),), seed)
    head = Shape((3, 12, 8), rows=range(2)).job(TWO, 1, seed)
    codes = np.zeros_like(head.codes)
    codes[:2, [3, 17]] = codes[2:, 0] = 1
    job: Job = dataclasses.replace(head, codes=codes)
    if kind == "layer":
        layer = LayerShape(2 * TWO.layer_tokens, 18 * 32, 16).job(TWO, seed)
        job = dataclasses.replace(layer, codes=codes[:1, :18])
    good = place_jobs(TWO, [*few, job], 0x10000)
    group = 3 if kind == "head" else 2  # words of sixteen columns
    assert job.code_words(TWO)[MORE] == 3
    assert job.code_words(TWO)[group + MORE] == 0
    wrong = [
        {MORE: 0},
        {MORE: 1},
        {MORE: 2},
        {group + MORE: 1},
        {group + MORE: 2},
        {group + FIRST: 0},
        {FIRST: 0, group + FIRST: 0, MORE: 2},
    ]
    if kind == "head":
        wrong += [{group + SECOND: 0}, {SECOND: 0, group + SECOND: 0, MORE: 1}]
    images = [good, *(changed_codes(good, words) for words in wrong)]
    steps = [step for number in range(1, len(images)) for step in (Step(number), Step(0))]
    done = play(TWO, images, steps, build_dir, tmp_path, Memory((1, 20)))
    expected = [model_outputs(TWO, each) for each in (*few, job)]
    for number in range(0, len(steps), 2):
        error = done.steps[number].error
        assert error is not None, wrong[number // 2]
        assert (error.cause, error.head) == ("EMPTY_ROW", 1), wrong[number // 2]
        assert_exact(done, number + 1, expected)


def test_superblocks_begin_with_the_first_row_that_is_computed() -> None:
    """The host's order of rows is the one that the device is told of."""
    job = ending_in_turn(FOUR, random.Random(1))
    part = dataclasses.replace(job, query_blocks=range(3, 9))
    assert len(superblocks.superblocks(6, FOUR)) == 2
    order = part.row_order(FOUR)
    assert sorted(order[:4]) == [0, 1, 2, 3]
    assert part.row_places(FOUR) == [int(row) % 4 for row in order]
