"""The goal of a calibration: its budget, and the legal ways to reach it.

It needs no torch, so that a command refuses a goal that is not legal at once.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from firmware_model.choices import (
    ORDERS,
    ROUNDINGS,
    TRANSFORMS,
    Rounding,
    check_avg_bits,
    check_block,
    check_choice,
    check_weight_bits,
)
from paro.config.errors import ParoError
from paro.config.formats import CODE_BITS, PAPER_BITS

#: Mean width of the weights of linear layers by default.
WEIGHT_BITS = 4.0
#: Divisors of a head's errors before heads share a budget.
RELATIVE_TO = ("best", "signal")
#: Ways to choose a head's order: least error after an allocation of its own (for masks: most weight
#: kept); PAROAttention's metric; or one order for all, FHW being none.
ORDER_CHOICES = ("error", "metric", *ORDERS)
#: Ways to choose a head's transform: least error likewise; or one for all.
TRANSFORM_CHOICES = ("error", *TRANSFORMS)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A budget, and how calibration shall spend it.

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
        Number format that the widths' errors are measured with, one of `choices.ROUNDINGS`.
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
        Divisor of a head's errors before heads share a budget. "best": its own error at 8
        bits, so that no head loses much against its best. "signal": the error of skipping it, which
        is about the power of its output, so that the model's output is closest to the exact one.
    weight_bits : float
        Mean width of the weights of linear layers, 2 to 8.
    shared : bool
        Whether attention and linear layers have one budget in cycles, ``avg_bits``: the mean width
        of all products of a denoising step. ``weight_bits`` is not used then.
    rotate : bool
        Whether the inputs of linear layers are rotated where that pays.

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
    weight_bits: float = WEIGHT_BITS
    shared: bool = False
    rotate: bool = True

    def __post_init__(self) -> None:
        check_block(self.block)
        check_avg_bits(self.avg_bits)
        if self.density is not None and not 0 < self.density <= 1:
            raise ParoError(f"density = {self.density} is not legal; legal: above 0, at most 1")
        check_choice("order", self.order, ORDER_CHOICES)
        if self.density is not None and (self.floor_bits or self.rounding != "digit"):
            raise ParoError("floor_bits and format are for widths; a density has neither")
        check_choice("transform", self.transform, TRANSFORM_CHOICES)
        check_choice("text_bits", self.text_bits, CODE_BITS)
        if self.relative_to not in RELATIVE_TO:
            raise ParoError(
                f"relative to {self.relative_to!r} is not legal; legal: {', '.join(RELATIVE_TO)}"
            )
        check_choice("format", self.rounding, ROUNDINGS)
        check_weight_bits(self.avg_bits if self.shared else self.weight_bits)
        if self.shared and (self.relative_to != "signal" or self.per_head or self.density):
            raise ParoError(
                "a shared budget is not legal with per_head, a density or errors relative to the "
                "best; legal: relative to the signal, and widths for all together"
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

    @property
    def fixed(self) -> bool:
        """Whether codes follow from the goal alone or from sums of weights, not from errors."""
        return self.density is not None or self.avg_bits == CODE_BITS[-1]


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
