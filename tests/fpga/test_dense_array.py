"""The dense array against a product of matrices."""

from typing import Any

import numpy as np

from fpga.dense_array import DenseArray
from tests.rtl.simulate import simulate

ROWS, COLS, STEPS, TILES = 3, 5, 12, 4


def test_tiles_are_products_of_matrices(seed: int) -> None:
    """Tiles without a gap, with the extremes of INT8 among them."""
    rng = np.random.default_rng(seed)
    left = rng.integers(-128, 128, (TILES, ROWS, STEPS))
    right = rng.integers(-128, 128, (TILES, STEPS, COLS))
    left[0], right[0] = -128, -128
    expected = left @ right
    array = DenseArray(ROWS, COLS)
    cycles = TILES * STEPS + ROWS + DenseArray.LATENCY + 2 * COLS

    async def testbench(ctx: Any) -> None:
        checked = 0
        for cycle in range(cycles):
            for row in range(ROWS):
                tile, step = divmod(cycle - row, STEPS)
                given = 0 <= tile < TILES
                ctx.set(array.row_words[row], int(left[tile, row, step]) if given else 0)
                ctx.set(array.first[row], given and step == 0)
                ctx.set(array.last[row], given and step == STEPS - 1)
            for col in range(COLS):
                tile, step = divmod(cycle - col, STEPS)
                given = 0 <= tile < TILES
                ctx.set(array.col_words[col], int(right[tile, step, col]) if given else 0)
            for row in range(ROWS):
                last = cycle - row - DenseArray.LATENCY - (STEPS - 1)
                tile, late = divmod(last, STEPS)
                col, between = divmod(late, 2)
                if 0 <= tile < TILES and not between and col < COLS:
                    assert ctx.get(array.drained[row]) == expected[tile, row, col]
                    checked += 1
            await ctx.tick()
        assert checked == expected.size

    simulate(array, testbench)
