"""The plan of one linear layer: what calibration makes of it and the accelerator computes with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from firmware_model.codes import CODES_PER_BYTE, mean_bits, pack_codes, unpack_codes
from firmware_model.layer import Layer, weights_digest
from firmware_model.reference.linear import (
    OutputFormat,
    QuantizedInputs,
    QuantizedWeights,
    integer_linear,
    quantize_inputs,
)
from firmware_model.transform import rotate_groups
from paro.config.config import BLOCKS, HEAD_DIMS, Config, blocks_of
from paro.config.errors import ParoError
from paro.config.formats import OUT_SHIFTS, SUM_SHIFT_MAX

__all__ = ["TENSORS", "LayerPlan", "layer_fields", "layer_tensors", "read_layer_plan"]

#: Tensors of a layer's plan in a file.
TENSORS = ("w8", "mw", "codes", "bias")


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerPlan:
    """A linear layer, quantised.

    Parameters
    ----------
    name : str
        Name of the layer in its model.
    digest : str
        `layer.weights_digest` of weights and bias that it was made from.
    block, head_dim : int
        Outputs and inputs of a tile: those of the core.
    avg_bits : float
        Mean bits that were asked for, over all layers of the budget.
    rotation : int
        Inputs that are rotated together (`transform.rotate_groups`), a power of two that divides
        them; 1 for no rotation. The weights are rotated already.
    weights : QuantizedWeights
        Rounded weights and the code of each tile.
    input_unit : float
        Value of an input's mantissa of 1, for all tokens that will ever come.
    output : OutputFormat
        Shifts, bias and unit of the output words.
    """

    name: str
    digest: str
    block: int
    head_dim: int
    avg_bits: float
    rotation: int
    weights: QuantizedWeights
    input_unit: float
    output: OutputFormat

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.weights.w8.shape[0]

    @property
    def inputs(self) -> int:
        """Input channels."""
        return self.weights.w8.shape[1]

    def mean_bits(self) -> float:
        """Mean width over all tiles."""
        return mean_bits(self.weights.codes)

    def quantized(self, x: torch.Tensor) -> QuantizedInputs:
        """Rotate and quantise inputs [tokens, inputs]; values beyond the format saturate."""
        return quantize_inputs(rotate_groups(x.double(), self.rotation), self.input_unit)

    def words(self, x: torch.Tensor, config: Config) -> torch.Tensor:
        """Output words for inputs [tokens, inputs]: int16 [tokens, outputs].

        Raises
        ------
        ParoError
            If the configuration is not that of the plan's tiles.
        """
        self.check_config(config)
        return integer_linear(self.quantized(x), self.weights, self.output, config)

    def check(self, layer: Layer) -> None:
        """Raise ParoError unless the plan was made from these weights."""
        if weights_digest(layer.weight, layer.bias) != self.digest:
            raise ParoError(
                f"the plan of layer {self.name} is of another layer than {layer.path}; calibrate "
                "this one, or give the one that the plan was made from"
            )

    def check_config(self, config: Config) -> None:
        """Raise ParoError unless the tiles are those of a core."""
        for name in ("block", "head_dim"):
            own, given = getattr(self, name), getattr(config, name)
            if own != given:
                raise ParoError(
                    f"{name} = {given} does not fit the plan of layer {self.name}, which has "
                    f"{own}; legal: {own}"
                )


def layer_fields(plan: LayerPlan) -> dict[str, Any]:
    """What a file holds of a plan beside its tensors: JSON content."""
    return {
        "name": plan.name,
        "digest": plan.digest,
        "block": plan.block,
        "head_dim": plan.head_dim,
        "avg_bits": plan.avg_bits,
        "rotation": plan.rotation,
        "weight_unit": plan.weights.unit,
        "input_unit": plan.input_unit,
        "sum_shift": plan.output.sum_shift,
        "out_shift": plan.output.out_shift,
        "output_unit": plan.output.unit,
    }


def layer_tensors(plan: LayerPlan) -> dict[str, torch.Tensor]:
    """Tensors of a plan as a file holds them, by the names of `TENSORS`."""
    return {
        "w8": plan.weights.w8,
        "mw": plan.weights.mw.to(torch.uint8),
        "codes": torch.from_numpy(pack_codes(plan.weights.codes)),
        "bias": plan.output.bias.to(torch.int16),
    }


def read_layer_plan(fields: Any, tensors: Mapping[str, torch.Tensor]) -> LayerPlan:
    """Check `layer_fields` and `layer_tensors` of a file, and make a plan of them.

    Raises
    ------
    ParoError
        If anything is not as `LayerPlan` states.
    """
    _check_fields(fields)
    w8, mw, codes, bias = (tensors[name] for name in TENSORS)
    name, block, head_dim = fields["name"], fields["block"], fields["head_dim"]
    _check(w8.dtype == torch.int8 and w8.dim() == 2 and 0 not in w8.shape, name, "w8")
    _check(w8.min() > -128, name, "w8")
    outputs, inputs = w8.shape
    blocks, chunks = blocks_of(outputs, block), blocks_of(inputs, head_dim)
    packed = (blocks, blocks_of(chunks, CODES_PER_BYTE))
    _check(codes.dtype == torch.uint8 and codes.shape == packed, name, "codes")
    _check(mw.dtype == torch.uint8 and mw.shape == (outputs,) and mw.min() >= 1, name, "mw")
    _check(bias.dtype == torch.int16 and bias.shape == (outputs,), name, "bias")
    _check(inputs % fields["rotation"] == 0, name, "rotation")
    unpacked = torch.from_numpy(unpack_codes(codes, chunks))
    return LayerPlan(
        name=name,
        digest=fields["digest"],
        block=block,
        head_dim=head_dim,
        avg_bits=fields["avg_bits"],
        rotation=fields["rotation"],
        weights=QuantizedWeights(w8, mw.int(), fields["weight_unit"], unpacked),
        input_unit=fields["input_unit"],
        output=OutputFormat(
            fields["sum_shift"], fields["out_shift"], bias.int(), fields["output_unit"]
        ),
    )


def _check_fields(fields: Any) -> None:
    """Raise ParoError unless each of `layer_fields` is there and legal."""
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        raise ParoError("a layer has no name; legal: a text")
    legal = {
        "digest": lambda value: isinstance(value, str),
        "block": lambda value: value in BLOCKS,
        "head_dim": lambda value: value in HEAD_DIMS,
        "avg_bits": _positive,
        "rotation": lambda value: _counts(value) and value > 0 and value & (value - 1) == 0,
        "weight_unit": _positive,
        "input_unit": _positive,
        "sum_shift": lambda value: _counts(value) and value <= SUM_SHIFT_MAX,
        "out_shift": lambda value: _counts(value) and value in OUT_SHIFTS,
        "output_unit": _positive,
    }
    for name, is_legal in legal.items():
        _check(is_legal(fields.get(name)), fields["name"], name)


def _check(legal: bool | torch.Tensor, layer: str, name: str) -> None:
    if not legal:
        raise ParoError(f"{name} of layer {layer} is not legal")


def _positive(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
