"""Calibration of whole models: the token order of each head, the code of each block.

The input is a number of captures, each of one attention layer at one time of the denoising. Those
of one model (`Capture.model`) go into one plan. All heads of all layers, step groups and models
share one budget, unless each shall have its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import torch

from firmware_model.allocation import (
    EIGHT_BITS,
    HeadErrors,
    allocate_codes,
    allocate_masks,
    check_avg_bits,
    forced_blocks,
)
from firmware_model.capture import Capture
from firmware_model.order import alike_orders, order_metric
from firmware_model.plan import ModelPlan, check_block, group_shares, step_group
from firmware_model.progress import Progress, Steps
from firmware_model.reorder import ORDERS
from firmware_model.sensitivity import ROUNDINGS, Rounding, block_errors, block_sums
from paro_config.errors import ParoError
from paro_config.formats import CODE_BITS, PAPER_BITS

#: Code at which a head's error is the measure of its errors.
RELATIVE_TO = {"best": EIGHT_BITS, "signal": 0}
#: Ways to choose a head's order: PAROAttention's metric; least error after an allocation of its own
#: (for widths, not for masks); or one order for all, FHW being none.
ORDER_CHOICES = ("metric", "error", *ORDERS)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What calibration shall reach.

    Parameters
    ----------
    avg_bits : float
        Mean width over all blocks and denoising steps, above 0, at most 8.
    density : float, optional
        Instead of widths a mask: the share of blocks that live, at 8 bits; above 0, at most 1.
        ``avg_bits`` is not used then.
    block : int
        16, 32 or 64.
    order : str
        One of `ORDER_CHOICES`.
    rounding : str
        Number format that the widths' errors are measured with, one of `ROUNDINGS`.
    step_groups : tuple of float
        Where each group of denoising steps begins, as a share of all steps; ascending from 0.
    per_head : bool
        Whether each head (of each layer and step group) has a budget of its own.
    floor_bits : float
        Mean bits that no head may fall below; 0 to ``avg_bits``.
    relative_to : {"best", "signal"}
        What a head's errors are divided by before heads share a budget. "best": its own error at 8
        bits, so that no head loses much against its best. "signal": the error of skipping it, which
        is about the power of its output, so that the model's output is closest to the exact one.

    Raises
    ------
    ParoError
        If one of them is not legal.
    """

    avg_bits: float = PAPER_BITS
    density: float | None = None
    block: int = 64
    order: str = "metric"
    rounding: Rounding = "digit"
    step_groups: tuple[float, ...] = (0.0,)
    per_head: bool = False
    floor_bits: float = 0.0
    relative_to: Literal["best", "signal"] = "best"

    def __post_init__(self) -> None:
        check_block(self.block)
        check_avg_bits(self.avg_bits)
        if self.density is not None and not 0 < self.density <= 1:
            raise ParoError(f"density = {self.density} is not legal; legal: above 0, at most 1")
        if self.order not in ORDER_CHOICES:
            raise ParoError(
                f"order = {self.order!r} is not legal; legal: {', '.join(ORDER_CHOICES)}"
            )
        if self.density is not None and (self.floor_bits or self.rounding != "digit"):
            raise ParoError("floor_bits and format are for widths; a density has neither")
        if self.order == "error" and self.density is not None:
            raise ParoError("order = 'error' is not legal with a density; legal: metric, FHW ...")
        if self.relative_to not in RELATIVE_TO:
            raise ParoError(
                f"relative to {self.relative_to!r} is not legal; legal: {', '.join(RELATIVE_TO)}"
            )
        if self.rounding not in ROUNDINGS:
            raise ParoError(
                f"format = {self.rounding!r} is not legal; legal: {', '.join(ROUNDINGS)}"
            )
        starts = self.step_groups
        ascending = all(a < b for a, b in pairwise((*starts, 1.0)))
        if not starts or starts[0] != 0 or not ascending:
            raise ParoError(
                f"step groups {','.join(map(str, starts))} are not legal; legal: shares of the "
                "steps, ascending from 0, below 1"
            )
        if not 0 <= self.floor_bits <= self.avg_bits:
            raise ParoError(
                f"floor_bits = {self.floor_bits} is not legal; legal: 0 to {self.avg_bits:g}"
            )


def step_group_starts(groups: int) -> tuple[float, ...]:
    """Starts of PAROAttention's step groups: all but one in the first half, one for the second.

    Raises
    ------
    ParoError
        If ``groups`` is below 1.
    """
    if groups < 1:
        raise ParoError(f"step groups = {groups} is not legal; legal: 1 or more")
    if groups == 1:
        return (0.0,)
    return tuple(0.5 * index / (groups - 1) for index in range(groups))


