"""Calibration of whole models: order, transform and block codes of each head.

The input is a number of captures, each of one attention layer at one time of the denoising. Those
of one model (`Capture.model`) go into one plan. All heads of all layers, step groups and models
share one budget, unless each shall have its own.

Captures are read when they are needed, one at a time. Only errors stay: of each block at each
code, and of each block row at 8 bits. Allocation adds the errors of single blocks; the error
that all of them cause together is measured afterwards, and rows where it is larger are repaired.

Linear layers (`layers`) join in: with budgets of their own, or with one in cycles for all.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from firmware_model.calibration.allocation import HeadErrors, allocate, allocate_masks
from firmware_model.calibration.cells import (
    LEAST_KEPT,
    MEASURED_TIMES,
    Cell,
    CellSums,
    mean_rows,
    row_factors,
)
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.layers import (
    BY_LAYER,
    LayerCalibration,
    LayerErrors,
    LayerReport,
    PlannedLayer,
    tile_config,
)
from firmware_model.calibration.plan import ModelPlan, fit_codes, group_shares, step_group
from firmware_model.calibration.sensitivity import RowErrors, row_errors
from firmware_model.calibration.trials import Trials
from firmware_model.capture import Capture, CaptureSource
from firmware_model.codes import density, mean_bits
from firmware_model.layer import LayerSource
from firmware_model.progress import Progress, Steps
from firmware_model.reference.quantize import BeyondFormatError
from paro.config.config import padded_head_dim
from paro.config.errors import ParoError
from paro.config.formats import CODE_BITS, EIGHT_BITS

#: Inputs of a layer's tile if no head tells.
HEAD_DIM = 64
#: Times that codes are repaired at most: on 90 heads of four networks three rounds bring every row
#: near its expected error.
REPAIRS = 4


@dataclass(frozen=True)
class HeadReport:
    """Errors of a head under its codes, over all captures of its layer.

    Parameters
    ----------
    layer, head : int
        Which one.
    order, transform : int
        Index in `choices.ORDERS` and in `choices.TRANSFORMS`.
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
        """Loss against its own 8 bits, in dB."""
        return 0.0 if self.snr_db == self.eight_bit_snr_db else self.eight_bit_snr_db - self.snr_db


@dataclass(frozen=True)
class Calibrated:
    """A model's plan, reports of heads and layers, a sentence for each head that it leaves out."""

    plan: ModelPlan
    heads: tuple[HeadReport, ...] = ()
    left_out: tuple[str, ...] = ()
    layers: tuple[LayerReport, ...] = ()


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
        Budget, and how to spend it.
    heads : sequence of int, optional
        Heads of every layer to calibrate; all by default.
    progress : Progress, optional
        Called as the work goes on.

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


def calibrate_models(
    captures: Sequence[CaptureSource],
    layers: Sequence[LayerSource],
    goal: Goal,
    heads: Sequence[int] | None = None,
    head_dim: int | None = None,
    progress: Progress | None = None,
) -> list[Calibrated]:
    """Calibrate attention and linear layers of some models.

    Parameters
    ----------
    captures : sequence of CaptureSource
        Of attention; may be empty if ``layers`` is not.
    layers : sequence of LayerSource
        Of linear layers; likewise.
    goal : Goal
        Budgets, and how to spend them.
    heads : sequence of int, optional
        Heads of every layer to calibrate; all by default.
    head_dim : int, optional
        Inputs of a tile: 32, 64, 128 or 256; by default that of the heads, and 64 without any.
    progress : Progress, optional
        Called as the work goes on: first on layers, then on heads, then on layers.

    Returns
    -------
    list of Calibrated
        One for each model, in the sequence of their first captures.

    Raises
    ------
    ParoError
        As `calibrate` and `LayerCalibration`.
    """
    config = tile_config(goal.block, head_dim or _padded_head_dim(captures))
    bits = goal.avg_bits if goal.shared else goal.weight_bits
    measured = (
        LayerCalibration(layers, bits, config, rotate=goal.rotate, progress=progress)
        if layers
        else None
    )
    found: dict[str, Calibrated] = {}
    codes = None
    if captures:
        linear = measured.errors if measured and goal.shared else ()
        results, shared = Calibration(captures, goal, heads, progress, linear).allocated()
        found = {result.plan.model: result for result in results}
        codes = shared or None
    planned = measured.results(codes) if measured else []
    for model in dict.fromkeys(own.model for own in planned):
        own = [layer for layer in planned if layer.model == model]
        found[model] = _with_layers(found.get(model), model, own)
    return list(found.values())


