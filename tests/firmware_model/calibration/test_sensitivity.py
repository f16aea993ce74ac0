import pytest
import torch

from firmware_model.calibration.sensitivity import (
    block_errors,
    block_sums,
    model_config,
    row_errors,
)
from firmware_model.choices import ROUNDINGS, TRANSFORMS


def exact_head(capture, order):
    """Softmax weights and V of head 0 in float64, in the order."""
    permutation = capture.permutation(order)
    q, k, v = (t[0].double()[permutation] for t in (capture.q, capture.k, capture.v))
    return torch.softmax(q @ k.T * capture.scale, dim=1), v


@pytest.fixture
def capture(random_capture):
    """Text on both sides and a partial block."""
    return random_capture((3, 4, 5), prefix=2, suffix=5, heads=1)


@pytest.mark.parametrize("order", [0, 4])
def test_block_sums_are_the_sums(capture, order):
    weights, _ = exact_head(capture, order)
    sums = block_sums(capture, 0, order, 16)
    assert sums.shape == (5, 5)
    for row, parts in enumerate(weights.split(16)):
        for column, part in enumerate(parts.split(16, dim=1)):
            assert sums[row, column].item() == pytest.approx(part.sum().item(), rel=1e-4)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_skipped_block_errs_by_what_is_left_without_it(capture, rounding):
    weights, v = exact_head(capture, 2)
    output = weights @ v
    errors = block_errors(capture, 0, 2, 16, rounding)
    assert errors.shape == (4, 5, 5)
    for row in range(5):
        queries = slice(16 * row, 16 * row + 16)
        for column in range(5):
            kept = weights[queries].clone()
            kept[:, 16 * column : 16 * column + 16] = 0
            moved = kept @ v / kept.sum(dim=1, keepdim=True) - output[queries]
            expected = moved.square().sum().item()
            assert errors[0, row, column].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("transform", range(len(TRANSFORMS)))
def test_errors_of_rows(capture, transform):
    """Errors of single blocks tell those of the rows where one block alone is skipped."""
    weights, v = exact_head(capture, 2)
    codes = torch.full((5, 5), 3, dtype=torch.uint8)
    eight = row_errors(capture, 0, 2, 16, codes, transform=transform)
    for row in range(5):
        codes[row, (row + 2) % 5] = 0
    found = row_errors(capture, 0, 2, 16, codes, transform=transform)
    alone = block_errors(capture, 0, 2, 16, transform=transform)
    for row in range(5):
        queries = slice(16 * row, 16 * row + 16)
        column = (row + 2) % 5
        lost = weights[queries, 16 * column : 16 * column + 16].sum(dim=1)
        assert found.kept[row].item() == pytest.approx(1 - lost.max().item(), abs=1e-5)
        signal = (weights[queries] @ v).square().sum().item()
        assert found.signal[row].item() == pytest.approx(signal, rel=1e-3)
        assert found.error[row].item() == pytest.approx(alone[0, row, column].item(), rel=0.25)
    assert (eight.error < 1e-3 * eight.signal).all()
    assert (eight.kept > 0.9999).all()


def test_some_rows_alone(capture):
    whole = block_errors(capture, 0, 1, 16)
    assert torch.equal(block_errors(capture, 0, 1, 16, rows=(1, 4)), whole[:, [1, 4]])
    sums = block_sums(capture, 0, 1, 16)
    assert torch.equal(block_sums(capture, 0, 1, 16, rows=(0, 3)), sums[[0, 3]])


def test_wider_blocks_err_less(demo):
    errors = block_errors(demo, 3, 0, 64)
    assert errors.shape == (4, 8, 8)
    # Two bits may be worse than none where logits are large; allocation then skips the block.
    assert (errors[1:].sum(dim=(1, 2)).diff() < 0).all()
    assert errors[3].sum() < 0.01 * errors[0].sum()
    assert torch.isfinite(errors).all()


def test_the_papers_rounding_errs_more(demo):
    """At 2 bits not on every head: where logits are large, digits err upwards, the paper down."""
    digit, paper = (
        torch.stack(
            [
                block_errors(demo, head, 0, 64, rounding).sum(dim=(1, 2))
                for head in range(demo.heads)
            ]
        )
        for rounding in ("digit", "paper")
    )
    assert torch.allclose(paper[:, 0], digit[:, 0], rtol=1e-5)
    assert (paper[:, 2] > 2 * digit[:, 2]).all()
    assert paper[:, 1].sum() > digit[:, 1].sum()


def test_configuration_of_the_model_takes_any_capture(random_capture):
    config = model_config(random_capture(head_dim=72), 32)
    assert (config.block, config.head_dim) == (32, 128)
    large = random_capture((1, 300, 300), heads=1, head_dim=1)
    assert model_config(large, 16).max_tokens >= 90_000
