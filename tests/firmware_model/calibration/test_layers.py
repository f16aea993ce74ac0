"""Linear layers from captures to plans."""

import dataclasses
from pathlib import Path

import pytest
import torch

from firmware_model.calibration.layers import (
    allocate_layers,
    measure_layer,
    plan_layer,
    round_layer,
)
from firmware_model.layer import Layer, open_layer, save_layer
from firmware_model.quality.layers import run_layer
from firmware_model.reference.linear import dequantize_outputs
from paro.config import Config, ParoError

CONFIG = Config(rows=4, cols=4, block=16, head_dim=32)


def layer(tokens=300, inputs=96, outputs=40, seed=0, name="a", outliers=False):
    """Inputs that go together, as real ones do, and weights with rows of different size."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    x = normal(tokens, 24) @ normal(24, inputs) + 0.3 * normal(tokens, inputs)
    if outliers:
        x[:, 5] *= 40
    weight = normal(outputs, inputs) * torch.exp(0.5 * normal(outputs, 1))
    return Layer(Path(f"{name}.safetensors"), x, weight, normal(outputs), name)


def snr(of, bits, **options):
    return run_layer(of, plan_layer(of, bits, CONFIG, **options), CONFIG).snr_db


def test_more_bits_are_nearer_to_float64():
    found = [snr(layer(), bits) for bits in (2, 3, 4, 8)]
    assert found == sorted(found)
    assert 25 < found[0] < 35
    assert found[-1] > 38


def test_words_are_those_of_the_plan():
    one = layer()
    plan = plan_layer(one, 3, CONFIG)
    result = run_layer(one, plan, CONFIG)
    assert result.words.dtype == torch.int16
    assert torch.equal(result.y, dequantize_outputs(result.words, plan.output).float())
    assert result.report()["snr_db"] == pytest.approx(result.snr_db, rel=1e-5)
    assert result.mean_bits == plan.mean_bits() == pytest.approx(3, abs=0.2)
    assert (result.words.abs() < 2**15 - 1).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_from_four_bits_on_a_layer_has_one_width(bits):
    plan = plan_layer(layer(), bits, CONFIG)
    assert (plan.weights.codes == {2: 1, 4: 2, 8: 3}[bits]).all()


def test_only_zero_tiles_are_skipped():
    one = layer()
    one.weight[16:32, 32:64] = 0
    for bits in (2, 3, 8):
        codes = plan_layer(one, bits, CONFIG).weights.codes
        assert ((codes == 0).nonzero() == torch.tensor([[1, 1]])).all()


def test_one_token_and_no_multiple_of_a_tile():
    one = layer(tokens=1, inputs=33, outputs=17)
    assert snr(one, 8) > 35


def test_rotation_serves_outliers_and_changes_no_exact_output():
    loud, calm = layer(inputs=128, outliers=True), layer(inputs=128)
    plan = plan_layer(loud, 8, CONFIG)
    assert plan.rotation == 128
    assert snr(loud, 8) > snr(loud, 8, rotate=False) + 6
    assert plan_layer(calm, 8, CONFIG).rotation == 1
    # No group of 16 or more divides 40 inputs.
    assert plan_layer(layer(inputs=40, outliers=True), 8, CONFIG).rotation == 1


def test_one_budget_serves_the_layer_that_needs_it():
    """A layer of few tokens costs less, and one with louder weights does not count more."""
    twin = layer()
    many = dataclasses.replace(twin, run_tokens=3000, name="b", weight=100 * twin.weight)
    errors = [measure_layer([one], 3, CONFIG) for one in (twin, many)]
    few, more = (codes.double() for codes in allocate_layers(errors, 3))
    assert few.mean() > more.mean() + 0.5
    bits = torch.tensor([0, 2, 4, 8])
    spent = sum(n * bits[c.long()].sum() for n, c in ((300, few), (3000, more)))
    assert 0.97 < spent / (3 * 3300 * few.numel()) <= 1 + 1e-9


def test_captures_of_one_layer_are_taken_together(tmp_path):
    whole = layer(name="w")
    parts = []
    for index, rows in enumerate((slice(0, 100), slice(100, 300))):
        part = dataclasses.replace(whole, x=whole.x[rows], path=tmp_path / f"{index}.safetensors")
        save_layer(part)
        parts.append(open_layer(part.path))
    together, alone = plan_layer(parts, 3, CONFIG), plan_layer(whole, 3, CONFIG)
    assert torch.equal(together.weights.codes, alone.weights.codes)
    assert (together.weights.w8 != alone.weights.w8).float().mean() < 0.01
    assert together.output.unit == alone.output.unit
    assert together.digest == alone.digest
    other = dataclasses.replace(whole, weight=whole.weight + 1)
    with pytest.raises(ParoError, match="are both called w, but have other weights"):
        plan_layer([whole, other], 3, CONFIG)


def test_report_is_that_of_the_plan():
    one = layer()
    codes = torch.full((3, 3), 2, dtype=torch.uint8)
    found = round_layer([one], 1, codes, 4.0, CONFIG)
    plan, report = found.plan, found.report
    assert report.snr_db == pytest.approx(run_layer(one, plan, CONFIG).snr_db, abs=1e-9)
    eight = round_layer([one], 1, codes + 1, 8.0, CONFIG).report
    assert eight.eight_bit_snr_db == report.eight_bit_snr_db
    assert 0 < eight.snr_db - report.eight_bit_snr_db < 5  # what feedback gains
    assert report.loss_db == report.eight_bit_snr_db - report.snr_db
    assert eight.snr_db > report.snr_db + 1


@pytest.mark.parametrize(
    ("inputs", "weights", "bias"),
    [(1, 1, 1e4), (1, 1, 1e9), (1, 1, 1e38), (0, 1, 1), (1, 0, 1), (0, 0, 1)],
)
def test_a_bias_that_is_all(inputs, weights, bias):
    """Products that are nothing beside it, or nothing at all."""
    one = layer()
    one = dataclasses.replace(
        one, x=inputs * one.x, weight=weights * one.weight, bias=bias * one.bias
    )
    found = round_layer([one], 1, torch.full((3, 3), 2, dtype=torch.uint8), 4.0, CONFIG)
    assert run_layer(one, found.plan, CONFIG).snr_db > 60
    assert found.report.loss_db < 25


def test_what_is_not_legal_is_refused():
    one = layer()
    for bits in (1.9, 8.1, float("nan")):
        with pytest.raises(ParoError, match=r"weight_bits = .* is not legal; legal: 2 to 8"):
            plan_layer(one, bits, CONFIG)
    plan = plan_layer(one, 8, CONFIG)
    with pytest.raises(ParoError, match=r"the plan of layer a is of another layer than b\.safe"):
        run_layer(layer(name="b", seed=1), plan, CONFIG)
    with pytest.raises(ParoError, match="the plan of layer a is of another layer than"):
        run_layer(dataclasses.replace(one, bias=None), plan, CONFIG)
    with pytest.raises(ParoError, match=r"block = 32 does not fit the plan of layer a, which has"):
        run_layer(one, plan, Config(rows=4, cols=4, block=32, head_dim=32))
