"""Calibration plans: for each head its token order and the 2-bit code of every block."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from firmware_model.capture import Capture
from firmware_model.reorder import ORDERS
from firmware_model.tensorfile import parse_integers, read_tensors, write_tensors
from paro_config.config import Config
from paro_config.errors import ParoError
from paro_config.formats import CODE_BITS

#: Version of the file format; a plan of another version is refused.
VERSION = "paro-plan-1"
#: Codes in a byte of the file, the lowest block in the lowest bits.
CODES_PER_BYTE = 4
#: Legal block sizes.
BLOCKS: tuple[int, ...] = get_args(Config.model_fields["block"].annotation)


@dataclass(frozen=True, eq=False)
class Plan:
    """Orders and codes of some heads of one capture.

    Parameters
    ----------
    capture_digest : str
        `Capture.digest` of the capture that it was calibrated on.
    block : int
        Tokens on a side of a block.
    grid : (int, int, int)
        Token grid of the capture.
    prefix_tokens : int
        Prefix tokens of the capture.
    avg_bits : float
        Mean bits that were asked for.
    heads : tuple of int
        Heads of the capture that it holds.
    orders : tuple of int
        Index in `reorder.ORDERS` for each of ``heads``.
    codes : torch.Tensor
        uint8 [heads, blocks, blocks]: code 0 .. 3 of each (query block, key block).
    """

    capture_digest: str
    block: int
    grid: tuple[int, int, int]
    prefix_tokens: int
    avg_bits: float
    heads: tuple[int, ...]
    orders: tuple[int, ...]
    codes: torch.Tensor

    @property
    def blocks(self) -> int:
        """Blocks on a side of the attention map."""
        return self.codes.shape[1]

    def head_order(self, head: int) -> int:
        """Order of one head; `ParoError` if the plan does not hold it."""
        return self.orders[self._position(head)]

    def head_codes(self, head: int) -> torch.Tensor:
        """Codes of one head, uint8 [blocks, blocks]; `ParoError` if the plan does not hold it."""
        return self.codes[self._position(head)]

    def _position(self, head: int) -> int:
        if head not in self.heads:
            legal = ", ".join(map(str, self.heads))
            raise ParoError(f"the plan has no head {head}; legal: {legal}")
        return self.heads.index(head)


def mean_bits(codes: torch.Tensor) -> float:
    """Mean width in bits over all blocks, skipped ones counting 0."""
    return torch.tensor(CODE_BITS)[codes.long()].double().mean().item()


def density(codes: torch.Tensor) -> float:
    """Share of the blocks that are live."""
    return (codes != 0).double().mean().item()


def uniform_plan(
    capture: Capture, heads: Sequence[int], block: int = 64, code: int = 3, order: int = 0
) -> Plan:
    """Build a plan that gives every block of every head the same code.

    Parameters
    ----------
    capture : Capture
        What it is for.
    heads : sequence of int
        Heads of the capture.
    block : int
        16, 32 or 64.
    code : int
        1, 2 or 3 for 2, 4 or 8 bits.
    order : int
        Index in `reorder.ORDERS`.

    Raises
    ------
    ParoError
        If a parameter is not legal.
    """
    check_block(block)
    if code not in (1, 2, 3):
        raise ParoError(f"code = {code} is not legal in a uniform plan; legal: 1, 2, 3")
    blocks = -(-capture.tokens // block)
    return Plan(
        capture_digest=capture.digest,
        block=block,
        grid=capture.grid,
        prefix_tokens=capture.prefix_tokens,
        avg_bits=float(CODE_BITS[code]),
        heads=tuple(heads),
        orders=(order,) * len(heads),
        codes=torch.full((len(heads), blocks, blocks), code, dtype=torch.uint8),
    )


def check_block(block: int) -> None:
    """Raise ParoError unless ``block`` is a legal block size."""
    if block not in BLOCKS:
        raise ParoError(f"block = {block} is not legal; legal: {', '.join(map(str, BLOCKS))}")


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


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan, whole or not at all.

    Raises
    ------
    ParoError
        If the file cannot be written.
    """
    tensors = {
        "heads": torch.tensor(plan.heads, dtype=torch.int32),
        "orders": torch.tensor(plan.orders, dtype=torch.uint8),
        "codes": pack_codes(plan.codes),
    }
    metadata = {
        "format": VERSION,
        "capture": plan.capture_digest,
        "block": str(plan.block),
        "grid": ",".join(map(str, plan.grid)),
        "prefix_tokens": str(plan.prefix_tokens),
        "avg_bits": repr(plan.avg_bits),
    }
    write_tensors(path, tensors, metadata)


