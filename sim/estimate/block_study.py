"""Block sizes, orders and transforms: their quality against the cycles and bytes of a core."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from firmware_model.calibration.calibrate import Calibration
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.plan import ModelPlan
from firmware_model.calibration.sensitivity import model_config
from firmware_model.capture import Capture, CaptureSource
from firmware_model.progress import Progress, Steps
from firmware_model.quality.metrics import finite, finite_mean
from paro.config.config import BLOCKS
from paro.config.formats import CODE_WORD_BYTES, EIGHT_BITS
from rtl.interfaces import CODES_PER_BEAT
from sim.cycles.attention_time import attention_cycles, ideal_cycles, read_bytes

__all__ = ["LATENCY", "VARIANTS", "Cost", "block_study", "plan_cost", "uniform_cost"]

#: Cycles from a request to the memory's answer.
LATENCY = 30
#: Ways to choose order and transform: all by least error, and each one left out.
VARIANTS = (("error", "error"), ("metric", "error"), ("FHW", "error"), ("error", "none"))


@dataclass(frozen=True)
class Cost:
    """Cost of all heads of some plans: cycles, those of lanes alone, bytes of codes, bytes read."""

    cycles: int
    ideal: float
    code_bytes: int
    read_bytes: float


def block_study(
    captures: Sequence[Capture],
    widths: Sequence[float],
    rows: int = 8,
    cols: int = 8,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Calibrate captures with blocks of every size, and count the cost of their heads.

    Parameters
    ----------
    captures : sequence of Capture
        Whose heads share the budget.
    widths : sequence of float
        Mean bits.
    rows, cols : int
        PE array.
    progress : Progress, optional
        Called after each calibration.

    Returns
    -------
    list of dict
        For each block size, mean width and way to choose order and transform: ``mean_snr_db``,
        ``worst_snr_db`` and ``mean_loss_db`` against 8 bits of the same kind; ``cycles`` of all
        heads by the cycle model, with a memory of `LATENCY` cycles, and ``utilisation``, the share
        of lane cycles that they need; ``code_bytes`` of their codes, and ``read_bytes``, all that
        the core reads, of which K and V for every live block are nearly all.

    Raises
    ------
    ParoError
        As `calibrate.calibrate`, or if the array is not legal.
    """
    steps = Steps(progress, len(BLOCKS) * len(widths) * len(VARIANTS))
    table = []
    for block in BLOCKS:
        for width in widths:
            for order, transform in VARIANTS:
                goal = Goal(avg_bits=width, block=block, order=order, transform=transform)
                results = Calibration(captures, goal).results()
                heads = [head for result in results for head in result.heads]
                cost = plan_cost(captures, [result.plan for result in results], rows, cols)
                table.append(
                    {
                        "block": block,
                        "avg_bits": width,
                        "order": order,
                        "transform": transform,
                        "mean_snr_db": finite_mean(head.snr_db for head in heads),
                        "worst_snr_db": finite(min(head.snr_db for head in heads)),
                        "mean_loss_db": finite_mean(head.loss_db for head in heads),
                        "cycles": cost.cycles,
                        "utilisation": round(cost.ideal / cost.cycles, 4),
                        "code_bytes": cost.code_bytes,
                        "read_bytes": int(cost.read_bytes),
                    }
                )
                steps.advance()
    return table


def plan_cost(
    captures: Sequence[CaptureSource], plans: Sequence[ModelPlan], rows: int, cols: int
) -> Cost:
    """Cost of captures under their models' plans, on one core with a memory of `LATENCY` cycles."""
    return _cost(captures, plans, rows, cols, lambda codes: codes)


def uniform_cost(
    captures: Sequence[CaptureSource], plans: Sequence[ModelPlan], rows: int, cols: int
) -> Cost:
    """Cost of the same heads with every block at 8 bits."""
    return _cost(captures, plans, rows, cols, lambda codes: np.full_like(codes, EIGHT_BITS))


def _cost(
    captures: Sequence[CaptureSource],
    plans: Sequence[ModelPlan],
    rows: int,
    cols: int,
    changed: Callable[[np.ndarray], np.ndarray],
) -> Cost:
    by_model = {plan.model: plan for plan in plans}
    cycles, ideal, code_bytes, read = 0, 0.0, 0, 0.0
    for capture in captures:
        plan = by_model[capture.model].for_capture(capture)
        config = model_config(capture, plan.block, rows, cols)
        codes = changed(np.ascontiguousarray(plan.codes.numpy()))
        cycles += int(attention_cycles(config, codes, capture.tokens, latency=LATENCY).sum())
        ideal += float(ideal_cycles(config, codes, capture.tokens).sum())
        code_bytes += codes[..., 0].size * -(-plan.blocks // CODES_PER_BEAT) * CODE_WORD_BYTES
        read += float(read_bytes(config, codes, capture.tokens)[0].sum())
    return Cost(cycles, ideal, code_bytes, read)
