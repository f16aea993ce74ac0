"""The 2-bit codes of a head: one for each block of its map, 0 for one that is skipped.

The functions take arrays and CPU tensors alike, and return arrays.
"""

import numpy as np
from numpy.typing import ArrayLike

from paro.config.errors import ParoError
from paro.config.formats import CODE_BITS

__all__ = [
    "CODES_PER_BYTE",
    "check_codes",
    "checked_query_blocks",
    "density",
    "mean_bits",
    "pack_codes",
    "unpack_codes",
]

#: Codes in a byte of the file, the lowest block in the lowest bits.
CODES_PER_BYTE = 4
_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)


def checked_query_blocks(query_blocks: range | None, count: int) -> range:
    """Block rows to compute; all ``count`` of them for ``None``.

    Raises
    ------
    ParoError
        If the range is empty, goes backwards or leaves 0 .. ``count``.
    """
    rows = range(count) if query_blocks is None else query_blocks
    if not rows or rows.step < 0 or rows.start < 0 or rows[-1] >= count:
        raise ParoError(
            f"query blocks {rows.start}:{rows.stop} are not legal; legal: a non-empty range within "
            f"0:{count}"
        )
    return rows


def check_codes(codes: ArrayLike, count: int) -> None:
    """Check codes of a head with ``count`` blocks on a side.

    Raises
    ------
    ParoError
        If they have another shape, hold other values than 0 .. 3 or leave a row without a live
        block.
    """
    values = np.asarray(codes)
    if values.dtype != np.uint8 or values.shape != (count, count) or values.max() > 3:
        raise ParoError(
            f"codes are {values.dtype} {list(values.shape)}; legal: uint8 [{count}, {count}], "
            "0 to 3"
        )
    dead = ~values.any(axis=1)
    if dead.any():
        raise ParoError(f"block row {dead.argmax()} has no live block; legal: 1 or more")


def mean_bits(codes: ArrayLike) -> float:
    """Mean width in bits over all blocks, skipped ones counting 0."""
    values = np.asarray(codes)
    counts = np.bincount(values.ravel(), minlength=len(CODE_BITS)).tolist()
    return sum(bits * count for bits, count in zip(CODE_BITS, counts, strict=True)) / values.size


def density(codes: ArrayLike) -> float:
    """Share of the blocks that are live."""
    values = np.asarray(codes)
    return np.count_nonzero(values) / values.size


def pack_codes(codes: ArrayLike) -> np.ndarray:
    """Pack codes along the last axis, four to a byte, the lowest index in the lowest bits.

    uint8 [..., n] to uint8 [..., ceil(n / 4)]; the last byte is filled with zeros.
    """
    values = np.asarray(codes)
    missing = -values.shape[-1] % CODES_PER_BYTE
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
    parts = padded.reshape(*padded.shape[:-1], -1, CODES_PER_BYTE) << _SHIFTS
    return parts.sum(axis=-1, dtype=np.uint8)


def unpack_codes(packed: ArrayLike, count: int) -> np.ndarray:
    """Inverse of `pack_codes` for ``count`` codes along the last axis."""
    parts = np.asarray(packed)[..., None] >> _SHIFTS & 3
    return parts.reshape(*parts.shape[:-2], -1)[..., :count]
