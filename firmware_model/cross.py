"""Cross attention as a head of tokens of two kinds."""

from dataclasses import dataclass

import numpy as np

from firmware_model.arrays import Tokens
from paro.config.config import blocks_of
from paro.config.formats import EIGHT_BITS

__all__ = ["CrossHead"]


@dataclass(frozen=True)
class CrossHead:
    """A head whose queries attend to other tokens, which are its keys.

    In its order the queries stand first, in whole blocks, the keys right behind them: only block
    rows of queries are computed, and in these only blocks of keys are live, in 8 bits. Memory has
    the keys in front, so that they begin at the first row of K and V.

    Parameters
    ----------
    queries, keys : int
        How many there are.
    block : int
        Tokens of a block.
    """

    queries: int
    keys: int
    block: int

    @property
    def first_key(self) -> int:
        """Position of the first key, and of those behind the last query's block."""
        return blocks_of(self.queries, self.block) * self.block

    @property
    def count(self) -> int:
        """Positions in all."""
        return self.first_key + self.keys

    @property
    def tokens(self) -> Tokens:
        """What its tokens are: the keys stand for a text before a grid, which comes first."""
        return Tokens((1, 1, self.first_key), prefix=self.keys)

    @property
    def query_blocks(self) -> range:
        """Block rows to compute."""
        return range(self.first_key // self.block)

    @property
    def codes(self) -> np.ndarray:
        """Codes of all blocks, uint8 [blocks, blocks]; of rows that nobody computes too."""
        blocks, first = blocks_of(self.count, self.block), len(self.query_blocks)
        codes = np.zeros((blocks, blocks), np.uint8)
        codes[:, first:] = EIGHT_BITS
        return codes
