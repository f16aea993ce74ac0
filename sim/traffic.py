"""Bytes between memory and multipliers: one rule for every machine.

Attention goes by tiles of queries: Q is read and O written once, K and V are read for each tile
again. A buffer that holds K and V of one head spares the memory all but the first reading. Linear
layers go by square tiles of outputs: each operand is read once for each tile beside it, and the
accumulators of a tile (32 bits) fill the buffer. Without a buffer a tile is as large as one of
attention. Rows of DRAM, refresh and bank conflicts are left out: a byte costs the same everywhere.
"""

from math import sqrt

from sim.workloads import Workload

__all__ = ["TILE", "attention_bytes", "holds_head", "linear_bytes", "linear_tile"]

#: Tokens in a tile of a machine that says nothing of its own.
TILE = 64
#: Bytes of an accumulator, and of an output.
_ACCUMULATOR, _OUTPUT = 4, 2


def holds_head(workload: Workload, operand_bytes: float, buffer: float) -> bool:
    """Whether a buffer holds K and V of one head."""
    return 2 * workload.tokens * workload.head_dim * operand_bytes <= buffer


def attention_bytes(workload: Workload, operand_bytes: float, buffer: float) -> float:
    """Bytes of the attention of a layer, if every key is read for every tile of queries."""
    operand = workload.tokens * workload.width * operand_bytes
    tiles = 1 if holds_head(workload, operand_bytes, buffer) else -(-workload.tokens // TILE)
    return operand + 2 * tiles * operand + workload.tokens * workload.width * _OUTPUT


def linear_tile(tile: int, buffer: float) -> float:
    """Outputs on a side of a tile of the linear layers."""
    return max(tile, sqrt(buffer / _ACCUMULATOR))


def linear_bytes(workload: Workload, operand_bytes: float, tile: float) -> float:
    """Bytes of the linear layers of a layer: QKV, output projection, feed-forward network."""
    width, ffn, tokens = workload.width, workload.ffn, workload.tokens
    moved = 0.0
    for inputs, outputs in ((width, 3 * width), (width, width), (width, ffn), (ffn, width)):
        reads_of_input = max(1.0, outputs / tile)
        reads_of_weights = max(1.0, tokens / tile)
        moved += operand_bytes * tokens * inputs * reads_of_input
        moved += operand_bytes * inputs * outputs * reads_of_weights
        moved += _OUTPUT * tokens * outputs
    return moved
