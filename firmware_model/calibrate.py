"""Calibration of whole models: order, transform and block codes of each head.

The input is a number of captures, each of one attention layer at one time of the denoising. Those
of one model (`Capture.model`) go into one plan. All heads of all layers, step groups and models
share one budget, unless each shall have its own.

Captures are read when they are needed, one at a time. What stays are errors: of each block at each
code, and of each block row at 8 bits. Allocation adds the errors of single blocks; what their sum
is short of the error that all of them cause together is measured after it, and repaired.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch

from firmware_model.allocation import (
    EIGHT_BITS,
    HeadErrors,
    allocate_codes,
    allocate_masks,
    check_avg_bits,
    text_floor,
)
from firmware_model.capture import Capture, CaptureSource
from firmware_model.order import OrderTerms, alike_orders, mixed_terms, order_terms
from firmware_model.plan import (
    ModelPlan,
    check_block,
    density,
    fit_codes,
    group_shares,
    mean_bits,
    step_group,
)
from firmware_model.progress import Progress, Steps
from firmware_model.quantize import BeyondFormatError
from firmware_model.reorder import ORDERS
from firmware_model.sensitivity import (
    ROUNDINGS,
    Rounding,
    RowErrors,
    block_errors,
    block_sums,
    row_errors,
)
from firmware_model.transform import TRANSFORMS
from paro_config.errors import ParoError
from paro_config.formats import CODE_BITS, PAPER_BITS

#: What a head's errors are divided by before heads share a budget.
RELATIVE_TO = ("best", "signal")
#: Ways to choose a head's order: least error after an allocation of its own (for masks: most weight
#: kept); PAROAttention's metric; or one order for all, FHW being none.
ORDER_CHOICES = ("error", "metric", *ORDERS)
#: Ways to choose a head's transform: least error likewise; or one for all.
TRANSFORM_CHOICES = ("error", *TRANSFORMS)
#: Orders and transforms are tried on one block row of so many, evenly spread, and at least, and at
#: most, so many of a head.
ROWS_PER_TRIAL, LEAST_TRIED, MOST_TRIED = 4, 4, 16
#: Times that codes are repaired at most, and what a row's error may be of the expected one: on 90
#: heads of four networks three rounds bring every row below it.
REPAIRS, EXPECTED = 4, 1.5
#: Least share of its weight that a query shall keep: below it, other inputs than those measured
#: lose what they look at. Rows below it count this many times more in the next round.
LEAST_KEPT, STARVED = 0.25, 4.0


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
    transform : str
        One of `TRANSFORM_CHOICES`.
    rounding : str
        Number format that the widths' errors are measured with, one of `ROUNDINGS`.
    step_groups : tuple of float
        Where each group of denoising steps begins, as a share of all steps; ascending from 0.
    per_head : bool
        Whether each head (of each layer and step group) has a budget of its own.
    floor_bits : float
        Mean bits that no head may fall below; 0 to ``avg_bits``.
    text_bits : int
        Bits that blocks with text tokens have at least: 0, 2, 4 or 8. Above it they compete by
        their errors as all others do.
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
    order: str = "error"
    transform: str = "error"
    rounding: Rounding = "digit"
    step_groups: tuple[float, ...] = (0.0,)
    per_head: bool = False
    floor_bits: float = 0.0
    text_bits: int = 0
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
        if self.transform not in TRANSFORM_CHOICES:
            raise ParoError(
                f"transform = {self.transform!r} is not legal; legal: "
                f"{', '.join(TRANSFORM_CHOICES)}"
            )
        if self.text_bits not in CODE_BITS:
            legal = ", ".join(map(str, CODE_BITS))
            raise ParoError(f"text_bits = {self.text_bits} is not legal; legal: {legal}")
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


@dataclass(frozen=True)
class HeadReport:
    """What a head's codes cost it, over all captures of its layer.

    Parameters
    ----------
    layer, head : int
        Which one.
    order, transform : int
        Index in `reorder.ORDERS` and in `transform.TRANSFORMS`.
    mean_bits, density : float
        Over its blocks and the denoising steps.
    snr_db, eight_bit_snr_db : float
        Signal-to-noise ratio of its output with these codes, and with 8 bits everywhere.
    kept : float
        The least share of its weight that any query keeps.
    """

    layer: int
    head: int
    order: int
    transform: int
    mean_bits: float
    density: float
    snr_db: float
    eight_bit_snr_db: float
    kept: float

    @property
    def loss_db(self) -> float:
        """What it loses against its own 8 bits, in dB."""
        return 0.0 if self.snr_db == self.eight_bit_snr_db else self.eight_bit_snr_db - self.snr_db


@dataclass(frozen=True)
class Calibrated:
    """A model's plan, what it costs each head, and a sentence for each head that it leaves out."""

    plan: ModelPlan
    heads: tuple[HeadReport, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Cell:
    """A head in one step group: what was measured of it.

    Parameters
    ----------
    head, order, transform : int
        Index in the captures, in `reorder.ORDERS` and in `transform.TRANSFORMS`.
    group : list of CaptureSource
        Captures of its layer in its step group, all of them with one grid.
    text_tokens : int
        Those of the longest text among the captures: its blocks are the cell's.
    errors : HeadErrors
        For widths: errors of blocks, in units of `unit`; otherwise 0.
    sums : torch.Tensor
        For masks: float32 [blocks, blocks].
    eight : RowErrors
        Of all blocks at 8 bits.
    unit : float
        What errors were divided by.
    """

    head: int
    order: int
    transform: int
    group: list[CaptureSource]
    text_tokens: int
    errors: HeadErrors
    sums: torch.Tensor
    eight: RowErrors
    unit: float

    @property
    def weight(self) -> float:
        """What its blocks count in budgets."""
        return self.errors.weight

    def expected(self, errors: HeadErrors, codes: torch.Tensor) -> torch.Tensor:
        """Squared error of each block row at some codes if those of blocks just add up.

        What no width of any block can change, V's and the output's rounding, is what 8 bits cost
        beyond the errors of 8-bit blocks.
        """
        chosen = errors.errors.double().gather(0, codes.long().unsqueeze(0))[0].sum(dim=1)
        constant = self.eight.error - self.unit * self.errors.errors[EIGHT_BITS].double().sum(dim=1)
        return self.unit * chosen + constant.clamp(min=0)


def calibrate(
    captures: Sequence[CaptureSource],
    goal: Goal,
    heads: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[ModelPlan]:
    """Calibrate all models that some captures are of, under one budget.

    Parameters
    ----------
    captures : sequence of CaptureSource
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
        If captures of a model differ in shape (the number of text tokens may differ), a layer or
        step group of one has no capture, a head does not exist or no head's logits are within the
        number format.
    """
    return Calibration(captures, goal, heads, progress).plans()


class Calibration:
    """What was measured of some captures; plans of several widths can be made from it.

    Parameters and errors as `calibrate`.
    """

    def __init__(
        self,
        captures: Sequence[CaptureSource],
        goal: Goal,
        heads: Sequence[int] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._goal = goal
        self._models: dict[str, list[CaptureSource]] = {}
        for capture in captures:
            self._models.setdefault(capture.model, []).append(capture)
        self._layers = {model: _layers(parts, goal) for model, parts in self._models.items()}
        self._heads = {
            model: _checked_heads(parts[0], heads) for model, parts in self._models.items()
        }
        self._reader = _Reader()
        self._steps = Steps(
            progress, sum(_steps_of(c, goal) * len(self._heads[c.model]) for c in captures)
        )
        #: For each model, layer and head its cells by step group; none if the format is too small.
        self._cells: dict[tuple[str, int, int], list[_Cell]] = {}
        self._left_out: dict[str, list[str]] = {model: [] for model in self._models}
        for model, layers in self._layers.items():
            for layer, groups in layers.items():
                self._measure(model, layer, groups)
        if not any(self._cells.values()):
            raise ParoError(next(iter(self._left_out.values()))[0])

    @property
    def head_errors(self) -> list[HeadErrors]:
        """What allocation sees: each head of each layer, model and step group."""
        return [cell.errors for cell in self._all_cells()]

    def plans(self, avg_bits: float | None = None, density: float | None = None) -> list[ModelPlan]:
        """Make the plans; parameters and errors as `results`."""
        return [result.plan for result in self.results(avg_bits, density)]

    def results(
        self, avg_bits: float | None = None, density: float | None = None
    ) -> list[Calibrated]:
        """Make the plans and measure them; ``avg_bits`` or ``density`` replace those of the goal.

        Raises
        ------
        ValueError
            If that was not measured: widths of a goal with a density, of 8 bits or with orders or
            transforms chosen by error, or a density of a goal without one or likewise.
        """
        self._check_measured(avg_bits, density)
        goal = replace(
            self._goal,
            avg_bits=self._goal.avg_bits if avg_bits is None else avg_bits,
            density=self._goal.density if density is None else density,
        )
        cells = self._all_cells()
        codes, measured = self._repaired(cells, goal)
        by_cell = {
            id(cell): (own, row) for cell, own, row in zip(cells, codes, measured, strict=True)
        }
        return [self._assemble(model, goal, by_cell) for model in self._models]

    def _check_measured(self, avg_bits: float | None, density: float | None) -> None:
        measured = self._goal
        other = (density is not None and density != measured.density) or (
            avg_bits is not None and avg_bits != measured.avg_bits
        )
        if other and (
            (density is None) != (measured.density is None)
            or "error" in (measured.order, measured.transform)
            or measured.avg_bits == CODE_BITS[EIGHT_BITS]
        ):
            raise ValueError("plans of a kind that was not measured")

    def _all_cells(self) -> list[_Cell]:
        return [cell for cells in self._cells.values() for cell in cells]

    def _measure(self, model: str, layer: int, groups: list[list[CaptureSource]]) -> None:
        """Choose order and transform of each head of a layer, and measure its blocks."""
        goal, heads, steps = self._goal, self._heads[model], self._steps
        captures = [capture for group in groups for capture in group]
        # A single group weighs 1, whatever its share is called.
        shares = [share * len(groups) for share in group_shares(goal.step_groups)]
        weights = [
            share / len(group) for share, group in zip(shares, groups, strict=True) for _ in group
        ]
        trials = {head: _Trials(goal) for head in heads}
        for capture, weight in zip(captures, weights, strict=True):
            for head in heads:
                trials[head].add(self._reader.read(capture), head, weight, steps)
        sums = {
            (head, index): _Sums(group, goal)
            for head in heads
            for index, group in enumerate(groups)
        }
        choices = {head: trials[head].choice() for head in heads}
        for index, group in enumerate(groups):
            for capture in group:
                for head in heads:
                    choice = choices[head]
                    if isinstance(choice, tuple):
                        sums[head, index].add(self._reader.read(capture), head, *choice, steps)
                    else:
                        steps.advance(_blocks(capture, goal.block) * _MEASURED_TIMES)
        for head in heads:
            choice = choices[head]
            if isinstance(choice, BeyondFormatError):
                self._left_out[model].append(str(choice))
                self._cells[model, layer, head] = []
                continue
            self._cells[model, layer, head] = [
                sums[head, index].cell(head, *choice, share) for index, share in enumerate(shares)
            ]

    def _repaired(
        self, cells: list[_Cell], goal: Goal
    ) -> tuple[list[torch.Tensor], list[RowErrors]]:
        """Codes of each cell, and what they cost together.

        Errors of blocks that harm only together, as those that share a query's weight, are not the
        sum of the single ones. Rows that cost more than expected count that much more, and
        everything is allocated anew; the best of all rounds is taken.
        """
        errors = [cell.errors for cell in cells]
        best: tuple[tuple[int, float], list[torch.Tensor], list[RowErrors]] | None = None
        codes: list[torch.Tensor] = []
        found: list[RowErrors] = []
        for done in range(REPAIRS):
            before, codes = codes, _allocate(cells, errors, goal)
            found = self._row_errors(cells, codes, before, found)
            starved = sum(int((rows.kept < LEAST_KEPT).sum()) for rows in found)
            total = sum(
                cell.weight * rows.error.sum().item() / cell.unit
                for cell, rows in zip(cells, found, strict=True)
            )
            if best is None or (starved, total) < best[0]:
                best = (starved, total), codes, found
            factors = [
                _row_factors(cell, own, chosen, rows)
                for cell, own, chosen, rows in zip(cells, errors, codes, found, strict=True)
            ]
            if _fixed(goal) or all((factor == 1).all() for factor in factors):
                self._steps.advance(
                    (REPAIRS - 1 - done) * sum(_measured_blocks(cell, goal) for cell in cells)
                )
                break
            errors = [own.scaled(factor) for own, factor in zip(errors, factors, strict=True)]
        assert best is not None
        return best[1], best[2]

    def _row_errors(
        self,
        cells: list[_Cell],
        codes: list[torch.Tensor],
        before: list[torch.Tensor],
        known: list[RowErrors],
    ) -> list[RowErrors]:
        """What the codes of each cell cost; ``known`` for those ``before``."""
        goal = self._goal
        found: list[RowErrors | None] = [None] * len(cells)
        waiting: dict[int, list[int]] = {}
        for index, (cell, chosen) in enumerate(zip(cells, codes, strict=True)):
            if (chosen == EIGHT_BITS).all():
                found[index] = cell.eight
            elif before and chosen.equal(before[index]):
                found[index] = known[index]
            else:
                waiting.setdefault(id(cell.group), []).append(index)
                continue
            self._steps.advance(_measured_blocks(cell, goal))
        for indices in waiting.values():
            parts: dict[int, list[RowErrors]] = {index: [] for index in indices}
            for capture in cells[indices[0]].group:
                for index in indices:
                    rows = self._capture_errors(capture, cells[index], codes[index])
                    parts[index].append(rows)
            for index, rows in parts.items():
                found[index] = _mean_rows(rows)
        return [rows for rows in found if rows is not None]

    def _capture_errors(
        self, capture: CaptureSource, cell: _Cell, codes: torch.Tensor
    ) -> RowErrors:
        """What the codes of a cell cost one of its captures."""
        block, rounding = self._goal.block, self._goal.rounding
        own = fit_codes(
            codes.unsqueeze(0),
            block,
            capture.grid_tokens,
            cell.text_tokens,
            capture.text_tokens,
        )[0]
        return row_errors(
            self._reader.read(capture),
            cell.head,
            cell.order,
            block,
            own,
            rounding,
            self._steps,
            cell.transform,
        )

    def _assemble(
        self, model: str, goal: Goal, by_cell: dict[int, tuple[torch.Tensor, RowErrors]]
    ) -> Calibrated:
        """Build a model's plan and what it costs."""
        layers, heads = self._layers[model], self._heads[model]
        longest = max(self._models[model], key=lambda capture: capture.text_tokens)
        blocks = _blocks(longest, goal.block)
        shape = (len(layers), len(heads))
        orders, transforms = torch.zeros(2, *shape, dtype=torch.uint8)
        codes = torch.zeros(len(goal.step_groups), *shape, blocks, blocks, dtype=torch.uint8)
        reports = []
        for row, layer in enumerate(layers):
            for column, head in enumerate(heads):
                cells = self._cells[model, layer, head]
                if not cells:
                    continue
                orders[row, column], transforms[row, column] = cells[0].order, cells[0].transform
                for group, cell in enumerate(cells):
                    codes[group, row, column] = fit_codes(
                        by_cell[id(cell)][0].unsqueeze(0),
                        goal.block,
                        longest.grid_tokens,
                        cell.text_tokens,
                        longest.text_tokens,
                    )[0]
                reports.append(_head_report(layer, cells, [by_cell[id(cell)] for cell in cells]))
        plan = ModelPlan(
            model=model,
            calibrated_on=tuple(self._reader.digest(c) for c in self._models[model]),
            block=goal.block,
            grid=longest.grid,
            prefix_tokens=longest.prefix_tokens,
            suffix_tokens=longest.suffix_tokens,
            avg_bits=float(goal.avg_bits if goal.density is None else goal.density * 8),
            layers=tuple(layers),
            heads=heads,
            step_groups=goal.step_groups,
            orders=orders,
            transforms=transforms,
            codes=codes,
        )
        return Calibrated(plan, tuple(reports), tuple(self._left_out[model]))


class _Reader:
    """Reads captures, and holds one."""

    def __init__(self) -> None:
        self._source: CaptureSource | None = None
        self._capture: Capture | None = None
        self._digests: dict[int, str] = {}

    def read(self, source: CaptureSource) -> Capture:
        """Read a capture, or find it read."""
        if self._capture is None or source is not self._source:
            # Let go of one before the next is read.
            self._source = self._capture = None
            self._source, self._capture = source, source.load()
            self._digests[id(source)] = self._capture.digest
        return self._capture

    def digest(self, source: CaptureSource) -> str:
        """Digest of a capture that was read."""
        return self._digests[id(source)]


class _Trials:
    """Orders and transforms of a head, tried on some rows of each capture."""

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._terms: list[OrderTerms] = []
        #: What each order and each transform leaves to allocation, capture by capture.
        self._orders: dict[int, list[_Trial]] = {}
        self._transforms: dict[int, list[_Trial]] = {}
        self._refused: dict[int, BeyondFormatError] = {}

    def add(self, capture: Capture, head: int, weight: float, steps: Steps) -> None:
        """Try them on one capture."""
        goal = self._goal
        rows = _rows_tried(_blocks(capture, goal.block))

        def trial(order: int, transform: int) -> "_Trial | None":
            if transform in self._refused:
                steps.advance(len(rows))
                return None
            try:
                return _Trial.of(capture, head, order, transform, rows, weight, goal, steps)
            except BeyondFormatError as error:
                self._refused[transform] = error
                steps.advance(len(rows))
                return None

        if goal.order == "metric":
            self._terms.append(order_terms(capture, head, goal.block, steps))
        first = ORDERS.index(goal.order) if goal.order in ORDERS else 0
        own: dict[int, _Trial | None] = {}
        for transform in _transforms_tried(goal):
            found = own[transform] = trial(first, transform)
            if found is not None:
                self._transforms.setdefault(transform, []).append(found)
        if goal.order == "error":
            # The transform hardly matters to the order: any that holds the head will do.
            held = next((t for t in reversed(own) if own[t] is not None), None)
            for order, alike in enumerate(alike_orders(capture)):
                if order != alike or held is None or order == first:
                    steps.advance(len(rows))
                    found = own[held] if held is not None and order == first else None
                else:
                    found = trial(order, held)
                if found is not None:
                    self._orders.setdefault(order, []).append(found)

    def choice(self) -> tuple[int, int] | BeyondFormatError:
        """Order and transform of least error; or why the head cannot be held."""
        goal = self._goal
        legal = {t: found for t, found in self._transforms.items() if t not in self._refused}
        if not legal:
            return next(iter(self._refused.values()))
        transform = min(legal, key=lambda t: _own_loss(legal[t], goal))
        if goal.order == "metric":
            metric = mixed_terms(self._terms)
            return metric.index(min(metric)), transform
        if goal.order == "error":
            return min(self._orders, key=lambda o: _own_loss(self._orders[o], goal)), transform
        return ORDERS.index(goal.order), transform


@dataclass(frozen=True, eq=False)
class _Trial:
    """Some rows of a head in one order and transform: errors for widths, sums for a mask."""

    errors: HeadErrors
    sums: torch.Tensor

    @classmethod
    def of(
        cls,
        capture: Capture,
        head: int,
        order: int,
        transform: int,
        rows: Sequence[int],
        weight: float,
        goal: Goal,
        steps: Steps,
    ) -> "_Trial":
        """Measure them; errors as `block_errors`."""
        least = _text_floor(capture, goal)[list(rows)]
        errors = block_errors(
            capture, head, order, goal.block, goal.rounding, steps, transform, rows
        )
        sums = errors[0]
        if goal.density is not None:
            sums = block_sums(capture, head, order, goal.block, rows=rows)
        return cls(HeadErrors(errors, least, weight), sums)


class _Sums:
    """What is measured of a head in one step group, summed over its captures."""

    def __init__(self, group: list[CaptureSource], goal: Goal) -> None:
        self._group, self._goal = group, goal
        self._longest = max(group, key=lambda capture: capture.text_tokens)
        count = _blocks(self._longest, goal.block)
        self._errors = torch.zeros(0)
        self._count = torch.zeros(count, count)
        self._sums = torch.zeros(count, count)
        self._eight: list[RowErrors] = []

    def add(self, capture: Capture, head: int, order: int, transform: int, steps: Steps) -> None:
        """Measure one capture."""
        goal, count = self._goal, _blocks(capture, self._goal.block)
        # Grid tokens stand first: the blocks of a shorter text are the first ones of a longer.
        self._count[:count, :count] += 1
        if goal.density is not None:
            self._sums[:count, :count] += block_sums(capture, head, order, goal.block, steps)
        elif _fixed(goal):
            steps.advance(count)
        else:
            if not len(self._errors):
                self._errors = torch.zeros(len(CODE_BITS), *self._count.shape)
            self._errors[:, :count, :count] += block_errors(
                capture, head, order, goal.block, goal.rounding, steps, transform
            )
        codes = torch.full((count, count), EIGHT_BITS, dtype=torch.uint8)
        self._eight.append(
            row_errors(capture, head, order, goal.block, codes, goal.rounding, steps, transform)
        )

    def cell(self, head: int, order: int, transform: int, weight: float) -> _Cell:
        """Average over the captures."""
        goal, eight = self._goal, _mean_rows(self._eight)
        # A block is measured by the captures whose text reaches it; one that no capture measures,
        # words of the longest text against each other, does not exist.
        counts = self._count.clamp(min=1)
        errors = torch.zeros(1).expand(len(CODE_BITS), *counts.shape)
        unit = eight.error.sum().item() or 1.0
        if len(self._errors):
            errors = self._errors / counts
            if goal.relative_to == "signal":
                unit = errors[0].sum().item() or 1.0
            errors /= unit
        return _Cell(
            head=head,
            order=order,
            transform=transform,
            group=self._group,
            text_tokens=self._longest.text_tokens,
            errors=HeadErrors(errors, _text_floor(self._longest, goal), weight),
            sums=self._sums / counts,
            eight=eight,
            unit=unit,
        )


#: Times that a head's block rows are measured beside trials and repairs: blocks alone, and at 8
#: bits together.
_MEASURED_TIMES = 2


def _steps_of(capture: CaptureSource, goal: Goal) -> int:
    """Steps that one head of a capture takes."""
    blocks = _blocks(capture, goal.block)
    trials = len(_transforms_tried(goal)) + (len(ORDERS) if goal.order == "error" else 0)
    metric = len(ORDERS) * blocks if goal.order == "metric" else 0
    return trials * len(_rows_tried(blocks)) + metric + (_MEASURED_TIMES + REPAIRS) * blocks


def _measured_blocks(cell: _Cell, goal: Goal) -> int:
    """Block rows that are measured for a cell in one round of repairs."""
    return sum(_blocks(capture, goal.block) for capture in cell.group)


def _transforms_tried(goal: Goal) -> range | tuple[int]:
    return (
        range(len(TRANSFORMS)) if goal.transform == "error" else (TRANSFORMS.index(goal.transform),)
    )


def _fixed(goal: Goal) -> bool:
    """Whether codes follow from the goal alone or from sums of weights, not from errors."""
    return goal.density is not None or goal.avg_bits == CODE_BITS[EIGHT_BITS]


def _blocks(capture: CaptureSource, block: int) -> int:
    return -(-capture.tokens // block)


def _rows_tried(blocks: int) -> list[int]:
    """Evenly spread block rows on which orders and transforms are tried."""
    tried = min(blocks, max(LEAST_TRIED, min(blocks // ROWS_PER_TRIAL, MOST_TRIED)))
    return [(2 * index + 1) * blocks // (2 * tried) for index in range(tried)]


def _text_floor(capture: CaptureSource, goal: Goal) -> torch.Tensor:
    code = CODE_BITS.index(goal.text_bits)
    return text_floor(capture.tokens, capture.text_tokens, goal.block, code)


def _checked_heads(capture: CaptureSource, heads: Sequence[int] | None) -> tuple[int, ...]:
    chosen = range(capture.heads) if heads is None else heads
    beyond = [head for head in chosen if not 0 <= head < capture.heads]
    if beyond:
        raise ParoError(
            f"capture {capture.path} has no head {beyond[0]}; legal: 0 to {capture.heads - 1}"
        )
    return tuple(chosen)


def _layers(captures: Sequence[CaptureSource], goal: Goal) -> dict[int, list[list[CaptureSource]]]:
    """Sort the captures of a model by layer and step group."""
    first = captures[0]
    layers: dict[int, list[list[CaptureSource]]] = {}
    for capture in captures:
        for name in ("grid", "heads", "head_dim"):
            if getattr(capture, name) != getattr(first, name):
                raise ParoError(
                    f"captures {first.path} and {capture.path} are of one model, but have {name} "
                    f"{getattr(first, name)} and {getattr(capture, name)}"
                )
        if bool(capture.text_tokens) != bool(first.text_tokens):
            some, none = sorted((first, capture), key=lambda c: not c.text_tokens)
            raise ParoError(
                f"captures {some.path} and {none.path} are of one model, but only the first has "
                "text tokens"
            )
        groups = layers.setdefault(capture.layer, [[] for _ in goal.step_groups])
        groups[step_group(goal.step_groups, capture.progress)].append(capture)
    for index, groups in layers.items():
        for group, start in zip(groups, goal.step_groups, strict=True):
            if not group:
                raise ParoError(
                    f"no capture of layer {index} lies in the step group that begins at {start:g}; "
                    f"legal: one or more in each group, for each layer (as {first.path})"
                )
    return dict(sorted(layers.items()))


def _own_loss(trials: Sequence[_Trial], goal: Goal) -> float:
    """What a head loses on the rows tried under a budget of its own; lower is better."""
    heads = [trial.errors for trial in trials]
    if goal.density is not None:
        masks = allocate_masks(heads, [trial.sums for trial in trials], goal.density)
        return -sum(
            trial.errors.weight * trial.sums[mask != 0].sum().item()
            for trial, mask in zip(trials, masks, strict=True)
        )
    codes = _allocate_widths(heads, goal)
    return sum(
        head.weight * head.errors.gather(0, chosen.long().unsqueeze(0)).sum().item()
        for head, chosen in zip(heads, codes, strict=True)
    )


def _allocate(
    cells: Sequence[_Cell], errors: Sequence[HeadErrors], goal: Goal
) -> list[torch.Tensor]:
    """Codes of each cell, under one budget or one for each."""
    if goal.per_head and len(cells) > 1:
        pairs = zip(cells, errors, strict=True)
        return [codes for cell, own in pairs for codes in _allocate([cell], [own], goal)]
    if goal.density is not None:
        return allocate_masks(errors, [cell.sums for cell in cells], goal.density)
    return _allocate_widths(errors, goal)


def _allocate_widths(heads: Sequence[HeadErrors], goal: Goal) -> list[torch.Tensor]:
    if goal.avg_bits == CODE_BITS[EIGHT_BITS]:
        return [torch.full_like(head.least, EIGHT_BITS) for head in heads]
    return allocate_codes(heads, goal.avg_bits, goal.floor_bits)


def _row_factors(
    cell: _Cell, errors: HeadErrors, codes: torch.Tensor, found: RowErrors
) -> torch.Tensor:
    """How much more each row of a cell shall count: float64 [blocks], 1 or more."""
    expected = cell.expected(errors, codes)
    # A row that is lost among the others needs no repair.
    negligible = found.error.sum() / (1000 * len(found.error))
    ratio = (found.error + negligible) / (expected + negligible)
    factor = torch.where(ratio > EXPECTED, ratio, 1.0)
    starved = (found.kept < LEAST_KEPT) & (codes != EIGHT_BITS).any(dim=1)
    return torch.where(starved, factor * STARVED, factor)


def _mean_rows(parts: Sequence[RowErrors]) -> RowErrors:
    """Average over captures: errors and signals; the least share kept by any of them.

    Captures with a longer text have more rows: each row is averaged over those that have it.
    """
    count = max(len(part.error) for part in parts)

    def padded(values: torch.Tensor, fill: float) -> torch.Tensor:
        return torch.nn.functional.pad(values, (0, count - len(values)), value=fill)

    having = sum(padded(torch.ones_like(part.error), 0.0) for part in parts)
    return RowErrors(
        sum((padded(part.error, 0.0) for part in parts), torch.zeros(())) / having,
        sum((padded(part.signal, 0.0) for part in parts), torch.zeros(())) / having,
        torch.stack([padded(part.kept, 1.0) for part in parts]).amin(dim=0),
    )


def _head_report(
    layer: int, cells: Sequence[_Cell], chosen: Sequence[tuple[torch.Tensor, RowErrors]]
) -> HeadReport:
    """Sum a head up over its step groups, by their share of the steps."""

    def weighted(value: Callable[[torch.Tensor, RowErrors], float]) -> float:
        total = sum(cell.weight for cell in cells)
        return (
            sum(cell.weight * value(*own) for cell, own in zip(cells, chosen, strict=True)) / total
        )

    signal = weighted(lambda _, rows: rows.signal.sum().item())
    eight = sum(cell.weight * cell.eight.error.sum().item() for cell in cells)
    eight /= sum(cell.weight for cell in cells)
    return HeadReport(
        layer=layer,
        head=cells[0].head,
        order=cells[0].order,
        transform=cells[0].transform,
        mean_bits=weighted(lambda codes, _: mean_bits(codes)),
        density=weighted(lambda codes, _: density(codes)),
        snr_db=_decibels(signal, weighted(lambda _, rows: rows.error.sum().item())),
        eight_bit_snr_db=_decibels(signal, eight),
        kept=min(rows.kept.min().item() for _, rows in chosen),
    )


def _decibels(signal: float, error: float) -> float:
    return 10 * math.log10(signal / error) if signal and error else math.inf
