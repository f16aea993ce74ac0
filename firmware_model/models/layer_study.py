"""Videos of a model whose linear layers are quantised in many ways, against the model in float."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.calibration.layers import LayerCalibration, tile_config
from firmware_model.calibration.plan import ModelPlan
from firmware_model.layer import LayerSource
from firmware_model.models.pipeline import Linear, LinearCall, Pipeline, float_linear
from firmware_model.models.replacement import PlannedLinear
from firmware_model.progress import Progress, Steps
from firmware_model.quality.metrics import finite, finite_mean, psnr_db, ssim
from firmware_model.reference.linear import (
    QuantizedInputs,
    dequantize_outputs,
    integer_linear,
    quantize_inputs,
    quantize_weights,
    tile_values,
)
from firmware_model.reference.quantize import round_operands
from firmware_model.transform import rotate_groups
from paro.config.config import Config
from paro.config.errors import ParoError
from paro.config.formats import QUERY_SCALE_BITS

__all__ = ["layer_study"]

#: Inputs that share a scale in the study's 4-bit integers, and the largest of these.
_GROUP, _INT4_MAX = 128, 7
#: Mean widths that are also tried with one scale for the inputs of all tokens.
_STATIC = (8.0, 4.0)
#: Mean width that is also tried without error feedback.
_PLAIN = 4.0


def layer_study(
    pipeline: Pipeline,
    sources: Sequence[LayerSource],
    widths: Sequence[float],
    samples: int,
    block: int = 64,
    head_dim: int = 64,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Quality of videos against the mean width of weights, attention in float.

    Beside the widths: inputs in INT8 with float weights; one scale for the inputs of all tokens;
    weights rounded to nearest; and 4-bit integers in groups of 128 inputs, rounded to nearest.

    Parameters
    ----------
    pipeline : Pipeline
        The model.
    sources : sequence of LayerSource
        Captures of its linear layers.
    widths : sequence of float
        Mean widths, 2 to 8.
    samples : int
        Videos, of samples 0, 1, ...
    block, head_dim : int
        Outputs and inputs of a tile.
    progress : Progress, optional
        Called after each video.

    Returns
    -------
    list of dict
        For each way ``weights`` and ``inputs``, in words, ``bits`` a weight (null for float),
        ``psnr_db`` in the mean, ``worst_psnr_db`` and ``ssim``.

    Raises
    ------
    ParoError
        If the captures are none, or of another model, or as `LayerCalibration`.
    """
    if not sources or any(source.model != pipeline.identity for source in sources):
        raise ParoError("captures are of another model or of attention; legal: this one's layers")
    ways = _ways(pipeline, sources, widths, tile_config(block, head_dim))
    steps = Steps(progress, (len(ways) + 1) * samples)

    def videos(linear: Linear | None) -> list[torch.Tensor]:
        found = []
        for sample in range(samples):
            found.append(pipeline.generate(sample, linear=linear))
            steps.advance()
        return found

    own = videos(None)
    rows = []
    for weights, inputs, bits, make in ways:
        found = videos(make())
        quality = [psnr_db(video, exact) for video, exact in zip(found, own, strict=True)]
        rows.append(
            {
                "weights": weights,
                "inputs": inputs,
                "bits": bits,
                "psnr_db": finite_mean(quality),
                "worst_psnr_db": finite(min(quality)),
                "ssim": finite_mean(map(ssim, found, own)),
            }
        )
    return rows


#: Weights and inputs in words, bits a weight, and what makes the layers' arithmetic.
_Way = tuple[str, str, float | None, Callable[[], Linear]]


def _ways(
    pipeline: Pipeline, sources: Sequence[LayerSource], widths: Sequence[float], config: Config
) -> list[_Way]:
    def plan(bits: float) -> ModelPlan:
        measured = LayerCalibration(sources, bits, config)
        plans = [layer.plan for layer in measured.results()]
        return ModelPlan.of_layers(pipeline.identity, (), plans)

    ways: list[_Way] = [("float", "INT8 by token", None, lambda: _float_weights)]
    for bits in widths:
        ways.append(
            ("digits", "INT8 by token", bits, lambda bits=bits: PlannedLinear(pipeline, plan(bits)))
        )
    for bits in sorted(set(_STATIC) & set(widths), reverse=True):
        ways.append(
            (
                "digits",
                "INT8, one scale",
                bits,
                lambda bits=bits: partial(_static, _named(plan(bits))),
            )
        )
    if _PLAIN in widths:
        ways.append(
            (
                "digits, to nearest",
                "INT8 by token",
                _PLAIN,
                lambda: partial(_to_nearest, _named(plan(_PLAIN))),
            )
        )
    ways.append(("integers, groups of 128", "INT8 by token", 4.0, lambda: _integers))
    return ways


def _named(plan: ModelPlan) -> dict[str, LayerPlan]:
    return {own.name: own for own in plan.linear}


def _to_nearest(plans: dict[str, LayerPlan], call: LinearCall) -> torch.Tensor:
    """A planned layer with its weights rounded to nearest in place of error feedback."""
    plan = plans[call.name]
    weight = rotate_groups(call.layer.weight.detach().double(), plan.rotation)
    weights = quantize_weights(weight, plan.weights.codes)
    config = tile_config(plan.block, plan.head_dim)
    values = tile_values(weights, config) * weights.mw.double().unsqueeze(1) * weights.unit
    y = _values(plan.quantized(call.x.flatten(0, -2))) @ values.T
    y = y if call.layer.bias is None else y + call.layer.bias.detach().double()
    return y.to(call.x).unflatten(0, call.x.shape[:-1])


def _static(plans: dict[str, LayerPlan], call: LinearCall) -> torch.Tensor:
    """A planned layer, its inputs cut with the scale of the largest one of calibration."""
    plan = plans[call.name]
    x = rotate_groups(call.x.flatten(0, -2).double(), plan.rotation)
    mantissa = 2 ** (QUERY_SCALE_BITS - 1)
    x8 = round_operands(x / (mantissa * plan.input_unit))
    mx = torch.full((len(x),), mantissa, dtype=torch.int32)
    inputs = QuantizedInputs(x8, mx, plan.input_unit)
    config = tile_config(plan.block, plan.head_dim)
    words = integer_linear(inputs, plan.weights, plan.output, config)
    values = dequantize_outputs(words, plan.output).to(call.x)
    return values.unflatten(0, call.x.shape[:-1])


def _int8_inputs(call: LinearCall) -> LinearCall:
    """A call whose inputs have gone through INT8, each token with a scale of its own."""
    inputs = quantize_inputs(call.x.flatten(0, -2))
    return replace(call, x=_values(inputs).to(call.x).unflatten(0, call.x.shape[:-1]))


def _values(inputs: QuantizedInputs) -> torch.Tensor:
    """Inputs as they are multiplied, float64 [tokens, inputs]."""
    return inputs.x8.double() * inputs.mx.double().unsqueeze(1) * inputs.unit


def _float_weights(call: LinearCall) -> torch.Tensor:
    return float_linear(_int8_inputs(call))


def _integers(call: LinearCall) -> torch.Tensor:
    """4-bit integers, -7 to 7, a scale for each output and group of inputs, rounded to nearest."""
    weight = call.layer.weight.detach().double()
    parts = []
    for part in weight.split(_GROUP, dim=1):
        scale = part.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / _INT4_MAX
        parts.append(torch.round(part / scale) * scale)
    rounded = torch.cat(parts, dim=1).to(call.x)
    return torch.nn.functional.linear(_int8_inputs(call).x, rounded, call.layer.bias)
