"""Commands on whole models: several captures, plans in a folder, generation, studies."""

import functools
import json

import pytest
import torch
from PIL import Image

from firmware_model import DEMO_CAPTURE
from firmware_model.calibration.plan import load_model_plan
from firmware_model.capture import load_capture
from firmware_model.models.video.checkpoint import save_model
from firmware_model.models.video.transformer import Shape, VideoTransformer
from fpga.pe import pe_study
from tests.cli.captures import some_heads
from tests.firmware_model.models.tiny_pipelines import (
    CASES,
    WIDE_HEADS,
    cogvideox,
    diffusers,
    dit,
    flux,
    pixart,
    wan,
    write,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(2)
    network = VideoTransformer(Shape(layers=2, heads=1, head_dim=32))
    torch.nn.init.normal_(network.output.weight, std=0.2)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(network, path)
    return path


def test_a_model_is_captured_calibrated_and_evaluated(paro, model, tmp_path):
    outcome = paro("capture", model, "--steps", "2", "--at", "0,0.5", "-o", tmp_path / "captures")
    assert outcome.status == 0
    assert "written: 4 captures" in outcome.out
    plan = tmp_path / "plan.safetensors"
    outcome = paro("calibrate", tmp_path / "captures", "--step-groups", "2", "-o", plan)
    assert outcome.status == 0
    assert load_model_plan(plan).codes.shape == (2, 2, 1, 8, 8)
    videos = tmp_path / "videos"
    outcome = paro(
        "evaluate", model, "--plan", plan, "--steps", "2", "--samples", "1", "-o", videos
    )
    assert outcome.status == 0
    report = json.loads((videos / "report.json").read_text())
    assert report["psnr_db"] > 20
    assert len(report["attention"]) == 4
    with Image.open(videos / "film.gif") as film:
        assert film.n_frames == 8
        assert film.size == (4 * 17, 4 * 34)
    with Image.open(videos / "contact_sheet.png") as sheet:
        assert sheet.size == (3 * 3 * 8 * 17, 3 * 17)
    outcome = paro("evaluate", tmp_path / "captures", "--plan", plan, "-o", tmp_path / "heads")
    assert outcome.status == 0
    summary = json.loads((tmp_path / "heads/report.json").read_text())
    assert summary["all"]["heads"] == 4
    assert len(list((tmp_path / "heads").glob("*/outputs.safetensors"))) == 4
    outcome = paro("study", "carry-over", tmp_path / "captures", "-o", tmp_path / "study")
    assert outcome.status == 0
    assert len(json.loads((tmp_path / "study/carry-over.json").read_text())) == 2


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", ["CogVideoX", "HunyuanVideo", "Wan 2.2"])
def test_a_pipeline_of_diffusers(paro, tmp_path, name):
    """Text first, text last, and two transformers that take turns.

    Capture, calibrate, replace attention by the integer model.
    """
    case = CASES[name]
    folder = write(case.build, tmp_path / "pipeline")
    size = [word for key, value in case.size.items() for word in (f"--{key}", value)]
    running = (*size, "--steps", "2")
    at = ("--at", "0,0.5")
    assert paro("capture", folder, *running, *at, "-o", tmp_path / "captures").status == 0
    capture = load_capture(next((tmp_path / "captures").iterdir()))
    assert (capture.grid, capture.prefix_tokens) == (case.grid, case.prefix)
    assert capture.suffix_tokens == case.suffix
    plan = tmp_path / "plan.safetensors"
    assert paro("calibrate", tmp_path / "captures", "--block", "16", "-o", plan).status == 0
    arguments = ("--plan", plan, "--samples", "1", "-o", tmp_path / "run")
    assert paro("evaluate", folder, *running, *arguments).status == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert 25 < report["psnr_db"] < 120
    assert {entry["layer"] for entry in report["attention"]} == set(range(case.layers))


def test_a_model_computes_in_another_dtype(paro, model, tmp_path):
    running = ("--steps", "2", "--dtype", "bfloat16", "--device", "cpu")
    assert paro("capture", model, *running, "--at", "0", "-o", tmp_path / "captures").status == 0
    captures = [load_capture(path) for path in (tmp_path / "captures").iterdir()]
    assert len(captures) == 2
    assert {capture.q.dtype for capture in captures} == {torch.bfloat16}
    plan = tmp_path / "plan.safetensors"
    assert paro("calibrate", tmp_path / "captures", "-o", plan).status == 0
    arguments = ("--plan", plan, "--samples", "1", "-o", tmp_path / "run")
    assert paro("evaluate", model, *running, *arguments).status == 0
    assert json.loads((tmp_path / "run/report.json").read_text())["psnr_db"] > 20


def test_models_share_a_budget(paro, tmp_path):
    one = some_heads("one", tmp_path, [2])
    other = some_heads("other", tmp_path, [6, 10])
    outcome = paro("calibrate", one, other, "-o", tmp_path / "plans")
    assert outcome.status == 0
    found = [load_model_plan(tmp_path / f"plans/{name}.safetensors") for name in ("one", "other")]
    assert [len(plan.heads) for plan in found] == [1, 2]
    output = tmp_path / "run"
    outcome = paro("evaluate", one, other, "--plan", tmp_path / "plans", "-o", output, "--report")
    assert outcome.status == 0
    summary = json.loads((output / "report.json").read_text())["all"]
    assert summary["mean_bits"] == pytest.approx(4.8, abs=0.02)
    assert (summary["heads"], summary["worst_capture"]) == (3, "other")
    page = (output / "report.html").read_text()
    assert page.count("<img") == 4
    assert '<tr class="worst"><td>other</td>' in page


@pytest.mark.parametrize("what", ["formats", "sparsity", "ablation"])
def test_studies(paro, tmp_path, what):
    source = some_heads("one", tmp_path, [2, 6])
    options = {"formats": ("--bits", "3,6"), "sparsity": ("--density", "0.5"), "ablation": ()}
    outcome = paro("study", what, source, *options[what], "-o", tmp_path / "study")
    assert outcome.status == 0
    written = {path.name for path in (tmp_path / "study").iterdir()}
    assert written == {f"{what}.json"} | ({"formats.png"} if what == "formats" else set())
    assert json.loads((tmp_path / f"study/{what}.json").read_text())


def test_study_of_processing_elements(paro, tmp_path, monkeypatch):
    two = functools.partial(pe_study.measure, names=("fixed", "paro"))
    monkeypatch.setattr(pe_study, "measure", two)
    source = some_heads("one", tmp_path, [2])
    outcome = paro("study", "pe", source, "--no-place", "-o", tmp_path / "study")
    assert outcome.status == 0
    written = {path.name for path in (tmp_path / "study").iterdir()}
    assert written == {"pe.json", "pe.png", "build"}
    fixed, own = json.loads((tmp_path / "study/pe.json").read_text())["rows"]
    assert str(own["area"]) in outcome.out
    assert "MHz" not in outcome.out
    assert own["mean_snr_db"]["4.8"] > fixed["mean_snr_db"]["4.8"]
    assert own["cell_area"] is None


def test_bad_input(refused, model, tmp_path):
    capture = some_heads("one", tmp_path, [2])
    other = some_heads("other", tmp_path, [2])
    output = ("-o", tmp_path / "out")
    refused("does not exist", "calibrate", tmp_path / "none", *output)
    refused("is a file; legal: a folder", "calibrate", capture, other, "-o", "p.safetensors")
    refused("density = 2.0 is not legal", "calibrate", capture, "--density", "2", *output)
    refused("order = 'XYZ' is not legal", "calibrate", capture, "--order", "XYZ", *output)
    refused("format = 'fp8' is not legal", "calibrate", capture, "--format", "fp8", *output)
    refused("floor_bits = 5.0", "calibrate", capture, "--floor-bits", "5", *output)
    refused("step groups = 0", "calibrate", capture, "--step-groups", "0", *output)
    refused(
        "lies in the step group that begins at 0.5", "calibrate", capture, "--step-groups", "2",
        *output,
    )  # fmt: skip
    refused("there is no study 'x'", "study", "x", capture, *output)
    refused("bits = 'x' is not a list of numbers", "study", "formats", capture, "--bits", "x",
            *output)  # fmt: skip
    refused("captures do not suit this study", "study", "carry-over", capture, *output)
    refused("the study 'formats' needs captures", "study", "formats", *output)
    refused("--no-place is not for the study 'formats'", "study", "formats", capture, "--no-place",
            *output)  # fmt: skip
    refused("--liberty is not for the study 'formats'", "study", "formats", capture, "--liberty",
            capture, *output)  # fmt: skip
    refused(
        "'network' makes its captures itself; legal: none", "study", "network", capture, *output
    )
    refused("cell library none does not exist", "study", "pe", "--liberty", "none", *output)
    refused("--bits is not for the study 'pe'", "study", "pe", "--bits", "3", *output)
    refused("no board 'x'; legal: ulx3s-12f", "study", "fit", "--board", "x", *output)
    refused("--board is not for the study 'pe'", "study", "pe", "--board", "x", *output)
    refused("does not exist", "capture", tmp_path / "none", *output)
    refused("at = 1.5 is not legal", "capture", model, "--at", "1.5", *output)
    refused("prompt = 'x' is not legal", "capture", model, "--prompt", "x", *output)
    refused("variant = 'x' is not legal", "capture", model, "--variant", "x", *output)
    legal = "dtype = 'int8' is not legal; legal: float32, bfloat16, float16"
    refused(legal, "capture", model, "--dtype", "int8", *output)
    for device in ("gpu", "meta", "cpu:x"):
        legal = f"device = '{device}' is not there; legal: cpu"
        refused(legal, "capture", model, "--device", device, *output)
    refused("format = 'x' is not legal", "evaluate", capture, "--plan", "p", "--format", "x",
            *output)  # fmt: skip
    refused("--bits is not for the study 'ablation'", "study", "ablation", capture, "--bits", "3",
            *output)  # fmt: skip
    refused("avg_bits = 9.0 is not legal", "study", "formats", capture, "--bits", "3,9", *output)
    refused("at = 7.0 is not legal", "study", "carry-over", capture, "--at", "7", *output)
    refused("floor_bits and format are for widths", "calibrate", capture, "--density", "0.5",
            "--floor-bits", "3", *output)  # fmt: skip
    refused("movingdigits does not exist", "evaluate", "movingdigits", "--plan", "p", *output)
    refused("is a model, and stands alone", "evaluate", model, capture, "--plan", "p", *output)
    refused("holds captures already", "capture", model, "-o", tmp_path)
    refused("--steps is for a model", "evaluate", capture, "--plan", "p", "--steps", "2", *output)
    refused("--device is for a model", "evaluate", capture, "--plan", "p", "--device", "cpu",
            *output)  # fmt: skip
    refused("--heads and --report are for captures", "evaluate", model, "--plan", "p", "--report",
            *output)  # fmt: skip
    refused("plan p does not exist", "evaluate", model, "--plan", "p", *output)


def test_a_plan_of_another_model_is_refused(paro, refused, model, tmp_path):
    source = some_heads("one", tmp_path, [2])
    plan = tmp_path / "plan.safetensors"
    paro("calibrate", source, "-o", plan)
    other = some_heads("other", tmp_path, [2])
    output = ("-o", tmp_path / "out")
    refused("is of another capture or model", "evaluate", other, "--plan", plan, *output)
    refused("the plan is of another model", "evaluate", model, "--plan", plan, *output)
    (tmp_path / "plans").mkdir()
    plan.rename(tmp_path / "plans/plan.safetensors")
    refused(
        "holds 1 plans, none of the model", "evaluate", other, "--plan", tmp_path / "plans", *output
    )


def test_a_models_video_through_the_integer_network(paro, refused, model, tmp_path):
    """Its report and pictures; a plan without layers is refused before the work."""
    captures, plan = tmp_path / "captures", tmp_path / "plan.safetensors"
    at = ("--steps", "2", "--at", "0,0.5")
    assert paro("capture", model, "--what", "both", *at, "-o", captures).status == 0
    budget = ("calibrate", captures, "--avg-bits", "8", "--weight-bits", "8", "-o", plan)
    assert paro(*budget, "--transform", "none", "--input-transform", "none").status == 0
    run = ("run", model, "--device", "model", "--steps", "2", "-o", tmp_path / "run")
    outcome = paro(*run, "--plan", plan)
    assert outcome.status == 0
    for text in ("device: Linear", "host: guidance and Euler steps", "blocks.1.network", "psnr db"):
        assert text in outcome.out
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["psnr_db"] > 40
    assert report["bit_exact"] is None  # nothing but the integer model has computed a word
    assert report["steps"] == []
    for picture in ("film.gif", "contact_sheet.png"):
        with Image.open(tmp_path / "run" / picture) as image:
            assert image.size[0] > 16
    attention = tmp_path / "attention.safetensors"
    heads = [path for path in captures.glob("*.safetensors") if "blocks" not in path.name]
    made = ("calibrate", *heads, "--avg-bits", "8", "--transform", "none", "-o", attention)
    assert paro(*made).status == 0
    refused("the plan lacks layer", *run, "--plan", attention)
    fields = {
        "block = 32 does not fit the plan of layer blocks.0": ("--block", "32"),
        "head_dim = 64 does not fit the model; legal: 32": ("--head-dim", "64"),
        "vector_channels = 0 does not fit the model; legal: 128": ("--vector-channels", "0"),
        "max_tokens = 64 does not fit the model; legal: 512 or": ("--max-tokens", "64"),
    }
    for sentence, options in fields.items():
        refused(sentence, *run, "--plan", plan, *options)


#: Pipelines whose blocks have rules, and sizes to ask for.
PROGRAMS = {
    "DiT": (functools.partial(dit, **WIDE_HEADS), ()),
    "DiT, heads of 16 channels": (dit, ()),
    "CogVideoX": (
        functools.partial(cogvideox, heads=WIDE_HEADS),
        ("--frames", "9", "--height", "32", "--width", "48"),
    ),
    "Flux": (functools.partial(flux, heads=WIDE_HEADS), ("--height", "16", "--width", "16")),
    "PixArt": (
        functools.partial(pixart, diffusers.PixArtSigmaPipeline, WIDE_HEADS),
        ("--height", "16", "--width", "16"),
    ),
    "Wan": (
        functools.partial(wan, WIDE_HEADS),
        ("--frames", "5", "--height", "32", "--width", "48"),
    ),
}
FAST_PROGRAMS = ("DiT, heads of 16 channels", "Flux", "Wan")
BLOCKS = {name: 3 if name == "Flux" else 2 for name in PROGRAMS}


def run_report(folder):
    """Report of a run, whose blocks all are near float in what they add."""
    report = json.loads((folder / "report.json").read_text())
    for row in report["blocks"]:
        assert 120 > row["snr_db"] >= row["worst_snr_db"] > 20, row
        assert row["added_snr_db"] > 15, row
    assert report["snr_db"] > 20
    assert report["psnr_db"] > 25
    return report


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST_PROGRAMS else pytest.param(name, marks=pytest.mark.slow)
        for name in PROGRAMS
    ],
)
def test_a_pipeline_of_diffusers_through_the_integer_network(paro, tmp_path, name):
    """Split by rule, calibrated under one budget, run whole; the plan that it keeps runs again."""
    build, size = PROGRAMS[name]
    folder = write(build, tmp_path / "pipeline")
    run = ("run", folder, *size, "--device", "model", "--steps", "2", "--block", "16")
    outcome = paro(*run, "-o", tmp_path / "run")
    assert outcome.status == 0
    for text in ("device: Linear", "device: Attend", "host: guidance, sampler", "blocks against"):
        assert text in outcome.out
    report = run_report(tmp_path / "run")
    assert len(report["blocks"]) == BLOCKS[name]
    assert report["bit_exact"] is None
    plan = load_model_plan(tmp_path / "run/plan.safetensors")
    assert plan.block == 16
    assert plan.avg_bits == pytest.approx(4.8, abs=0.01)
    again = paro(*run, "--plan", tmp_path / "run/plan.safetensors", "-o", tmp_path / "again")
    assert again.status == 0
    assert run_report(tmp_path / "again")["blocks"] == report["blocks"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_pipeline_of_diffusers_in_the_accelerator(paro, tmp_path):
    """A step of the sampler in the Verilog: every word is the integer model's."""
    build, _ = PROGRAMS["DiT"]
    folder = write(build, tmp_path / "pipeline")
    # The accelerator of tests.sim.cosim.network_runs, whose bench is compiled once.
    size = ("--rows", "8", "--cols", "8", "--block", "16", "--axi-bits", "64")
    run = ("run", folder, "--device", "rtl", "--steps", "2", "--on-device", ":1", *size)
    outcome = paro(*run, "-o", tmp_path / "run")
    assert outcome.status == 0
    report = run_report(tmp_path / "run")
    assert report["bit_exact"]
    assert report["mismatches"] == 0
    # Both halves of the guidance, 16 tokens of 64 channels.
    assert report["words_compared"] == 2 * 16 * 64
    (step,) = report["steps"]
    assert step["cycles"] > 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pipelines_that_the_device_cannot_run_are_refused(paro, refused, tmp_path):
    output = ("--device", "model", "--steps", "2", "-o", tmp_path / "run")
    ltx = write(CASES["LTX"].build, tmp_path / "ltx")
    two = write(CASES["Wan 2.2"].build, tmp_path / "wan")
    narrow = write(cogvideox, tmp_path / "cogvideox")
    odd = write(functools.partial(dit, attention_head_dim=24), tmp_path / "dit")
    cases = {
        "no rules make a program of the blocks of LTXPipeline; legal: moving-digits, "
        "CogVideoXPipeline, WanPipeline, FluxPipeline, DiTPipeline, PixArtAlphaPipeline, "
        "PixArtSigmaPipeline": (ltx, "--frames", "9", "--height", "64", "--width", "96"),
        "this WanPipeline has two transformers, and a program is of the blocks of one; legal: a "
        "pipeline of one transformer": (two, "--frames", "5", "--height", "32", "--width", "48"),
        "transformer.transformer_blocks.0.attn1.norm_q.norm has a LayerNorm of heads that no "
        "accelerator has, and zeros up to 32 channels would change it; legal: heads of 32, 64, "
        "128, 256": (narrow, "--frames", "9", "--height", "32", "--width", "48"),
        "layer transformer.transformer_blocks.0.attn1.to_q has rows of 48 channels, which the "
        "vector unit does not take; legal: multiples of head_dim = 32": (odd,),
    }
    for sentence, arguments in cases.items():
        outcome = paro("run", *arguments, *output)
        assert outcome.status == 2
        # Before it stands what the libraries say while they load.
        assert outcome.err.splitlines()[-1] == f"paro: error: {sentence}"
        assert not (tmp_path / "run").exists()
    on_capture = ("run", DEMO_CAPTURE, "--device", "sim", "-o", tmp_path / "run")
    refused("--prompt is for a model", *on_capture, "--prompt", "a panda")
