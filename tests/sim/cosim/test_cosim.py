"""The generated core against the integer model, bit for bit, under both simulators."""

import dataclasses
import json
import random
import re
from dataclasses import dataclass
from itertools import count

import pytest
import torch

import sim.cosim.core
import sim.cosim.core_stimulus
import sim.cosim.cosim
import sim.cycles.cycle_model
from firmware_model import DEMO_CAPTURE
from firmware_model.calibration.calibrate import calibrate
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.plan import uniform_plan
from firmware_model.capture import load_capture
from firmware_model.host.jobs import HeadJob
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.jobs import head_job
from firmware_model.reference.quantize import quantize_head
from paro.config import PRESETS, Config, ParoError
from rtl.core.normalizer import Normalizer
from sim.cosim.core import CoreTarget
from sim.cosim.cosim import Heads, cosim
from sim.cosim.run import Setup
from sim.cosim.session import Session
from sim.cosim.simulators import get_simulator
from sim.cosim.verilog import kept_verilog
from sim.cosim.work import ideal_cycles
from sim.cycles.stalls import STREAMS, stall_rates
from sim.verify.heads import random_capture, random_codes
from tests.places import SHARED
from tests.sim.cosim.checks import assert_as_predicted, assert_exact, simulate

TINY = PRESETS["tiny"]


@dataclass(frozen=True)
class Case:
    """A core and what it computes, one command directly after the other."""

    name: str
    config: Config
    tokens: int
    commands: tuple[tuple[float, range], ...]  # mean bits, query blocks

    def make_jobs(self, seed: int) -> list[HeadJob]:
        capture = random_capture(self.tokens, self.config.head_dim, seed)
        blocks = self.config.blocks_of(self.tokens)
        return [
            head_job(
                capture,
                quantize_head(capture, number % 2, number % 6, self.config),
                random_codes(blocks, mean_bits, seed + number),
                rows,
            )
            for number, (mean_bits, rows) in enumerate(self.commands)
        ]


# Few tokens: Icarus needs a second for some hundred cycles.
SMALL = (
    Case(
        "4x4-b16-d32",
        TINY,
        tokens=43,
        commands=((8.0, range(2, 3)), (4.8, range(3)), (3.0, range(1, 3)), (2.0, range(1))),
    ),
    Case(
        "4x8-b32-d32",
        Config(rows=4, cols=8, block=32, head_dim=32),
        tokens=41,
        commands=((4.8, range(2)), (2.0, range(1, 2))),
    ),
)
MEDIUM = (
    Case(
        "8x8-b64-d64",
        PRESETS["ulx3s"],
        tokens=300,
        commands=((8.0, range(4, 5)), (4.8, range(1, 3)), (3.0, range(5)), (2.0, range(3, 5))),
    ),
    Case(
        "16x16-b64-d64",
        PRESETS["video"],
        tokens=401,
        commands=((8.0, range(6, 7)), (4.8, range(2, 5)), (3.0, range(7)), (2.0, range(3))),
    ),
)
# The same cores with work that Icarus can do.
SHORT = tuple(
    Case(case.name, case.config, tokens=71, commands=((3.0, range(1, 2)), (4.8, range(1, 2))))
    for case in MEDIUM
)
LARGE = tuple(
    Case(
        f"{rows}x{cols}-b{block}-d{head_dim}",
        Config(rows=rows, cols=cols, block=block, head_dim=head_dim),
        tokens=5 * block + 3,
        commands=((8.0, range(2)), (4.8, range(6)), (3.0, range(3, 6)), (2.0, range(6))),
    )
    for rows, cols, block, head_dim in (
        (16, 4, 16, 32),
        (8, 16, 16, 64),
        (16, 16, 16, 32),
        (16, 8, 32, 64),
        (8, 32, 64, 128),
        (4, 4, 16, 256),
        (32, 8, 64, 64),
        (32, 32, 32, 32),
        (4, 64, 64, 64),
    )
)


def cases() -> list:
    slow = pytest.mark.slow
    chosen = [("verilator", case, ()) for case in (*SMALL, MEDIUM[0])]
    chosen += [("verilator", MEDIUM[1], slow)]
    chosen += [("icarus", case, ()) for case in SMALL]
    chosen += [("icarus", case, slow) for case in SHORT]
    chosen += [("verilator", case, slow) for case in LARGE]
    return [
        pytest.param(simulator, case, id=f"{simulator}-{case.name}", marks=marks)
        for simulator, case, marks in chosen
    ]


