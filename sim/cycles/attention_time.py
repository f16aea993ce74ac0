"""Cycles and bytes of attention heads, from their codes."""

import numpy as np

from firmware_model.host.superblocks import superblock_count
from paro.config import Config, ParoError
from paro.config.config import blocks_of
from paro.config.descriptor import DESCRIPTOR_BYTES
from paro.config.formats import CODE_DIGITS, CODE_WORD_BYTES, LANES, OUT_BYTES, SCALE_BYTES
from rtl.interfaces import CODES_PER_BEAT
from sim.cycles.cycle_model import predict_heads

__all__ = ["attention_cycles", "ideal_cycles", "read_bytes", "written_bytes"]


def attention_cycles(
    config: Config,
    codes: np.ndarray,
    tokens: int,
    queries: range | None = None,
    *,
    latency: int = 0,
) -> np.ndarray:
    """Cycles that each head takes of a core, of a cluster of all its cores together.

    Parameters
    ----------
    config, codes, tokens, queries
        As of `ideal_cycles`.
    latency : int
        Cycles from a request to memory to the first beat.

    Returns
    -------
    np.ndarray
        int64 [heads].

    Raises
    ------
    ParoError
        If shapes do not fit.
    """
    count = len(queries or range(tokens))
    found = predict_heads(config, codes, count, tokens, memory_latency=latency)
    return found.cycles * config.cores


def _block_tokens(config: Config, codes: np.ndarray, tokens: int) -> np.ndarray:
    count = codes.shape[-1]
    if count != config.blocks_of(tokens):
        raise ParoError(
            f"{tokens} tokens do not make {count} blocks of {config.block} on a side of the map"
        )
    sizes = np.full(count, config.block)
    sizes[-1] = tokens - (count - 1) * config.block
    return sizes


def _row_queries(config: Config, queries: range) -> np.ndarray:
    """Queries of each block row, int64 [rows]."""
    return np.minimum(config.block, queries.stop - np.array(queries[:: config.block]))


def ideal_cycles(
    config: Config, codes: np.ndarray, tokens: int, queries: range | None = None
) -> np.ndarray:
    """Cycles of each head if every lane worked in every cycle, on valid tokens.

    Parameters
    ----------
    config : Config
    codes : np.ndarray
        uint8 [heads, rows, blocks].
    tokens : int
    queries : range, optional
        Positions of the queries, from the first of the first row on; all tokens by default.

    Returns
    -------
    np.ndarray
        float64 [heads].
    """
    sizes = _block_tokens(config, codes, tokens)
    rows = _row_queries(config, queries or range(tokens))
    digits = np.array(CODE_DIGITS)[codes]
    operations = 2 * config.head_dim * np.einsum("hij,i,j->h", digits, rows, sizes)
    return operations / (LANES * config.rows * config.cols)


def read_bytes(
    config: Config, codes: np.ndarray, tokens: int, queries: range | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes that each head takes in; parameters as of `ideal_cycles`.

    Returns
    -------
    (through_port, at_least)
        float64 [heads] each. Bytes that an accelerator reads: K and V for each block column of a
        wave (the superblocks of all cores) with a live block. Bytes that memory must give if a
        buffer keeps K and V.
    """
    sizes = _block_tokens(config, codes, tokens)
    once = len(queries or range(tokens)) * (config.head_dim + SCALE_BYTES) + DESCRIPTOR_BYTES
    waves = np.arange(0, codes.shape[1], config.wave_rows)
    code_rows = codes.shape[1]
    if config.query_rows > 1:
        code_rows += superblock_count(codes.shape[1], config)
    once += code_rows * blocks_of(len(sizes), CODES_PER_BEAT) * CODE_WORD_BYTES
    key = 2 * config.head_dim + SCALE_BYTES
    keys = (np.logical_or.reduceat(codes > 0, waves, axis=1) @ sizes).sum(axis=1)
    return keys * float(key) + once, np.full(len(codes), float(tokens * key + once))


def written_bytes(config: Config, queries: int) -> int:
    """Bytes that a head puts out."""
    return OUT_BYTES * config.head_dim * queries
