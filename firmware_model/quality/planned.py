"""Attention of a head as a plan says."""

import torch

from firmware_model.calibration.plan import Plan
from firmware_model.capture import Capture
from firmware_model.progress import Steps
from firmware_model.reference.methods import Method
from paro.config.config import Config

__all__ = ["attend_planned"]


def attend_planned(
    method: Method,
    capture: Capture,
    head: int,
    plan: Plan,
    config: Config,
    query_blocks: range | None = None,
    steps: Steps | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of one head in the order, transform and codes of a plan.

    Parameters and result as `Method.attend`.

    Raises
    ------
    ParoError
        If the plan does not hold the head, or as `Method.attend`.
    """
    return method.attend(
        capture,
        head,
        plan.head_order(head),
        plan.head_codes(head),
        config,
        query_blocks,
        steps,
        plan.head_transform(head),
    )
