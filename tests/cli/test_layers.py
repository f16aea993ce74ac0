"""Commands on linear layers: capture, calibrate, evaluate."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from firmware_model import DEMO_CAPTURE
from firmware_model.calibration.plan import load_model_plan
from firmware_model.models.video.checkpoint import save_model
from firmware_model.models.video.transformer import Shape, VideoTransformer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(2)
    network = VideoTransformer(Shape(layers=1, heads=1, head_dim=32))
    torch.nn.init.normal_(network.output.weight, std=0.2)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(network, path)
    return path


@pytest.fixture
def layer(tmp_path):
    """Write a layer of 40 outputs and 96 inputs; another seed is another layer."""

    def write(file="a", seed=0, **metadata):
        random = torch.Generator().manual_seed(seed)
        shapes = {"x": (50, 96), "weight": (40, 96), "bias": (40,)}
        tensors = {key: torch.randn(shape, generator=random) for key, shape in shapes.items()}
        path = tmp_path / f"{file}.safetensors"
        save_file(tensors, path, {"kind": "linear", "name": file} | metadata)
        return path

    return write


def test_a_model_with_attention_and_layers(paro, model, tmp_path):
    captures, plan = tmp_path / "captures", tmp_path / "plan.safetensors"
    running = ("--steps", "2")
    options = ("--at", "0,0.5", "--what", "both", "--layer-tokens", "100")
    outcome = paro("capture", model, *running, *options, "-o", captures)
    assert outcome.status == 0
    assert "written: 2 captures in" in outcome.out
    assert "written: 8 captures of 4 linear layers in" in outcome.out
    outcome = paro("calibrate", captures, "--weight-bits", "3", "-o", plan)
    assert outcome.status == 0
    assert "4 linear layers, 3.0" in " ".join(outcome.out.split())
    loaded = load_model_plan(plan)
    assert len(loaded.linear) == 4
    assert loaded.mean_bits() == pytest.approx(4.8, abs=0.05)
    outcome = paro("evaluate", captures, "--plan", plan, "-o", tmp_path / "heads")
    assert outcome.status == 0
    report = json.loads((tmp_path / "heads/report.json").read_text())
    assert (report["all"]["heads"], report["all_layers"]["layers"]) == (2, 8)
    videos = tmp_path / "videos"
    arguments = ("--plan", plan, *running, "--samples", "1", "-o", videos)
    assert paro("evaluate", model, *arguments).status == 0
    report = json.loads((videos / "report.json").read_text())
    assert report["psnr_db"] > 20
    assert (len(report["attention"]), len(report["linear"])) == (2, 8)
    assert {"attention.png", "linear.png"} < {path.name for path in videos.iterdir()}
    shared = ("--shared", "--avg-bits", "3.2", "--relative-to", "signal")
    assert paro("calibrate", captures, *shared, "-o", tmp_path / "shared").status == 0
    loaded = load_model_plan(tmp_path / "shared")
    # 512 tokens: 64 blocks of QK and PV, by 2 * 64 tokens; tiles of 64 x 32 by 512.
    tiles = sum(own.weights.codes.numel() for own in loaded.linear)
    bits = torch.tensor([0.0, 2, 4, 8])
    spent = 512 * sum(bits[own.weights.codes.long()].sum() for own in loaded.linear)
    spent += 128 * bits[loaded.codes.long()].sum()
    assert 0.99 < spent / (3.2 * (128 * 64 + 512 * tiles)) <= 1 + 1e-6


def test_the_same_layers_make_the_same_bytes(paro, layer, tmp_path):
    files = (layer("a"), layer("b", 1))
    tables = []
    for name in ("one", "two"):
        outcome = paro("calibrate", *files, "--weight-bits", "3", "-o", tmp_path / name)
        assert outcome.status == 0
        rows = [line.split("│")[1:-1] for line in outcome.out.splitlines() if line.startswith("│")]
        tables.append(rows)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert tables[0] == tables[1]
    assert [row[0].strip() for row in tables[0]] == ["a", "b"]
    for row in tables[0]:
        snr, best, loss = (float(cell) for cell in row[-3:])
        assert loss == pytest.approx(best - snr, abs=0.11)
    warnings = paro(
        "calibrate", *files, "--weight-bits", "2", "--max-loss", "1", "-o", tmp_path / "p"
    )
    assert "warning: layer a loses" in warnings.err


def test_a_layer_is_evaluated(paro, layer, tmp_path):
    path, plan = layer(), tmp_path / "plan"
    assert paro("calibrate", path, "--weight-bits", "8", "-o", plan).status == 0
    outcome = paro("evaluate", path, "--plan", plan, "-o", tmp_path / "run")
    assert outcome.status == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert (report["layer"], report["mean_bits"], report["bit_exact"]) == ("a", 8, None)
    y = load_file(tmp_path / "run/outputs.safetensors")["y"]
    stored = load_file(path)
    exact = stored["x"].double() @ stored["weight"].double().T + stored["bias"].double()
    noise = (y - exact).square().sum()
    assert report["snr_db"] == pytest.approx(
        10 * torch.log10(exact.square().sum() / noise).item(), abs=1e-3
    )
    assert report["snr_db"] > 35


def test_models_have_plans_of_their_own(paro, layer, tmp_path):
    one, other = layer("a", model="m"), layer("b", 1, model="n")
    assert paro("calibrate", one, other, "-o", tmp_path / "plans").status == 0
    assert {path.name for path in (tmp_path / "plans").iterdir()} == {
        "a.safetensors",
        "b.safetensors",
    }
    arguments = ("--plan", tmp_path / "plans", "-o", tmp_path / "run")
    assert paro("evaluate", one, other, *arguments).status == 0


def test_bad_input(paro, refused, layer, tmp_path):
    one, other, capture = layer("a"), layer("b", 1), DEMO_CAPTURE
    output = ("-o", tmp_path / "out")
    refused("weight_bits = 1.0 is not legal; legal: 2 to 8", "calibrate", one, "--weight-bits", "1",
            *output)  # fmt: skip
    refused("head_dim = 48 is not legal", "calibrate", one, "--head-dim", "48", *output)
    refused("input_transform = 'x' is not legal; legal: error, none", "calibrate", one,
            "--input-transform", "x", *output)  # fmt: skip
    refused("--weight-bits is not for --shared", "calibrate", one, capture, "--shared",
            "--weight-bits", "4", *output)  # fmt: skip
    refused("a shared budget is not legal with", "calibrate", one, capture, "--shared", *output)
    signal = ("--shared", "--relative-to", "signal")
    refused("there are layers alone", "calibrate", one, *signal, *output)
    refused("there is attention alone", "calibrate", capture, *signal, *output)
    refused("there are layers alone", "calibrate", one, "--density", "0.5", *output)
    refused("what = 'x' is not legal; legal: attention, linear, both", "capture", "moving-digits",
            "--what", "x", *output)  # fmt: skip
    refused("layer_tokens = 0 is not legal", "capture", "moving-digits", "--layer-tokens", "0",
            *output)  # fmt: skip
    same = layer("c", 2, name="a")
    refused("are both called a, but have other weights", "calibrate", one, same, *output)
    plan = tmp_path / "plan"
    assert paro("calibrate", one, "-o", plan).status == 0
    run = ("--plan", plan, *output)
    refused(f"plan {plan}: the plan has no linear layer b; legal: a", "evaluate", other, *run)
    refused(f"plan {plan}: the plan of layer a is of another layer", "evaluate", same, *run)
    refused("--heads, --report and --format are for attention", "evaluate", one, "--format",
            "paper", *run)  # fmt: skip
    refused(
        "the plan has linear layers alone; legal: one with attention", "evaluate", capture, *run
    )
    refused("the plan is of another model", "evaluate", "moving-digits", *run)
    refused("captures are of another model", "study", "layers", one, *output)
    refused("captures are of another model or of attention", "study", "layers", capture, *output)
    refused("weight_bits = 1.0 is not legal", "study", "layers", one, "--bits", "1", *output)
    refused("samples = 0 is not legal", "study", "layers", one, "--samples", "0", *output)
    refused("the plan has linear layers alone", "estimate", "--model", "cogvideox-5b", *run)
