import itertools

import pytest

from firmware_model.choices import ORDERS
from firmware_model.reorder import token_permutation


@pytest.mark.parametrize("order", range(6))
def test_orders_nest_the_axes_as_named(order):
    grid, prefix = (2, 3, 4), 5
    sizes = dict(zip("FHW", grid, strict=True))
    expected = []
    for position in itertools.product(*(range(sizes[axis]) for axis in ORDERS[order])):
        at = dict(zip(ORDERS[order], position, strict=True))
        expected.append(prefix + (at["F"] * grid[1] + at["H"]) * grid[2] + at["W"])
    assert token_permutation(grid, prefix, order).tolist() == [*expected, *range(prefix)]


@pytest.mark.parametrize("order", range(6))
def test_text_comes_last_and_moves_no_token_of_the_grid(order):
    without = token_permutation((2, 3, 4), 0, order)
    found = token_permutation((2, 3, 4), 2, order, 3)
    assert (found[:24] - 2).tolist() == without.tolist()
    assert found[24:].tolist() == [0, 1, 26, 27, 28]
