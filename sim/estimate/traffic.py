"""Bytes between memory and multipliers: one rule for every machine.

Attention goes by tiles of queries: Q is read and O written once, K and V are read for each tile
again, those of a cross attention too. A buffer that holds K and V of one head spares the memory all
but the first reading. Linear layers go by square tiles of outputs: each operand is read once for
each tile beside it, and the accumulators of a tile (32 bits) fill the buffer. Without a buffer a
tile is as large as one of attention. Rows of DRAM, refresh and bank conflicts are left out: a byte
costs the same everywhere.
"""

from math import ceil, sqrt

from sim.estimate.workloads import Workload

__all__ = [
    "TILE",
    "attention_bytes",
    "heads_held",
    "linear_bytes",
    "linear_reads",
    "linear_tile",
]

#: Tokens in a tile of a machine that says nothing of its own.
TILE = 64
#: Bytes of an accumulator, and of an output.
_ACCUMULATOR, _OUTPUT = 4, 2


def heads_held(workload: Workload, operand_bytes: float, buffer: float) -> int:
    """Heads whose K and V a buffer holds."""
    return int(buffer // (2 * workload.tokens * workload.head_dim * operand_bytes))


def attention_bytes(workload: Workload, operand_bytes: float, buffer: float) -> float:
    """Bytes of the attention of a layer, if every key is read for every tile of queries."""
    tiles = 1 if heads_held(workload, operand_bytes, buffer) else workload.blocks(TILE)
    keys = tiles * (workload.tokens + workload.cross_tokens)
    queries = workload.tokens * (2 if workload.cross_tokens else 1)
    return workload.width * (2 * keys * operand_bytes + queries * (operand_bytes + _OUTPUT))


def linear_tile(tile: int, buffer: float) -> float:
    """Outputs on a side of a tile of the linear layers."""
    return max(tile, sqrt(buffer / _ACCUMULATOR))


def linear_reads(
    workload: Workload, operand_bytes: float, tile: float, tokens: float | None = None
) -> float:
    """Bytes that the linear layers of a layer read.

    Parameters
    ----------
    workload : Workload
    operand_bytes : float
        Of a weight and of an activation.
    tile : float
        Outputs of a tile.
    tokens : float, optional
        Tokens of a tile; as many as outputs by default.
    """
    group = tile if tokens is None else tokens
    return sum(
        operand_bytes
        * inputs
        * (workload.tokens * ceil(outputs / tile) + outputs * ceil(workload.tokens / group))
        for inputs, outputs in workload.linear_layers
    )


def linear_bytes(
    workload: Workload, operand_bytes: float, tile: float, tokens: float | None = None
) -> float:
    """Bytes that they read and write; parameters as of `linear_reads`."""
    written = sum(_OUTPUT * workload.tokens * outputs for _, outputs in workload.linear_layers)
    return linear_reads(workload, operand_bytes, tile, tokens) + written
