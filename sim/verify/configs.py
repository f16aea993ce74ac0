"""Configurations of random cases: every legal value of every field, small ones more often."""

import random
from collections.abc import Sequence
from typing import TypeVar

from paro.config import Config

__all__ = ["deal", "random_config"]

Value = TypeVar("Value")

#: Most PEs of a core, and of all cores together: larger ones compile for minutes.
_PES_MAX, _CLUSTER_PES_MAX = 256, 128
#: Most cycles of a block of 8 bits.
_BLOCK_CYCLES_MAX = 2**14

#: Values that are dealt, each as often as it stands here.
_SIDES = (*(4,) * 8, *(8,) * 6, *(16,) * 3, 32, 32, 64)
_BLOCKS = (16, 16, 16, 32, 64)
_HEAD_DIMS = (32, 32, 32, 32, 32, 64, 64, 64, 128, 256)
_TOKENS = (64, 100, 1000, 131072, 2**20)
_SEGMENTS = (4, 8, 16)
_PORTS = (64, 128, 256, 512)
_QUERY_ROWS = (*(1,) * 8, *(2,) * 4, *(4,) * 4, 8, 8, 16, 16)
_KEY_SLOTS = (2, 2, 4, 8)
_CORES = (*(1,) * 10, *(2,) * 5, *(4,) * 4, 8)
_CHANNELS = (*(0,) * 12, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


def deal(name: str, place: int, values: Sequence[Value]) -> Value:
    """Return one of some values: of so many places that follow one another, each gets another."""
    turn, own = divmod(place, len(values))
    return random.Random(f"{name} {turn}").sample(list(values), len(values))[own]


def random_config(place: int, *, is_core: bool) -> Config:
    """Return configuration number ``place`` of the accelerator, or of a core alone."""

    def drawn(name: str, values: Sequence[Value]) -> Value:
        return deal(f"{name} of a core" if is_core else name, place, values)

    cores = 1 if is_core else drawn("cores", _CORES)
    limit = _PES_MAX if cores == 1 else _CLUSTER_PES_MAX // cores
    longest = limit // min(_SIDES)
    # In this sequence of columns 64 of them fall to a single core within 1,000 seeds.
    rows, cols = min(drawn("rows", _SIDES), longest), min(drawn("cols 5", _SIDES), longest)
    # The longer side stays.
    if rows < cols:
        rows = min(rows, limit // cols)
    else:
        cols = min(cols, limit // rows)
    block = max(drawn("block", _BLOCKS), rows, cols)
    head_dim = max(drawn("head_dim", _HEAD_DIMS), cols)
    while 2 * block**2 * head_dim // (rows * cols) > _BLOCK_CYCLES_MAX and head_dim > max(32, cols):
        head_dim //= 2
    values = {
        "rows": rows,
        "cols": cols,
        "block": block,
        "head_dim": head_dim,
        # Heads of four blocks at least.
        "max_tokens": max(drawn("max_tokens", _TOKENS), 4 * block),
        "exp_segments": drawn("exp_segments", _SEGMENTS),
        "query_rows": drawn("query_rows", _QUERY_ROWS),
        "key_slots": drawn("key_slots", _KEY_SLOTS),
    }
    if not is_core:
        channels = drawn("vector_channels", _CHANNELS)
        values |= {
            "axi_bits": drawn("axi_bits", _PORTS),
            "cores": cores,
            "vector_channels": max(channels, head_dim) if channels else 0,
        }
    return Config(**values)
