"""The generated core against the integer model, bit for bit, under both simulators."""

import json
import random
import re
from dataclasses import dataclass
from itertools import count

import numpy as np
import pytest
import torch

import sim.cosim.core
import sim.cosim.cosim
import sim.cosim.simulators
import sim.cycles.cycle_model
from firmware_model import DEMO_CAPTURE
from firmware_model.calibration.calibrate import calibrate
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.plan import uniform_plan
from firmware_model.capture import load_capture
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.quantize import quantize_head
from paro.config import PRESETS, Config, ParoError
from rtl.core.normalizer import Normalizer
from sim.cosim.core import simulate
from sim.cosim.core_stimulus import Run
from sim.cosim.cosim import cosim
from sim.cosim.simulators import Icarus, get_simulator
from sim.cosim.verilog import kept_verilog
from sim.cycles.cycle_model import predict
from sim.cycles.stalls import STREAMS, stall_rates
from tests.places import SHARED
from tests.sim.inputs import random_capture, random_codes

TINY = PRESETS["tiny"]


@dataclass(frozen=True)
class Case:
    """A core and what it computes, one run directly after the other."""

    name: str
    config: Config
    tokens: int
    runs: tuple[tuple[float, range], ...]  # mean bits, query blocks

    def make_runs(self, seed: int) -> list[Run]:
        capture = random_capture(self.tokens, self.config.head_dim, seed)
        blocks = -(-self.tokens // self.config.block)
        return [
            Run(
                head=quantize_head(capture, number % 2, number % 6, self.config),
                codes=random_codes(blocks, mean_bits, seed + number),
                query_blocks=rows,
            )
            for number, (mean_bits, rows) in enumerate(self.runs)
        ]


# Few tokens: Icarus needs a second for some hundred clocks.
SMALL = (
    Case(
        "4x4-b16-d32",
        TINY,
        tokens=43,
        runs=((8.0, range(2, 3)), (4.8, range(3)), (3.0, range(1, 3)), (2.0, range(1))),
    ),
    Case(
        "4x8-b32-d32",
        Config(rows=4, cols=8, block=32, head_dim=32),
        tokens=41,
        runs=((4.8, range(2)), (2.0, range(1, 2))),
    ),
)
MEDIUM = (
    Case(
        "8x8-b64-d64",
        PRESETS["ulx3s"],
        tokens=300,
        runs=((8.0, range(4, 5)), (4.8, range(1, 3)), (3.0, range(5)), (2.0, range(3, 5))),
    ),
    Case(
        "16x16-b64-d64",
        PRESETS["video"],
        tokens=401,
        runs=((8.0, range(6, 7)), (4.8, range(2, 5)), (3.0, range(7)), (2.0, range(3))),
    ),
)
# The same cores with work that Icarus can do.
SHORT = tuple(
    Case(case.name, case.config, tokens=71, runs=((3.0, range(1, 2)), (4.8, range(1, 2))))
    for case in MEDIUM
)
LARGE = tuple(
    Case(
        f"{rows}x{cols}-b{block}-d{head_dim}",
        Config(rows=rows, cols=cols, block=block, head_dim=head_dim),
        tokens=5 * block + 3,
        runs=((8.0, range(2)), (4.8, range(6)), (3.0, range(3, 6)), (2.0, range(6))),
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
    chosen = [("verilator", case, ()) for case in (*SMALL, *MEDIUM)]
    chosen += [("icarus", case, ()) for case in SMALL]
    chosen += [("icarus", case, slow) for case in SHORT]
    chosen += [("verilator", case, slow) for case in LARGE]
    return [
        pytest.param(simulator, case, id=f"{simulator}-{case.name}", marks=marks)
        for simulator, case, marks in chosen
    ]


def assert_exact(config: Config, runs: list[Run], simulation: sim.cosim.core.Simulation) -> None:
    assert simulation.failure is None
    assert len(simulation.words) == len(runs) > 0
    for number, (run, words) in enumerate(zip(runs, simulation.words, strict=True)):
        expected = (
            integer_attention(run.head, run.codes, config, run.query_blocks).flatten().numpy()
        )
        assert len(words) == len(expected) > 0
        wrong = np.flatnonzero(words != expected)
        assert len(wrong) == 0, f"run {number}: {len(wrong)} of {len(words)} from {wrong[0]} on"


def assert_as_predicted(
    config: Config,
    runs: list[Run],
    simulation: sim.cosim.core.Simulation,
    memory_latency: int = 0,
    stall_seed: int | None = None,
) -> None:
    """The clocks of a simulation are those of the cycle model."""
    works = [run.work(config) for run in runs]
    prediction = predict(config, works, memory_latency=memory_latency, stall_seed=stall_seed)
    assert simulation.cycles == prediction.cycles
    assert simulation.total_cycles == prediction.total_cycles
    assert simulation.stages == prediction.stages


@pytest.mark.parametrize("stalls", [False, True], ids=["flowing", "stalls"])
@pytest.mark.parametrize(("simulator", "case"), cases())
def test_bit_exact(simulator, case, stalls, build_dir, tmp_path, seed):
    runs = case.make_runs(seed % 1000)
    stall_seed = seed if stalls else None
    simulation = simulate(
        case.config, runs, get_simulator(simulator), build_dir, tmp_path, stall_seed=stall_seed
    )
    assert_exact(case.config, runs, simulation)
    assert_as_predicted(case.config, runs, simulation, stall_seed=stall_seed)


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
    rows = -(-tokens // TINY.block)
    codes = torch.zeros(rows, rows, dtype=torch.uint8)
    codes[range(rows), random.Random(seed).choices(range(rows), k=rows)] = 1
    heads = [quantize_head(capture, number, 0, TINY) for number in range(2)]
    runs = [
        *(Run(head, codes, range(rows)) for head in heads),
        # Of the shorter head a row of one query, again and again.
        *(Run(heads[0], codes, range(rows - 1, rows)) for _ in range(8)),
    ]
    simulation = simulate(
        TINY, runs, get_simulator("verilator"), build_dir, tmp_path, stall_seed=stall_seed
    )
    assert_exact(TINY, runs, simulation)
    assert_as_predicted(TINY, runs, simulation, stall_seed=stall_seed)
    assert simulation.stages["pv"]["blocked"] > 0, "the output slots never were full"


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_reset_in_mid_run_leaves_nothing_behind(simulator, build_dir, tmp_path, seed):
    case = SMALL[0]
    generator = random.Random(seed)
    for attempt in range(8 if simulator == "verilator" else 1):
        runs = case.make_runs(seed % 1000)[1:]
        stall_seed = seed if attempt % 2 else None
        simulation = simulate(
            case.config,
            runs,
            get_simulator(simulator),
            build_dir,
            tmp_path,
            stall_seed=stall_seed,
            reset_at=generator.randrange(2, 2500),
        )
        assert_exact(case.config, runs, simulation)
        assert_as_predicted(case.config, runs, simulation, stall_seed=stall_seed)


def test_simulators_agree_on_every_cycle(build_dir, tmp_path, seed):
    case = SMALL[0]
    runs = case.make_runs(seed % 1000)[2:]
    flowing, verilator, icarus = (
        simulate(
            case.config, runs, get_simulator(name), build_dir, tmp_path, stall_seed=stall_seed
        ).total_cycles
        for name, stall_seed in (("verilator", None), ("verilator", 5), ("icarus", 5))
    )
    assert verilator == icarus
    assert (verilator or 0) > (flowing or 0) > 0


def test_no_reliance_on_power_up_values(build_dir, tmp_path, seed, monkeypatch):
    """Every register begins as X, as in silicon; reset alone must do.

    Memories keep their first values: 0 shifted by an X is X to a simulator, 0 to silicon.
    """

    def without_power_up(config, top, cache):
        verilog = kept_verilog(config, top, cache)
        verilog, count = re.subn(r"(?m)^(  reg .*?) = [^;\n]+;$", r"\1;", verilog)
        assert count > 50
        return verilog

    monkeypatch.setattr(sim.cosim.core, "kept_verilog", without_power_up)
    case = SMALL[0]
    runs = case.make_runs(seed % 1000)[2:]
    simulation = simulate(case.config, runs, Icarus(), build_dir, tmp_path)
    assert_exact(case.config, runs, simulation)
    assert_as_predicted(case.config, runs, simulation)


def test_array_is_busy_on_a_row_of_mixed_blocks(build_dir, tmp_path):
    config = PRESETS["ulx3s"]
    capture = random_capture(1024, config.head_dim, 3)
    codes = random_codes(16, 4.8, 3)
    run = Run(quantize_head(capture, 0, 0, config), codes, range(1))
    simulation = simulate(config, [run], get_simulator("verilator"), build_dir, tmp_path)
    assert_exact(config, [run], simulation)
    assert_as_predicted(config, [run], simulation)
    assert simulation.total_cycles is not None
    assert sim.cosim.cosim.ideal_cycles(config, run) / simulation.total_cycles >= 0.7


def test_cosim_writes_report_and_outputs(build_dir, tmp_path):
    from safetensors.torch import load_file

    capture = load_capture(DEMO_CAPTURE)
    goal = Goal(avg_bits=3.0, block=TINY.block, per_head=True)
    plan = calibrate([capture], goal, [3, 1])[0].for_capture(capture)
    seen = []
    report = cosim(
        capture,
        plan,
        [1, 3],
        TINY,
        "verilator",
        tmp_path,
        query_blocks=range(5, 7),
        build_dir=build_dir,
        progress=lambda *step: seen.append(step),
    )
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["bit_exact"] is True
    assert report["mismatches"] == 0
    assert report["outputs_compared"] == 2 * 32 * 32
    assert report["cycles"] == report["predicted_cycles"] >= report["ideal_cycles"] > 0
    assert report["cycles_as_predicted"] is True
    assert report["utilisation"] == pytest.approx(
        report["ideal_cycles"] / report["cycles"], abs=1e-3
    )
    assert [entry["head"] for entry in report["heads"]] == [1, 3]
    assert all(entry["cosine"] > 0.9 and entry["cycles"] > 0 for entry in report["heads"])
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
        capture, plan, [0], TINY, "verilator", tmp_path, query_blocks=range(1), build_dir=build_dir
    )
    assert report["bit_exact"] is False
    assert report["mismatches"] == 1
    mismatch = report["first_mismatch"]
    assert (mismatch["head"], mismatch["token"], mismatch["channel"]) == (0, 3, 7)
    assert mismatch["got"] == mismatch["expected"] ^ 1


def test_other_cycles_than_predicted_are_told(build_dir, tmp_path, monkeypatch):
    class Slower(Normalizer):
        LATENCY = Normalizer.LATENCY + 1

    monkeypatch.setattr(sim.cycles.cycle_model, "Normalizer", Slower)
    capture = random_capture(16, 32, 1)
    plan = uniform_plan(capture, [0], TINY.block, code=1)
    report = cosim(capture, plan, [0], TINY, "verilator", tmp_path, build_dir=build_dir)
    assert report["bit_exact"] is True
    assert report["cycles_as_predicted"] is False
    assert report["predicted_cycles"] == report["cycles"] + 1


def test_stalls_are_predicted(build_dir, tmp_path):
    capture = random_capture(16, 32, 1)
    plan = uniform_plan(capture, [0], TINY.block, code=1)
    report = cosim(
        capture, plan, [0], TINY, "verilator", tmp_path, stall_seed=1, build_dir=build_dir
    )
    assert report["bit_exact"] is True
    assert report["cycles_as_predicted"] is True
    runs = [Run(quantize_head(capture, 0, 0, TINY), plan.head_codes(0), range(1))]
    assert report["cycles"] > predict(TINY, [run.work(TINY) for run in runs]).total_cycles


def test_a_core_that_hangs_is_told(build_dir, tmp_path, monkeypatch):
    def without_last_codes(config, runs):
        stimulus = sim.cosim.core_stimulus.make_stimulus(config, runs)
        first, count = stimulus.runs[0]["codes"]
        stimulus.runs[0]["codes"] = (first, count - 1)
        return stimulus

    monkeypatch.setattr(sim.cosim.core, "make_stimulus", without_last_codes)
    monkeypatch.setattr(sim.cosim.core, "IDLE_LIMIT", 3000)
    capture = load_capture(DEMO_CAPTURE)
    plan = uniform_plan(capture, [0], TINY.block, code=1)
    report = cosim(
        capture, plan, [0], TINY, "verilator", tmp_path, query_blocks=range(2), build_dir=build_dir
    )
    assert report["bit_exact"] is False
    assert report["failure"] == "no transfer on any stream for 3000 cycles"
    assert report["outputs_compared"] < 2 * 16 * 32


@pytest.mark.parametrize("simulator", ["icarus", pytest.param("verilator", marks=pytest.mark.slow)])
def test_waves(simulator, build_dir, tmp_path):
    capture = random_capture(16, 32, 1)
    plan = uniform_plan(capture, [0], TINY.block, code=1)
    out = tmp_path / "an odd $HOME, 'folder' # ü"
    report = cosim(capture, plan, [0], TINY, simulator, out, waves=True, build_dir=build_dir)
    assert report["bit_exact"] is True
    assert (out / report["waves"]).stat().st_size > 10_000


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
    config = Config(**{**PRESETS["video"].model_dump(), "head_dim": capture.head_dim})
    goal = Goal(avg_bits=avg_bits, block=config.block)
    plan = calibrate([capture], goal, heads)[0].for_capture(capture)
    report = cosim(
        capture,
        plan,
        heads,
        config,
        "verilator",
        tmp_path,
        query_blocks=rows,
        stall_seed=1,
        build_dir=build_dir,
    )
    assert report["bit_exact"] is True


def test_simulators_that_are_missing_are_told(monkeypatch):
    with pytest.raises(ParoError, match="no simulator 'vcs'; legal: verilator, icarus"):
        get_simulator("vcs")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ParoError, match=r"simulator icarus needs .* apt-get install iverilog"):
        get_simulator("icarus")
    with pytest.raises(ParoError, match=r"simulator verilator needs .* apt-get install g\+\+"):
        get_simulator("verilator")
