"""Models as they are opened, captured and compared."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from firmware_model.calibration.calibrate import calibrate, calibrate_models
from firmware_model.calibration.goal import Goal, step_group_starts
from firmware_model.calibration.plan import step_group
from firmware_model.layer import Layer
from firmware_model.models.generation import compare_generation
from firmware_model.models.layer_study import layer_study
from firmware_model.models.models import (
    capture_model,
    open_model,
)
from firmware_model.models.names import OWN_CHECKPOINT, OWN_MODEL, is_model
from firmware_model.models.pipeline import Attention, AttentionCall, Linear, ModelShape
from firmware_model.models.video.checkpoint import save_model
from firmware_model.models.video.transformer import TOKENS, Shape, VideoTransformer
from firmware_model.progress import Progress
from firmware_model.quality import metrics
from firmware_model.quality.study import carry_over_study
from firmware_model.reference.methods import Method
from paro.config import ParoError


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    torch.manual_seed(1)
    model = VideoTransformer(Shape(layers=2, heads=2, head_dim=32))
    torch.nn.init.normal_(model.output.weight, std=0.2)
    for name, parameter in model.named_parameters():
        if name.endswith("q_norm.weight"):
            # Attention that is not flat, as that of a trained model.
            torch.nn.init.constant_(parameter, 2.5)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(model, path)
    return open_model(path, steps=4)


@pytest.fixture(scope="module")
def captures(pipeline, tmp_path_factory):
    found = []
    folder = tmp_path_factory.mktemp("captures")
    capture_model(pipeline, folder, 1, (0.0, 0.5, 0.75), found.append)
    return found


@pytest.fixture(scope="module")
def layers(pipeline, tmp_path_factory):
    found = []
    folder = tmp_path_factory.mktemp("layers")
    capture_model(pipeline, folder, 1, (0.0, 0.5), found.append, what="linear", layer_tokens=200)
    return found


def test_models_are_told_from_captures(pipeline, demo, tmp_path):
    assert is_model(tmp_path.joinpath(OWN_MODEL).relative_to(tmp_path))
    assert is_model(OWN_CHECKPOINT)
    assert not is_model(demo.path)
    assert not is_model(tmp_path)
    assert not is_model(tmp_path / "nothing")
    with pytest.raises(ParoError, match=r"prompt = 'x' is not legal: model .* has no such choice"):
        open_model(OWN_CHECKPOINT, prompt="x")


def test_captures_of_a_model(pipeline, captures):
    assert len(captures) == 3 * 2
    assert {(c.layer, c.progress) for c in captures} == {
        (layer, progress) for layer in (0, 1) for progress in (0.0, 0.5, 0.75)
    }
    for capture in captures:
        assert capture.model == pipeline.identity
        assert capture.q.shape == (2, TOKENS, 32)
    assert len({capture.path for capture in captures}) == 6
    assert not torch.equal(captures[0].q, captures[2].q)
    with pytest.raises(ParoError, match=r"at = 1.0 is not legal; legal: shares of the steps"):
        capture_model(pipeline, captures[0].path.parent, 1, (1.0,), print)
    with pytest.raises(ParoError, match="samples = 0 is not legal"):
        capture_model(pipeline, captures[0].path.parent, 0, (0.0,), print)


class ItemByItem:
    """A model whose batch of two, guidance's halves, is two calls; the model runs twice a step."""

    identity = "f" * 64
    shape = ModelShape(layers=1, heads=1, head_dim=4, grid=(1, 1, 2), steps=1)
    linears: Mapping[str, torch.nn.Linear] = MappingProxyType({})

    def generate(
        self,
        sample: int,
        attention: Attention | None = None,
        progress: Progress | None = None,
        linear: Linear | None = None,
    ) -> torch.Tensor:
        assert attention is not None
        for value, last in ((1.0, False), (2.0, True), (3.0, False), (4.0, True)):
            q = torch.full((1, 1, 2, 4), value)
            attention(AttentionCall(0, 0, q, q, q, 0.5, last))
        return torch.zeros(1, 1, 1, 1)


def test_the_last_item_of_the_first_run_is_captured(tmp_path):
    found = []
    capture_model(ItemByItem(), tmp_path, 1, (0.0,), found.append)
    assert [capture.q.unique().tolist() for capture in found] == [[2.0]]


