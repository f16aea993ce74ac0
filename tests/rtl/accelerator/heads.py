"""Heads for the tests of the address path: a grid of tokens with text around it, in an order."""

from dataclasses import dataclass

from firmware_model.choices import ORDERS
from firmware_model.reorder import token_permutation


@dataclass(frozen=True)
class HeadShape:
    """A head's tokens and their order."""

    grid: tuple[int, int, int]
    prefix: int = 0
    suffix: int = 0
    order: int = 0

    @property
    def permutation(self) -> list[int]:
        """Token in memory at each position."""
        return token_permutation(self.grid, self.prefix, self.order, self.suffix).tolist()

    @property
    def walk(self) -> dict[str, int]:
        """Fields of `rtl.accelerator.token_walker.walk_layout`."""
        axes = ["FHW".index(axis) for axis in ORDERS[self.order]]
        frames, height, width = self.grid
        strides = [(height * width, width, 1)[axis] for axis in axes]
        return {
            "tokens": frames * height * width + self.prefix + self.suffix,
            "prefix_tokens": self.prefix,
            "suffix_tokens": self.suffix,
            "middle_extent": self.grid[axes[1]],
            "inner_extent": self.grid[axes[2]],
            "outer_stride": strides[0],
            "middle_stride": strides[1],
            "inner_stride": strides[2],
        }

    def blocks(self, size: int) -> list[tuple[int, int]]:
        """First position and tokens of each block."""
        tokens = self.walk["tokens"]
        return [(first, min(size, tokens - first)) for first in range(0, tokens, size)]
