"""Measurements of a head in one step group: errors of its blocks, alone and together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from firmware_model.calibration.allocation import HeadErrors, least_codes
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.sensitivity import RowErrors, block_errors, block_sums, row_errors
from firmware_model.capture import Capture, CaptureSource
from firmware_model.progress import Steps
from paro.config.formats import CODE_BITS, EIGHT_BITS

#: Ratio of a row's error to the expected one above which the row counts more.
EXPECTED = 1.5
#: Least share of its weight that a query shall keep: below it, other inputs than those measured
#: lose the keys that they look at. Rows below it count this many times more in the next round.
LEAST_KEPT, STARVED = 0.25, 4.0
#: Times that `CellSums.add` measures the block rows of a head: blocks alone, all at 8 bits.
MEASURED_TIMES = 2


@dataclass(frozen=True, eq=False)
class Cell:
    """A head in one step group, measured.

    Parameters
    ----------
    head, order, transform : int
        Index in the captures, in `choices.ORDERS` and in `choices.TRANSFORMS`.
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
        Divisor of the errors.
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
        """Weight of its blocks in budgets."""
        return self.errors.weight

    def rows(self, block: int) -> int:
        """Block rows of all its captures: steps of measuring it once."""
        return sum(capture.blocks(block) for capture in self.group)

    def expected(self, errors: HeadErrors, codes: torch.Tensor) -> torch.Tensor:
        """Squared error of each block row at some codes if those of blocks just add up.

        V's and the output's rounding depend on no width: they are the error at 8 bits beyond that
        of 8-bit blocks.
        """
        chosen = errors.errors.double().gather(0, codes.long().unsqueeze(0))[0].sum(dim=1)
        constant = self.eight.error - self.unit * self.errors.errors[EIGHT_BITS].double().sum(dim=1)
        return self.unit * chosen + constant.clamp(min=0)


class CellSums:
    """Measurements of a head in one step group, summed over its captures."""

    def __init__(self, group: list[CaptureSource], goal: Goal) -> None:
        self._group, self._goal = group, goal
        self._longest = max(group, key=lambda capture: capture.text_tokens)
        count = self._longest.blocks(goal.block)
        self._errors = torch.zeros(0)
        self._count = torch.zeros(count, count)
        self._sums = torch.zeros(count, count)
        self._eight: list[RowErrors] = []

    def add(self, capture: Capture, head: int, order: int, transform: int, steps: Steps) -> None:
        """Measure one capture."""
        goal, count = self._goal, capture.blocks(self._goal.block)
        # Grid tokens stand first: the blocks of a shorter text are the first ones of a longer.
        self._count[:count, :count] += 1
        if goal.density is not None:
            self._sums[:count, :count] += block_sums(capture, head, order, goal.block, steps)
        elif goal.fixed:
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

    def cell(self, head: int, order: int, transform: int, weight: float) -> Cell:
        """Average over the captures."""
        goal, eight = self._goal, mean_rows(self._eight)
        errors = torch.zeros(1).expand(len(CODE_BITS), *self._count.shape)
        unit = eight.error.sum().item() or 1.0
        if len(self._errors):
            errors = self._errors / self._count
            if goal.relative_to == "signal":
                unit = errors[0].sum().item() or 1.0
            errors /= unit
        return Cell(
            head=head,
            order=order,
            transform=transform,
            group=self._group,
            text_tokens=self._longest.text_tokens,
            errors=HeadErrors(errors, least_codes(self._longest, goal), weight),
            sums=self._sums / self._count,
            eight=eight,
            unit=unit,
        )


def row_factors(
    cell: Cell, errors: HeadErrors, codes: torch.Tensor, found: RowErrors
) -> torch.Tensor:
    """How much more each row of a cell shall count: float64 [blocks], 1 or more."""
    expected = cell.expected(errors, codes)
    # A row that is lost among the others needs no repair.
    negligible = found.error.sum() / (1000 * len(found.error))
    ratio = (found.error + negligible) / (expected + negligible)
    factor = torch.where(ratio > EXPECTED, ratio, 1.0)
    starved = (found.kept < LEAST_KEPT) & (codes != EIGHT_BITS).any(dim=1)
    return torch.where(starved, factor * STARVED, factor)


def mean_rows(parts: Sequence[RowErrors]) -> RowErrors:
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
