"""Heads of any shape: their tokens, codes and operands from a few words and a seed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from firmware_model.capture import Capture
from firmware_model.host.jobs import HeadJob, HeadOperands
from firmware_model.reference.jobs import head_job
from firmware_model.reference.quantize import quantize_head
from firmware_model.reorder import token_permutation
from paro.config import Config
from paro.config.config import HEAD_DIMS
from paro.config.formats import KEY_SCALE_BITS, OPERAND_MAX, QUERY_SCALE_BITS

__all__ = [
    "SHARES",
    "SKIPS",
    "VALUES",
    "WIDTHS",
    "HeadShape",
    "Skips",
    "Values",
    "Width",
    "random_capture",
    "random_codes",
]

#: Share of blocks with code 0, 1, 2, 3 for some mean widths.
SHARES = {
    8.0: (0.0, 0.0, 0.0, 1.0),
    4.8: (0.15, 0.15, 0.25, 0.45),
    3.0: (0.35, 0.2, 0.25, 0.2),
    2.0: (0.5, 0.25, 0.125, 0.125),
}

#: Codes of a head's live blocks: all of one width in bits, or of different ones.
Width = Literal["2", "4", "8", "mixed"]
#: Which blocks are skipped: none, some, or in every row all but one.
Skips = Literal["none", "some", "all but one"]
#: Operands: as a model has them, at the ends of INT8 and of the scales, of any bits, all equal,
#: keys of zeros, or one channel a token.
Values = Literal["normal", "extreme", "any", "equal", "zero keys", "one-hot"]
WIDTHS: tuple[Width, ...] = get_args(Width)
SKIPS: tuple[Skips, ...] = get_args(Skips)
VALUES: tuple[Values, ...] = get_args(Values)


def random_capture(tokens: int, head_dim: int, seed: int, heads: int = 2) -> Capture:
    """Attention that is neither flat nor one-hot; three prefix tokens."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, heads, tokens, head_dim, generator=generator).unbind()
    return Capture(
        path=Path("random"),
        q=2.5 * q,
        k=k + 0.5,
        v=v - 0.25,
        grid=(1, 1, tokens - 3),
        prefix_tokens=3,
        scale=head_dim**-0.5,
        source="random",
        digest="0" * 64,
        model="0" * 64,
    )


