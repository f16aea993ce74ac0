"""A video transformer of a few tokens, with text around its grid, planned and made a network."""

import math
from dataclasses import replace

import torch

from firmware_model.arrays import Tokens
from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.calibration.plan import ModelPlan
from firmware_model.models.device_program import Item
from firmware_model.models.network import IntegerNetwork, run_float
from firmware_model.models.network_formats import Ranges, choose_formats
from firmware_model.models.video.program import INPUT, video_parameters, video_steps
from firmware_model.models.video.transformer import Shape, VideoTransformer
from firmware_model.program import Linear
from firmware_model.reference.linear import fit_outputs, quantize_inputs, quantize_weights
from paro.config import Config

TOKENS = Tokens((2, 4, 4), prefix=3, suffix=2)
SHAPE = Shape(layers=1, heads=2, head_dim=32)


def small_items(seed: int, count: int) -> list[Item]:
    """Inputs and conditions; weights are those of the seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = VideoTransformer(SHAPE)
    tokens = math.prod(TOKENS.grid) + TOKENS.prefix + TOKENS.suffix
    angles = 6 * torch.rand(tokens, SHAPE.head_dim // 2, generator=generator).double()
    items = []
    for _ in range(count):
        modulation = torch.randn(6 * SHAPE.width, generator=generator)
        parameters = video_parameters(model, modulation)
        parameters = replace(parameters, rotations=dict.fromkeys(parameters.rotations, angles))
        rows = torch.randn(tokens, SHAPE.width, generator=generator)
        items.append(Item({INPUT: rows}, parameters))
    return items


def small_network(items: list[Item], config: Config, seed: int) -> IntegerNetwork:
    """Formats from all items, random codes."""
    generator = torch.Generator().manual_seed(seed)
    steps, ranges, linears = video_steps(SHAPE), Ranges(), items[0].parameters.linears
    with torch.no_grad():
        runs = [run_float(steps, item.inputs, item.parameters, ranges) for item in items]
    plans = {}
    for step in steps:
        if isinstance(step, Linear):
            layer = linears[step.layer]
            shape = (config.blocks_of(layer.out_features), layer.in_features // config.head_dim)
            codes = torch.randint(0, 4, shape, generator=generator).to(torch.uint8)
            weights = quantize_weights(layer.weight.detach(), codes)
            inputs = quantize_inputs(torch.cat([run[step.source] for run in runs]))
            plans[step.layer] = LayerPlan(
                name=step.layer,
                digest="",
                block=config.block,
                head_dim=config.head_dim,
                avg_bits=8.0,
                rotation=1,
                weights=weights,
                input_unit=inputs.unit,
                output=fit_outputs(inputs, weights, layer.bias.detach(), config),
            )
    blocks = config.blocks_of(len(items[0].inputs[INPUT]))
    codes = torch.randint(0, 4, (1, 1, SHAPE.heads, blocks, blocks), generator=generator)
    codes[..., 0] |= 1
    attention = ModelPlan(
        model="0" * 64,
        calibrated_on=("0" * 64,),
        block=config.block,
        grid=TOKENS.grid,
        prefix_tokens=TOKENS.prefix,
        suffix_tokens=TOKENS.suffix,
        avg_bits=8.0,
        layers=(0,),
        heads=tuple(range(SHAPE.heads)),
        step_groups=(0.0,),
        orders=torch.tensor([[5, 2]], dtype=torch.uint8),
        transforms=torch.zeros(1, SHAPE.heads, dtype=torch.uint8),
        codes=codes.to(torch.uint8),
    )
    program, layers = choose_formats(
        (INPUT,),
        (steps[-1].result,),
        steps,
        ranges,
        plans,
        {name: linears[name].bias for name in plans},
        items[0].parameters.scale,
    )
    return IntegerNetwork(program=program, layers=layers, attention=attention, tokens=TOKENS)
