"""`paro estimate` and `paro sweep` on a model small enough for seconds."""

import json
import re

import pytest

from tests.cli.captures import some_heads

MODEL = """
title = "tiny"
layers = 2
heads = 4
head_dim = 32
ffn = 256
prefix_tokens = 16
grid = [2, 8, 8]
steps = 3
guidance_passes = 2
"""
CORE = ("--rows", 8, "--cols", 8, "--block", 16, "--cores", 1)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(MODEL)
    return path


def test_checkpoints_are_printed_and_met(paro):
    outcome = paro("estimate", "--checkpoints")
    assert outcome.status == 0
    assert "56.50" in outcome.out
    assert "2.26 to 2.31" in outcome.out
    assert "2.67 to 2.75" in outcome.out
    assert "Bit Fusion" in outcome.out
    found = json.loads(paro("estimate", "--checkpoints", "--json").out)
    assert len(found["checkpoints"]) == 3
    assert all(entry["holds"] for kind in found.values() for entry in kind)


def test_estimate_writes_report_and_chart(paro, model, tmp_path):
    out = tmp_path / "out"
    outcome = paro("estimate", "--model", model, *CORE, "--equal-quality-bits", 4, "-o", out)
    assert outcome.status == 0, outcome.err
    assert "calibrated: 16 captured heads (tiny_video_dit_t03)" in outcome.out
    assert "would hold if" in outcome.out
    report = json.loads((out / "estimate.json").read_text())
    widths = [(round(one["mean_bits"], 1), round(one["linear_bits"])) for one in report["ours"]]
    assert widths == [(4.8, 4), (4.0, 4), (4.0, 8), (4.0, 4), (4.0, 3), (4.0, 3)]
    assert report["machine"]["macs"] == 64
    assert report["ours"][1]["step_seconds"] < report["ours"][0]["step_seconds"]
    assert (out / "estimate.png").read_bytes().startswith(b"\x89PNG")


def test_linear_layers_have_the_widths_asked_for(paro, model, tmp_path):
    arguments = ("estimate", "--model", model, *CORE, "--assume-density", 0.5)
    out = tmp_path / "out"
    outcome = paro(*arguments, "--linear-bits", "8,2", "-o", out)
    assert outcome.status == 0, outcome.err
    wide, narrow = json.loads((out / "estimate.json").read_text())["ours"]
    assert (wide["linear_bits"], narrow["linear_bits"]) == (8, 2)
    assert wide["linear_seconds"] > 2 * narrow["linear_seconds"]
    assert wide["attention_seconds"] == narrow["attention_seconds"]
    found = json.loads(paro(*arguments, "--linear-bits", "8", "--json", "-o", out).out)
    assert len(found["ours"]) == 1
    assert found["equal_gates"][0]["machine"] == found["equal_resources"][0]["machine"]
    # Targets are of their own widths.
    assert {target["linear_bits"] for target in found["targets"]} == {8, 4, 3.5}


def test_rows_that_no_vector_unit_takes(paro, refused, model, tmp_path):
    """Vector steps can be left out, by an option or by a file."""
    model.write_text(re.sub(r"ffn = \d+", "ffn = 20000", model.read_text()))
    arguments = ("estimate", "--model", model, "--assume-density", 0.5, "-o", tmp_path / "out")
    refused("legal: up to 16384, or --vector-channels 0", *arguments, *CORE)
    core = tmp_path / "core.toml"
    core.write_text("rows = 8\ncols = 8\nblock = 16\nhead_dim = 32\nvector_channels = 0\n")
    for chosen in ((*CORE, "--vector-channels", 0), ("--config", core)):
        outcome = paro(*arguments, *chosen)
        assert outcome.status == 0, outcome.err


def test_names_are_printed_as_they_are(paro, model, tmp_path):
    model.write_text(MODEL.replace('"tiny"', '"a [/b] [red]model"'))
    out = tmp_path / "o[/x][bold]"
    outcome = paro("estimate", "--model", model, *CORE, "--assume-density", 0.5, "-o", out)
    assert outcome.status == 0, outcome.err
    assert "a [/b] [red]model" in outcome.out
    assert "o[/x][bold]" in outcome.out.replace("\n", "")


