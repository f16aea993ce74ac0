"""The cycle model of the accelerator against the RTL: its bursts one by one, its cycles to 1 %."""

import itertools
import random
from dataclasses import dataclass

import numpy as np
import pytest

from firmware_model.calibration.plan import uniform_plan
from firmware_model.host import superblocks
from firmware_model.host.image import Image, place_jobs
from firmware_model.host.jobs import HeadJob
from paro.config import Config
from paro.config.formats import OUT_BITS
from rtl.accelerator.accelerator import Accelerator
from rtl.accelerator.code_reader import CodeReader
from rtl.accelerator.corner_turn import CornerTurn
from rtl.accelerator.head_queue import HeadQueue
from rtl.accelerator.token_runs import TokenRuns
from rtl.bus.axi import WORD_BYTES
from rtl.bus.read_master import BURST_BEATS, ReadMaster
from rtl.bus.write_master import WriteMaster
from sim.cosim.accelerator import ACCELERATOR_TOLERANCE, AcceleratorTarget
from sim.cosim.accelerator_scenario import Step
from sim.cosim.cosim import Heads, cosim
from sim.cosim.report import Report
from sim.cosim.run import Setup
from sim.cosim.work import job_work
from sim.cycles.bursts import block_bursts, head_outputs
from sim.cycles.cycle_model import Prediction, predict_accelerator
from sim.cycles.memory import Memory
from sim.cycles.port_kernel import ReadKind
from sim.cycles.stalls import CHANNELS, stall_rates
from sim.verify.checks import predicted_writes
from sim.verify.heads import random_capture
from tests.sim.accelerator_runs import (
    assert_exact,
    counters_of,
    expected_outputs,
    play,
    step_writes,
)
from tests.sim.inputs import LARGE, NARROW_PORT, TINY, Shape, make_jobs, short_jobs

FOUR, SIXTEEN = (TINY.changed(query_rows=rows) for rows in (4, 16))
#: Runs of a few tokens, two heads; three rows of 24 blocks.
SHAPES = {
    "short": (Shape((3, 4, 4), (3, 5), mean_bits=2.0), Shape((2, 3, 5), (1, 0))),
    "sparse": (Shape((24, 4, 4), rows=range(3, 6), mean_bits=2.0),),
    "mixed": (Shape((24, 4, 4), rows=range(3, 6), mean_bits=4.8),),
}


#: Latency, and whether the channels stall at random.
CONSTANT = tuple(Memory((latency, latency)) for latency in (0, 30, 200))
#: Every channel stalls under one or the other seed.
RANDOM = (
    Memory((1, 60)),
    Memory((10, 10), stall_seed=1),
    Memory((0, 90), stall_seed=2),
    Memory((150, 250), stall_seed=3),
)


def cases() -> list:
    chosen = [(TINY, kind, memory, ()) for kind in SHAPES for memory in (*CONSTANT, *RANDOM)]
    chosen += [(FOUR, kind, memory, ()) for kind in SHAPES for memory in (CONSTANT[2], RANDOM[2])]
    # Larger ones have two memories each, in turn.
    memories = itertools.cycle((*CONSTANT[1:], *RANDOM[1:]))
    chosen += [
        (config, kind, next(memories), pytest.mark.slow)
        for config in (*LARGE, NARROW_PORT)
        for kind in SHAPES
        for _ in range(2)
    ]
    return [
        pytest.param(
            config,
            kind,
            memory,
            id=f"{config.rows}x{config.cols}-b{config.block}-d{config.head_dim}"
            f"-axi{config.axi_bits}-s{config.query_rows}-{kind}-{memory.latency[0]}:{memory.latency[1]}"
            + ("-stalls" if memory.stall_seed else ""),
            marks=marks,
        )
        for config, kind, memory, marks in chosen
    ]


def expected_reads(config: Config, image: Image, jobs: list[HeadJob]) -> list[tuple[int, int]]:
    """Address and beats of all bursts for Q, K and V, in order."""
    expected = []
    for head, job in enumerate(jobs):
        tables = block_bursts(config, image, head)

        def read(kind: ReadKind, block: int, tables=tables) -> None:
            first, bursts = tables[kind].first, tables[kind].bursts
            bursts = bursts[first[block] : first[block + 1]]
            expected.extend((int(burst["address"]), int(burst["beats"])) for burst in bursts)

        rows, begun = job.rows(config), set()
        for part in superblocks.superblocks(len(rows), config):
            for column in np.flatnonzero(job.codes[rows[part]].any(axis=0)).tolist():
                live = [row for row in rows[part] if job.codes[row, column]]
                for row in live:
                    if row not in begun:
                        read(ReadKind.Q, row)
                    begun.add(row)
                    if row == live[0]:
                        read(ReadKind.K, column)
                        read(ReadKind.V, column)
    return expected