@dataclass
class _Layer:
    """Captures of one layer, by step group."""

    groups: list[list[Capture]]
    #: Order of each head, as they are measured.
    orders: list[int] = field(default_factory=list)

    @property
    def captures(self) -> list[Capture]:
        return [capture for group in self.groups for capture in group]


@dataclass(frozen=True, eq=False)
class _Cell:
    """A head in one step group, as allocation sees it: errors for widths, sums for a mask."""

    errors: HeadErrors
    sums: torch.Tensor


def calibrate(
    captures: Sequence[Capture],
    goal: Goal,
    heads: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[ModelPlan]:
    """Calibrate all models that some captures are of, under one budget.

    Parameters
    ----------
    captures : sequence of Capture
        At least one. Several of one layer and step group are averaged.
    goal : Goal
        What to reach.
    heads : sequence of int, optional
        Heads of every layer to calibrate; all by default.
    progress : Progress, optional
        Told as the work goes on.

    Returns
    -------
    list of ModelPlan
        One for each model, in the sequence of their first captures.

    Raises
    ------
    ParoError
        If captures of a model differ in shape, a layer or step group of one has no capture, a head
        does not exist or its logits are beyond the number format.
    """
    return Calibration(captures, goal, heads, progress).plans()


class Calibration:
    """What was measured of some captures; plans of several widths can be made from it.

    Parameters and errors as `calibrate`.
    """

    def __init__(
        self,
        captures: Sequence[Capture],
        goal: Goal,
        heads: Sequence[int] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._goal = goal
        self._models: dict[str, list[Capture]] = {}
        for capture in captures:
            self._models.setdefault(capture.model, []).append(capture)
        self._layers = {model: _layers(parts, goal) for model, parts in self._models.items()}
        self._heads = {
            model: _checked_heads(parts[0], heads) for model, parts in self._models.items()
        }
        tries = 1 + (len(ORDERS) if goal.order in ("metric", "error") else 0)
        total = sum(
            tries * len(self._heads[capture.model]) * -(-capture.tokens // goal.block)
            for capture in captures
        )
        steps = Steps(progress, total)
        self._cells: list[_Cell] = []
        code = RELATIVE_TO[goal.relative_to]
        for model, layers in self._layers.items():
            for layer in layers.values():
                for head in self._heads[model]:
                    order, found = _measure(layer, head, goal, steps)
                    layer.orders.append(order)
                    self._cells += [
                        replace(cell, errors=cell.errors.relative_to(code)) for cell in found
                    ]

    @property
    def head_errors(self) -> list[HeadErrors]:
        """What allocation sees: each head of each layer, model and step group."""
        return [cell.errors for cell in self._cells]

    def plans(self, avg_bits: float | None = None, density: float | None = None) -> list[ModelPlan]:
        """Make the plans; ``avg_bits`` or ``density`` in place of those of the goal.

        Raises
        ------
        ValueError
            If that was not measured: widths of a goal with a density, of 8 bits or with orders
            chosen by error, or a density of a goal without one.
        """
        measured = self._goal
        if (density is not None and measured.density is None) or (
            avg_bits is not None
            and avg_bits != measured.avg_bits
            and (
                measured.density is not None
                or measured.order == "error"
                or measured.avg_bits == CODE_BITS[EIGHT_BITS]
            )
        ):
            raise ValueError("plans of a kind that was not measured")
        goal = replace(
            self._goal,
            avg_bits=self._goal.avg_bits if avg_bits is None else avg_bits,
            density=self._goal.density if density is None else density,
        )
        codes = iter(_allocate(self._cells, goal))
        return [
            _assemble(self._models[model], layers, self._heads[model], goal, codes)
            for model, layers in self._layers.items()
        ]


def _checked_heads(capture: Capture, heads: Sequence[int] | None) -> tuple[int, ...]:
    chosen = range(capture.heads) if heads is None else heads
    beyond = [head for head in chosen if not 0 <= head < capture.heads]
    if beyond:
        raise ParoError(
            f"capture {capture.path} has no head {beyond[0]}; legal: 0 to {capture.heads - 1}"
        )
    return tuple(chosen)


def _layers(captures: Sequence[Capture], goal: Goal) -> dict[int, _Layer]:
    """Sort the captures of a model by layer and step group."""
    first = captures[0]
    layers: dict[int, _Layer] = {}
    for capture in captures:
        for name in ("grid", "prefix_tokens", "suffix_tokens", "heads", "head_dim"):
            if getattr(capture, name) != getattr(first, name):
                raise ParoError(
                    f"captures {first.path} and {capture.path} are of one model, but have {name} "
                    f"{getattr(first, name)} and {getattr(capture, name)}"
                )
        layer = layers.setdefault(capture.layer, _Layer([[] for _ in goal.step_groups]))
        layer.groups[step_group(goal.step_groups, capture.progress)].append(capture)
    for index, layer in layers.items():
        for group, start in zip(layer.groups, goal.step_groups, strict=True):
            if not group:
                raise ParoError(
                    f"no capture of layer {index} lies in the step group that begins at {start:g}; "
                    f"legal: one or more in each group, for each layer (as {first.path})"
                )
    return dict(sorted(layers.items()))


def _measure(layer: _Layer, head: int, goal: Goal, steps: Steps) -> tuple[int, list[_Cell]]:
    """Order of one head, and what allocation needs to know of it in each step group."""
    capture = layer.captures[0]
    # A single group weighs 1, whatever its share is called.
    weights = [share * len(layer.groups) for share in group_shares(goal.step_groups)]

    def cells(order: int) -> list[_Cell]:
        return [
            _cell(group, head, order, goal, weight, steps)
            for group, weight in zip(layer.groups, weights, strict=True)
        ]

    if goal.order in ORDERS:
        order = ORDERS.index(goal.order)
        return order, cells(order)
    if goal.order == "metric":
        metric = order_metric(layer.captures, head, goal.block, steps)
        order = metric.index(min(metric))
        return order, cells(order)
    found = {}
    blocks = len(layer.captures) * -(-capture.tokens // goal.block)
    for order, alike in enumerate(alike_orders(capture)):
        if order == alike:
            found[order] = cells(order)
        else:
            steps.advance(blocks)
    steps.advance(blocks)
    best = min(found, key=lambda order: _own_loss(found[order], goal))
    return best, found[best]


def _cell(
    captures: Sequence[Capture], head: int, order: int, goal: Goal, weight: float, steps: Steps
) -> _Cell:
    """Measure a head in one step group, in one order."""
    first = captures[0]
    forced = forced_blocks(first.tokens, first.text_tokens, goal.block)
    nothing = torch.zeros(len(CODE_BITS), *forced.shape)
    if goal.density is not None:
        sums = [block_sums(capture, head, order, goal.block, steps) for capture in captures]
        return _Cell(HeadErrors(nothing, forced, weight), torch.stack(sums).mean(dim=0))
    if goal.avg_bits == CODE_BITS[EIGHT_BITS] or forced.all():
        steps.advance(len(captures) * len(forced))
        return _Cell(HeadErrors(nothing, torch.ones_like(forced), weight), nothing[0])
    errors = [
        block_errors(capture, head, order, goal.block, goal.rounding, steps) for capture in captures
    ]
    return _Cell(HeadErrors(torch.stack(errors).mean(dim=0), forced, weight), nothing[0])


def _own_loss(cells: Sequence[_Cell], goal: Goal) -> float:
    """What a head loses in an order under a budget of its own; lower is better."""
    codes = _allocate(cells, goal)
    return sum(
        cell.errors.errors.gather(0, chosen.long().unsqueeze(0)).sum().item()
        for cell, chosen in zip(cells, codes, strict=True)
    )


def _allocate(cells: Sequence[_Cell], goal: Goal) -> list[torch.Tensor]:
    """Codes of each cell, under one budget or one for each."""
    if goal.per_head and len(cells) > 1:
        return [codes for cell in cells for codes in _allocate([cell], goal)]
    heads = [cell.errors for cell in cells]
    if goal.density is not None:
        return allocate_masks(heads, [cell.sums for cell in cells], goal.density)
    if goal.avg_bits == CODE_BITS[EIGHT_BITS]:
        return [torch.full_like(head.forced, EIGHT_BITS, dtype=torch.uint8) for head in heads]
    return allocate_codes(heads, goal.avg_bits, goal.floor_bits)


def _assemble(
    captures: Sequence[Capture],
    layers: dict[int, _Layer],
    heads: tuple[int, ...],
    goal: Goal,
    codes: Iterator[torch.Tensor],
) -> ModelPlan:
    """Build a model's plan, taking from ``codes`` what is its own."""
    first = captures[0]
    by_layer = [
        torch.stack([torch.stack([next(codes) for _ in goal.step_groups]) for _ in heads], dim=1)
        for _ in layers
    ]
    return ModelPlan(
        model=first.model,
        calibrated_on=tuple(capture.digest for capture in captures),
        block=goal.block,
        grid=first.grid,
        prefix_tokens=first.prefix_tokens,
        suffix_tokens=first.suffix_tokens,
        avg_bits=float(goal.avg_bits if goal.density is None else goal.density * 8),
        layers=tuple(layers),
        heads=heads,
        step_groups=goal.step_groups,
        orders=torch.tensor([layer.orders for layer in layers.values()], dtype=torch.uint8),
        codes=torch.stack(by_layer, dim=1),
    )
