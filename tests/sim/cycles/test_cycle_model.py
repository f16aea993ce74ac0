"""The cycle model against the RTL, cycle for cycle, and against hand-made sums."""

import itertools
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from firmware_model.host.jobs import HeadJob
from firmware_model.reference.jobs import head_job
from firmware_model.reference.quantize import quantize_head
from paro.config import PRESETS, Config, ParoError
from rtl.core.array import PEArray
from rtl.core.digits import KeyEncoder
from rtl.core.drain import DrainRouter
from rtl.core.logits import LogitBuffer
from rtl.core.normalizer import Normalizer
from rtl.core.operand_buffers import KeyBuffer
from rtl.core.output_accumulator import OutputAccumulator
from rtl.core.reciprocal import ReciprocalLane
from rtl.core.row_state import RowStateLane
from rtl.core.sequencer import ArraySequencer
from rtl.core.softmax import SoftmaxUnit
from rtl.lib.stream_fifo import StreamFIFO
from sim.cosim.core import CoreTarget
from sim.cosim.target import Simulation
from sim.cosim.work import job_work
from sim.cycles.cycle_model import CoreWork, Prediction, Work, predict, predict_heads
from sim.verify.heads import SHARES, random_capture, random_codes
from tests.sim.cosim.checks import simulate
from tests.sim.inputs import short_jobs

TINY = PRESETS["tiny"]


@dataclass(frozen=True)
class Case:
    """Commands given one directly after the other: kind of plan, tokens, block rows."""

    config: Config
    commands: tuple[tuple[str, int, range], ...]

    @property
    def name(self) -> str:
        config = self.config
        return f"{config.rows}x{config.cols}-b{config.block}-d{config.head_dim}"

    def make_jobs(self, seed: int) -> list[HeadJob]:
        jobs = []
        for number, (kind, tokens, rows) in enumerate(self.commands):
            capture = random_capture(tokens, self.config.head_dim, seed + number, heads=1)
            blocks = self.config.blocks_of(tokens)
            codes = make_codes(kind, blocks, seed + number)
            head = quantize_head(capture, 0, 0, self.config)
            jobs.append(head_job(capture, head, codes, rows))
        return jobs


def make_codes(kind: str, blocks: int, seed: int) -> torch.Tensor:
    """Plans of one kind, uint8 [blocks, blocks]."""
    codes = torch.zeros(blocks, blocks, dtype=torch.uint8)
    if kind == "mixed":
        codes = random_codes(blocks, 4.8, seed)
    elif kind == "sparse":
        codes = random_codes(blocks, 2.0, seed)
    elif kind == "single":  # one live block a row, of every width
        for row in range(blocks):
            codes[row, 5 * row % blocks] = 1 + row % 3
    elif kind == "narrow":  # as fast as rows can be: one 2-bit block each
        codes.fill_diagonal_(1)
    elif kind == "skips":  # runs of skipped blocks longer than a beat of codes, than four
        codes[:, [column for column in (1, 2, 20, 87) if column < blocks]] = 2
        codes[1::2, 0] = 1
    else:
        codes[:] = int(kind)
    return codes