@pytest.mark.parametrize("stalls", [False, True], ids=["flowing", "stalls"])
@pytest.mark.parametrize(("simulator", "case"), cases())
def test_bit_exact(simulator, case, stalls, build_dir, tmp_path, seed):
    jobs = case.make_jobs(seed % 1000)
    target = CoreTarget(stall_seed=seed if stalls else None)
    simulation = simulate(target, case.config, jobs, build_dir, tmp_path, simulator)
    assert_exact(case.config, jobs, simulation)
    assert_as_predicted(target, case.config, jobs, simulation)


@pytest.mark.parametrize("tokens", [8 * TINY.block, 4 * TINY.block + 1])
def test_outputs_that_are_taken_slowly(tokens, build_dir, tmp_path, seed):
    """One 2-bit block a row: output slots, denominators and reciprocals wait, as many as may."""
    stall_seed = next(
        number
        for number in count(seed)
        if (rates := stall_rates(number))["o"] == max(rates.values()) == 192
        and all(rates[name] <= 16 for name in STREAMS if name != "o")
    )
    capture = random_capture(tokens, TINY.head_dim, seed % 1000)
    rows = TINY.blocks_of(tokens)
    codes = torch.zeros(rows, rows, dtype=torch.uint8)
    codes[range(rows), random.Random(seed).choices(range(rows), k=rows)] = 1
    heads = [quantize_head(capture, number, 0, TINY) for number in range(2)]
    jobs = [
        *(head_job(capture, head, codes) for head in heads),
        # Of the shorter head a row of one query, again and again.
        *(head_job(capture, heads[0], codes, range(rows - 1, rows)) for _ in range(8)),
    ]
    target = CoreTarget(stall_seed=stall_seed)
    simulation = simulate(target, TINY, jobs, build_dir, tmp_path)
    assert_exact(TINY, jobs, simulation)
    assert_as_predicted(target, TINY, jobs, simulation)
    assert simulation.stages["pv"]["blocked"] > 0, "the output slots never were full"


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_reset_in_mid_run_leaves_nothing_behind(simulator, build_dir, tmp_path, seed):
    case = SMALL[0]
    generator = random.Random(seed)
    for attempt in range(8 if simulator == "verilator" else 1):
        jobs = case.make_jobs(seed % 1000)[1:]
        target = CoreTarget(
            stall_seed=seed if attempt % 2 else None, reset_at=generator.randrange(2, 2500)
        )
        simulation = simulate(target, case.config, jobs, build_dir, tmp_path, simulator)
        assert_exact(case.config, jobs, simulation)
        assert_as_predicted(target, case.config, jobs, simulation)


def test_simulators_agree_on_every_cycle(build_dir, tmp_path, seed):
    case = SMALL[0]
    jobs = case.make_jobs(seed % 1000)[2:]
    flowing, verilator, icarus = (
        simulate(
            CoreTarget(stall_seed=stall_seed), case.config, jobs, build_dir, tmp_path, name
        ).total_cycles
        for name, stall_seed in (("verilator", None), ("verilator", 5), ("icarus", 5))
    )
    assert verilator == icarus
    assert (verilator or 0) > (flowing or 0) > 0


def test_no_reliance_on_power_up_values(build_dir, tmp_path, seed):
    """Every register begins as X, as in silicon; reset alone must do.

    Memories keep their first values: 0 shifted by an X is X to a simulator, 0 to silicon.
    """

    def without_power_up(config, top, cache):
        verilog = kept_verilog(config, top, cache)
        verilog, count = re.subn(r"(?m)^(  reg .*?) = [^;\n]+;$", r"\1;", verilog)
        assert count > 50
        return verilog

    case = SMALL[0]
    jobs = case.make_jobs(seed % 1000)[2:]
    icarus = get_simulator("icarus")
    session = Session(icarus, build_dir, tmp_path, make_verilog=without_power_up)
    simulation = CoreTarget().simulate(case.config, jobs, session)
    assert_exact(case.config, jobs, simulation)
    assert_as_predicted(CoreTarget(), case.config, jobs, simulation)


