"""Jobs of the device: heads and linear layers, quantised, as arrays of numpy."""

from dataclasses import dataclass

import numpy as np

from firmware_model.codes import checked_query_blocks
from firmware_model.host import superblocks
from paro.config import Config
from paro.config.config import blocks_of
from paro.config.formats import KEY_SCALE_BITS, OUT_BITS

__all__ = ["HeadJob", "HeadOperands", "Job", "LayerJob"]


@dataclass(frozen=True, eq=False)
class HeadOperands:
    """One head as the accelerator reads it; tokens stand in the head's order.

    Parameters
    ----------
    q8, k8, v8 : np.ndarray
        int8 [tokens, head_dim].
    mq, mk : np.ndarray
        int32 [tokens]: scale mantissas of queries and keys.
    permutation : np.ndarray
        int64 [tokens]: natural token at each position.
    order : int
        Index in `reorder.ORDERS`.
    """

    q8: np.ndarray
    k8: np.ndarray
    v8: np.ndarray
    mq: np.ndarray
    mk: np.ndarray
    permutation: np.ndarray
    order: int

    @classmethod
    def in_buffers(cls, permutation: np.ndarray, order: int, head_dim: int) -> "HeadOperands":
        """Make a head whose operands and scales are all in buffers: its arrays are of zeros."""
        shape = len(permutation), head_dim
        rows = np.broadcast_to(np.int8(0), shape)
        scales = np.broadcast_to(np.int32(0), shape[:1])
        return cls(rows, rows, rows, scales, scales, permutation, order)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.q8)


@dataclass(frozen=True, eq=False)
class HeadJob:
    """One head to compute, or some block rows of it.

    Parameters
    ----------
    head : HeadOperands
        The head.
    codes : np.ndarray
        uint8 [blocks, blocks], of the whole head.
    grid : (int, int, int)
        Frames, height, width.
    prefix_tokens, suffix_tokens : int
        Tokens before and after the grid.
    query_blocks : range, optional
        Block rows to compute, contiguous; all by default.
    query_tokens : int, optional
        Queries to compute of these, some of the last block row or all; all by default.
    """

    head: HeadOperands
    codes: np.ndarray
    grid: tuple[int, int, int]
    prefix_tokens: int
    suffix_tokens: int = 0
    query_blocks: range | None = None
    query_tokens: int | None = None

    def queries(self, config: Config) -> range:
        """Positions of the queries, in the head's order."""
        rows = self.rows(config)
        first, stop = rows.start * config.block, min(rows.stop * config.block, self.head.tokens)
        return range(first, stop if self.query_tokens is None else first + self.query_tokens)

    def reach(self, config: Config, operand: str) -> int:
        """Rows of an operand up to the last that the job reads, or writes of its output, ``o``.

        Of K and V these are the tokens of live blocks. Scales stand in the head's order.
        """
        if operand in ("q", "o", "q_scales"):
            positions = np.asarray(self.queries(config))
        else:
            live = self.codes[list(self.rows(config))].any(axis=0).repeat(config.block)
            positions = np.flatnonzero(live[: self.head.tokens])
        places = positions if operand.endswith("scales") else self.head.permutation[positions]
        return 1 + int(places.max())

    def rows(self, config: Config) -> range:
        """Block rows to compute."""
        return checked_query_blocks(self.query_blocks, config.blocks_of(self.head.tokens))

    def query_loads(self, config: Config) -> int:
        """How often the core loads queries: once for each block row."""
        return len(self.rows(config))

    def code_words(self, config: Config) -> np.ndarray:
        """Codes of the rows to compute as the device reads them, uint32 [words]."""
        return superblocks.code_words(self.codes[list(self.rows(config))], config)

    def cluster_code_words(self, config: Config) -> list[np.ndarray]:
        """As `code_words`, of the rows of each core of a cluster; none of a core without rows."""
        codes = self.codes[list(self.rows(config))]
        return [
            superblocks.code_words(codes[rows], config) if len(rows) else np.zeros(0, np.uint32)
            for rows in superblocks.deal(len(codes), config)
        ]

    def row_order(self, config: Config) -> np.ndarray:
        """Return the order in which the rows to compute leave the core, int64 [rows]."""
        return superblocks.leaving_order(self.codes[list(self.rows(config))], config)

    def row_places(self, config: Config) -> list[int]:
        """Return the rows as they leave the core, each as its place in its superblock."""
        return [int(row) % config.query_rows for row in self.row_order(config)]

    def stream_order(self, config: Config) -> np.ndarray:
        """Words of the core's output stream.

        Returns
        -------
        np.ndarray
            int64: for each word its index in [queries, head_dim], flattened.
        """
        places = np.arange(len(self.queries(config)) * config.head_dim)
        row_words = config.block * config.head_dim
        return np.concatenate(
            [places[row * row_words : (row + 1) * row_words] for row in self.row_order(config)]
        )


