"""Cycles and bytes of attention heads, from their codes."""

import numpy as np

from paro_config import Config, ParoError
from paro_config.descriptor import DESCRIPTOR_BYTES
from paro_config.formats import CODE_DIGITS, LANES
from rtl.interfaces import CODES_PER_BEAT
from sim.cycle_model import predict_heads

__all__ = ["attention_cycles", "ideal_cycles", "linear_utilisation", "read_bytes", "written_bytes"]

#: Bytes of the scale of a token, of a word of codes, of an output.
_SCALE, _CODE_WORD, _OUTPUT = 4, 4, 2
#: Blocks on a side of the map that stands for a linear layer.
_LINEAR_BLOCKS = 24


def attention_cycles(
    config: Config, codes: np.ndarray, tokens: int, latency: int = 0
) -> np.ndarray:
    """Clocks of each head on one core: int64 [heads]; `ParoError` if shapes do not fit."""
    return predict_heads(config, codes, tokens, tokens, memory_latency=latency).cycles


def _block_tokens(config: Config, codes: np.ndarray, tokens: int) -> np.ndarray:
    count = codes.shape[-1]
    if count != -(-tokens // config.block):
        raise ParoError(
            f"{tokens} tokens do not make {count} blocks of {config.block} on a side of the map"
        )
    sizes = np.full(count, config.block)
    sizes[-1] = tokens - (count - 1) * config.block
    return sizes


def ideal_cycles(config: Config, codes: np.ndarray, tokens: int) -> np.ndarray:
    """Clocks of each head if every lane worked in every one, on valid tokens: float64 [heads]."""
    sizes = _block_tokens(config, codes, tokens)
    digits = np.array(CODE_DIGITS)[codes]
    operations = 2 * config.head_dim * np.einsum("hij,i,j->h", digits, sizes, sizes)
    return operations / (LANES * config.rows * config.cols)


def linear_utilisation(config: Config) -> float:
    """Share of the lanes that work in a product without skipping: that of an 8-bit map."""
    codes = np.full((1, _LINEAR_BLOCKS, _LINEAR_BLOCKS), len(CODE_DIGITS) - 1, np.uint8)
    tokens = _LINEAR_BLOCKS * config.block
    cycles = attention_cycles(config, codes, tokens)
    return float(ideal_cycles(config, codes, tokens)[0] / cycles[0])


def read_bytes(config: Config, codes: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes that each head takes in: float64 [heads], twice.

    Returns
    -------
    (through_port, at_least)
        What a core reads: K and V for each live block. What memory must give if a buffer keeps K
        and V.
    """
    sizes = _block_tokens(config, codes, tokens)
    rows = len(sizes)
    once = tokens * (config.head_dim + _SCALE) + DESCRIPTOR_BYTES
    once += rows * -(-rows // CODES_PER_BEAT) * _CODE_WORD
    key = 2 * config.head_dim + _SCALE
    keys = ((codes > 0) @ sizes).sum(axis=1)
    return keys * float(key) + once, np.full(len(codes), float(tokens * key + once))


def written_bytes(config: Config, tokens: int) -> int:
    """Bytes that a head puts out."""
    return _OUTPUT * config.head_dim * tokens
