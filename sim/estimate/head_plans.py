"""Block codes for the heads of a model that cannot be captured: those of captured heads, scaled.

A captured head has a map of errors: that of each block at each width. It is measured in blocks
of a size (16, 32 or 64 tokens) that makes the map about as fine as the model's. Its part
without text is stretched or shrunk to the blocks of the model, each block taking the error of the
captured block at the same place (nearest neighbour; a jitter of 1 % parts equals), so that the
diagonal stays the diagonal and a band keeps its share of the map. The model's own text and its
last, partial block are forced to 8 bits. Then allocation runs anew over all heads, under one
budget, so that the mean width is that asked for. The heads of the model take these maps in turn.

Whether the heads of that model look like the captured ones stays unknown. With the mean width
given, it matters only for how evenly work is spread.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from firmware_model.calibration.allocation import HeadErrors, allocate_codes, text_floor
from firmware_model.calibration.calibrate import Calibration
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.plan import ModelPlan, group_shares
from firmware_model.capture import Capture
from firmware_model.parallel import map_rows
from firmware_model.progress import Progress
from firmware_model.tensorfile import read_tensors, tensor_names, write_tensors
from paro.config.config import BLOCKS, blocks_of
from paro.config.errors import ParoError
from paro.config.formats import CODE_BITS, EIGHT_BITS
from sim.estimate.machine import check_density
from sim.estimate.workloads import Workload
from sim.sources import source_digest

__all__ = [
    "HeadPlans",
    "assumed_plans",
    "calibrated_plans",
    "describe_captures",
    "measure_heads",
    "plans_of",
]

#: Most blocks that are allocated at once, but for a single map: larger models take fewer of the
#: captured heads.
BLOCKS_MAX = 2**24
_BITS = np.array(CODE_BITS)
#: Jitter that moves the errors of equal blocks apart, relative to them.
_JITTER = 0.01


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadPlans:
    """Codes of the heads of one pass through a model.

    Parameters
    ----------
    source : str
        Where they come from, in words.
    assumed : bool
        Whether nothing of them was measured.
    block : int
        Tokens on a side of a block.
    codes : np.ndarray
        uint8 [maps, blocks, blocks].
    counts : np.ndarray
        float64 [maps]: heads of a pass that have this map; together layers x heads.
    """

    source: str
    assumed: bool
    block: int
    codes: np.ndarray
    counts: np.ndarray

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of all blocks that have each code."""
        found = np.array([np.bincount(c.ravel(), minlength=len(CODE_BITS)) for c in self.codes])
        return tuple(float(part) for part in self.counts @ found / (self.counts @ found).sum())

    @property
    def mean_bits(self) -> float:
        """Mean width of a block, skipped ones counting 0."""
        return float(_BITS @ self.shares)

    @property
    def density(self) -> float:
        """Share of the blocks that are live."""
        return 1 - self.shares[0]

    def digest(self) -> str:
        """Short stable name of the codes."""
        content = hashlib.sha256(f"{self.codes.shape}{self.block}".encode())
        content.update(self.codes.tobytes())
        content.update(self.counts.tobytes())
        return content.hexdigest()[:12]


