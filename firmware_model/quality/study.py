"""Comparisons that the docs rest on: formats at many widths, masks, ablations, carried over plans.

Every study calibrates captures anew and scores heads against float64 attention.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from firmware_model.calibration.calibrate import Calibration, calibrate
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.plan import ModelPlan
from firmware_model.calibration.sensitivity import model_config
from firmware_model.capture import Capture
from firmware_model.choices import INTEGER, ORDERS, ROUNDINGS, Rounding, check_avg_bits
from firmware_model.parallel import map_rows
from firmware_model.progress import Progress, Steps
from firmware_model.quality.metrics import cosine, finite, finite_mean, rmse, snr_db
from firmware_model.quality.planned import attend_planned
from firmware_model.reference.attention import ROWS_AT_ONCE, reference_attention
from firmware_model.reference.methods import Method
from firmware_model.reference.number_formats import FORMATS, FormatHead, NumberFormat
from paro.config.config import Config
from paro.config.errors import ParoError
from paro.config.formats import CODE_BITS, EIGHT_BITS, PAPER_BITS

#: The order of the capture: no reorder.
NATURAL = "FHW"


@dataclass(frozen=True)
class _Score:
    """Quality of one head: in dB, and as a cosine."""

    snr_db: float
    cosine: float


class _Heads:
    """Heads of some captures (all by default) and their float64 outputs."""

    def __init__(
        self,
        captures: Sequence[Capture],
        progress: Progress | None,
        runs: int,
        heads: Sequence[int] | None = None,
    ) -> None:
        """``runs`` is how often the heads will be scored."""
        self.keys = [
            (capture, head)
            for capture in captures
            for head in (range(capture.heads) if heads is None else heads)
        ]
        self._steps = Steps(progress, runs * len(self.keys))
        self._references = [
            reference_attention(c.q[head], c.k[head], c.v[head], c.scale) for c, head in self.keys
        ]

    def score(self, plans: Sequence[ModelPlan], method: Method) -> list[_Score]:
        """Score every head as the plan of its model says."""
        by_model = {plan.model: plan for plan in plans}
        scores = []
        for (capture, head), exact in zip(self.keys, self._references, strict=True):
            plan = by_model[capture.model].for_capture(capture)
            config = model_config(capture, plan.block)
            _, output = attend_planned(method, capture, head, plan, config)
            scores.append(_Score(snr_db(output, exact), cosine(output, exact)))
            self._steps.advance()
        return scores

    def logit_errors(self, name: str, block: int) -> dict[str, float | None]:
        """Mean over the heads of the logits' error in a format, by width in bits."""
        chosen = FORMATS[name]
        codes = range(1, len(CODE_BITS)) if chosen.key_table else (EIGHT_BITS,)
        errors: dict[int, list[float]] = {code: [] for code in codes}
        for capture, head in self.keys:
            config = model_config(capture, block)
            exact = _all_logits(capture, head, config, FORMATS["float"], 1)
            for code, found in errors.items():
                found.append(rmse(_all_logits(capture, head, config, chosen, code), exact))
            self._steps.advance()
        return {
            str(bits): finite_mean(errors[code]) if code in errors else None
            for code, bits in reversed([*enumerate(CODE_BITS)][1:])
        }

    def name(self, index: int) -> str:
        """Capture and head, in words."""
        capture, head = self.keys[index]
        return f"{capture.name}:{head}"


def _all_logits(
    capture: Capture, head: int, config: Config, chosen: NumberFormat, code: int
) -> torch.Tensor:
    """Logits to base e of a head whose blocks are all of one width, float64 [tokens, tokens]."""
    formed = FormatHead.from_capture(capture, head, 0, config, chosen)
    columns = torch.arange(formed.count)
    codes = torch.full_like(columns, code)
    rows = [formed.logits(row, columns, codes).flatten(0, 1) for row in range(formed.count)]
    return torch.cat(rows, dim=1)[: capture.tokens, : capture.tokens] * math.log(2)


