"""The project from Python: captures from arrays or a running network, plans, integer attention.

>>> import paro
>>> tokens = paro.Tokens(grid=(1, 14, 14), prefix=1)
>>> with paro.watch(tokens) as seen:          # any torch module
...     network(images)
>>> plan = paro.calibrate(seen.captures, bits=4.8, block=16)
>>> with paro.planned(plan):                  # the same module, integer attention
...     network(images)
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from firmware_model.arrays import Tokens, capture_of
from firmware_model.calibration.calibrate import calibrate as calibrate_captures
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.maps import plan_of_maps
from firmware_model.calibration.plan import ModelPlan, load_model_plan
from firmware_model.calibration.plan import save_plan as write_plan
from firmware_model.capture import Capture, load_capture
from firmware_model.capture import save_capture as write_capture
from firmware_model.models.hooks import check_plain, planned, watch
from firmware_model.models.sparse import sparse
from firmware_model.quality.metrics import snr_db
from firmware_model.quality.planned import attend_captures
from firmware_model.reference.attention import reference_attention
from firmware_model.reference.methods import Method
from paro.config.errors import ParoError

__all__ = [
    "Tokens",
    "attention",
    "calibrate",
    "capture",
    "evaluate",
    "load_capture",
    "load_plan",
    "plan_of_maps",
    "planned",
    "save_capture",
    "save_plan",
    "sparse",
    "watch",
]

capture = capture_of


def save_capture(capture: Capture, path: str | Path) -> Path:
    """Write a capture as safetensors, for the commands; returns its path."""
    write_capture(replace(capture, path=Path(path)))
    return Path(path)


def calibrate(
    captures: Sequence[Capture], bits: float = 4.8, *, block: int = 64, **goal: Any
) -> ModelPlan:
    """Choose the token order of each head and the width of each block.

    Parameters
    ----------
    captures : sequence of Capture
        Of one network, one or more for each layer.
    bits : float
        Mean width over all blocks.
    block : int
        Tokens on a side of a block: 16, 32 or 64.
    **goal
        Other fields of `firmware_model.calibration.goal.Goal`.

    Raises
    ------
    ParoError
        If captures or goal are not legal.
    """
    plans = calibrate_captures(captures, Goal(avg_bits=bits, block=block, **goal))
    if len(plans) != 1:
        raise ParoError(f"the captures are of {len(plans)} models; legal: one")
    return plans[0]


def save_plan(plan: ModelPlan, path: str | Path) -> Path:
    """Write a plan, for the commands; returns its path."""
    write_plan(plan, Path(path))
    return Path(path)


def load_plan(path: str | Path) -> ModelPlan:
    """Read a plan that `save_plan` or `paro calibrate` wrote."""
    return load_model_plan(Path(path))


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    plan: ModelPlan,
    tokens: Tokens | None = None,
    layer: int = 0,
    progress: float = 0.0,
    method: str = "integer",
) -> torch.Tensor:
    """Attention as a plan says, bit for bit as the hardware computes it.

    With `functools.partial(paro.attention, plan=plan, layer=3)` it takes the place of
    `torch.nn.functional.scaled_dot_product_attention`, whose parameters are the first eight; a
    mask, dropout and causal attention are refused.

    Parameters
    ----------
    query, key, value : np.ndarray or torch.Tensor
        [heads, tokens, channels], or a batch of them, which is computed item by item.
    scale : float, optional
        Factor of the logits; by default 1 / sqrt(channels).
    enable_gqa : bool
        Of no effect: heads of ``key`` and ``value`` serve several of ``query`` if they are fewer.
    plan : ModelPlan
    tokens : Tokens, optional
        What the tokens are; by default those of the plan.
    layer : int
        Attention layer of the network.
    progress : float
        Share of the denoising steps that are done.
    method : str
        ``integer``, or another of `firmware_model.choices.METHODS`.

    Returns
    -------
    torch.Tensor
        Of the shape of ``query``; its type and device if it is a tensor, else float32.
    """
    check_plain(attn_mask, dropout_p, is_causal)
    tokens = tokens or plan.tokens
    batched = getattr(query, "ndim", 0) == 4
    items = zip(query, key, value, strict=True) if batched else [(query, key, value)]
    captures = [
        capture_of(*item, tokens, scale=scale, layer=layer, progress=progress, model=plan.model)
        for item in items
    ]
    output = attend_captures(captures, plan, Method(method)).reshape(query.shape)
    return output.to(query) if isinstance(query, torch.Tensor) else output.float()


def evaluate(capture: Capture, plan: ModelPlan, method: str = "integer") -> list[float]:
    """Signal-to-noise ratio in dB of each head under a plan, against float64 attention."""
    (outputs,) = attend_captures([capture], plan, Method(method))
    return [
        snr_db(
            output,
            reference_attention(capture.q[head], capture.k[head], capture.v[head], capture.scale),
        )
        for head, output in enumerate(outputs)
    ]