def measure_heads(
    captures: Sequence[Capture],
    blocks: int,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[HeadErrors]:
    """Measure the errors of every block of every captured head, in the head's best order.

    Parameters
    ----------
    captures : sequence of Capture
        Of any models.
    blocks : int
        Blocks on a side of the map that they are for.
    cache : Path, optional
        Folder that keeps them: what lies there is not measured again.
    progress : Progress, optional
        Called as the work goes on.

    Raises
    ------
    ParoError
        As `calibrate.calibrate`.
    """
    errors: list[torch.Tensor] = []
    for done, capture in enumerate(captures):
        size = _block_size(capture.tokens, blocks)
        path = None
        if cache is not None:
            path = cache / f"{capture.digest[:16]}-{size}-{source_digest()}.safetensors"
        part = _part(progress, done, len(captures))
        found = _stored(path)
        if found is None:
            goal = Goal(block=size, text_bits=CODE_BITS[EIGHT_BITS])
            measured = Calibration([capture], goal, progress=part).head_errors
            # Maps of text alone say nothing of the grid.
            found = [_inner(head) for head in measured if not head.least.all()]
            if path is not None:
                write_tensors(path, {f"head{index}": part for index, part in enumerate(found)})
        elif part is not None:
            part(1, 1)
        errors += found
    if not errors:
        raise ParoError("the captures have no map of more than text and one block")
    return [HeadErrors(part, torch.zeros(part.shape[1:], dtype=torch.uint8)) for part in errors]


def _stored(path: Path | None) -> list[torch.Tensor] | None:
    """Errors that were measured before, of each head."""
    if path is None or not path.exists():
        return None
    names = tensor_names(path, "measured errors")
    tensors = read_tensors(path, "measured errors", names).tensors
    return [tensors[f"head{index}"] for index in range(len(names))]


def _block_size(tokens: int, blocks: int) -> int:
    """Block that cuts some tokens into as near as possible to ``blocks`` blocks."""
    return min(BLOCKS, key=lambda size: abs(math.log(blocks_of(tokens, size) / blocks)))


def _part(progress: Progress | None, index: int, parts: int) -> Progress | None:
    """Progress within one of some parts, in thousandths of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress((1000 * index + 1000 * done // total) // parts, 1000)


def _inner(head: HeadErrors) -> torch.Tensor:
    """Errors of the blocks without text."""
    inside = (~head.least.all(dim=1)).nonzero().flatten()
    return head.errors[:, inside][:, :, inside].contiguous()


def calibrated_plans(
    heads: Sequence[HeadErrors], workload: Workload, block: int, avg_bits: float, source: str
) -> HeadPlans:
    """Scale measured heads to a model and choose their codes under one budget.

    Parameters
    ----------
    heads : sequence of HeadErrors
        Of `measure_heads`.
    workload : Workload
        The model.
    block : int
        Tokens on a side of a block.
    avg_bits : float
        Mean width over all blocks of the model.
    source : str
        Origin of the heads, in words.

    Raises
    ------
    ParoError
        If the forced blocks of the model alone need more bits than that.
    """
    forced = _forced_blocks(workload, block)
    inside = (~forced.all(dim=1)).nonzero().flatten()
    least = CODE_BITS[EIGHT_BITS] * forced.double().mean().item()
    if least > avg_bits:
        raise ParoError(
            f"avg_bits = {avg_bits:g} is not legal for {workload.title}: its text and its last "
            f"block need {least:.2f}"
        )
    wanted = min(len(heads), workload.layers * workload.heads)
    wanted = max(1, min(wanted, BLOCKS_MAX // forced.numel()))
    chosen = [heads[index * len(heads) // wanted] for index in range(wanted)]
    counts = _in_turn(workload, wanted)

    def scale(index: int) -> HeadErrors:
        errors = torch.zeros(len(CODE_BITS), *forced.shape)
        if len(inside):
            head = chosen[index]
            places = _nearest(len(head.least), len(inside))
            scaled = head.errors[:, places.unsqueeze(1), places]
            scaled *= 1 + _JITTER * torch.rand(
                scaled.shape[1:], generator=torch.Generator().manual_seed(index)
            )
            errors[:, inside.unsqueeze(1), inside] = scaled
        floor = forced.byte() * EIGHT_BITS
        head = HeadErrors(errors, floor, float(counts[index]))
        return head.scaled(1 / (errors[EIGHT_BITS].sum() or 1.0))

    scaled = map_rows(scale, range(wanted))
    # One thread: the maps are small, see `firmware_model.parallel`.
    (codes,) = map_rows(lambda budget: allocate_codes(scaled, budget), [avg_bits])
    return HeadPlans(
        source=source,
        assumed=False,
        block=block,
        codes=torch.stack(codes).numpy(),
        counts=counts,
    )


def _forced_blocks(workload: Workload, block: int) -> torch.Tensor:
    """Blocks that no captured head has a like of: bool [blocks, blocks].

    They are the rows and columns of the model's text and of its last block, if that is partial.
    """
    forced = text_floor(workload.tokens, workload.text_tokens, block, EIGHT_BITS) > 0
    if workload.tokens % block:
        forced[-1] = forced[:, -1] = True
    return forced


def _nearest(have: int, want: int) -> torch.Tensor:
    """For each of ``want`` places, the nearest of ``have``."""
    return ((2 * torch.arange(want) + 1) * have) // (2 * want)


def _in_turn(workload: Workload, maps: int) -> np.ndarray:
    """How many heads of a pass take each map, if they do so in turn."""
    heads = workload.layers * workload.heads
    return np.array([len(range(index, heads, maps)) for index in range(maps)], dtype=np.float64)


def plans_of(plan: ModelPlan, workload: Workload, block: int, source: str) -> HeadPlans:
    """Take the codes of a plan: as they are if the grid is the model's, else by nearest neighbour.

    These are the codes of the grid's blocks. Where the model has other text, its own is at 8 bits.
    A plan of fewer layers or heads is used in turn. Step groups count by their share of the steps.
    The mean width of a scaled plan follows the codes; nothing is allocated anew.

    Raises
    ------
    ParoError
        If the plan has another block size or more heads than the model.
    """
    if plan.block != block:
        raise ParoError(f"block = {block} does not fit the plan, which has {plan.block}")
    _, layers, heads, count, _ = plan.codes.shape
    if layers * heads > workload.layers * workload.heads:
        raise ParoError(
            f"the plan has {layers} x {heads} heads, more than the {workload.layers} x "
            f"{workload.heads} of {workload.title}"
        )
    forced = _forced_blocks(workload, block)
    codes = plan.codes.reshape(-1, count, count)
    layout = (plan.grid, plan.prefix_tokens, plan.suffix_tokens)
    own = (workload.grid, workload.prefix_tokens, workload.suffix_tokens)
    if layout != own:
        have, want = (max(1, math.prod(of.grid) // block) for of in (plan, workload))
        places = _nearest(have, want)
        scaled = codes.new_full((len(codes), *forced.shape), EIGHT_BITS)
        scaled[:, :want, :want] = codes[:, places.unsqueeze(1), places]
        scaled[:, forced] = EIGHT_BITS
        codes = scaled
        # A row that lost its live blocks keeps the one on the diagonal.
        empty = (codes == 0).all(dim=2)
        codes.diagonal(dim1=1, dim2=2)[empty] = 1
        if plan.grid != workload.grid:
            source += ", scaled to the model's grid"
    each = _in_turn(workload, layers * heads)
    counts = np.concatenate([share * each for share in group_shares(plan.step_groups)])
    return HeadPlans(source=source, assumed=False, block=block, codes=codes.numpy(), counts=counts)


def assumed_plans(workload: Workload, block: int, density: float) -> HeadPlans:
    """Assume a share of live blocks, all of 8 bits, nearest to the diagonal; nothing is measured.

    Raises
    ------
    ParoError
        If the density is not legal, or less than one block a row.
    """
    forced = _forced_blocks(workload, block)
    check_density(density)
    count = len(forced)
    wanted = round(density * count * count)
    if wanted < count:
        raise ParoError(f"density = {density:g} leaves rows of {count} blocks without a live one")
    places = torch.arange(count)
    distance = (places.unsqueeze(1) - places).abs() * 2 * count + places
    distance[forced] = -1
    live = torch.zeros(count * count, dtype=torch.uint8)
    live[distance.flatten().argsort(stable=True)[: max(wanted, int(forced.sum()))]] = EIGHT_BITS
    return HeadPlans(
        source=f"assumed: {density:.0%} of the blocks live at 8 bits, along the diagonal",
        assumed=True,
        block=block,
        codes=live.reshape(1, count, count).numpy(),
        counts=_in_turn(workload, 1),
    )


def describe_captures(captures: Sequence[Capture]) -> str:
    """The captures, in words."""
    heads = sum(capture.heads for capture in captures)
    names = list(itertools.islice((capture.name for capture in captures), 8))
    more = len(captures) - len(names)
    tail = f" and {more} more" if more else ""
    return f"calibrated: {heads} captured heads ({', '.join(names)}{tail})"