def test_times_of_captures_reach_into_their_step_groups(pipeline, tmp_path):
    """Shares that fall between two steps take the later one, never the group before."""
    found = []
    capture_model(open_model(OWN_CHECKPOINT, 25), tmp_path, 1, step_group_starts(5), found.append)
    starts = step_group_starts(5)
    assert sorted({step_group(starts, c.progress) for c in found}) == [0, 1, 2, 3, 4]
    assert sorted({round(c.progress * 25) for c in found}) == [0, 4, 7, 10, 13]
    for at in ((0.9,), (0.3, 0.4)):
        with pytest.raises(ParoError, match="no two of them the same step"):
            capture_model(pipeline, tmp_path, 1, at, print)


def test_layers_of_a_model(pipeline, layers):
    names = [
        f"blocks.{block}.{name}"
        for block in (0, 1)
        for name in ("qkv", "projection", "network.0", "network.2")
    ]
    assert [layer.name for layer in layers] == 2 * names
    assert sorted(pipeline.linears) == sorted(names)
    assert len({layer.path for layer in layers}) == len(layers)
    for layer in layers:
        assert layer.x.shape == (200, layer.inputs)
        assert (layer.model, layer.run_tokens) == (pipeline.identity, TOKENS)
        assert torch.equal(layer.weight, pipeline.linears[layer.name].weight)
    assert not torch.equal(layers[0].x, layers[8].x)
    both = []
    capture_model(pipeline, layers[0].path.parent, 1, (0.5,), both.append, what="both")
    assert [isinstance(found, Layer) for found in both] == 2 * [True, False, True, True, True]
    assert torch.equal(both[0].x[torch.arange(200) * TOKENS // 200], layers[8].x)
    folder = layers[0].path.parent
    with pytest.raises(
        ParoError, match="what = 'all' is not legal; legal: attention, linear, both"
    ):
        capture_model(pipeline, folder, 1, (0.5,), both.append, what="all")
    with pytest.raises(ParoError, match="layer_tokens = 0 is not legal"):
        capture_model(pipeline, folder, 1, (0.5,), both.append, layer_tokens=0)


def test_generation_through_planned_layers(pipeline, captures, layers):
    """Each part of a plan takes the place of its own, and more bits are closer."""
    found = {}
    for bits in (8, 2):
        (result,) = calibrate_models([], layers, Goal(weight_bits=bits), head_dim=32)
        report = compare_generation(pipeline, result.plan, Method(), 1).report
        assert report["weight_bits"] == bits
        assert (report["mean_bits"], report["attention"]) == (None, [])
        places = {(entry["step"], entry["layer"]) for entry in report["linear"]}
        assert places == {(step, name) for step in range(4) for name in pipeline.linears}
        found[bits] = report["psnr_db"]
    assert found[8] > found[2] + 5 > 25
    with pytest.raises(ParoError, match="format = 'float' is for attention, and the plan has non"):
        compare_generation(pipeline, result.plan, Method("float"), 1)
    goal = Goal(avg_bits=8.0, weight_bits=8)
    (both,) = calibrate_models(captures, layers, goal)
    report = compare_generation(pipeline, both.plan, Method(), 1).report
    assert report["attention"]
    assert report["linear"]
    assert found[8] - 8 < report["psnr_db"] < found[8] + 3


def test_study_of_layers(pipeline, layers):
    rows = layer_study(pipeline, layers, (8.0, 4.0, 2.0), 1, head_dim=32)
    found = {(row["weights"], row["inputs"], row["bits"]): row["psnr_db"] for row in rows}
    token, static = "INT8 by token", "INT8, one scale"
    assert set(found) == {
        *(("float", token, None), ("integers, groups of 128", token, 4.0)),
        *(("digits", token, bits) for bits in (8.0, 4.0, 2.0)),
        *(("digits", static, bits) for bits in (8.0, 4.0)),
        ("digits, to nearest", token, 4.0),
    }
    assert found["digits", token, 8.0] > found["digits", token, 4.0] > found["digits", token, 2.0]
    assert found["digits", token, 4.0] > found["digits, to nearest", token, 4.0]
    assert found["digits", token, 4.0] > found["integers, groups of 128", token, 4.0] + 5
    assert found["digits", static, 8.0] < found["digits", token, 8.0]
    assert min(found.values()) > 15
    with pytest.raises(ParoError, match="captures are of another model or of attention; legal: th"):
        layer_study(open_model(OWN_CHECKPOINT, 1), layers, (8.0,), 1)


def test_generation_through_a_plan(pipeline, captures):
    plans = {
        bits: calibrate(captures, Goal(avg_bits=bits, step_groups=step_group_starts(2)))[0]
        for bits in (8.0, 3.0)
    }
    results = {
        bits: compare_generation(pipeline, plan, Method(), 2) for bits, plan in plans.items()
    }
    for bits, result in results.items():
        report = result.report
        assert report["mean_bits"] == pytest.approx(bits, abs=0.1)
        assert [entry["sample"] for entry in report["per_sample"]] == [0, 1]
        for entry, own, planned in zip(
            report["per_sample"], result.own, result.planned, strict=True
        ):
            assert entry["psnr_db"] == pytest.approx(metrics.psnr_db(planned, own), abs=1e-3)
        assert {(e["step"], e["layer"]) for e in report["attention"]} == {
            (step, layer) for step in range(4) for layer in range(2)
        }
        assert report["worst_psnr_db"] <= report["psnr_db"]
    assert results[8.0].report["psnr_db"] > results[3.0].report["psnr_db"] > 20
    exact = compare_generation(pipeline, plans[8.0], Method("float"), 1)
    assert exact.report["psnr_db"] is None or exact.report["psnr_db"] > 90
    with pytest.raises(ParoError, match="samples = 0 is not legal"):
        compare_generation(pipeline, plans[8.0], Method(), 0)


def test_step_groups():
    assert step_group_starts(1) == (0.0,)
    assert step_group_starts(2) == (0.0, 0.5)
    assert step_group_starts(5) == (0.0, 0.125, 0.25, 0.375, 0.5)
    with pytest.raises(ParoError, match="step groups = 0 is not legal"):
        step_group_starts(0)


def test_carry_over(captures, demo):
    rows = carry_over_study(captures, 0.7, Goal(avg_bits=4.0))
    assert [row["progress"] for row in rows] == [0.0, 0.5, 0.75]
    assert [row["calibrated_here"] for row in rows] == [False, False, True]
    assert rows[-1]["mean_loss_db"] == rows[-1]["worst_loss_db"] == 0
    assert rows[0]["mean_loss_db"] == pytest.approx(
        rows[0]["own_mean_snr_db"] - rows[0]["mean_snr_db"], abs=2e-3
    )
    with pytest.raises(ParoError, match="captures do not suit this study"):
        carry_over_study([demo], 0.7, Goal())


def test_picture_metrics():
    g = torch.Generator().manual_seed(0)
    video = torch.rand(2, 16, 16, 3, generator=g)
    assert metrics.psnr_db(video, video) == math.inf
    assert metrics.psnr_db(video + 0.1, video) == pytest.approx(20, abs=1e-4)
    assert metrics.ssim(video, video) == pytest.approx(1)
    noise = 0.1 * torch.randn(video.shape, generator=g)
    assert 0.5 < metrics.ssim(video + noise, video) < 0.98
    assert metrics.ssim(1 - video, video) < 0
    # One window, computed by hand from its definition.
    a, b = video[:1, :7, :7, :1].double(), (video + noise)[:1, :7, :7, :1].double()
    mean_a, mean_b, c1, c2 = a.mean(), b.mean(), 1e-4, 9e-4
    covariance = ((a - mean_a) * (b - mean_b)).sum() / 48
    expected = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    expected /= (mean_a**2 + mean_b**2 + c1) * (a.var() + b.var() + c2)
    assert metrics.ssim(b, a) == pytest.approx(expected.item(), abs=1e-9)


def test_the_shipped_model_generates_moving_digits():
    pipeline = open_model(Path(OWN_MODEL))
    assert OWN_CHECKPOINT.stat().st_size < 6e6
    video = pipeline.generate(0)[..., 0]
    ink = (video > 0.5).float().mean(dim=(1, 2))
    # A digit covers about a tenth of the frame, in every frame.
    assert 0.03 < ink.min() <= ink.max() < 0.3
    rows = torch.arange(video.shape[1]).float()
    height = (video.sum(dim=2) * rows).sum(dim=1) / video.sum(dim=(1, 2))
    assert height.max() - height.min() > 1


@pytest.mark.slow
def test_videos_survive_the_integer_model(tmp_path):
    """Two samples, every attention of every layer and step bit-exact hardware arithmetic."""
    pipeline = open_model(Path(OWN_MODEL))
    found = []
    capture_model(pipeline, tmp_path, 1, (0.0, 0.2, 0.4, 0.6, 0.8), found.append)
    (plan,) = calibrate(found, Goal(avg_bits=4.8, relative_to="signal"))
    report = compare_generation(pipeline, plan, Method(), 2).report
    assert report["mean_bits"] == pytest.approx(4.8, abs=0.01)
    assert report["psnr_db"] >= 30
    assert report["ssim"] >= 0.97
