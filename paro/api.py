"""The project from Python: captures from arrays or a running network, plans, integer attention.

>>> import paro
>>> tokens = paro.Tokens(grid=(1, 14, 14), prefix=1)
>>> with paro.watch(tokens) as seen:          # any torch module
...     network(images)
>>> plan = paro.calibrate(seen.captures, bits=4.8, block=16)
>>> with paro.planned(plan, tokens):          # the same module, integer attention
...     network(images)
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from firmware_model.calibration.calibrate import calibrate as calibrate_captures
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.plan import ModelPlan, load_model_plan
from firmware_model.calibration.plan import save_plan as write_plan
from firmware_model.capture import Capture, load_capture
from firmware_model.capture import save_capture as write_capture
from firmware_model.models.hooks import Tokens, as_capture, attend, planned, watch
from firmware_model.quality.metrics import snr_db
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
    "planned",
    "save_capture",
    "save_plan",
    "watch",
]


def capture(
    q: Any,
    k: Any,
    v: Any,
    tokens: Tokens,
    *,
    scale: float | None = None,
    layer: int = 0,
    model: str = "",
) -> Capture:
    """Make a capture of arrays.

    Parameters
    ----------
    q, k, v : np.ndarray or torch.Tensor
        [heads, tokens, channels], or [1, heads, tokens, channels]; floats, finite.
    tokens : Tokens
        What the tokens are: as many as the arrays have.
    scale : float, optional
        Factor of the logits; by default 1 / sqrt(channels).
    layer : int
        Attention layer of the network.
    model : str
        Tells the network's weights apart from others'.

    Raises
    ------
    ParoError
        If the arrays do not fit each other or the tokens.
    """
    operands = [_operand(name, values) for name, values in (("q", q), ("k", k), ("v", v))]
    shape = operands[0].shape
    for name, operand in zip("qkv", operands, strict=True):
        if operand.shape != shape:
            raise ParoError(
                f"{name} has shape {tuple(operand.shape)}; legal: that of q, {tuple(shape)}"
            )
    if shape[1] != tokens.count:
        raise ParoError(
            f"the arrays have {shape[1]} tokens; legal: {tokens.count}, those of prefix "
            f"{tokens.prefix}, grid {tokens.grid} and suffix {tokens.suffix}"
        )
    factor = shape[2] ** -0.5 if scale is None else float(scale)
    return as_capture(operands, tokens, factor, model, layer)


def _operand(name: str, values: Any) -> torch.Tensor:
    tensor = (
        torch.as_tensor(np.ascontiguousarray(values)) if isinstance(values, np.ndarray) else values
    )
    if not isinstance(tensor, torch.Tensor):
        raise ParoError(f"{name} is a {type(values).__name__}; legal: numpy arrays, torch tensors")
    tensor = tensor.detach().cpu()
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3:
        raise ParoError(
            f"{name} has shape {tuple(tensor.shape)}; legal: [heads, tokens, channels], or a batch "
            "of one"
        )
    if not tensor.is_floating_point():
        raise ParoError(f"{name} has {tensor.dtype}; legal: floats")
    if not tensor.isfinite().all():
        raise ParoError(f"{name} has values that are not finite")
    return tensor.float() if tensor.dtype == torch.float64 else tensor


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
    q: Any,
    k: Any,
    v: Any,
    *,
    plan: ModelPlan,
    tokens: Tokens,
    layer: int = 0,
    scale: float | None = None,
    method: str = "integer",
) -> torch.Tensor:
    """Attention as a plan says, bit for bit as the hardware computes it.

    Parameters
    ----------
    q, k, v, tokens, scale, layer
        As of `capture`; a batch is computed item by item.
    plan : ModelPlan
    method : str
        ``integer``, or another of `firmware_model.choices.METHODS`.

    Returns
    -------
    torch.Tensor
        Of the shape of ``q``, float32.
    """
    batches = [tensor if getattr(tensor, "ndim", 0) == 4 else tensor[None] for tensor in (q, k, v)]
    outputs = [
        attend(
            capture(one_q, one_k, one_v, tokens, scale=scale, layer=layer, model=plan.model),
            plan,
            Method(method),
        )
        for one_q, one_k, one_v in zip(*batches, strict=True)
    ]
    return torch.stack(outputs).reshape(q.shape).float()


def evaluate(capture: Capture, plan: ModelPlan, method: str = "integer") -> list[float]:
    """Signal-to-noise ratio in dB of each head under a plan, against float64 attention."""
    outputs = attend(capture, plan, Method(method))
    return [
        snr_db(
            output,
            reference_attention(capture.q[head], capture.k[head], capture.v[head], capture.scale),
        )
        for head, output in enumerate(outputs)
    ]
