"""`paro calibrate`: what it prints of heads, and what it warns of."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from firmware_model.calibration.plan import load_model_plan


@pytest.fixture
def capture(tmp_path):
    """Two heads of 4 x 4 x 4 tokens beside 40 of text; the second one is louder by a factor."""

    def write(gain=1.0, prefix=40):
        generator = torch.Generator().manual_seed(0)
        q, k, v = torch.randn(3, 2, 64 + prefix, 32, generator=generator).unbind()
        q[1] *= gain
        path = tmp_path / "capture.safetensors"
        metadata = {"grid": "4,4,4", "prefix_tokens": str(prefix)}
        save_file({"q": 2 * q, "k": k, "v": v}, path, metadata)
        return path

    return write


def warnings(outcome):
    assert outcome.status == 0, outcome
    lines = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    return [line.removeprefix("warning: ") for line in lines]


def test_every_head_is_told_with_its_loss(paro, capture, tmp_path):
    outcome = paro("calibrate", capture(), "--block", "16", "-o", tmp_path / "plan")
    rows = [line.split("│")[1:-1] for line in outcome.out.splitlines() if line.startswith("│")]
    assert [row[1].strip() for row in rows] == ["0", "1"]
    for row in rows:
        snr, best, loss = (float(cell) for cell in row[-3:])
        assert loss == pytest.approx(best - snr, abs=0.11)
        assert loss > 0
    printed = " ".join(outcome.out.split())
    quality = [float(row[-3]) for row in rows]
    found = re.search(r"quality: ([\d.]+) dB in the mean, ([\d.]+) at worst \(head (\d)", printed)
    assert found is not None
    assert float(found[1]) == pytest.approx(sum(quality) / 2, abs=0.11)
    assert (float(found[2]), int(found[3])) == (min(quality), quality.index(min(quality)))
    assert "loss against 8 bits: " in printed
    for bound, heads in (("0", 2), ("60", 0)):
        again = paro(
            "calibrate", capture(), "--block", "16", "--max-loss", bound, "-o", tmp_path / "plan"
        )
        told = warnings(again)
        assert len(told) == heads
        assert all(
            "against its own 8 bits" in line and f"more than {bound}" in line for line in told
        )


def test_a_mean_that_is_not_met_is_said(paro, capture, tmp_path):
    options = ("--block", "16", "--avg-bits", "2", "--max-loss", "99", "-o", tmp_path / "plan")
    assert warnings(paro("calibrate", capture(), *options)) == []
    (sentence,) = warnings(paro("calibrate", capture(), "--text-bits", "4", *options))
    mean = load_model_plan(tmp_path / "plan").mean_bits()
    assert mean > 2.2
    assert sentence == (
        f"2.00 bits were asked for and the plan has {mean:.2f}: every row keeps a live block, and "
        "floors hold"
    )


def test_a_head_beyond_the_format_is_named_and_left_out(paro, capture, refused, tmp_path):
    path, plan = capture(gain=1e4, prefix=0), tmp_path / "plan"
    outcome = paro("calibrate", path, "--block", "16", "--max-loss", "99", "-o", plan)
    (sentence,) = warnings(outcome)
    assert f"capture {path}, head 1: logits beyond the format" in sentence
    assert sentence.endswith("; the plan leaves it out")
    assert paro("evaluate", path, "--plan", plan, "-o", tmp_path / "e").status == 0
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    assert [head["head"] for head in report["heads"]] == [0]
    refused("the plan has no head 1", "evaluate", path, "--plan", plan, "--heads", "1", "-o", "x")
    refused("head 1: logits beyond", "calibrate", path, "--block", "16", "--heads", "1", "-o", "x")


def test_a_sweep_has_the_plan_of_each_width(paro, capture, tmp_path):
    path, folder = capture(), tmp_path / "plans"
    outcome = paro("calibrate", path, "--block", "16", "--sweep", "2,4.8,8", "-o", folder)
    assert outcome.status == 0, outcome.err
    report = json.loads((folder / "sweep.json").read_text())
    files = ["bits_2.safetensors", "bits_4.8.safetensors", "bits_8.safetensors", "sweep.json"]
    assert sorted(file.name for file in folder.iterdir()) == files
    rows = report["rows"]
    assert [row["plans"] for row in rows] == [[file] for file in files[:3]]
    assert [row["mean_bits"] for row in rows] == pytest.approx([2, 4.8, 8], abs=0.1)
    for name in ("mean_snr_db", "worst_snr_db", "relative_cycles", "density"):
        values = [row[name] for row in rows]
        assert values == sorted(values), name
    assert rows[2]["relative_cycles"] == 1
    assert all(f"{row['mean_snr_db']:.1f}" in outcome.out for row in rows)
    single = tmp_path / "single.safetensors"
    assert paro("calibrate", path, "--block", "16", "-o", single).status == 0
    assert single.read_bytes() == (folder / "bits_4.8.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("sentence", "output", "options"),
    [
        ("avg_bits = 9.0 is not legal", "plans", ["--sweep", "2,9"]),
        ("sweep = '2,x' is not a list of numbers", "plans", ["--sweep", "2,x"]),
        ("has a width twice", "plans", ["--sweep", "2,3,2.0"]),
        ("is a file; legal: a folder", "plan.safetensors", ["--sweep", "2,3"]),
        ("without --avg-bits, --density", "plans", ["--sweep", "2", "--density", "0.3"]),
        ("without --avg-bits, --density", "plans", ["--sweep", "2", "--avg-bits", "3"]),
        (
            "floor_bits = 3.0 is not legal; legal: 0 to 2",
            "plans",
            ["--sweep", "4,2", "--floor-bits", "3"],
        ),
    ],
)
def test_a_sweep_that_is_not_legal(refused, capture, tmp_path, sentence, output, options):
    refused(sentence, "calibrate", capture(), *options, "-o", tmp_path / output)
