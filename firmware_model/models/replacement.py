"""A planned attention in place of a running model's own."""

import math
from itertools import product
from pathlib import Path

import torch

from firmware_model.calibration.plan import ModelPlan
from firmware_model.calibration.sensitivity import model_config
from firmware_model.capture import Capture
from firmware_model.models.pipeline import AttentionCall, ModelShape, Pipeline, float_attention
from firmware_model.parallel import map_rows
from firmware_model.quality.metrics import cosine, snr_db
from firmware_model.quality.planned import attend_planned
from firmware_model.reference.methods import Method
from paro.config.errors import ParoError


def call_capture(call: AttentionCall, sample: int, shape: ModelShape, model: str) -> Capture:
    """Inputs of one attention as a capture.

    Parameters
    ----------
    call : AttentionCall
        The attention.
    sample : int
        Index in the batch.
    shape : ModelShape
        The model's.
    model : str
        The model's identity.
    """
    q, k, v = (tensor[sample].detach().cpu() for tensor in (call.q, call.k, call.v))
    return Capture(
        path=Path(f"layer_{call.layer:02}_step_{call.step:03}"),
        q=q,
        k=k,
        v=v,
        grid=shape.grid,
        prefix_tokens=shape.prefix_tokens,
        scale=call.scale,
        source=f"layer {call.layer}, step {call.step} of {shape.steps}",
        digest="",
        model=model,
        suffix_tokens=shape.suffix_tokens,
        layer=call.layer,
        progress=call.step / shape.steps,
    )


class PlannedAttention:
    """Computes every attention of a model as a plan says.

    Parameters
    ----------
    pipeline : Pipeline
        The model.
    plan : ModelPlan
        Its plan, with every head of every layer.
    method : Method
        Attention of a head.
    measure : bool
        Whether to compare each result with float attention of the same inputs.

    Attributes
    ----------
    errors : dict
        (step, layer) to a list of (signal-to-noise ratio in dB, cosine), one for each item of the
        batches since the start; empty unless ``measure``.

    Raises
    ------
    ParoError
        If the plan is not one of this model, whole.
    """

    def __init__(
        self, pipeline: Pipeline, plan: ModelPlan, method: Method, measure: bool = False
    ) -> None:
        check_plan(pipeline, plan)
        self._pipeline, self._plan, self._method = pipeline, plan, method
        self._measure = measure
        self.errors: dict[tuple[int, int], list[tuple[float, float]]] = {}

    def __call__(self, call: AttentionCall) -> torch.Tensor:
        """Compute one attention."""
        shape = self._pipeline.shape
        text_tokens = shape.prefix_tokens + shape.suffix_tokens
        plan = self._plan.at(call.layer, call.step / shape.steps, text_tokens)
        heads = [head for head in plan.heads if head < shape.heads]
        exact = float_attention(call) if self._measure or len(heads) < shape.heads else None
        # Heads that the number format does not hold stay in float.
        output = torch.empty_like(call.q) if exact is None else exact.clone()

        def attend(place: tuple[int, int]) -> None:
            sample, head = place
            capture = captures[sample]
            _, output[sample, head] = attend_planned(self._method, capture, head, plan, config)

        captures = [
            call_capture(call, sample, shape, self._pipeline.identity)
            for sample in range(len(call.q))
        ]
        config = model_config(captures[0], plan.block)
        map_rows(attend, product(range(len(captures)), heads))
        if self._measure and exact is not None:
            found = self.errors.setdefault((call.step, call.layer), [])
            for got, want in zip(output, exact, strict=True):
                found.append((snr_db(got, want), cosine(got, want)))
        return output


def check_plan(pipeline: Pipeline, plan: ModelPlan) -> None:
    """Raise ParoError unless ``plan`` covers all attention of the model."""
    shape = pipeline.shape
    if plan.model != pipeline.identity:
        raise ParoError("the plan is of another model; legal: one calibrated on captures of this")
    if plan.grid != shape.grid:
        raise ParoError(
            f"the plan is for {_grid_text(plan.grid)}, but the model runs with "
            f"{_grid_text(shape.grid)}"
        )
    missing = set(range(shape.layers)) - set(plan.layers)
    if missing:
        raise ParoError(f"the plan lacks layer {min(missing)} of the model's {shape.layers}")
    lost = set(range(shape.heads)) - set(plan.heads)
    if lost:
        raise ParoError(f"the plan lacks head {min(lost)} of the model's {shape.heads}")
    # Refuses a plan that knows nothing of text, if there is any.
    plan.at(plan.layers[0], 0.0, shape.prefix_tokens + shape.suffix_tokens)


def _grid_text(grid: tuple[int, int, int]) -> str:
    return f"{math.prod(grid)} tokens ({' x '.join(map(str, grid))})"