def test_array_is_busy_on_a_row_of_mixed_blocks(build_dir, tmp_path):
    config = PRESETS["ulx3s"]
    capture = random_capture(1024, config.head_dim, 3)
    codes = random_codes(16, 4.8, 3)
    job = head_job(capture, quantize_head(capture, 0, 0, config), codes, range(1))
    simulation = simulate(CoreTarget(), config, [job], build_dir, tmp_path)
    assert_exact(config, [job], simulation)
    assert_as_predicted(CoreTarget(), config, [job], simulation)
    assert simulation.total_cycles is not None
    assert ideal_cycles(config, job) / simulation.total_cycles >= 0.7


def test_cosim_writes_report_and_outputs(build_dir, tmp_path):
    from safetensors.torch import load_file

    capture = load_capture(DEMO_CAPTURE)
    goal = Goal(avg_bits=3.0, block=TINY.block, per_head=True)
    plan = calibrate([capture], goal, [3, 1])[0].for_capture(capture)
    seen = []
    report = cosim(
        Heads(capture, plan, [1, 3], TINY, range(5, 7)),
        CoreTarget(),
        Setup("verilator", tmp_path, build_dir, progress=lambda *step: seen.append(step)),
    )
    written = json.loads((tmp_path / "report.json").read_text())
    assert report.to_dict() == written
    assert " ".join(written) == (
        "bit_exact outputs_compared mismatches first_mismatch failure cycles predicted_cycles "
        "cycles_as_predicted ideal_cycles utilisation stages cores imbalance top memory "
        "simulator stall_seed simulation_seconds cycles_per_second capture capture_sha256 "
        "config avg_bits tokens mean_bits density query_blocks layer progress rows worst_head "
        "worst_snr_db heads"
    )
    assert report.bit_exact is True
    assert report.mismatches == 0
    assert report.outputs_compared == 2 * 32 * 32
    assert report.cycles is not None
    assert report.cycles == report.predicted_cycles
    assert report.cycles >= report.ideal_cycles > 0
    assert report.cycles_as_predicted is True
    assert report.utilisation == pytest.approx(report.ideal_cycles / report.cycles, abs=1e-3)
    assert [entry["head"] for entry in report.heads] == [1, 3]
    assert all(entry["cosine"] > 0.9 and entry["cycles"] > 0 for entry in report.heads)
    assert seen[-1] == (4, 4)
    outputs = load_file(tmp_path / "outputs.safetensors")
    assert outputs["o"].shape == (2, 32, 32)
    assert outputs["o"].dtype == torch.float32
    assert outputs["token_index"].shape == (2, 32)
    assert not (tmp_path / "simulation").exists()


def test_a_wrong_word_is_told(build_dir, tmp_path, monkeypatch):
    def one_bit_off(*arguments):
        words = integer_attention(*arguments)
        words[3, 7] ^= 1
        return words

    monkeypatch.setattr(sim.cosim.cosim, "integer_attention", one_bit_off)
    capture = load_capture(DEMO_CAPTURE)
    plan = uniform_plan(capture, [0], TINY.block, code=1)
    report = cosim(
        Heads(capture, plan, [0], TINY, range(1)),
        CoreTarget(),
        Setup("verilator", tmp_path, build_dir),
    )
    assert report.bit_exact is False
    assert report.passed is False
    assert report.mismatches == 1
    mismatch = report.first_mismatch
    assert mismatch is not None
    assert (mismatch.head, mismatch.token, mismatch.channel) == (0, 3, 7)
    assert mismatch.got == mismatch.expected ^ 1


def test_other_cycles_than_predicted_are_told(build_dir, tmp_path, monkeypatch):
    class Slower(Normalizer):
        LATENCY = Normalizer.LATENCY + 1

    monkeypatch.setattr(sim.cycles.cycle_model, "Normalizer", Slower)
    capture = random_capture(16, 32, 1)
    plan = uniform_plan(capture, [0], TINY.block, code=1)
    heads, setup = Heads(capture, plan, [0], TINY), Setup("verilator", tmp_path, build_dir)
    report = cosim(heads, CoreTarget(), setup)
    assert report.bit_exact is True
    assert report.cycles_as_predicted is False
    assert report.passed is False
    assert report.cycles is not None
    assert report.predicted_cycles == report.cycles + 1


