"""The plan of one linear layer: what calibration makes of it and the accelerator computes with."""

from dataclasses import dataclass

import torch

from firmware_model.codes import mean_bits
from firmware_model.layer import Layer, weights_digest
from firmware_model.reference.linear import (
    OutputFormat,
    QuantizedInputs,
    QuantizedWeights,
    integer_linear,
    quantize_inputs,
)
from firmware_model.transform import rotate_groups
from paro.config.config import Config
from paro.config.errors import ParoError

__all__ = ["LayerPlan"]


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