def load_plan(path: Path, capture: Capture) -> Plan:
    """Read a plan and check that it belongs to ``capture``.

    Raises
    ------
    ParoError
        If the file is missing, truncated, of another version or of another capture, or if anything
        in it is not as `Plan` states.
    """
    path = Path(path)
    tensors, metadata, _ = read_tensors(path, "plan", ("heads", "orders", "codes"))
    version = metadata.get("format")
    if version != VERSION:
        raise ParoError(f"plan {path} has format {version!r}; legal: {VERSION!r}")
    if metadata.get("capture") != capture.digest:
        raise ParoError(
            f"plan {path} is of another capture than {capture.path}; "
            "calibrate this capture, or give the one that the plan was made from"
        )
    fields = {name: parse_integers(metadata.get(name, "")) for name in ("block", "prefix_tokens")}
    block = fields["block"][0] if fields["block"] else 0
    if block not in BLOCKS:
        raise ParoError(f"plan {path}: block = {metadata.get('block', '')[:60]!r} is not legal")
    grid = parse_integers(metadata.get("grid", ""))
    if grid != capture.grid or fields["prefix_tokens"] != (capture.prefix_tokens,):
        raise ParoError(f"plan {path} has another token grid than capture {capture.path}")
    try:
        avg_bits = float(metadata.get("avg_bits", ""))
    except ValueError:
        avg_bits = 0.0
    if not 0 < avg_bits <= CODE_BITS[-1]:
        raise ParoError(
            f"plan {path}: avg_bits = {metadata.get('avg_bits', '')[:60]!r} is not legal; "
            f"legal: above 0, at most {CODE_BITS[-1]}"
        )
    heads, orders, packed = tensors["heads"], tensors["orders"], tensors["codes"]
    _check_heads(path, heads, orders, capture)
    blocks = -(-capture.tokens // block)
    expected = [len(heads), blocks, -(-blocks // CODES_PER_BYTE)]
    if packed.dtype != torch.uint8 or list(packed.shape) != expected:
        raise ParoError(
            f"plan {path}: codes are {packed.dtype} {list(packed.shape)}; legal: uint8 {expected}"
        )
    codes = unpack_codes(packed, blocks)
    dead = (codes == 0).all(dim=2).nonzero()
    if len(dead):
        head, row = int(heads[dead[0, 0]]), int(dead[0, 1])
        raise ParoError(f"plan {path}: block row {row} of head {head} has no live block")
    return Plan(
        capture_digest=capture.digest,
        block=block,
        grid=capture.grid,
        prefix_tokens=capture.prefix_tokens,
        avg_bits=avg_bits,
        heads=tuple(heads.tolist()),
        orders=tuple(orders.tolist()),
        codes=codes,
    )


def _check_heads(path: Path, heads: torch.Tensor, orders: torch.Tensor, capture: Capture) -> None:
    legal = (
        heads.dtype == torch.int32
        and heads.dim() == 1
        and len(heads) > 0
        and len(heads.unique()) == len(heads)
        and heads.min() >= 0
        and heads.max() < capture.heads
    )
    if not legal:
        raise ParoError(
            f"plan {path}: heads are not legal; legal: int32 [heads], distinct, 0 to "
            f"{capture.heads - 1}"
        )
    if orders.dtype != torch.uint8 or orders.shape != heads.shape or orders.max() >= len(ORDERS):
        raise ParoError(
            f"plan {path}: orders are not legal; legal: uint8 [{len(heads)}], 0 to "
            f"{len(ORDERS) - 1}"
        )