@pytest.mark.parametrize(("config", "kind", "memory"), cases())
def test_bursts_and_cycles(config, kind, memory, build_dir, tmp_path, seed):
    jobs = make_jobs(config, SHAPES[kind], seed)
    image = place_jobs(config, jobs, 0x10000)
    (step,) = play(config, [image], [Step()], build_dir, tmp_path, memory).steps
    assert step.error is None

    expected = expected_reads(config, image, jobs)
    known = set(expected)
    read = [(address, beats) for address, beats in step.bursts["read"]]
    assert [burst for burst in read if burst in known] == expected
    # The others are descriptors and codes.
    assert len(jobs) < len(read) - len(expected) < len(read) // 2

    prediction = predicted(config, jobs, image, memory)
    assert step_writes(step) == predicted_writes(config, image, prediction)
    words = config.head_dim * OUT_BITS // (8 * WORD_BYTES)
    for head, job in enumerate(jobs):
        outputs = head_outputs(config, image, head)
        ends = outputs.bursts["words_end"][outputs.runs[1:, 5] - 1]
        assert ends.sum() == words * len(job.queries(config))
    assert counters_of(step).cycles == pytest.approx(
        prediction.total_cycles, rel=ACCELERATOR_TOLERANCE
    )


def predicted(config: Config, jobs: list[HeadJob], image: Image, memory: Memory) -> Prediction:
    works = [job_work(config, job) for job in jobs]
    return predict_accelerator(config, works, image, memory)


@dataclass(frozen=True)
class Queues:
    """Queues of short heads, and the RTL's cycles for each."""

    config: Config
    memory: Memory
    jobs: list[list[HeadJob]]
    images: list[Image]
    cycles: list[int]

    def predicted(self) -> list[int]:
        return [
            predicted(self.config, jobs, image, self.memory).total_cycles
            for jobs, image in zip(self.jobs, self.images, strict=True)
        ]


@pytest.fixture
def measured(build_dir, tmp_path):
    """Work on queues of so many short heads, each from a reset on."""

    def run(config: Config, memory: Memory, lengths: list[int], seed: int) -> Queues:
        generator = random.Random(seed)
        jobs = [short_jobs(config, heads, generator) for heads in lengths]
        images = []
        for number, queue in enumerate(jobs):
            images.append(
                place_jobs(config, queue, 0x10000)
                if number % 2
                else place_jobs(
                    config,
                    queue,
                    0x10000,
                    alignment=4,
                    misalign=[4 * generator.randrange(16) for _ in range(8)],
                    row_padding=4 * generator.randrange(1, 20),
                )
            )
        steps = [Step(i, resets=True) for i in range(len(images))]
        done = play(config, images, steps, build_dir, tmp_path, memory)
        cycles = [
            counters_of(assert_exact(done, i, expected_outputs(config, queue))).cycles
            for i, queue in enumerate(jobs)
        ]
        return Queues(config, memory, jobs, images, cycles)

    return run


@pytest.mark.parametrize(
    "memory",
    [
        pytest.param(memory, id=f"{memory.latency[0]}:{memory.latency[1]}-{memory.stall_seed}")
        for memory in (Memory((0, 0)), Memory((200, 200)), Memory((1, 60), stall_seed=2))
    ],
)
@pytest.mark.parametrize("config", [TINY, FOUR], ids=["s1", "s4"])
def test_queues_of_short_heads(config, memory, measured, seed):
    """Cycles are those of the RTL where heads are so short that they meet in every part."""
    queues = measured(config, memory, [7, 3], seed)
    assert queues.predicted() == queues.cycles


