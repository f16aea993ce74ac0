"""Plans of layers and attention for networks of a few tokens, not calibrated."""

import torch

from firmware_model.arrays import Tokens
from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.calibration.plan import ModelPlan
from firmware_model.reference.linear import fit_outputs, quantize_inputs, quantize_weights
from paro.config import Config


def plan_layer(
    name: str, layer: torch.nn.Linear, inputs: torch.Tensor, config: Config, codes: torch.Tensor
) -> LayerPlan:
    """A layer's plan, its weights rounded to nearest at the widths of the codes."""
    weights = quantize_weights(layer.weight.detach(), codes)
    rounded = quantize_inputs(inputs)
    bias = None if layer.bias is None else layer.bias.detach()
    return LayerPlan(
        name=name,
        digest="",
        block=config.block,
        head_dim=config.head_dim,
        avg_bits=8.0,
        rotation=1,
        weights=weights,
        input_unit=rounded.unit,
        output=fit_outputs(rounded, weights, bias, config),
    )


def layer_shape(layer: torch.nn.Linear, config: Config) -> tuple[int, int]:
    """Shape of a layer's codes."""
    return config.blocks_of(layer.out_features), layer.in_features // config.head_dim


def plan_attention(
    tokens: Tokens,
    config: Config,
    orders: torch.Tensor,
    codes: torch.Tensor,
    *,
    model: str = "0" * 64,
    linear: tuple[LayerPlan, ...] = (),
) -> ModelPlan:
    """A plan of all layers and heads, [layers, heads], with one group of steps."""
    layers, heads = orders.shape
    return ModelPlan(
        model=model,
        calibrated_on=("0" * 64,),
        block=config.block,
        grid=tokens.grid,
        prefix_tokens=tokens.prefix,
        suffix_tokens=tokens.suffix,
        avg_bits=8.0,
        layers=tuple(range(layers)),
        heads=tuple(range(heads)),
        step_groups=(0.0,),
        orders=orders.to(torch.uint8),
        transforms=torch.zeros(layers, heads, dtype=torch.uint8),
        codes=codes.to(torch.uint8),
        linear=linear,
    )