# Few enough tokens for the players' memories that the other co-simulations have.
SMALL = (
    Case(
        TINY,
        (
            ("mixed", 43, range(3)),
            ("1", 80, range(5)),
            ("single", 90, range(6)),
            ("skips", 16 * 90 - 15, range(88, 90)),
            ("3", 16, range(1)),
            ("mixed", 5, range(1)),
            ("sparse", 200, range(8, 13)),
            ("narrow", 150, range(10)),
        ),
    ),
    Case(
        Config(rows=4, cols=8, block=32, head_dim=32),
        (("1", 70, range(3)), ("single", 130, range(5)), ("mixed", 97, range(2, 4))),
    ),
)
MEDIUM = (
    Case(PRESETS["ulx3s"], (("single", 200, range(3)), ("mixed", 101, range(1, 2)))),
    Case(
        PRESETS["video"],
        (("single", 300, range(5)), ("mixed", 201, range(2, 4))),
    ),
)
LARGE = tuple(
    Case(
        config,
        (
            ("single", 5 * config.block + 3, range(6)),
            ("1", 3 * config.block, range(2)),
            ("mixed", 6 * config.block - 1, range(6)),
            ("sparse", 40 * config.block, range(20, 23)),
            ("2", config.block // 2 + 1, range(1)),
        ),
    )
    for config in (
        *(PRESETS[name] for name in ("small", "wide", "video-128", "large")),
        Config(rows=16, cols=4, block=16, head_dim=32),
        Config(rows=16, cols=8, block=32, head_dim=64),
        Config(rows=8, cols=16, block=32, head_dim=64),
        Config(rows=8, cols=8, block=32, head_dim=128),
        Config(rows=8, cols=32, block=64, head_dim=128),
        Config(rows=4, cols=4, block=16, head_dim=256),
        Config(rows=32, cols=8, block=64, head_dim=64),
        Config(rows=4, cols=64, block=64, head_dim=64),
    )
)
_simulations: dict[tuple[str, int], tuple[list[Work], Simulation]] = {}


@pytest.fixture
def simulated(build_dir, tmp_path):
    """Simulate a case at a latency, once a session."""

    def run(case: Case, latency: int) -> tuple[list[Work], Simulation]:
        key = case.name, latency
        if key not in _simulations:
            jobs, target = case.make_jobs(7), CoreTarget(memory_latency=latency)
            simulation = simulate(target, case.config, jobs, build_dir, tmp_path)
            assert simulation.failure is None
            _simulations[key] = [job_work(case.config, job) for job in jobs], simulation
        return _simulations[key]

    return run


def differs(prediction: Prediction, simulation: Simulation) -> bool:
    return (prediction.cycles, prediction.total_cycles, prediction.stages) != (
        simulation.cycles,
        simulation.total_cycles,
        simulation.stages,
    )


def cases() -> list:
    chosen = [(case, latency, ()) for case in SMALL for latency in (0, 30, 200)]
    chosen += [
        (case, latency, () if (case, latency) == (MEDIUM[0], 30) else pytest.mark.slow)
        for case in MEDIUM
        for latency in (0, 30, 200)
    ]
    # Of the others each has one of the latencies, in turn: all of them meet all kinds of plans.
    chosen += [
        (case, latency, pytest.mark.slow)
        for case, latency in zip(LARGE, itertools.cycle((0, 30, 200)), strict=False)
    ]
    return [
        pytest.param(case, latency, id=f"{case.name}-{latency}", marks=marks)
        for case, latency, marks in chosen
    ]


def test_every_preset_is_a_case():
    held = {case.config.digest() for case in (*SMALL, *MEDIUM, *LARGE)}
    assert {config.digest() for config in PRESETS.values()} <= held


@pytest.mark.parametrize(("case", "latency"), cases())
def test_equal_to_the_core(case, latency, simulated):
    works, simulation = simulated(case, latency)
    prediction = predict(case.config, works, memory_latency=latency)
    assert prediction.cycles == simulation.cycles
    assert prediction.total_cycles == simulation.total_cycles
    assert prediction.stages == simulation.stages
    ends = np.concatenate(prediction.row_ends)
    assert (np.diff(ends) > 0).all()
    assert ends[-1] == prediction.total_cycles


@pytest.mark.parametrize("latency", [0, 30, 200])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in SMALL])
def test_equal_under_random_stalls(case, latency, build_dir, tmp_path, seed):
    jobs = case.make_jobs(seed % 1000)
    works = [job_work(case.config, job) for job in jobs]
    for stall_seed in range(seed, seed + 3):
        target = CoreTarget(latency, stall_seed)
        simulation = simulate(target, case.config, jobs, build_dir, tmp_path)
        assert not differs(target.predict(case.config, jobs), simulation), stall_seed
        assert differs(predict(case.config, works, memory_latency=latency), simulation)


def short_cases() -> list:
    chosen = [(TINY, latency, False, ()) for latency in (0, 200)] + [(TINY, 30, True, ())]
    chosen += [
        (case.config, latency, stalls, pytest.mark.slow)
        for case, latency in zip((SMALL[1], *LARGE), itertools.cycle((200, 0, 30)), strict=False)
        for stalls in (False, True)
    ]
    return [
        pytest.param(
            config,
            latency,
            stalls,
            id=f"{Case(config, ()).name}-{latency}" + ("-stalls" if stalls else ""),
            marks=marks,
        )
        for config, latency, stalls, marks in chosen
    ]


@pytest.mark.parametrize(("config", "latency", "stalls"), short_cases())
def test_equal_for_short_commands(config, latency, stalls, build_dir, tmp_path, seed):
    """Many commands of one token, one block or a few."""
    jobs = short_jobs(config, 20, random.Random(seed))
    target = CoreTarget(latency, seed if stalls else None)
    simulation = simulate(target, config, jobs, build_dir, tmp_path)
    assert simulation.failure is None
    assert not differs(target.predict(config, jobs), simulation)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (ArraySequencer, "TILE_LATENCY"),
        (DrainRouter, "DELAY"),
        (DrainRouter, "LATENCY"),
        (ArraySequencer, "LATENCY"),
        (LogitBuffer, "RELEASE_LATENCY"),
        (LogitBuffer, "GROUP_LATENCY"),
        (SoftmaxUnit, "LATENCY"),
        (RowStateLane, "LATENCY"),
        (ReciprocalLane, "LATENCY"),
        (OutputAccumulator, "LATENCY"),
        (Normalizer, "LATENCY"),
        (StreamFIFO, "LATENCY"),
    ],
)
@pytest.mark.parametrize("change", [-1, 1])
def test_one_cycle_more_or_less_is_seen(owner, name, change, simulated, monkeypatch):
    case = SMALL[0]
    works, simulation = simulated(case, 0)
    assert not differs(predict(case.config, works), simulation)
    monkeypatch.setattr(owner, name, getattr(owner, name) + change)
    assert differs(predict(case.config, works), simulation)


