"""Orders and transforms of a head, tried on some of its block rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from firmware_model.calibration.allocation import (
    HeadErrors,
    allocate,
    allocate_masks,
    least_codes,
)
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.order import OrderTerms, alike_orders, mixed_terms, order_terms
from firmware_model.calibration.sensitivity import block_errors, block_sums
from firmware_model.capture import Capture, CaptureSource
from firmware_model.choices import ORDERS, TRANSFORMS
from firmware_model.progress import Steps
from firmware_model.reference.quantize import BeyondFormatError

#: Orders and transforms are tried on one block row of so many, evenly spread, and at least, and at
#: most, so many of a head.
ROWS_PER_TRIAL, LEAST_TRIED, MOST_TRIED = 4, 4, 16


class Trials:
    """Orders and transforms of a head, tried on some rows of each capture."""

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._terms: list[OrderTerms] = []
        #: Trials of each order and of each transform, capture by capture.
        self._orders: dict[int, list[_Trial]] = {}
        self._transforms: dict[int, list[_Trial]] = {}
        self._refused: dict[int, BeyondFormatError] = {}

    def add(self, capture: Capture, head: int, weight: float, steps: Steps) -> None:
        """Try them on one capture."""
        goal = self._goal
        rows = _rows_tried(capture.blocks(goal.block))

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
        own = {transform: trial(first, transform) for transform in _transforms(goal)}
        for transform, found in own.items():
            if found is not None:
                self._transforms.setdefault(transform, []).append(found)
        if goal.order == "error":
            self._add_orders(capture, own, trial, lambda: steps.advance(len(rows)))

    def _add_orders(
        self,
        capture: Capture,
        own: "dict[int, _Trial | None]",
        trial: "Callable[[int, int], _Trial | None]",
        skip: Callable[[], None],
    ) -> None:
        """Try every order of a capture; ``own`` are the trials of the first order by transform."""
        # The transform hardly matters to the order: any that holds the head will do.
        held = next((t for t in reversed(own) if own[t] is not None), None)
        for order, alike in enumerate(alike_orders(capture)):
            found = None
            if held is not None and order == alike != 0:
                found = trial(order, held)
            else:
                skip()
                if held is not None and order == 0:
                    found = own[held]
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

    @staticmethod
    def steps(capture: CaptureSource, goal: Goal) -> int:
        """Steps that `add` takes for one head of a capture."""
        blocks = capture.blocks(goal.block)
        tried = len(_transforms(goal)) + (len(ORDERS) if goal.order == "error" else 0)
        metric = len(ORDERS) * blocks if goal.order == "metric" else 0
        return tried * len(_rows_tried(blocks)) + metric


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
        least = least_codes(capture, goal)[list(rows)]
        errors = block_errors(
            capture, head, order, goal.block, goal.rounding, steps, transform, rows
        )
        sums = errors[0]
        if goal.density is not None:
            sums = block_sums(capture, head, order, goal.block, rows=rows)
        return cls(HeadErrors(errors, least, weight), sums)


def _transforms(goal: Goal) -> range | tuple[int]:
    return (
        range(len(TRANSFORMS)) if goal.transform == "error" else (TRANSFORMS.index(goal.transform),)
    )


def _rows_tried(blocks: int) -> list[int]:
    """Evenly spread block rows on which orders and transforms are tried."""
    tried = min(blocks, max(LEAST_TRIED, min(blocks // ROWS_PER_TRIAL, MOST_TRIED)))
    return [(2 * index + 1) * blocks // (2 * tried) for index in range(tried)]


def _own_loss(trials: Sequence[_Trial], goal: Goal) -> float:
    """Loss of a head on the rows tried under a budget of its own; lower is better."""
    heads = [trial.errors for trial in trials]
    if goal.density is not None:
        masks = allocate_masks(heads, [trial.sums for trial in trials], goal.density)
        return -sum(
            trial.errors.weight * trial.sums[mask != 0].sum().item()
            for trial, mask in zip(trials, masks, strict=True)
        )
    codes = allocate(heads, goal)
    return sum(
        head.weight * head.errors.gather(0, chosen.long().unsqueeze(0)).sum().item()
        for head, chosen in zip(heads, codes, strict=True)
    )
