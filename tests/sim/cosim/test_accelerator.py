"""The generated accelerator against the integer model, bit for bit, through its AXI ports."""

import dataclasses
import random
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from firmware_model import DEMO_CAPTURE
from firmware_model.calibration.calibrate import calibrate
from firmware_model.calibration.goal import Goal
from firmware_model.capture import load_capture
from firmware_model.host.image import Image, place_jobs
from firmware_model.host.jobs import HeadJob
from firmware_model.host.tasks import Task
from firmware_model.reference.jobs import head_job
from firmware_model.reference.quantize import quantize_head
from paro.config import PRESETS, Config
from paro.config.registers import Cause
from rtl.bus.axi_lite import Response
from sim.cosim.accelerator_scenario import BusError, Step, StepResult
from sim.cycles.memory import Memory
from sim.verify.checks import counters_wrong
from sim.verify.images import changed, owners, with_empty_row
from tests.sim.accelerator_runs import (
    assert_exact,
    assert_outputs,
    counters_of,
    expected_outputs,
    play,
)
from tests.sim.inputs import LARGE, NARROW_PORT, TINY, Shape, make_jobs

ULX3S = PRESETS["ulx3s"]
PAGE = 4096

#: Six heads for the six orders: partial blocks, whole blocks, less than a block, some rows of many.
MIXED = (
    Shape((3, 4, 3), (3, 2)),
    Shape((2, 3, 5), mean_bits=4.8),
    Shape((1, 1, 7), (4, 5), mean_bits=8.0),
    Shape((1, 3, 2)),
    Shape((3, 5, 4), (15, 4), range(2, 4)),
    Shape((4, 4, 3), (8, 8), range(1, 3), mean_bits=2.0),
)
#: What a slow configuration gets of them.
FEW = (
    Shape((3, 4, 3), (3, 2), range(2, 3)),
    Shape((1, 1, 7), (4, 5), mean_bits=4.8),
    Shape((4, 4, 3), (8, 8), range(1, 2), mean_bits=2.0),
)


def assert_counters(config: Config, image: Image, jobs: list[HeadJob], step: StepResult) -> None:
    assert not list(counters_wrong(config, image, jobs, step))


