import dataclasses

import pytest
import torch

from firmware_model.calibration.order import alike_orders, order_metric
from firmware_model.capture import load_capture

GRID = (4, 4, 16)


def local_tensors(innermost):
    """A head that attends to tokens of equal (F, H) or of equal W, so that these shall be near."""
    f, h, w = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, GRID), indexing="ij"))
    keys = torch.nn.functional.one_hot(f * 4 + h if innermost == "W" else w, 16).half() * 8
    values = torch.randn(1, 256, 16, generator=torch.Generator().manual_seed(0)).half()
    return {"q": keys[None], "k": keys[None].clone(), "v": values}


@pytest.mark.parametrize(("innermost", "best"), [("W", {0, 3}), ("FH", {4, 5})])
def test_order_recovers_the_axes_of_locality(make_capture, innermost, best):
    path = make_capture(GRID, 0, tensors=local_tensors(innermost), metadata={"scale": "1"})
    metric = order_metric([load_capture(path)], 0, 16)
    assert metric.index(min(metric)) in best


def test_orders_that_permute_alike_tie(make_capture):
    capture = load_capture(make_capture((1, 8, 8), 3))
    metric = order_metric([capture], 0, 16)
    assert metric[0] == metric[2] == metric[3]
    assert metric[1] == metric[4] == metric[5]
    assert alike_orders(capture) == [0, 1, 0, 0, 1, 1]


def test_all_captures_of_a_layer_count(make_capture):
    rows, columns = (
        load_capture(make_capture(GRID, 0, tensors=local_tensors(axes), metadata={"scale": "1"}))
        for axes in ("W", "FH")
    )
    once = order_metric([rows], 0, 16)
    assert order_metric([rows, rows], 0, 16) == pytest.approx(once)
    mostly_rows = order_metric([rows, columns, *[rows] * 8], 0, 16)
    mostly_columns = order_metric([columns, rows, *[columns] * 8], 0, 16)
    assert mostly_rows.index(min(mostly_rows)) in (0, 3)
    assert mostly_columns.index(min(mostly_columns)) in (4, 5)


def test_text_counts_alike_before_and_after_the_grid(random_capture):
    suffix = random_capture((2, 4, 8), suffix=5, heads=1)
    moved = torch.cat([torch.arange(64, 69), torch.arange(64)])
    prefix = dataclasses.replace(
        suffix,
        q=suffix.q[:, moved],
        k=suffix.k[:, moved],
        v=suffix.v[:, moved],
        prefix_tokens=5,
        suffix_tokens=0,
    )
    assert order_metric([suffix], 0, 16) == order_metric([prefix], 0, 16)


def test_blocks_of_text_have_no_part_in_it(random_capture):
    capture = random_capture((4, 4, 4), prefix=9, suffix=7)
    metric = order_metric([capture], 0, 16)
    text = torch.cat([torch.arange(9), torch.arange(73, 80)])
    capture.q[0, text] *= 50
    assert order_metric([capture], 0, 16) == metric
    capture.q[0, 9] *= 50
    assert order_metric([capture], 0, 16) != metric
