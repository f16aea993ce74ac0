"""The 2-bit codes of a head: one for each block of its map, 0 for one that is skipped."""

import torch

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


def check_codes(codes: torch.Tensor, count: int) -> None:
    """Check codes of a head with ``count`` blocks on a side.

    Raises
    ------
    ParoError
        If they have another shape, hold other values than 0 .. 3 or leave a row without a live
        block.
    """
    if codes.dtype != torch.uint8 or codes.shape != (count, count) or codes.max() > 3:
        raise ParoError(
            f"codes are {codes.dtype} {list(codes.shape)}; legal: uint8 [{count}, {count}], 0 to 3"
        )
    dead = (codes == 0).all(dim=1)
    if dead.any():
        raise ParoError(f"block row {int(dead.nonzero()[0])} has no live block; legal: 1 or more")


def mean_bits(codes: torch.Tensor) -> float:
    """Mean width in bits over all blocks, skipped ones counting 0."""
    return torch.tensor(CODE_BITS)[codes.long()].double().mean().item()


def density(codes: torch.Tensor) -> float:
    """Share of the blocks that are live."""
    return (codes != 0).double().mean().item()


def pack_codes(codes: torch.Tensor) -> torch.Tensor:
    """Pack codes along the last axis, four to a byte, the lowest index in the lowest bits.

    uint8 [..., n] to uint8 [..., ceil(n / 4)]; the last byte is filled with zeros.
    """
    padded = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % CODES_PER_BYTE))
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8)
    return (padded.unflatten(-1, (-1, CODES_PER_BYTE)) << shifts).sum(dim=-1, dtype=torch.uint8)


def unpack_codes(packed: torch.Tensor, count: int) -> torch.Tensor:
    """Inverse of `pack_codes` for ``count`` codes along the last axis."""
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8)
    return ((packed.unsqueeze(-1) >> shifts) & 3).flatten(-2)[..., :count]