def test_stalls_are_predicted(build_dir, tmp_path):
    capture = random_capture(16, 32, 1)
    plan = uniform_plan(capture, [0], TINY.block, code=1)
    heads, setup = Heads(capture, plan, [0], TINY), Setup("verilator", tmp_path, build_dir)
    report = cosim(heads, CoreTarget(stall_seed=1), setup)
    assert report.passed is True
    assert report.cycles_as_predicted is True
    assert report.stall_seed == 1
    job = head_job(capture, quantize_head(capture, 0, 0, TINY), plan.head_codes(0))
    assert report.cycles is not None
    assert report.cycles > CoreTarget().predict(TINY, [job]).total_cycles


def test_a_core_that_hangs_is_told(build_dir, tmp_path, monkeypatch):
    def without_last_codes(config, jobs):
        stimulus = sim.cosim.core_stimulus.make_stimulus(config, jobs)
        (command,) = stimulus.commands
        first, count = command.codes
        commands = [dataclasses.replace(command, codes=(first, count - 1))]
        return dataclasses.replace(stimulus, commands=commands)

    monkeypatch.setattr(sim.cosim.core, "make_stimulus", without_last_codes)
    monkeypatch.setattr(sim.cosim.core, "IDLE_LIMIT", 3000)
    capture = load_capture(DEMO_CAPTURE)
    plan = uniform_plan(capture, [0], TINY.block, code=1)
    report = cosim(
        Heads(capture, plan, [0], TINY, range(2)),
        CoreTarget(),
        Setup("verilator", tmp_path, build_dir),
    )
    assert report.bit_exact is False
    assert report.failure == "no transfer on any stream for 3000 cycles"
    assert report.outputs_compared < 2 * 16 * 32
    assert report.cycles_as_predicted is None


@pytest.mark.parametrize("simulator", ["icarus", pytest.param("verilator", marks=pytest.mark.slow)])
def test_waves(simulator, build_dir, tmp_path):
    capture = random_capture(16, 32, 1)
    plan = uniform_plan(capture, [0], TINY.block, code=1)
    out = tmp_path / "an odd $HOME, 'folder' # ü"
    setup = Setup(simulator, out, build_dir, waves=True)
    report = cosim(Heads(capture, plan, [0], TINY), CoreTarget(), setup)
    assert report.bit_exact is True
    waves = json.loads((out / "report.json").read_text())["waves"]
    assert waves == report.waves
    assert (out / waves).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("avg_bits", [8.0, 4.8, 3.0, 2.0])
@pytest.mark.parametrize(
    ("name", "heads", "rows"),
    [
        ("tiny_video_dit_t03", list(range(16)), range(8)),
        ("dinov2_photo_l1", [0, 3], range(20, 22)),
        ("dinov2_photo_l3", [1, 5], range(0, 2)),
        ("dinov2_video_l3", [0, 2], range(30, 32)),
        ("dinov2_video_13x30x45_l3", [1], range(274, 275)),
    ],
)
def test_captures(name, heads, rows, avg_bits, build_dir, tmp_path):
    path = SHARED / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"no {name} in ../shared/data")
    capture = load_capture(path)
    config = PRESETS["video"].changed(head_dim=capture.head_dim)
    goal = Goal(avg_bits=avg_bits, block=config.block)
    plan = calibrate([capture], goal, heads)[0].for_capture(capture)
    report = cosim(
        Heads(capture, plan, heads, config, rows),
        CoreTarget(stall_seed=1),
        Setup("verilator", tmp_path, build_dir),
    )
    assert report.bit_exact is True


def test_simulators_that_are_missing_are_told(monkeypatch):
    with pytest.raises(ParoError, match="no simulator 'vcs'; legal: verilator, icarus"):
        get_simulator("vcs")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ParoError, match=r"simulator icarus needs .* apt-get install iverilog"):
        get_simulator("icarus")
    with pytest.raises(ParoError, match=r"simulator verilator needs .* apt-get install g\+\+"):
        get_simulator("verilator")