def test_estimate_measures_captures_once(paro, model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = (
        "estimate",
        "--model",
        model,
        *CORE,
        "--equal-quality-bits",
        4,
        "--json",
        "-o",
        out,
    )
    first = json.loads(paro(*arguments).out)
    monkeypatch.setattr("sim.estimate.head_plans.Calibration", None)
    assert json.loads(paro(*arguments).out) == first


def test_assumed_plans_are_labelled(paro, model, tmp_path):
    out = tmp_path / "out"
    outcome = paro("estimate", "--model", model, *CORE, "--assume-density", 0.5, "-o", out)
    assert outcome.status == 0
    assert "assumed: 50%" in outcome.out
    assert "bit, assumed" in outcome.out
    assert json.loads((out / "estimate.json").read_text())["ours"][0]["assumed"]


def test_clusters_are_estimated(paro, model, tmp_path):
    reads = {}
    for cluster in (1, 4):
        # Without what lies between layers: a cluster moves as much of that.
        core = (*CORE[:-1], 4, "--cluster", cluster, "--key-slots", 4, "--vector-channels", 0)
        out = tmp_path / str(cluster)
        paro("estimate", "--model", model, *core, "--assume-density", 0.5, "-o", out)
        report = json.loads((out / "estimate.json").read_text())
        assert report["machine"]["cores"] == 4
        assert report["configuration"]["cores"] == cluster
        reads[cluster] = report["ours"][0]["gigabytes_per_step"]
    assert reads[4] < 0.7 * reads[1]


def test_a_plan_stands_for_the_model(paro, model, tmp_path):
    from firmware_model import DEMO_CAPTURE

    plan = tmp_path / "plan.safetensors"
    paro("calibrate", DEMO_CAPTURE, "--heads", "0-3", "--avg-bits", 4, "--block", 16, "-o", plan)
    core = [word for word in CORE if word not in ("--block", 16)]  # the plan's
    outcome = paro("estimate", "--model", model, *core, "--plan", plan, "-o", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    assert "scaled to the model's grid" in " ".join(outcome.out.split())


@pytest.mark.parametrize(
    ("sentence", "arguments"),
    [
        ("there is no model 'sora'; legal: cogvideox-2b", ["--model", "sora"]),
        ("give --model and -o, or --checkpoints", []),
        (
            "linear bits = 9 is not legal; legal: 2 to 8",
            ["--model", "cogvideox-5b", "--linear-bits", "4,9"],
        ),
        (
            "linear bits = 'few' is not a list of numbers",
            ["--model", "flux.1-dev", "--linear-bits", "few"],
        ),
        ("clock_mhz = 0 is not legal", ["--model", "cogvideox-5b", "--clock", "0"]),
        ("bandwidth_gbs = -1 is not legal", ["--model", "cogvideox-5b", "--bandwidth", "-1"]),
        ("avg_bits = 9.0 is not legal", ["--model", "cogvideox-5b", "--avg-bits", "9"]),
        ("density = 2 is not legal", ["--model", "cogvideox-5b", "--assume-density", "2"]),
        ("pruned density = 2 is not legal", ["--model", "flux.1-dev", "--pruned-density", "2"]),
        (
            "give plans by one of: --plan; --assume-density",
            ["--model", "flux.1-dev", "--assume-density", "1", "--plan", "x"],
        ),
        (
            "give plans by one of: --plan; CAPTURE, --avg-bits",
            ["--model", "flux.1-dev", "--plan", "x", "--avg-bits", "4"],
        ),
        ("--checkpoints are of the papers' models", ["--checkpoints", "--plan", "x"]),
        ("bandwidth_gbs = 1e-310 is not legal", ["--model", "flux.1-dev", "--bandwidth", "1e-310"]),
        ("buffer_gbs = -1 is not legal", ["--model", "flux.1-dev", "--buffer-bandwidth", "-1"]),
        ("head_dim = 32 does not fit", ["--model", "flux.1-dev", "--head-dim", "32"]),
        ("configuration: cores = 3 is not legal", ["--model", "flux.1-dev", "--cluster", "3"]),
        ("cores = 2 is not legal; legal: 4 or more", ["--model", "flux.1-dev", "--cluster", "4"]),
        ("plan missing does not exist", ["--model", "flux.1-dev", "--plan", "missing"]),
    ],
)
def test_bad_input_is_one_sentence(refused, tmp_path, sentence, arguments):
    refused(sentence, "estimate", *arguments, "-o", tmp_path / "out")


SWEEP = (
    "--arrays",
    "8x8,8x16",
    "--clocks",
    "50,100",
    "--bandwidths",
    "1",
    "--bits",
    "4.5,6",
    "--block",
    16,
)


def test_a_sweep_writes_points_and_plots_and_is_resumed(paro, model, tmp_path, monkeypatch):
    out, few = tmp_path / "out", some_heads("two_heads", tmp_path, slice(2))
    arguments = ("sweep", few, "--model", model, *SWEEP, "--jobs", 1, "-o", out)
    outcome = paro(*arguments)
    assert outcome.status == 0, outcome.err
    points = json.loads((out / "sweep.json").read_text())["points"]
    assert len(points) == len(list((out / "points").iterdir())) == 8
    assert any(point["pareto_time_luts"] for point in points)
    six = next(point for point in points if point["avg_bits"] > 5)
    four = next(point for point in points if point["avg_bits"] < 5)
    assert six["mean_snr_db"] > four["mean_snr_db"] > 30
    for name in ("time_luts", "quality_time"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr("sim.estimate.sweep.head_cycles", None)
    monkeypatch.setattr("sim.estimate.sweep.format_study", None)
    again = paro(*arguments)
    assert again.status == 0, again.err
    assert again.out == outcome.out
    # One width less asks for nothing new; no quality leaves no plot of it.
    fewer = [*arguments[:-2], "--bits", "6", "-o", out]
    assert paro(*fewer).status == 0
    assert paro(*fewer, "--no-quality").status == 0
    assert not (out / "quality_time.png").exists()

    for folder, text in (("quality", "{"), ("points", "[]")):
        for path in (out / folder).iterdir():
            path.write_text(text)
        torn = paro(*arguments)
        assert torn.status == 2
        assert f"cannot read result {out / folder}" in torn.err
        assert "delete it to compute it anew" in torn.err


@pytest.mark.parametrize(
    ("sentence", "arguments"),
    [
        ("arrays = '8' is not a list of shapes; legal: such as 8x8,16x32", ["--arrays", "8"]),
        ("rows = 5 is not legal", ["--arrays", "5x8"]),
        ("clocks = 'fast' is not a list of numbers", ["--clocks", "fast"]),
        ("bandwidth_gbs = 0 is not legal", ["--bandwidths", "0"]),
        ("avg_bits = 0.0 is not legal", ["--bits", "0"]),
        ("linear bits = 1 is not legal; legal: 2 to 8", ["--linear-bits", "1"]),
        ("jobs = 0 is not legal", ["--jobs", "0"]),
        ("max_tokens = 64 does not fit the 17776 tokens", ["--max-tokens", "64"]),
    ],
)
def test_a_bad_sweep_is_one_sentence(refused, tmp_path, sentence, arguments):
    refused(sentence, "sweep", "--model", "cogvideox-5b", *arguments, "-o", tmp_path / "out")