def format_study(
    captures: Sequence[Capture],
    widths: Sequence[float],
    block: int = 64,
    order: str = "error",
    heads: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Quality against mean bits: the integer model beside the paper's formats.

    Both calibrate with their own errors, under the same budget; the paper's without a transform.

    Parameters
    ----------
    captures : sequence of Capture
        Whose heads share the budget.
    widths : sequence of float
        Mean bits to try; `PAPER_BITS` is added.
    block : int
        16, 32 or 64.
    order : str
        One of `goal.ORDER_CHOICES`.
    heads : sequence of int, optional
        Heads of every capture; all by default.
    progress : Progress, optional
        Called after each head scored.

    Returns
    -------
    dict
        ``rows``: for each format and width ``mean_snr_db``, ``worst_snr_db``, ``worst_head`` and
        ``mean_loss_db``, ``worst_loss_db`` against all-8-bit integer attention.
        ``equal_bits``: the mean width, interpolated, at which the integer model's mean quality is
        that of the paper's formats at `PAPER_BITS`; null if it is outside ``widths``. Figures that
        are not finite are left out of means, and null.

    Raises
    ------
    ParoError
        If a width is not legal, or as `calibrate`.
    """
    for width in widths:
        check_avg_bits(width)
    ladder = sorted({float(width) for width in widths} | {PAPER_BITS})
    scored = _Heads(captures, progress, 2 * len(ladder) + 1, heads)
    full = Calibration(captures, Goal(avg_bits=8.0, block=block, order=order), heads).plans()
    best = [score.snr_db for score in scored.score(full, Method())]
    rows = []
    formats: tuple[tuple[str, Rounding, str], ...] = (
        (INTEGER, "digit", "error"),
        ("paper", "paper", "none"),
    )
    for name, rounding, transform in formats:
        method = Method(name)
        for width in ladder:
            # The best order and transform depend on the width.
            goal = Goal(
                avg_bits=width, block=block, order=order, transform=transform, rounding=rounding
            )
            plans = calibrate(captures, goal, heads)
            found = [score.snr_db for score in scored.score(plans, method)]
            losses = [own - snr for own, snr in zip(best, found, strict=True)]
            rows.append(
                {
                    "format": method.name,
                    "avg_bits": width,
                    "mean_bits": round(_mean_bits(plans), 4),
                    "mean_snr_db": finite_mean(found),
                    "worst_snr_db": finite(min(found)),
                    "worst_head": scored.name(found.index(min(found))),
                    "mean_loss_db": finite_mean(losses),
                    "worst_loss_db": finite(max(losses)),
                }
            )
    return {
        "heads": len(scored.keys),
        "all_8_bit_mean_snr_db": finite_mean(best),
        "equal_bits": _equal_bits(rows),
        "rows": rows,
    }


def rounding_study(
    captures: Sequence[Capture],
    names: Sequence[str],
    widths: Sequence[float],
    block: int = 64,
    heads: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Quality of number formats: logits at each width, attention at some mean widths.

    A format with a choice of widths calibrates with its own errors, all heads under one budget. One
    without has 8-bit blocks alone: at a mean width of w it skips all but w / 8 of them.

    Parameters
    ----------
    captures : sequence of Capture
        Whose heads share the budget.
    names : sequence of str
        Formats, of `number_formats.FORMATS`.
    widths : sequence of float
        Mean bits.
    block : int
        16, 32 or 64.
    heads : sequence of int, optional
        Heads of every capture; all by default.
    progress : Progress, optional
        Called after each head scored.

    Returns
    -------
    list of dict
        For each format its name ``format``; ``logit_rmse`` by width, the mean over the heads of the
        root mean squared error of a logit (to base e; null for a width that the format does not
        have); ``mean_snr_db`` and ``worst_snr_db`` by mean width.
    """
    scored = _Heads(captures, progress, len(names) * (len(widths) + 1), heads)
    rows = []
    for name in names:
        row: dict[str, Any] = {"format": name, "logit_rmse": scored.logit_errors(name, block)}
        row |= {"mean_snr_db": {}, "worst_snr_db": {}}
        if name in ROUNDINGS:
            goal = Goal(block=block, order="metric", transform="none", rounding=name)
        else:
            goal = Goal(block=block, order="metric", transform="none", density=1.0)
        measured = Calibration(captures, goal, heads)
        for width in widths:
            if goal.density is None:
                plans = measured.plans(avg_bits=width)
            else:
                plans = measured.plans(density=width / CODE_BITS[-1])
            found = [score.snr_db for score in scored.score(plans, Method(name))]
            row["mean_snr_db"][f"{width:g}"] = finite_mean(found)
            row["worst_snr_db"][f"{width:g}"] = finite(min(found))
        rows.append(row)
    return rows


def _mean_bits(plans: Sequence[ModelPlan]) -> float:
    bits = torch.tensor(CODE_BITS)
    total = sum(int(bits[plan.codes.long()].sum()) for plan in plans)
    return total / sum(plan.codes.numel() for plan in plans)


def _equal_bits(rows: Sequence[dict[str, Any]]) -> float | None:
    """Width at which the integer model is as good as the paper's formats at `PAPER_BITS`."""
    goal = next(
        row["mean_snr_db"]
        for row in rows
        if row["format"] == "paper" and row["avg_bits"] == PAPER_BITS
    )
    ours = [
        (row["mean_bits"], row["mean_snr_db"])
        for row in rows
        if row["format"] == INTEGER and row["mean_snr_db"] is not None
    ]
    if goal is None:
        return None
    for (low, snr_low), (high, snr_high) in pairwise(ours):
        if snr_low <= goal <= snr_high:
            share = (goal - snr_low) / (snr_high - snr_low) if snr_high > snr_low else 0.0
            return round(low + share * (high - low), 3)
    return None


def sparsity_study(
    captures: Sequence[Capture],
    densities: Sequence[float],
    block: int = 64,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Exact attention under a mask, each head at the same density, with and without reorder.

    Returns
    -------
    list of dict
        For each head: ``capture``, ``head``, the preferred ``order``, and for each density
        ``cosine`` and ``snr_db`` with and without reorder.
    """
    heads = _Heads(captures, progress, 2 * len(densities))
    found: dict[tuple[str, float], list[_Score]] = {}
    orders: list[str] = []
    for order in ("metric", NATURAL):
        goal = Goal(density=1.0, block=block, order=order, transform="none", per_head=True)
        measured = Calibration(captures, goal)
        for density in densities:
            plans = measured.plans(density=density)
            found[order, density] = heads.score(plans, Method("float"))
            if not orders:
                by_model = {plan.model: plan for plan in plans}
                orders = [
                    ORDERS[by_model[c.model].for_capture(c).head_order(h)] for c, h in heads.keys
                ]
    return [
        {
            "capture": capture.name,
            "head": head,
            "order": orders[index],
            "densities": [
                {
                    "density": density,
                    "cosine": finite(found["metric", density][index].cosine),
                    "cosine_without_reorder": finite(found[NATURAL, density][index].cosine),
                    "snr_db": finite(found["metric", density][index].snr_db),
                    "snr_db_without_reorder": finite(found[NATURAL, density][index].snr_db),
                }
                for density in densities
            ],
        }
        for index, (capture, head) in enumerate(heads.keys)
    ]


#: Variants of the ablation: density, format, groups of uniform scales.
ABLATIONS: tuple[tuple[float, Method], ...] = (
    (1.0, Method("pv-int8", "row")),
    (1.0, Method("pv-int8")),
    (1.0, Method("int8")),
    (1.0, Method("pv-int4", "row")),
    (1.0, Method("pv-int4")),
    (1.0, Method("int4")),
    (0.5, Method("float")),
    (0.3, Method("float")),
    (0.2, Method("float")),
    (0.5, Method("int8")),
    (0.3, Method("int8")),
    (0.5, Method("int4")),
)


def ablation_study(
    captures: Sequence[Capture], block: int = 64, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """PAROAttention's ablations: sparse, INT8, INT4 and both; row or block groups; reorder or not.

    Every head has the same density.

    Returns
    -------
    list of dict
        For each variant ``density``, ``format``, ``groups``, ``reorder``, mean and worst cosine and
        mean and worst signal-to-noise ratio over all heads, and the worst head.
    """
    orders = (NATURAL, "metric")
    heads = _Heads(captures, progress, len(orders) * len(ABLATIONS))
    plans = {
        (density, order): Calibration(
            captures,
            Goal(density=density, block=block, order=order, transform="none", per_head=True),
        ).plans()
        for density in sorted({density for density, _ in ABLATIONS})
        for order in orders
    }
    rows = []
    for density, method in ABLATIONS:
        for order in orders:
            scores = heads.score(plans[density, order], method)
            cosines, snrs = [s.cosine for s in scores], [s.snr_db for s in scores]
            rows.append(
                {
                    "density": density,
                    "format": method.name,
                    "groups": method.groups,
                    "reorder": order != NATURAL,
                    "mean_cosine": finite_mean(cosines),
                    "worst_cosine": finite(min(cosines)),
                    "mean_snr_db": finite_mean(snrs),
                    "worst_snr_db": finite(min(snrs)),
                    "worst_head": heads.name(snrs.index(min(snrs))),
                }
            )
    return rows


def pruning_study(
    captures: Sequence[Capture],
    thresholds: Sequence[float],
    target_snr_db: float,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Exact attention on the largest weights alone: what pruning single weights can do.

    A weight lives if it is at least a threshold times the mean weight of a row, 1 / tokens, with
    the same threshold for all heads. The others are left out, of the denominator too.

    Parameters
    ----------
    captures : sequence of Capture
        Whose heads are pruned.
    thresholds : sequence of float
        Above 0.
    target_snr_db : float
        Quality that is wanted in the mean of the heads.
    progress : Progress, optional
        Called after each head.

    Returns
    -------
    dict
        ``rows``: for each threshold ``density`` (of the heads, in the mean), ``mean_snr_db``,
        ``worst_snr_db``. ``equal_density``: the density, interpolated, at which the mean is
        ``target_snr_db``; null if it is outside.

    Raises
    ------
    ParoError
        If a threshold is not legal.
    """
    ladder = sorted({float(threshold) for threshold in thresholds}, reverse=True)
    if not ladder or ladder[-1] <= 0:
        legal = "one or more, above 0"
        raise ParoError(f"thresholds {', '.join(map(str, ladder))} are not legal; legal: {legal}")
    keys = [(capture, head) for capture in captures for head in range(capture.heads)]
    steps = Steps(progress, len(keys))
    found = []
    for capture, head in keys:
        found.append(_pruned(capture, head, ladder))
        steps.advance()
    rows = []
    for index, threshold in enumerate(ladder):
        scores = [head[index][1] for head in found]
        rows.append(
            {
                "threshold": threshold,
                "density": sum(head[index][0] for head in found) / len(found),
                "mean_snr_db": finite_mean(scores),
                "worst_snr_db": finite(min(scores)),
            }
        )
    equal = None
    known = [row for row in rows if row["mean_snr_db"] is not None]
    for low, high in pairwise(known):
        if low["mean_snr_db"] <= target_snr_db <= high["mean_snr_db"]:
            span = high["mean_snr_db"] - low["mean_snr_db"]
            share = (target_snr_db - low["mean_snr_db"]) / span if span else 0.0
            equal = round(low["density"] + share * (high["density"] - low["density"]), 4)
            break
    return {
        "heads": len(keys),
        "target_snr_db": target_snr_db,
        "equal_density": equal,
        "rows": rows,
    }


def _pruned(capture: Capture, head: int, thresholds: Sequence[float]) -> list[tuple[float, float]]:
    """Density and quality of a head at each threshold."""
    q, k, v = (tensor[head].double() for tensor in (capture.q, capture.k, capture.v))
    keys = k.T * capture.scale

    def row_block(queries: torch.Tensor) -> list[tuple[int, float, float]]:
        weights = torch.softmax(queries @ keys, dim=1)
        exact = weights @ v
        power = exact.square().sum().item()
        parts = []
        for threshold in thresholds:
            # The largest weight of a row always lives.
            least = torch.full((len(weights), 1), threshold / capture.tokens).double()
            live = weights >= torch.minimum(least, weights.amax(dim=1, keepdim=True))
            kept = weights * live
            error = kept @ v / kept.sum(dim=1, keepdim=True) - exact
            parts.append((int(live.sum()), error.square().sum().item(), power))
        return parts

    blocks = map_rows(row_block, q.split(ROWS_AT_ONCE))
    result = []
    for each in zip(*blocks, strict=True):
        live, error, power = (sum(column) for column in zip(*each, strict=True))
        snr = 10 * math.log10(power / error) if error else math.inf
        result.append((live / capture.tokens**2, snr))
    return result


def carry_over_study(
    captures: Sequence[Capture],
    at: float,
    goal: Goal,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """How well a static plan does at other noise levels than it was calibrated at.

    Parameters
    ----------
    captures : sequence of Capture
        One model at several times of its denoising.
    at : float
        The plan is calibrated on the captures of the time nearest to this share of the steps.
    goal : Goal
        Mean bits, block and the like.
    progress : Progress, optional
        Called twice for each time.

    Returns
    -------
    list of dict
        For each time ``progress``, whether the plan was ``calibrated_here``, and over the heads the
        mean and worst quality under the static plan and under one of the time's own, and what is
        lost.

    Raises
    ------
    ParoError
        If the captures are of several models or all of one time, or ``at`` is not legal.
    """
    if not 0 <= at < 1:
        raise ParoError(f"at = {at} is not legal; legal: a share of the steps, 0 or more, below 1")
    times = sorted({capture.progress for capture in captures})
    if len({capture.model for capture in captures}) > 1 or len(times) < 2:
        raise ParoError(
            "captures do not suit this study; legal: of one model, at two or more times of its "
            "denoising, as `paro capture --at 0,0.5 ...` writes them"
        )
    home = min(times, key=lambda time: abs(time - at))
    by_time = {time: [c for c in captures if c.progress == time] for time in times}
    runs = {time: _Heads(by_time[time], None, 1) for time in times}
    steps = Steps(progress, 2 * len(times))
    static = Calibration(by_time[home], goal).plans()
    rows = []
    for time in times:
        fixed = [score.snr_db for score in runs[time].score(static, Method())]
        steps.advance()
        own_plans = static if time == home else Calibration(by_time[time], goal).plans()
        own = [score.snr_db for score in runs[time].score(own_plans, Method())]
        steps.advance()
        losses = [best - found for best, found in zip(own, fixed, strict=True)]
        rows.append(
            {
                "progress": time,
                "calibrated_here": math.isclose(time, home),
                "mean_snr_db": finite_mean(fixed),
                "worst_snr_db": finite(min(fixed)),
                "own_mean_snr_db": finite_mean(own),
                "own_worst_snr_db": finite(min(own)),
                "mean_loss_db": finite_mean(losses),
                "worst_loss_db": finite(max(losses)),
            }
        )
    return rows
