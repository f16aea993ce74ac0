"""Plans from maps and orders of other work."""

from typing import Any

import numpy as np
import pytest
import torch

from firmware_model.arrays import Tokens
from firmware_model.calibration.maps import plan_of_maps
from firmware_model.models.pipeline import AttentionCall
from firmware_model.models.sparse import SparseAttention
from firmware_model.reorder import token_permutation
from paro.config import ParoError

GRID = (3, 8, 4)


@pytest.fixture
def generator(seed):
    return np.random.default_rng(seed)


def some_map(generator, heads, blocks, share=0.4):
    found = generator.random((heads, blocks, blocks)) < share
    return found | np.eye(blocks, dtype=bool)


def test_widths_become_codes(random_capture, generator):
    """Blocks of the map are those of the plan where no text moves."""
    capture = random_capture(grid=GRID, suffix=10)
    widths = generator.choice([0, 2, 4, 8], size=(2, 7, 7))
    widths[:, :, 0] = 4
    for block, order in ((None, "WHF"), (16, np.array([4, 4])), (16, np.array([[4, 4]]))):
        made = plan_of_maps(widths, [capture], order, block=block)
        plan = made.plan.for_capture(capture)
        assert (plan.block, plan.orders) == (16, (4, 4))
        assert np.array_equal(np.array([0, 2, 4, 8])[plan.codes.numpy()], widths)
        assert made.plan.avg_bits == pytest.approx(widths.mean())
        assert made.map_density == pytest.approx((widths > 0).mean())
    masked = plan_of_maps(widths > 0, [capture], bits=2).plan
    assert masked.avg_bits == pytest.approx(2 * (widths > 0).mean())
    assert masked.orders.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("prefix", "text_first", "sides"),
    [(0, True, (16, 16)), (9, True, (32, 16)), (9, False, (16, 64))],
)
def test_a_plan_covers_the_map(random_capture, generator, prefix, text_first, sides):
    """Whatever a map's query sees, the plan shows it, with blocks cut anywhere and of any size."""
    capture = random_capture(grid=GRID, prefix=prefix, suffix=7)
    count = capture.tokens
    own = token_permutation(GRID, prefix, 2, 7)
    grid = np.prod(GRID)
    text = np.arange(prefix)
    place = np.concatenate([text, own[:grid], own[grid + prefix :]]) if text_first else own
    shape = [2, *(-(-count // side) for side in sides)]
    mask = generator.random(shape) < 0.4
    mask[:, :, 0] = True
    made = plan_of_maps(mask, [capture], place)
    plan = made.plan
    assert plan.block == min(sides)
    assert plan.orders.tolist() == [[2, 2]]
    position, shown = np.argsort(place), np.argsort(own) // plan.block
    for head in range(2):
        seen = mask[head][position // sides[0]][:, position // sides[1]]
        codes = plan.codes[0, 0, head].numpy()
        assert (codes[shown][:, shown][seen] == 3).all()
        blocks = np.zeros_like(codes)
        np.maximum.at(blocks, (shown[:, None], shown[None]), 3 * seen.astype(np.uint8))
        assert np.array_equal(codes, blocks)
    if prefix and text_first:
        assert plan.density() > made.map_density


def test_layers_and_groups_of_steps(random_capture, generator):
    captures = [random_capture(grid=GRID, layer=layer, seed=layer) for layer in (5, 2)]
    mask = np.stack([[some_map(generator, 2, 6) for _ in range(2)] for _ in range(3)])
    mask[:, 1, 0] = False
    made = plan_of_maps(torch.from_numpy(mask), captures, np.array([[0, 1], [2, 3]]), block=16)
    assert made.plan.layers == (2, 5)
    assert made.plan.step_groups == (0.0, 0.25, 0.5)
    assert made.plan.orders.tolist() == [[0, 1], [2, 3]]
    assert made.left_out == ((5, 0),)
    assert np.array_equal(made.plan.codes.numpy() != 0, mask)


def test_a_mask_computes_as_it_did(random_capture, generator):
    """A mask in the capture's own sequence of tokens, through sparse attention."""
    capture = random_capture(grid=GRID)
    mask = some_map(generator, 2, 3)
    plan = plan_of_maps(mask, [capture], block=32).plan
    call = AttentionCall(0, 0, capture.q[None], capture.k[None], capture.v[None], capture.scale)
    found = SparseAttention(plan, Tokens(GRID), kernel="rows")(call)
    whole = torch.from_numpy(mask.repeat(32, 1).repeat(32, 2))
    want = torch.nn.functional.scaled_dot_product_attention(
        capture.q, capture.k, capture.v, whole, scale=capture.scale
    )
    torch.testing.assert_close(found[0], want, rtol=0, atol=3e-6)


def test_what_does_not_fit_is_said(random_capture, generator):
    capture = random_capture(grid=GRID, prefix=2)
    mask = some_map(generator, 2, 7)
    shuffled = np.arange(98)
    shuffled[[10, 20]] = 20, 10
    dead = mask.copy()
    dead[1, 3] = False
    cases: list[tuple[Any, Any, dict[str, Any], str]] = [
        (mask[0], None, {}, r"the map has shape \[7, 7\]; legal: \[heads, blocks, blocks\]"),
        (mask[:1], None, {}, "1 layers of 1 heads; the captures have 1 of 2"),
        (3 * mask, None, {}, "the map has value 3; legal: 0 and 1, a mask, or widths 0, 2, 4, 8"),
        (mask[:, :6], None, {}, r"6 blocks on a side for 98 tokens; legal: 7 \(of 16\), 4 \(of 32"),
        (mask, "HWW", {}, "order = 'HWW' is not legal; legal: FHW, FWH, HWF"),
        (mask, np.array([0, 6]), {}, "the order has index 6; legal: 0 to 5, FHW"),
        (mask, shuffled, {}, "is none that the address generator makes; legal: the grid of 3 x 8"),
        (mask, 0 * shuffled, {}, "is no permutation; legal: each of 98 tokens once"),
        (mask, shuffled[:50], {}, r"the order has shape \[50\]; legal: indices \[2\]"),
        (mask, 0.5 * shuffled, {}, "the order has torch.float64; legal: integers"),
        (dead, "FHW", {"grid_first": True}, "block row 3 of head 1 in layer 0 has no live block"),
        (mask & False, None, {}, "the map has no live block"),
        (mask, None, {"bits": 3}, "bits = 3 is not legal; legal: 2, 4, 8"),
        (mask, None, {"block": 8}, "block = 8 is not legal"),
        ("mask", None, {}, "the map is a str; legal: numpy arrays, torch tensors"),
    ]
    for maps, order, options, sentence in cases:
        with pytest.raises(ParoError, match=sentence):
            plan_of_maps(maps, [capture], order, **options)
    other = random_capture(grid=GRID, prefix=2, model="b" * 64)
    with pytest.raises(ParoError, match="differ in model; legal: captures of one model"):
        plan_of_maps(mask, [capture, other])