def random_codes(blocks: int, mean_bits: float, seed: int) -> torch.Tensor:
    """Codes whose width is about ``mean_bits`` in the mean, with a live block in every row."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.tensor(SHARES[mean_bits])
    codes = shares.multinomial(blocks * blocks, True, generator=generator).reshape(blocks, blocks)
    dead = (codes == 0).all(dim=1)
    columns = torch.randint(blocks, (blocks,), generator=generator)
    codes[dead, columns[dead]] = 1
    return codes.to(torch.uint8)


@dataclass(frozen=True)
class HeadShape:
    """One head, or some block rows of it.

    Parameters
    ----------
    grid : (int, int, int)
        Frames, height, width.
    prefix, suffix : int
        Tokens before and after the grid.
    order : int
        Index in `firmware_model.choices.ORDERS`.
    width, skips
        Of the blocks that are computed, see `Width` and `Skips`.
    values : Values
        Operands.
    rows : (int, int), optional
        First block row to compute, and the one after the last; all by default.
    left_out : int
        Queries of the last of these rows that are not computed; less than it has.
    """

    grid: tuple[int, int, int]
    prefix: int = 0
    suffix: int = 0
    order: int = 0
    width: Width = "mixed"
    skips: Skips = "some"
    values: Values = "normal"
    rows: tuple[int, int] | None = None
    left_out: int = 0

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prefix + self.grid[0] * self.grid[1] * self.grid[2] + self.suffix

    @property
    def line(self) -> str:
        """All of it in a few words."""
        rows = "" if self.rows is None else f" rows {self.rows[0]}:{self.rows[1]}"
        rows += f" without {self.left_out}" * (self.left_out > 0)
        return (
            f"head {self.prefix}+{'x'.join(map(str, self.grid))}+{self.suffix} "
            f"order {self.order}{rows} width {self.width} skips {self.skips} {self.values}"
        )

    def computed(self, config: Config) -> range:
        """Block rows to compute."""
        return range(*self.rows) if self.rows else range(config.blocks_of(self.tokens))

    def job(self, config: Config, seed: int) -> HeadJob:
        """Make the head, with codes and operands of a seed."""
        job = self._whole_rows(config, seed)
        if not self.left_out:
            return job
        return replace(job, query_tokens=len(job.queries(config)) - self.left_out)

    def _whole_rows(self, config: Config, seed: int) -> HeadJob:
        generator = np.random.default_rng(seed)
        codes = self._codes(config, generator)
        rows = self.computed(config)
        if self.values == "normal":
            return self._captured(config, codes, rows, seed)
        operands = _operands(self.values, self.tokens, config.head_dim, generator)
        order = token_permutation(self.grid, self.prefix, self.order, self.suffix)
        head = HeadOperands(*operands, permutation=order, order=self.order)
        return HeadJob(head, codes, self.grid, self.prefix, self.suffix, rows)

    def _captured(self, config: Config, codes: np.ndarray, rows: range, seed: int) -> HeadJob:
        """As a model has it; of fewer channels than the core, as often as not."""
        smaller = max((size for size in HEAD_DIMS if size < config.head_dim), default=0)
        channels = config.head_dim if seed % 2 else (smaller + config.head_dim) // 2
        capture = replace(
            random_capture(self.tokens, channels, seed, heads=1),
            grid=self.grid,
            prefix_tokens=self.prefix,
            suffix_tokens=self.suffix,
        )
        head = quantize_head(capture, 0, self.order, config)
        return head_job(capture, head, torch.from_numpy(codes), rows)

    def _codes(self, config: Config, generator: np.random.Generator) -> np.ndarray:
        """Codes of all blocks, uint8; those that are computed have width and skips, if they can."""
        blocks = config.blocks_of(self.tokens)
        live = np.ones((blocks, blocks), bool)
        if self.skips != "none":
            share = 0.5 if self.skips == "some" else 0.0
            live = generator.random(live.shape) < share
            live[np.arange(blocks), generator.integers(blocks, size=blocks)] = True
        rows = self.computed(config)
        if self.skips == "some" and blocks > 1:
            # A row that skips, and one that has several live blocks, which may be the same.
            columns = generator.permutation(blocks)
            live[rows[0], columns[:2]] = True
            live[rows[-1], columns[-1]] = False
            live[rows[-1], columns[0]] = True
        if self.width != "mixed":
            code = 1 + WIDTHS.index(self.width)
            return np.where(live, code, 0).astype(np.uint8)
        codes = np.where(live, generator.integers(1, 4, live.shape), 0).astype(np.uint8)
        computed = codes[rows[0] : rows[-1] + 1]
        places = np.argwhere(computed)
        computed[tuple(places[0])] = 1
        computed[tuple(places[-1])] = 3 if len(places) > 1 else 1
        return codes


def _operands(
    values: Values, tokens: int, head_dim: int, generator: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Q, K, V, int8 [tokens, head_dim], and the mantissas of Q and K, int32 [tokens]."""
    shape = (tokens, head_dim)
    most = 2**QUERY_SCALE_BITS - 1, 2**KEY_SCALE_BITS - 1

    def any_bytes() -> np.ndarray:
        return generator.integers(-OPERAND_MAX, OPERAND_MAX + 1, shape)

    def any_scales() -> list[np.ndarray]:
        """Of any size, as often small as large."""
        return [
            np.exp(generator.uniform(0, np.log(1 + largest), tokens)).astype(np.int32)
            for largest in most
        ]

    q, k, v = any_bytes(), any_bytes(), any_bytes()
    mq, mk = any_scales()
    if values == "extreme":
        q, k, v = (generator.choice((-OPERAND_MAX, OPERAND_MAX), shape) for _ in range(3))
        mq, mk = (generator.choice((1, largest), tokens) for largest in most)
    elif values == "equal":
        q, k, v = (np.full(shape, generator.choice(any_bytes().ravel())) for _ in range(3))
        mq, mk = (np.full(tokens, scales[0]) for scales in (mq, mk))
    elif values == "zero keys":
        k, mk = np.zeros(shape), np.ones(tokens)
    elif values == "one-hot":
        hot = np.arange(tokens)[:, None] % head_dim == np.arange(head_dim)
        q, k = OPERAND_MAX * hot, OPERAND_MAX * hot
        mq, mk = (np.full(tokens, largest) for largest in most)
    return (*(rows.astype(np.int8) for rows in (q, k, v)), mq.astype(np.int32), mk.astype(np.int32))