@pytest.mark.parametrize("latency", [0, 2, 30, 200])
def test_a_single_block_by_hand(latency):
    """A row of one 8-bit block on the smallest core, step by step."""
    codes = np.full((1, 1), 3, np.uint8)
    predicted = predict(TINY, [CoreWork(codes, 16, 16)], memory_latency=latency)
    # Command 0, Q asked for 1, codes 2, block found 3, row's end seen 4, K asked for 5.
    asked = 5
    # R keys take 16 beats. The queue of loads is as fast as a memory of two cycles.
    loaded = asked + max(latency, 2) + 16 + ArraySequencer.BEGUN_LATENCY
    # A step a channel, 16 tiles; the last groups of keys are there in time.
    scored = loaded + 16 * 32
    to_drain = (
        KeyEncoder.LATENCY + KeyBuffer.READ_LATENCY + 1 + PEArray.LATENCY + DrainRouter.LATENCY
    )
    last_words = to_drain + 4 - 1
    # The softmax lane takes the last four queries, of 16 keys each.
    last_key = scored + last_words + LogitBuffer.GROUP_LATENCY + 4 * 16 - 1
    weighted = last_key + SoftmaxUnit.LATENCY + StreamFIFO.LATENCY
    # A step a key, 32 tiles; the last R queries follow when their sums are there.
    multiplied = weighted + 32 * 16
    complete = multiplied + last_words + OutputAccumulator.LATENCY + 1
    last_read = complete + 4 * 8 - 1
    end = last_read + Normalizer.LATENCY + StreamFIFO.LATENCY
    assert predicted.cycles == [end]
    assert predicted.row_ends[0].tolist() == [end]
    # The array waits for K from the moment that the block is known, else for P; it starts twice.
    waits = {"qk": loaded - asked - StreamFIFO.LATENCY, "pv": 0}
    waits["pv"] = end - 2 * 512 - 2 - waits["qk"]
    for stage, starved in waits.items():
        assert predicted.stages[stage] == {"busy": 512, "starved": starved, "blocked": 0}
    assert predicted.stages["softmax"]["busy"] == 16 * 16
    assert predicted.stages["load_k"] == {"busy": 64, "starved": max(latency - 2, 0), "blocked": 0}


def random_heads(config: Config, heads: int, blocks: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    shape = (heads, blocks, blocks)
    codes = generator.choice(4, size=shape, p=SHARES[4.8]).astype(np.uint8)
    codes[:, :, 0] |= ~codes.any(axis=2)
    return codes


@pytest.mark.parametrize("preset", ["tiny", "ulx3s", "video", "video-128"])
def test_slower_memory_is_never_faster(preset, seed):
    config = PRESETS[preset]
    codes = random_heads(config, 8, 20, seed)
    tokens = 20 * config.block - 5
    cycles = [
        predict_heads(config, codes, tokens, tokens, memory_latency=latency).cycles
        for latency in (0, 1, 30, 100, 200, 1000, 5000)
    ]
    assert (np.diff(cycles, axis=0) >= 0).all()
    assert (cycles[-1] > cycles[0]).all()


def test_heads_together_are_as_heads_alone(seed):
    config = PRESETS["ulx3s"]
    codes = random_heads(config, 5, 9, seed)
    together = predict_heads(config, codes, 570, 576, memory_latency=30)
    for head, cycles, stages in zip(codes, together.cycles, together.stages, strict=True):
        alone = predict(config, [CoreWork(head, 570, 576)], memory_latency=30)
        assert alone.cycles == [cycles]
        counts = [list(stage.values()) for stage in alone.stages.values()]
        assert counts == stages.tolist()


def test_a_long_row_keeps_the_array_busy():
    config = PRESETS["video"]
    codes = random_heads(config, 1, 278, 1)[0, :2]
    stages = predict(config, [CoreWork(codes, 128, 17776)]).stages
    idle = sum(stages[name][state] for name in ("qk", "pv") for state in ("starved", "blocked"))
    assert idle < 0.02 * (stages["qk"]["busy"] + stages["pv"]["busy"])


@pytest.mark.parametrize(
    ("codes", "queries", "keys", "sentence"),
    [
        ([[1, 1]], 16, 16, "16 key tokens do not make 2 blocks of 16"),
        ([[1, 1]], 17, 32, "17 query tokens do not make 1 blocks of 16"),
        ([[1]], 0, 16, "0 query tokens; legal: 1 to 131072"),
        ([[1, 0], [0, 0]], 32, 32, "block row 1 has no live block"),
        ([[4]], 16, 16, "block codes must be 0, 1, 2 or 3"),
        ([1, 1], 16, 16, "codes have 1 dimensions instead of 2"),
    ],
)
def test_what_cannot_be_is_refused(codes, queries, keys, sentence):
    with pytest.raises(ParoError, match=f"^cycle model: {sentence}$"):
        predict(TINY, [CoreWork(np.array(codes, np.uint8), queries, keys)])


def test_no_work_and_no_latency_are_refused():
    with pytest.raises(ParoError, match="there is nothing to compute"):
        predict(TINY, [])
    with pytest.raises(ParoError, match="a latency of -1 cycles cannot be"):
        predict(TINY, [CoreWork(np.ones((1, 1), np.uint8), 16, 16)], memory_latency=-1)
