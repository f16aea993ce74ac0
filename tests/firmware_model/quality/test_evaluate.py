import json
import math

import pytest
import torch
from safetensors.torch import load_file

from firmware_model.calibration.calibrate import calibrate
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.plan import uniform_plan
from firmware_model.capture import load_capture
from firmware_model.choices import METHODS
from firmware_model.quality import metrics
from firmware_model.quality.evaluate import evaluate, write_outputs
from firmware_model.reference.attention import reference_attention
from firmware_model.reference.methods import Method
from paro.config import Config, ParoError


@pytest.fixture
def capture(make_capture):
    return load_capture(make_capture(grid=(5, 6, 7)))


def test_reference_attention():
    q, k, v = (torch.randn(1100, 16, dtype=torch.float64) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.3)
    assert torch.allclose(reference_attention(q, k, v, 0.3), expected, atol=1e-12)
    rows = torch.tensor([1000, 3])
    assert torch.allclose(reference_attention(q, k, v, 0.3, rows), expected[rows], atol=1e-12)


def test_outputs_stand_in_the_order_of_the_capture(capture, tmp_path):
    config = Config(block=16, head_dim=32)
    plan = calibrate([capture], Goal(avg_bits=8.0, block=16), (0, 1))[0].for_capture(capture)
    calls = []
    evaluation = evaluate(
        capture, plan, (1, 0), config, range(3, 6), lambda *call: calls.append(call)
    )
    assert calls == [(step, 6) for step in range(1, 7)]
    write_outputs(tmp_path / "run", evaluation.results, evaluation.report)
    assert {entry.name for entry in (tmp_path / "run").iterdir()} == {
        "outputs.safetensors",
        "report.json",
    }
    content = load_file(tmp_path / "run" / "outputs.safetensors")
    assert content["o"].dtype == torch.float32
    assert content["o"].shape == (2, 48, 20)
    for position, head in enumerate((1, 0)):
        rows = content["token_index"][position]
        assert (rows.diff() > 0).all()
        exact = reference_attention(
            capture.q[head], capture.k[head], capture.v[head], capture.scale, rows
        )
        measured = metrics.snr_db(content["o"][position], exact)
        assert measured > 30
        report = json.loads((tmp_path / "run" / "report.json").read_text())
        assert report["heads"][position]["head"] == head
        assert report["heads"][position]["snr_db"] == pytest.approx(measured, abs=1e-3)
    assert report["bit_exact"] is None
    assert report["outputs_compared"] == 0
    assert (report["mean_bits"], report["density"]) == (8.0, 1.0)


def test_every_method_can_be_scored(capture):
    config = Config(block=16, head_dim=32)
    plan = uniform_plan(capture, (0, 1), 16, order=4)
    assert len(METHODS) > 5
    for name in METHODS:
        calls = []
        evaluation = evaluate(
            capture,
            plan,
            (1, 0),
            config,
            range(3, 6),
            lambda *call, calls=calls: calls.append(call),
            Method(name),
        )
        assert calls == [(step, 6) for step in range(1, 7)]
        report = evaluation.report
        assert (report["format"], report["groups"]) == (name, "block")
        assert report["outputs_compared"] == 0
        assert report["bit_exact"] is None
        for result in evaluation.results:
            assert result.output.shape == (48, 20)
            assert result.output.dtype == torch.float32
            assert (result.token_index.diff() > 0).all()
            assert result.snr_db > (120 if name == "float" else 5)
            assert name not in ("integer", "digit", "paper", "int8", "pv-int8") or (
                result.snr_db > 25
            )
    rows = evaluate(capture, plan, (0,), config, method=Method("int8", "row")).report
    assert (rows["format"], rows["groups"]) == ("int8", "row")
    default = evaluate(capture, plan, (0,), config).report
    assert (default["format"], default["groups"]) == ("integer", "block")


def test_what_does_not_fit_is_refused(capture):
    plan = uniform_plan(capture, (0,), 16)
    with pytest.raises(ParoError, match="block = 64 does not fit the plan, whose blocks are 16"):
        evaluate(capture, plan, (0,), Config(head_dim=32))
    with pytest.raises(ParoError, match="the plan has no head 1; legal: 0"):
        evaluate(capture, plan, (1,), Config(block=16, head_dim=32))
    with pytest.raises(ParoError, match="within 0:14"):
        evaluate(capture, plan, (0,), Config(block=16, head_dim=32), range(14, 15))


def test_writes_both_files_or_neither(capture, tmp_path):
    plan = uniform_plan(capture, (0,), 16)
    evaluation = evaluate(capture, plan, (0,), Config(block=16, head_dim=32), range(1))
    (tmp_path / "report.json").mkdir()
    with pytest.raises(ParoError, match="cannot write"):
        write_outputs(tmp_path, evaluation.results, evaluation.report)
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == [
        "capture.safetensors"
    ]
    (tmp_path / "file").touch()
    with pytest.raises(ParoError, match="cannot write"):
        write_outputs(tmp_path / "file", evaluation.results, evaluation.report)


def test_metrics():
    reference = torch.tensor([3.0, 4.0])
    assert metrics.snr_db(reference, reference) == math.inf
    assert metrics.snr_db(reference + torch.tensor([0.3, 0.4]), reference) == pytest.approx(
        20, abs=1e-4
    )
    assert metrics.cosine(2 * reference, reference) == pytest.approx(1)
    assert metrics.cosine(torch.tensor([4.0, -3.0]), reference) == pytest.approx(0)
    assert metrics.relative_l1(reference + 0.7, reference) == pytest.approx(0.2)
    assert metrics.rmse(reference + 2, reference) == pytest.approx(2)
    zero = torch.zeros(2)
    assert (metrics.snr_db(reference, zero), metrics.cosine(zero, zero)) == (-math.inf, 1.0)
    assert (metrics.relative_l1(zero, zero), metrics.relative_l1(reference, zero)) == (
        0.0,
        math.inf,
    )