def _with_layers(
    found: Calibrated | None, model: str, planned: Sequence[PlannedLayer]
) -> Calibrated:
    """Add layers to what was found of a model's attention."""
    digests = tuple(digest for layer in planned for digest in layer.digests)
    plans = tuple(layer.plan for layer in planned)
    reports = tuple(layer.report for layer in planned)
    if found is None:
        return Calibrated(ModelPlan.of_layers(model, digests, plans), layers=reports)
    plan = replace(found.plan, calibrated_on=(*found.plan.calibrated_on, *digests), linear=plans)
    return replace(found, plan=plan, layers=reports)


def _padded_head_dim(captures: Sequence[CaptureSource]) -> int:
    return padded_head_dim(captures[0].head_dim) if captures else HEAD_DIM


class Calibration:
    """Measurements of some captures, from which plans of several widths can be made.

    Parameters
    ----------
    captures, goal, heads, progress
        As of `calibrate`.
    linear : sequence of LayerErrors
        Linear layers that share the budget, in cycles; for a goal that is shared.

    Raises
    ------
    ParoError
        As `calibrate`.
    """

    def __init__(
        self,
        captures: Sequence[CaptureSource],
        goal: Goal,
        heads: Sequence[int] | None = None,
        progress: Progress | None = None,
        linear: Sequence[LayerErrors] = (),
    ) -> None:
        self._goal = goal
        self._linear = linear
        self._models: dict[str, list[CaptureSource]] = {}
        for capture in captures:
            self._models.setdefault(capture.model, []).append(capture)
        self._layers = {model: _layers(parts, goal) for model, parts in self._models.items()}
        self._heads = {
            model: _checked_heads(parts[0], heads) for model, parts in self._models.items()
        }
        self._reader = _Reader()
        self._steps = Steps(
            progress, sum(_head_steps(c, goal) * len(self._heads[c.model]) for c in captures)
        )
        #: For each model, layer and head its cells by step group; none if the format is too small.
        self._cells: dict[tuple[str, int, int], list[Cell]] = {}
        self._left_out: dict[str, list[str]] = {model: [] for model in self._models}
        for model, layers in self._layers.items():
            for layer, groups in layers.items():
                self._measure(model, layer, groups)
        if not any(self._cells.values()):
            raise ParoError(next(iter(self._left_out.values()))[0])

    @property
    def head_errors(self) -> list[HeadErrors]:
        """Errors of each head of each layer, model and step group, for allocation."""
        return [cell.errors for cell in self._all_cells()]

    def plans(self, avg_bits: float | None = None, density: float | None = None) -> list[ModelPlan]:
        """Make the plans; parameters and errors as `results`."""
        return [result.plan for result in self.results(avg_bits, density)]

    def results(
        self, avg_bits: float | None = None, density: float | None = None
    ) -> list[Calibrated]:
        """Make the plans and measure them; parameters and errors as `allocated`."""
        return self.allocated(avg_bits, density)[0]

    def allocated(
        self, avg_bits: float | None = None, density: float | None = None
    ) -> tuple[list[Calibrated], list[torch.Tensor]]:
        """Make the plans and measure them; ``avg_bits`` or ``density`` replace those of the goal.

        Returns
        -------
        list of Calibrated
            One for each model.
        list of torch.Tensor
            Codes of the linear layers that share the budget.

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
        codes, measured, linear = self._repaired(cells, goal)
        by_cell = {
            id(cell): (own, row) for cell, own, row in zip(cells, codes, measured, strict=True)
        }
        return [self._assemble(model, goal, by_cell) for model in self._models], linear

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

    def _all_cells(self) -> list[Cell]:
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
        trials = {head: Trials(goal) for head in heads}
        for capture, weight in zip(captures, weights, strict=True):
            for head in heads:
                trials[head].add(self._reader.read(capture), head, weight, steps)
        sums = {
            (head, index): CellSums(group, goal)
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
                        steps.advance(capture.blocks(goal.block) * MEASURED_TIMES)
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
        self, cells: list[Cell], goal: Goal
    ) -> tuple[list[torch.Tensor], list[RowErrors], list[torch.Tensor]]:
        """Codes of each cell, the errors of its rows under them, and codes of linear layers.

        Errors of blocks that harm only together, as those that share a query's weight, are not the
        sum of the single ones. Rows that cost more than expected count that much more, and
        everything is allocated anew; the best of all rounds is taken.
        """
        errors = [cell.errors for cell in cells]
        best: tuple[list[torch.Tensor], list[RowErrors], list[torch.Tensor]] | None = None
        least: tuple[int, float] = (0, math.inf)
        codes: list[torch.Tensor] = []
        found: list[RowErrors] = []
        for done in range(REPAIRS):
            before = codes
            codes, linear = self._allocate(cells, errors, goal)
            found = self._row_errors(cells, codes, before, found)
            starved = sum(int((rows.kept < LEAST_KEPT).sum()) for rows in found)
            total = sum(
                share * rows.error.sum().item() / cell.unit
                for share, cell, rows in zip(self._shares(cells), cells, found, strict=True)
            ) + sum(map(LayerErrors.relative, self._linear, linear))
            if best is None or (starved, total) < least:
                least, best = (starved, total), (codes, found, linear)
            factors = [
                row_factors(cell, own, chosen, rows)
                for cell, own, chosen, rows in zip(cells, errors, codes, found, strict=True)
            ]
            if goal.fixed or all((factor == 1).all() for factor in factors):
                self._steps.advance(
                    (REPAIRS - 1 - done) * sum(cell.rows(goal.block) for cell in cells)
                )
                break
            errors = [own.scaled(factor) for own, factor in zip(errors, factors, strict=True)]
        assert best is not None
        return best

    def _shares(self, cells: Sequence[Cell]) -> list[float]:
        """Weight of the relative error of each cell."""
        if not self._linear:
            return [cell.weight for cell in cells]
        # The heads of a layer together count as much as a linear layer does.
        groups = len(self._goal.step_groups)
        return [cell.weight / groups / len(self._heads[cell.group[0].model]) for cell in cells]

    def _allocate(
        self, cells: Sequence[Cell], errors: Sequence[HeadErrors], goal: Goal
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Codes of each cell and of each linear layer that shares the budget."""
        if not self._linear:
            return _allocate(cells, errors, goal), []
        heads = []
        groups = len(goal.step_groups)
        for cell, own, share in zip(cells, errors, self._shares(cells), strict=True):
            # QK and PV of a block, by tokens: a tile of a layer has as many for each of its own.
            weight = cell.weight / groups * 2 * goal.block
            heads.append(replace(own.scaled(share / weight), weight=weight))
        by_layer = goal.avg_bits >= BY_LAYER
        heads += [layer.head_errors(layer.tokens, by_layer) for layer in self._linear]
        codes = allocate(heads, goal)
        linear = zip(self._linear, codes[len(cells) :], strict=True)
        return codes[: len(cells)], [layer.codes(own) for layer, own in linear]

    def _row_errors(
        self,
        cells: list[Cell],
        codes: list[torch.Tensor],
        before: list[torch.Tensor],
        known: list[RowErrors],
    ) -> list[RowErrors]:
        """Errors of each cell's rows; those ``known`` where its codes are the ones ``before``."""
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
            self._steps.advance(cell.rows(goal.block))
        for indices in waiting.values():
            parts: dict[int, list[RowErrors]] = {index: [] for index in indices}
            for capture in cells[indices[0]].group:
                for index in indices:
                    rows = self._capture_errors(capture, cells[index], codes[index])
                    parts[index].append(rows)
            for index, rows in parts.items():
                found[index] = mean_rows(rows)
        return [rows for rows in found if rows is not None]

    def _capture_errors(self, capture: CaptureSource, cell: Cell, codes: torch.Tensor) -> RowErrors:
        """Errors of the rows of one of a cell's captures under its codes."""
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
        """Build a model's plan and the reports of its heads."""
        layers, heads = self._layers[model], self._heads[model]
        longest = max(self._models[model], key=lambda capture: capture.text_tokens)
        blocks = longest.blocks(goal.block)
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


def _head_steps(capture: CaptureSource, goal: Goal) -> int:
    """Steps that one head of a capture takes."""
    return Trials.steps(capture, goal) + (MEASURED_TIMES + REPAIRS) * capture.blocks(goal.block)


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


def _allocate(
    cells: Sequence[Cell], errors: Sequence[HeadErrors], goal: Goal
) -> list[torch.Tensor]:
    """Codes of each cell, under one budget or one for each."""
    if goal.per_head and len(cells) > 1:
        pairs = zip(cells, errors, strict=True)
        return [codes for cell, own in pairs for codes in _allocate([cell], [own], goal)]
    if goal.density is not None:
        return allocate_masks(errors, [cell.sums for cell in cells], goal.density)
    return allocate(errors, goal)


def _head_report(
    layer: int, cells: Sequence[Cell], chosen: Sequence[tuple[torch.Tensor, RowErrors]]
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
