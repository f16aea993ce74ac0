"""Attention as a plan says: of a head, or of all heads of some captures."""

from collections.abc import Sequence
from itertools import product

import torch

from firmware_model.calibration.plan import ModelPlan, Plan
from firmware_model.calibration.sensitivity import model_config
from firmware_model.capture import Capture
from firmware_model.parallel import map_rows
from firmware_model.progress import Steps
from firmware_model.reference.attention import reference_attention
from firmware_model.reference.methods import Method
from paro.config.config import Config

__all__ = ["attend_captures", "attend_planned"]


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


def attend_captures(captures: Sequence[Capture], plan: ModelPlan, method: Method) -> torch.Tensor:
    """Attention of all heads of some captures, all of one shape, layer and time.

    Returns
    -------
    torch.Tensor
        float64 [captures, heads, tokens, head_dim], in the captures' order. Heads that the plan
        leaves out are exact.

    Raises
    ------
    ParoError
        If the plan has another grid, or lacks the layer.
    """
    first = captures[0]
    plan.check_grid(first.grid)
    own = plan.at(first.layer, first.progress, first.text_tokens)
    config = model_config(first, own.block)

    def one(place: tuple[Capture, int]) -> torch.Tensor:
        capture, head = place
        if head in own.heads:
            return attend_planned(method, capture, head, own, config)[1].double()
        operands = (capture.q[head], capture.k[head], capture.v[head])
        return reference_attention(*operands, capture.scale)

    outputs = map_rows(one, product(captures, range(first.heads)))
    return torch.stack(outputs).unflatten(0, (len(captures), first.heads))
