"""A planned attention, and planned linear layers, in place of a running model's own."""

from pathlib import Path

import torch

from firmware_model.arrays import Tokens
from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.calibration.layers import tile_config
from firmware_model.calibration.plan import ModelPlan
from firmware_model.capture import Capture
from firmware_model.layer import Layer
from firmware_model.models.pipeline import (
    AttentionCall,
    LinearCall,
    Pipeline,
    float_attention,
    float_linear,
)
from firmware_model.quality.metrics import cosine, snr_db
from firmware_model.quality.planned import attend_captures
from firmware_model.reference.linear import dequantize_outputs
from firmware_model.reference.methods import Method
from paro.config.errors import ParoError


def call_capture(
    call: AttentionCall, sample: int, tokens: Tokens, steps: int, model: str
) -> Capture:
    """Inputs of one attention as a capture.

    Parameters
    ----------
    call : AttentionCall
        The attention.
    sample : int
        Index in the batch.
    tokens : Tokens
        What the model's tokens are.
    steps : int
        Denoising steps of a run.
    model : str
        The model's identity.
    """
    q, k, v = (tensor[sample].detach().cpu() for tensor in (call.q, call.k, call.v))
    return Capture(
        path=Path(f"layer_{call.layer:02}_step_{call.step:03}"),
        q=q,
        k=k,
        v=v,
        grid=tokens.grid,
        prefix_tokens=tokens.prefix,
        scale=call.scale,
        source=f"layer {call.layer}, step {call.step} of {steps}",
        digest="",
        model=model,
        suffix_tokens=tokens.suffix,
        layer=call.layer,
        progress=call.step / steps,
    )


def call_layer(call: LinearCall, tokens: int, model: str) -> Layer:
    """Inputs of one linear layer as a capture: the last item of a batch.

    Parameters
    ----------
    call : LinearCall
        The layer.
    tokens : int
        Tokens to keep at most, evenly spread.
    model : str
        The model's identity.
    """
    x = call.x.detach().flatten(0, -3)[-1].cpu()
    count = len(x)
    if count > tokens:
        x = x[torch.arange(tokens) * count // tokens]
    bias = call.layer.bias
    return Layer(
        path=Path(f"{call.name}_step_{call.step:03}"),
        x=x,
        weight=call.layer.weight.detach().cpu(),
        bias=None if bias is None else bias.detach().cpu(),
        name=call.name,
        model=model,
        run_tokens=count,
    )


class PlannedLinear:
    """Computes linear layers of a model as a plan says, and all others as the model does.

    Parameters
    ----------
    pipeline : Pipeline
        The model.
    plan : ModelPlan
        Its plan, with one or more of its layers.
    measure : bool
        Whether to compare each result with the layer's own.

    Attributes
    ----------
    errors : dict
        (step, name) to a list of signal-to-noise ratios in dB, one for each call since the start;
        empty unless ``measure``.

    Raises
    ------
    ParoError
        If the plan is not one of this model.
    """

    def __init__(self, pipeline: Pipeline, plan: ModelPlan, measure: bool = False) -> None:
        _check_identity(pipeline, plan)
        for own in plan.linear:
            _check_layer(pipeline, own)
        self._plans = {own.name: own for own in plan.linear}
        self._measure = measure
        self.errors: dict[tuple[int, str], list[float]] = {}

    def __call__(self, call: LinearCall) -> torch.Tensor:
        """Compute one layer."""
        if call.name not in self._plans:
            return float_linear(call)
        plan = self._plans[call.name]
        config = tile_config(plan.block, plan.head_dim)
        words = plan.words(call.x.flatten(0, -2).cpu(), config)
        found = dequantize_outputs(words, plan.output).to(call.x)
        output = found.unflatten(0, call.x.shape[:-1])
        if self._measure:
            exact = float_linear(call)
            self.errors.setdefault((call.step, call.name), []).append(snr_db(output, exact))
        return output


def _check_layer(pipeline: Pipeline, plan: LayerPlan) -> None:
    """Raise ParoError unless the model has a layer of a plan's name and size."""
    layer = pipeline.linears.get(plan.name)
    size = (plan.outputs, plan.inputs)
    if layer is None or tuple(layer.weight.shape) != size:
        raise ParoError(
            f"the plan has a layer {plan.name} of {plan.outputs} x {plan.inputs} weights, and the "
            "model has none; legal: one calibrated on captures of this"
        )


class PlannedAttention:
    """Computes every attention of a model as a plan says.

    Parameters
    ----------
    plan : ModelPlan
        With every layer. Heads that it leaves out stay exact.
    tokens : Tokens
        What the model's tokens are.
    steps : int
        Denoising steps of a run.
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
        If the plan has another grid.
    """

    def __init__(
        self, plan: ModelPlan, tokens: Tokens, steps: int, method: Method, measure: bool = False
    ) -> None:
        plan.check_grid(tokens.grid)
        self._plan, self._tokens, self._steps, self._method = plan, tokens, steps, method
        self._measure = measure
        self.errors: dict[tuple[int, int], list[tuple[float, float]]] = {}

    @classmethod
    def of_pipeline(
        cls, pipeline: Pipeline, plan: ModelPlan, method: Method, measure: bool = False
    ) -> "PlannedAttention":
        """Make one for a model; `ParoError` if the plan is not one of this model, whole."""
        check_plan(pipeline, plan)
        return cls(plan, pipeline.shape.layout, pipeline.shape.steps, method, measure)

    def __call__(self, call: AttentionCall) -> torch.Tensor:
        """Compute one attention."""
        captures = [
            call_capture(call, sample, self._tokens, self._steps, self._plan.model)
            for sample in range(len(call.q))
        ]
        output = attend_captures(captures, self._plan, self._method).to(call.q)
        if self._measure:
            found = self.errors.setdefault((call.step, call.layer), [])
            for got, want in zip(output, float_attention(call), strict=True):
                found.append((snr_db(got, want), cosine(got, want)))
        return output


def check_plan(pipeline: Pipeline, plan: ModelPlan) -> None:
    """Raise ParoError unless ``plan`` covers all attention of the model."""
    shape = pipeline.shape
    _check_identity(pipeline, plan)
    plan.check_grid(shape.grid)
    missing = set(range(shape.layers)) - set(plan.layers)
    if missing:
        raise ParoError(f"the plan lacks layer {min(missing)} of the model's {shape.layers}")
    lost = set(range(shape.heads)) - set(plan.heads)
    if lost:
        raise ParoError(f"the plan lacks head {min(lost)} of the model's {shape.heads}")
    # Refuses a plan that knows nothing of text, if there is any.
    plan.at(plan.layers[0], 0.0, shape.prefix_tokens + shape.suffix_tokens)


def _check_identity(pipeline: Pipeline, plan: ModelPlan) -> None:
    if plan.model != pipeline.identity:
        raise ParoError("the plan is of another model; legal: one calibrated on captures of this")
