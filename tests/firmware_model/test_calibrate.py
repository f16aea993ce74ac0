import itertools

import pytest
import torch

from firmware_model.calibrate import (
    allocate_codes,
    block_errors,
    calibrate,
    calibrate_head,
    forced_blocks,
    order_metric,
)
from firmware_model.capture import load_capture
from firmware_model.evaluate import evaluate
from firmware_model.plan import mean_bits
from paro_config import Config, ParoError

BITS = torch.tensor([0, 2, 4, 8])


def random_errors(blocks, seed):
    """Convex falling errors, as those of real blocks nearly are."""
    g = torch.Generator().manual_seed(seed)
    size = torch.rand(blocks, blocks, generator=g, dtype=torch.float64) ** 4
    return torch.stack([size * ratio for ratio in (1.0, 0.2, 0.02, 0.001)])


def total_error(errors, codes):
    return errors.gather(0, codes.long().unsqueeze(0)).sum().item()


@pytest.mark.parametrize("avg_bits", [0.7, 2.0, 3.3, 4.8, 7.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_allocation_is_optimal_to_within_a_block(avg_bits, seed):
    errors = random_errors(2, seed)
    forced = torch.zeros(2, 2, dtype=torch.bool)
    codes = allocate_codes(errors, forced, avg_bits)
    legal = [
        torch.tensor(choice).view(2, 2)
        for choice in itertools.product(range(4), repeat=4)
        if BITS[list(choice)].sum() <= max(avg_bits * 4, 4)
        and all(choice[i] or choice[i + 1] for i in (0, 2))
    ]
    best = min(total_error(errors, choice) for choice in legal)
    found = total_error(errors, codes)
    assert any(torch.equal(codes.long(), choice) for choice in legal)
    # The Lagrangian finds the best choice for the bits spent before the rest is shared out.
    assert found <= best + max((errors[0] - errors[1]).max().item(), 0)
    same = [choice for choice in legal if BITS[choice].sum() <= BITS[codes.long()].sum() - 4]
    assert all(found <= total_error(errors, choice) + 1e-12 for choice in same)


def test_allocation_meets_the_mean():
    errors, forced = random_errors(30, 0), forced_blocks(30 * 16 - 1, 20, 16)
    for avg_bits in (1.8, 3.0, 4.8, 7.9):
        codes = allocate_codes(errors, forced, avg_bits)
        assert avg_bits - 2 / 900 - 1e-9 <= mean_bits(codes) <= avg_bits
        assert (codes[forced] == 3).all()


def test_allocation_keeps_what_must_be_kept():
    errors = random_errors(6, 0)
    none = torch.zeros(6, 6, dtype=torch.bool)
    codes = allocate_codes(errors, none, 0.01)
    assert ((codes != 0).sum(dim=1) == 1).all()
    assert codes.max() == 1
    # The block kept is the one that gains most.
    assert torch.equal(codes.argmax(dim=1), (errors[0] - errors[1]).argmax(dim=1))
    forced = forced_blocks(6 * 16 - 1, 1, 16)
    assert torch.equal(allocate_codes(errors, forced, 0.5), forced.byte() * 3)
    assert allocate_codes(errors, none, 8.0).min() == 3


def test_forced_blocks():
    assert forced_blocks(128, 0, 64).sum() == 0
    assert forced_blocks(64, 0, 64).all()
    forced = forced_blocks(150, 33, 32)
    assert forced[[0, 1, 4]].all()
    assert forced[:, [0, 1, 4]].all()
    assert forced.sum() == 25 - 4


def test_order_recovers_the_axes_of_locality(make_capture):
    """Heads that attend along one axis prefer an order with that axis innermost."""
    grid = (4, 4, 16)
    f, h, w = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    keys = torch.nn.functional.one_hot(f * 4 + h, 16).half() * 8
    tensors = {"q": keys[None], "k": keys[None].clone(), "v": torch.randn(1, 256, 16).half()}
    capture = load_capture(make_capture(grid, 0, tensors=tensors, metadata={"scale": "1"}))
    metric = order_metric(capture, 0, 16)
    assert metric.index(min(metric)) == 0
    columns = torch.nn.functional.one_hot(w, 16).half() * 8
    tensors |= {"q": columns[None], "k": columns[None].clone()}
    capture = load_capture(make_capture(grid, 0, tensors=tensors, metadata={"scale": "1"}))
    metric = order_metric(capture, 0, 16)
    assert metric.index(min(metric)) in (4, 5)


def test_orders_that_permute_alike_tie(make_capture):
    metric = order_metric(load_capture(make_capture((1, 8, 8), 3)), 0, 16)
    assert metric[0] == metric[2] == metric[3]
    assert metric[1] == metric[4] == metric[5]


def test_wider_blocks_err_less(demo):
    errors = block_errors(demo, 3, 0, 64)
    assert errors.shape == (4, 8, 8)
    # Two bits may be worse than none where logits are large; allocation then skips the block.
    assert (errors[1:].sum(dim=(1, 2)).diff() < 0).all()
    assert errors[3].sum() < 0.01 * errors[0].sum()
    assert torch.isfinite(errors).all()


def test_calibration_keeps_its_word(make_capture):
    capture = load_capture(make_capture((5, 6, 7), 3))
    calls = []
    plan = calibrate(capture, (1, 0), 6.0, 16, lambda done, total: calls.append((done, total)))
    assert plan.heads == (1, 0)
    assert calls[-1] == (2 * 7 * 14, 2 * 7 * 14)
    forced = forced_blocks(213, 3, 16)
    for head in (0, 1):
        codes = plan.head_codes(head)
        assert (codes[forced] == 3).all()
        assert 5.9 < mean_bits(codes) <= 6.0
    assert torch.equal(calibrate_head(capture, 0, 6.0, 16).codes, plan.head_codes(0))
    assert (calibrate_head(capture, 0, 8.0, 16).codes == 3).all()
    kept = calibrate_head(capture, 0, 1.0, 16)
    assert torch.equal(kept.codes != 0, forced)
    assert kept.mean_bits == pytest.approx(8 * forced.double().mean().item())
    single = calibrate_head(load_capture(make_capture((1, 4, 4), 0)), 0, 2.0, 16)
    assert single.codes.tolist() == [[3]]


def test_illegal_parameters(demo):
    for avg_bits in (0, -1, 8.1, float("nan"), float("inf")):
        with pytest.raises(ParoError, match="legal: above 0, at most 8"):
            calibrate(demo, (0,), avg_bits)
    with pytest.raises(ParoError, match="block = 8 is not legal"):
        calibrate(demo, (0,), block=8)


@pytest.mark.parametrize(("avg_bits", "floor"), [(8.0, 34), (4.8, 30), (3.0, 20)])
def test_quality_of_the_shipped_capture(demo, avg_bits, floor):
    heads = (0, 5, 10, 15)
    plan = calibrate(demo, heads, avg_bits)
    evaluation = evaluate(demo, plan, heads, Config(head_dim=32))
    assert evaluation.report["mean_bits"] == pytest.approx(avg_bits, abs=0.05)
    assert all(result.snr_db >= floor for result in evaluation.results), evaluation.report


@pytest.mark.parametrize(
    ("avg_bits", "floors"), [(8.0, (46.0, 41.4)), (4.8, (38, 38)), (3.0, (20, 33))]
)
def test_quality_of_the_video_capture(shared_capture, avg_bits, floors):
    """Heads 0 and 5 have the least margin at few bits."""
    capture = shared_capture("dinov2_video_l3")
    heads = (0, 5)
    plan = calibrate(capture, heads, avg_bits)
    results = evaluate(capture, plan, heads, Config(), range(0, 32, 3)).results
    assert all(r.snr_db >= floor for r, floor in zip(results, floors, strict=True)), results