def test_blocks_that_end_across_a_boundary(build_dir, tmp_path, seed):
    """The last row of every block is cut into two bursts; the block after it follows the first."""
    jobs = [Shape((144, 1, 1), mean_bits=2.0).job(TINY, 0, seed + number) for number in range(2)]
    memory = Memory((200, 200))
    boundary = BURST_BEATS * TINY.axi_bits // 8
    place = -TINY.head_dim // 2 % (2 * TINY.head_dim)  # of each row; every eighth is cut
    image = place_jobs(
        TINY, jobs, 0x10000, alignment=boundary, misalign=(place,), row_padding=TINY.head_dim
    )
    for head, kind in itertools.product(range(2), (ReadKind.Q, ReadKind.K, ReadKind.V)):
        reads = block_bursts(TINY, image, head)[kind]
        assert (reads.bursts["address"][reads.first[1:] - 1] % boundary == 0).all()
    (step,) = play(TINY, [image], [Step()], build_dir, tmp_path, memory).steps
    assert counters_of(step).cycles == predicted(TINY, jobs, image, memory).total_cycles


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            c,
            id=f"{c.rows}x{c.cols}-b{c.block}-d{c.head_dim}-axi{c.axi_bits}-s{c.query_rows}",
        )
        for c in (TINY, *LARGE, NARROW_PORT, FOUR, SIXTEEN)
    ],
)
@pytest.mark.parametrize(
    ("latency", "stalls"), [((0, 0), False), ((200, 200), False), ((0, 90), True)]
)
def test_many_queues_of_short_heads(config, latency, stalls, measured, seed):
    memory = Memory(latency, stall_seed=seed if stalls else None)
    queues = measured(config, memory, [1, 2, 3, 6, 12, 20], seed)
    assert queues.predicted() == queues.cycles


def test_every_channel_stalls_and_goes_on():
    rates = [stall_rates(memory.stall_seed) for memory in (*RANDOM, *CONSTANT)]
    for channel in CHANNELS:
        found = {rate[channel] for rate in rates}
        assert 0 in found
        assert max(found) >= 64


#: Latencies that the model of the memory port takes from the RTL and from the memory.
LATENCIES = (
    (ReadMaster, "ADDRESS_LATENCY"),
    (ReadMaster, "UNIT_LATENCY"),
    (TokenRuns, "LATENCY"),
    (CornerTurn, "LATENCY"),
    (HeadQueue, "OFFER_LATENCY"),
    (CodeReader, "REQUEST_LATENCY"),
    (WriteMaster, "BEAT_LATENCY"),
    (Accelerator, "DONE_LATENCY"),
    (Memory, "READ_ANSWER"),
    (Memory, "WRITE_ANSWER"),
)


def test_one_cycle_more_or_less_is_seen(build_dir, tmp_path, monkeypatch):
    """Two heads whose cycles are predicted exactly, and no longer when a latency is changed."""
    jobs = make_jobs(TINY, SHAPES["short"], 12345)
    image = place_jobs(TINY, jobs, 0x10000)
    memory = Memory((1, 60))
    (step,) = play(TINY, [image], [Step()], build_dir, tmp_path, memory).steps

    def cycles() -> int:
        return predicted(TINY, jobs, image, memory).total_cycles

    assert cycles() == counters_of(step).cycles
    for owner, name in LATENCIES:
        for change in (-1, 1):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, getattr(owner, name) + change)
                assert cycles() != counters_of(step).cycles, (owner, name, change)


@pytest.fixture
def compared(build_dir, tmp_path):
    """Co-simulate two heads of 40 tokens on the accelerator."""

    def run(memory: Memory) -> Report:
        capture = random_capture(40, TINY.head_dim, 1)
        plan = uniform_plan(capture, [0, 1], TINY.block, code=2)
        return cosim(
            Heads(capture, plan, [0, 1], TINY),
            AcceleratorTarget(memory),
            Setup("verilator", tmp_path, build_dir),
        )

    return run


def test_a_co_simulation_compares_them(compared):
    report = compared(Memory((30, 30), interleaved=True))
    assert report.bit_exact is True
    assert report.cycles_as_predicted is True
    assert report.predicted_cycles == pytest.approx(report.cycles, rel=ACCELERATOR_TOLERANCE)
    assert report.memory.read.bytes_wanted > 0


def test_cycles_far_from_the_prediction_are_reported(compared, monkeypatch):
    monkeypatch.setattr(Memory, "READ_ANSWER", Memory.READ_ANSWER + 500)
    report = compared(Memory())
    assert report.bit_exact is True
    assert report.cycles_as_predicted is False


def test_a_memory_that_answers_at_random_is_predicted(compared):
    report = compared(Memory((1, 40), stall_seed=3))
    assert report.bit_exact is True
    assert report.cycles_as_predicted is True
    assert report.predicted_cycles != compared(Memory((1, 40), stall_seed=4)).predicted_cycles