@dataclass(frozen=True, eq=False)
class LayerJob:
    """One linear layer to compute; formats are those of section 7 of `docs/numerics.md`.

    Parameters
    ----------
    x8 : np.ndarray
        int8 [tokens, inputs].
    mx : np.ndarray
        int32 [tokens]: scale mantissas of the tokens.
    w8 : np.ndarray
        int8 [outputs, inputs].
    mw, bias : np.ndarray
        int32 [outputs]: scale mantissas and biases of the output channels.
    codes : np.ndarray
        uint8 [blocks of outputs, chunks of inputs]: code of each tile.
    sum_shift, out_shift : int
        The layer's right shifts.
    """

    x8: np.ndarray
    mx: np.ndarray
    w8: np.ndarray
    mw: np.ndarray
    bias: np.ndarray
    codes: np.ndarray
    sum_shift: int
    out_shift: int

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.x8)

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return len(self.w8)

    def device_codes(self) -> np.ndarray:
        """Codes as the device takes them: every output block has a live tile, if only of zeros."""
        codes = self.codes.copy()
        codes[~codes.any(axis=1), 0] = 1
        return codes

    def code_words(self, config: Config) -> np.ndarray:
        """Codes as the device reads them for each superblock of tokens, uint32 [words]."""
        return superblocks.shared_code_words(self.device_codes(), config)

    def cluster_code_words(self, config: Config) -> list[np.ndarray]:
        """As `code_words`: they serve all cores."""
        return [self.code_words(config)]

    def row_places(self, config: Config) -> list[int]:
        """Return the rows as they leave the core, each as its place in its superblock."""
        blocks = range(blocks_of(self.tokens, config.layer_tokens))
        return [
            block % config.query_rows
            for first in blocks[:: config.query_rows]
            for _ in self.codes
            for block in blocks[first : first + config.query_rows]
        ]

    def superblocks(self, config: Config) -> int:
        """How often a core goes through the layer's codes."""
        return blocks_of(self.tokens, config.query_rows * config.layer_tokens)

    def waves(self, config: Config) -> int:
        """How often a cluster loads the layer's weights: once for all rows in progress."""
        return blocks_of(self.tokens, config.wave_rows * config.layer_tokens)

    def device_inputs(self, config: Config) -> np.ndarray:
        """Activations, int8 [tokens, whole chunks]."""
        return _pad_inputs(self.x8, config)

    def device_weights(self, config: Config) -> np.ndarray:
        """Weights, int8 [outputs, whole chunks]; those of tiles of code 0 are 0."""
        live = (self.codes != 0).repeat(config.block, 0).repeat(config.head_dim, 1)
        weights = _pad_inputs(self.w8, config)
        return np.where(live[: self.outputs], weights, np.int8(0))

    def device_weight_scales(self) -> np.ndarray:
        """Scales of the weights as the device takes them, int32 [outputs]: bias above mantissa."""
        return self.mw | (self.bias & (1 << OUT_BITS) - 1) << KEY_SCALE_BITS

    def query_loads(self, config: Config) -> int:
        """How often the core loads queries: inputs of each live tile of each block of tokens."""
        token_blocks = blocks_of(self.tokens, config.layer_tokens)
        return token_blocks * int(np.count_nonzero(self.device_codes()))

    def stream_order(self, config: Config) -> np.ndarray:
        """Words of the core's output stream.

        Returns
        -------
        np.ndarray
            int64: for each word the index of its output in [tokens, outputs], flattened; -1 for a
            word past the layer's last output.
        """
        places = np.full((self.tokens, len(self.codes) * config.block), -1, np.int64)
        places[:, : self.outputs] = np.arange(self.tokens * self.outputs).reshape(self.tokens, -1)
        rows = places.reshape(self.tokens, -1, config.block)
        step = config.query_rows * config.layer_tokens
        return np.concatenate(
            [
                rows[first : first + step].transpose(1, 0, 2).ravel()
                for first in range(0, self.tokens, step)
            ]
        )


#: Work for the device's core; a vector step is a `vector_job.VectorJob`.
Job = HeadJob | LayerJob


def _pad_inputs(values: np.ndarray, config: Config) -> np.ndarray:
    """Append zeros to whole chunks of `head_dim` inputs."""
    return np.pad(values, ((0, 0), (0, -values.shape[1] % config.head_dim)))