CONFIGS = [
    pytest.param(TINY, MIXED, "verilator", id="4x4-b16-d32-axi64"),
    pytest.param(ULX3S, FEW, "verilator", id="8x8-b64-d64-axi128"),
    pytest.param(NARROW_PORT, FEW, "verilator", id="16x16-b64-d64-axi64", marks=pytest.mark.slow),
    *(
        pytest.param(
            config,
            MIXED,
            "verilator",
            id=f"{config.rows}x{config.cols}-b{config.block}-d{config.head_dim}"
            f"-axi{config.axi_bits}",
            marks=pytest.mark.slow,
        )
        for config in LARGE
    ),
    pytest.param(TINY, FEW, "icarus", id="icarus-4x4-b16-d32-axi64", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("config", "shapes", "simulator"), CONFIGS)
@pytest.mark.parametrize("memory", ["fast", "stalls"])
def test_bit_exact(config, shapes, simulator, memory, build_dir, tmp_path, seed):
    """One queue of separate arrays, one of interleaved and badly aligned ones."""
    generator = random.Random(seed)
    separate = make_jobs(config, shapes, seed)
    shape = dataclasses.replace(shapes[0], rows=range(1, 2))
    together = make_jobs(config, (shape,) * 3, seed + 50)
    images = [
        place_jobs(config, separate, 0x10000),
        place_jobs(
            config,
            together,
            2 * PAGE - 4 * generator.randrange(1, 16),
            interleaved=True,
            alignment=4,
            misalign=(4, 12, 20, 60, 0, 36),
            row_padding=4 * generator.randrange(1, 20),
        ),
    ]
    done = play(
        config,
        images,
        [Step(0), Step(1)],
        build_dir,
        tmp_path,
        Memory((1, 200), seed) if memory == "stalls" else None,
        simulator,
    )
    for number, jobs in enumerate((separate, together)):
        step = assert_exact(done, number, expected_outputs(config, jobs))
        assert_counters(config, images[number], jobs, step)


def place_of(image: Image, jobs: list[HeadJob], address: int, direction: str) -> tuple[int, str]:
    """Head, and what of it a burst is that begins at an address of an image of separate arrays."""
    tasks = [Task(job) for job in jobs]
    (place,) = owners(TINY, image, tasks, address, direction).items()
    return place


#: Small heads whose beats are few; two rows, so that codes, Q and O are read or written again.
SMALL = (Shape((1, 1, 7), (4, 5), mean_bits=2.0), Shape((2, 3, 3), (3, 2), mean_bits=2.0))
#: So short that several have been begun when the first is written.
MANY = (Shape((1, 1, 1), mean_bits=2.0),) * 7


def play_error(
    jobs: list[HeadJob],
    disturb: BusError,
    beats: list[int],
    folders: tuple[Path, Path],
    memory: Memory,
) -> set[tuple[int, str]]:
    """Give errors of both kinds in turn to beats (responses); returns the places struck."""
    image = place_jobs(TINY, jobs, 0x10000)
    assert len(beats) > 1
    kinds = cycle((Response.SLVERR, Response.DECERR))
    steps = [step for beat in beats for step in (Step(0, disturb, beat, next(kinds)), Step(0))]
    done = play(TINY, [image], steps, *folders, memory)
    expected, struck = expected_outputs(TINY, jobs), set()
    for number, beat in enumerate(beats):
        step = done.steps[2 * number]
        assert step.error is not None
        assert step.disturbed_burst is not None
        direction = disturb.removesuffix("_error")
        place = place_of(image, jobs, step.disturbed_burst, direction)
        told = (step.error.cause, step.error.head, step.error.address)
        expected_error = (disturb.upper(), place[0], step.disturbed_burst)
        assert told == expected_error, f"{disturb} in beat {beat}, {place}"
        # Heads ahead of the one that is read may not be written yet.
        written = step.error.heads_done
        assert written == place[0] or (disturb == "read_error" and 0 <= written < place[0])
        assert_exact(done, 2 * number + 1, expected)
        struck.add(place)
    return struck


def test_errors_in_every_kind_of_data(build_dir, tmp_path, seed):
    """Failing reads of whatever is read: reported where they are, and nothing is left behind."""
    generator = random.Random(seed)
    jobs = make_jobs(TINY, SMALL, seed)
    image = place_jobs(TINY, jobs, 0x10000)
    memory, folders = Memory(), (build_dir, tmp_path)
    bursts = play(TINY, [image], [Step()], *folders, memory).steps[0].bursts["read"]
    kinds = [
        place_of(image, jobs, address, "read")[1] for address, beats in bursts for _ in range(beats)
    ]
    chosen = {
        kind: generator.choice([i for i, name in enumerate(kinds, 1) if name == kind])
        for kind in kinds
    }
    assert set(chosen) == {"descriptor", "codes", "q", "k", "v", "q_scales", "k_scales"}
    beats = sorted({1, *chosen.values()})
    struck = play_error(jobs, "read_error", beats, folders, memory)
    assert {name for _, name in struck} == set(chosen)


@pytest.mark.parametrize("disturb", ["read_error", "write_error"])
def test_errors_where_heads_meet(disturb, build_dir, tmp_path, seed):
    """The first and the last beat (response) of each head, long after their address."""
    direction = disturb.removesuffix("_error")
    jobs = make_jobs(TINY, SMALL, seed)
    image = place_jobs(TINY, jobs, 0x10000)
    memory, folders = Memory((1, 60)), (build_dir, tmp_path)
    bursts = play(TINY, [image], [Step()], *folders, memory).steps[0].bursts[direction]
    heads = [
        place_of(image, jobs, address, direction)[0]
        for address, beats in bursts
        for _ in range(beats if direction == "read" else 1)
    ]
    assert heads == sorted(heads), "a head is read or written before the one ahead of it"
    numbers = [1, heads.index(1), heads.index(1) + 1, len(heads)]
    struck = play_error(jobs, disturb, numbers, folders, memory)
    assert {head for head, _ in struck} == {0, 1}


@pytest.mark.parametrize("disturb", ["read_error", "write_error"])
def test_errors_when_many_heads_are_under_way(disturb, build_dir, tmp_path, seed):
    """A response to a write, a beat of a descriptor, while later heads have been begun."""
    direction = disturb.removesuffix("_error")
    jobs = make_jobs(TINY, MANY, seed)
    image = place_jobs(TINY, jobs, 0x10000)
    memory, folders = Memory((150, 150)), (build_dir, tmp_path)
    step = play(TINY, [image], [Step()], *folders, memory).steps[0]
    assert_counters(TINY, image, jobs, step)
    bursts = step.bursts[direction]
    places = [
        place_of(image, jobs, address, direction)
        for address, beats in bursts
        for _ in range(beats if direction == "read" else 1)
    ]
    heads = (1, len(jobs) - 1)
    chosen = [
        places.index((head, "o" if direction == "write" else "descriptor")) + 1 for head in heads
    ]
    struck = play_error(jobs, disturb, chosen, folders, memory)
    assert {head for head, _ in struck} == set(heads)


#: What makes a descriptor of `TINY` unusable, by cause; head 1 of SMALL has 23 tokens.
BAD = {
    Cause.BAD_DESCRIPTOR: [
        {"magic": 0},
        {"magic": 0x4F524151},
        {"version": 0},
        {"version": 1},
        {"version": 2},
    ],
    Cause.BAD_SHAPE: [{"block": 32}, {"block": 0}, {"head_dim": 64}],
    Cause.BAD_TOKENS: [
        {"key_tokens": 0},
        {"key_tokens": TINY.max_tokens + 1},
        {"key_tokens": 2**32 - 1},
        {"query_tokens": 0},
        {"query_tokens": 24},
        {"query_tokens": 2**32 - 1},
        {"first_block_row": 1},
        {"first_block_row": 2**28},
        {"first_block_row": 2**32 - 1},
        {"prefix_tokens": 22},
        {"prefix_tokens": 2**32 - 1},
        *({f"{axis}_extent": 0} for axis in ("outer", "middle", "inner")),
    ],
    Cause.BAD_ALIGNMENT: [
        *({f"{operand}_row_stride": 129 + index} for index, operand in enumerate("qkv")),
        *({f"{operand}_row_stride": 2**20} for operand in "qo"),
        *({f"{operand}_address": 0x10002} for operand in ("q", "k", "v", "o")),
        *({f"{array}_address": 0x10001} for array in ("q_scales", "k_scales", "codes")),
    ],
    Cause.BAD_KIND: [{"kind": 2}, {"kind": 15}],
    Cause.BAD_LAYER: [
        {"kind": 1},
        {"kind": 1, "chunks": TINY.chunks_max + 1},
        {"kind": 1, "chunks": 1, "sum_shift": 13},
        {"out_cut": 9},
    ],
}


def test_descriptors_that_are_refused(build_dir, tmp_path, seed):
    """Every cause, in the first or the second descriptor; the next queue is exact."""
    jobs = make_jobs(TINY, (SMALL[1],) * 2, seed)
    good = place_jobs(TINY, jobs, 0x10000)
    images, steps, causes = [good], [], []
    for cause, changes in BAD.items():
        for number, change in enumerate(changes):
            images.append(changed(good, number % 2, **change))
            steps.append(Step(len(images) - 1))
            causes.append((cause.name, number % 2, change))
        steps.append(Step(0))
        causes.append(None)
    done = play(TINY, images, steps, build_dir, tmp_path)
    expected = expected_outputs(TINY, jobs)
    for number, cause in enumerate(causes):
        if cause is None:
            assert_exact(done, number, expected)
        else:
            error = done.steps[number].error
            assert error is not None, cause
            assert (error.cause, error.head) == cause[:2], cause


def test_queues_that_are_refused(build_dir, tmp_path, seed):
    """A row without a live block, no descriptor at all, one between words, a start too early."""
    generator = random.Random(seed)
    jobs = make_jobs(TINY, (SMALL[0], Shape((3, 4, 3), (3, 2), mean_bits=2.0)), seed)
    good = place_jobs(TINY, jobs, 0x10000)
    images = [good, dataclasses.replace(good, outputs=[])]
    images.append(dataclasses.replace(good, queue_base=good.queue_base + generator.randrange(1, 4)))
    images += [with_empty_row(TINY, good, Task(jobs[1]), 1, row) for row in range(3)]
    steps = [
        *(Step(1), Step(1), Step(0), Step(2), Step(0)),
        *(Step(3), Step(0), Step(4), Step(5), Step(0)),
        *(Step(0, "start_again", generator.randrange(1, 1500)) for _ in range(3)),
        Step(0),
    ]
    done = play(TINY, images, steps, build_dir, tmp_path, Memory((1, 40)))
    expected = expected_outputs(TINY, jobs)
    for number, (step, found) in enumerate(zip(steps, done.steps, strict=True)):
        told = found.error and (found.error.cause, found.error.head)
        if step.disturb is None and step.image > 0:
            refused = {1: ("EMPTY_QUEUE", 0), 2: ("BAD_QUEUE_BASE", 0)}
            assert told == refused.get(step.image, ("EMPTY_ROW", 1))
            assert found.counters is None
        else:
            assert told == (("BUSY", 0) if step.disturb else None)
            assert_outputs(done, number, expected)
            assert_counters(TINY, good, jobs, found)


@pytest.mark.parametrize("latency", [(0, 0), (1, 40)])
def test_resets_at_any_time(latency, build_dir, tmp_path, seed):
    """Work given up by the register or by the reset input, and at once the next queue, exact."""
    generator = random.Random(seed)
    jobs = make_jobs(TINY, SMALL, seed)
    image = place_jobs(TINY, jobs, 0x10000, misalign=(4, 60))
    memory, folders = Memory(latency, seed if latency[1] else None), (build_dir, tmp_path)
    (whole,) = play(TINY, [image], [Step()], *folders, memory).steps
    cycles = counters_of(whole).cycles
    steps = []
    for number in range(12):
        kind = "control_reset" if number % 2 else "hard_reset"
        steps += [Step(0, kind, generator.randrange(1, cycles)), Step(0)]
    done = play(TINY, [image], steps, *folders, memory)
    expected = expected_outputs(TINY, jobs)
    for number in range(1, len(steps), 2):
        assert_exact(done, number, expected)


def test_registers_and_memory_at_the_far_end(build_dir, tmp_path, seed):
    """All registers answer as their table says; a reset right after a start leaves nothing."""
    jobs = make_jobs(TINY, SMALL[:1], seed)
    images = [place_jobs(TINY, jobs, base) for base in (0x10000, 0xAA_AAAA_A040, 0x55_5555_5000)]
    steps = [Step(probes=True), Step(1, "start_and_reset"), Step(1), Step(2, probes=True)]
    done = play(TINY, images, steps, build_dir, tmp_path)
    for number in (0, 2, 3):
        assert_exact(done, number, expected_outputs(TINY, jobs))


def test_every_order_is_as_fast_as_the_natural_one(build_dir, tmp_path, seed):
    """Where every row is a burst of its own the order costs nothing; dense rows are joined."""
    shape = Shape((2, 3, 8))
    codes = np.ones((3, 3), np.uint8)
    jobs = [
        dataclasses.replace(shape.job(TINY, order, seed % 1000 + order), codes=codes)
        for order in range(6)
    ]
    images = [place_jobs(TINY, [job], 0x10000, row_padding=32) for job in jobs]
    images.append(place_jobs(TINY, [jobs[0]], 0x10000))
    done = play(
        TINY,
        images,
        [Step(index) for index in range(7)],
        build_dir,
        tmp_path,
        Memory((20, 20)),
    )
    counters = []
    for number, job in enumerate([*jobs, jobs[0]]):
        step = assert_exact(done, number, expected_outputs(TINY, [job]))
        assert_counters(TINY, images[number], [job], step)
        counters.append(counters_of(step))
    natural, dense = counters[0], counters[-1]
    for other in counters[:-1]:
        for name in ("read_bursts", "read_beats", "write_bursts", "write_beats"):
            assert getattr(other, name) == getattr(natural, name)
        assert other.cycles == pytest.approx(natural.cycles, rel=0.01)
    # Each row is a burst: Q once, K and V once for each of three block rows, O once.
    assert natural.read_bursts > 7 * 48
    assert natural.write_bursts >= 48
    assert dense.read_bursts < natural.read_bursts / 4
    assert dense.write_bursts < natural.write_bursts / 2
    assert dense.read_beats <= natural.read_beats
    # The array is busy either way; a joined run begins when its last row is known.
    assert dense.cycles == pytest.approx(natural.cycles, rel=0.01)


@pytest.mark.parametrize(
    ("config", "heads", "rows"),
    [
        pytest.param(TINY, [9, 3], range(5, 6), id="two-heads"),
        pytest.param(LARGE[2], list(range(16)), range(8), id="all-heads", marks=pytest.mark.slow),
    ],
)
def test_the_capture_that_ships(config, heads, rows, build_dir, tmp_path):
    capture = load_capture(DEMO_CAPTURE)
    goal = Goal(avg_bits=2.0, block=config.block, per_head=True)
    plan = calibrate([capture], goal, heads)[0].for_capture(capture)
    jobs = [
        head_job(
            capture,
            quantize_head(capture, head, plan.head_order(head), config),
            plan.head_codes(head),
            rows,
        )
        for head in heads
    ]
    image = place_jobs(config, jobs, 0x10000, interleaved=True)
    done = play(config, [image], [Step()], build_dir, tmp_path, Memory((30, 60)))
    step = assert_exact(done, 0, expected_outputs(config, jobs))
    assert_counters(config, image, jobs, step)


def test_hostile_descriptors(build_dir, tmp_path, seed):
    """Addresses outside of the windows are refused before a burst, with head and address.

    Such as begin outside, such as leave a window in the middle, and such as wrap around.
    """
    jobs = make_jobs(TINY, SMALL, seed)
    good = place_jobs(TINY, jobs, 0x10000)
    end = -(-good.bytes().stop // PAGE) * PAGE  # of the window of inputs
    top = (1 << 40) - 4
    hostile = [
        ("READ_OUTSIDE", {"q_address": end}),
        ("READ_OUTSIDE", {"k_address": 0}),
        ("READ_OUTSIDE", {"v_address": end - 4}),
        ("READ_OUTSIDE", {"v_address": top}),
        ("READ_OUTSIDE", {"codes_address": 0x10000 - PAGE}),
        ("READ_OUTSIDE", {"k_scales_address": top}),
        ("READ_OUTSIDE", {"q_row_stride": (1 << 20) - 4}),
        ("WRITE_OUTSIDE", {"o_address": end}),
        ("WRITE_OUTSIDE", {"o_address": 0x10000 - PAGE}),
        ("WRITE_OUTSIDE", {"o_address": top}),
        ("WRITE_OUTSIDE", {"o_row_stride": (1 << 20) - 4}),
    ]
    images = [good, *(changed(good, 1, **values) for _, values in hostile)]
    images.append(dataclasses.replace(good, queue_base=end))
    steps = [step for number in range(1, len(images)) for step in (Step(number), Step(0))]
    done = play(TINY, images, steps, build_dir, tmp_path, Memory((1, 40), seed))
    expected = expected_outputs(TINY, jobs)
    for number, (cause, values) in enumerate([*hostile, ("READ_OUTSIDE", {})]):
        error = done.steps[2 * number].error
        assert error is not None, values
        assert (error.cause, error.head) == (cause, int(bool(values))), values
        page = error.address // PAGE
        reads = cause == "READ_OUTSIDE"
        window = good.bytes() if reads else good.output_bytes()
        assert not window[0] // PAGE <= page <= window[-1] // PAGE, values
        if values.get("v_address") == end - 4:
            assert page * PAGE == end, "it leaves the window"
        assert_exact(done, 2 * number + 1, expected)
