"""A video transformer of a few tokens, with text around its grid, planned and made a network."""

import math
from dataclasses import replace

import torch

from firmware_model.arrays import Tokens
from firmware_model.models.device_program import Item
from firmware_model.models.network import IntegerNetwork, run_float
from firmware_model.models.network_formats import Ranges, choose_formats
from firmware_model.models.video.program import INPUT, video_parameters, video_steps
from firmware_model.models.video.transformer import Shape, VideoTransformer
from firmware_model.program import Linear
from paro.config import Config
from tests.firmware_model.models.small_plans import layer_shape, plan_attention, plan_layer

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
            codes = torch.randint(0, 4, layer_shape(layer, config), generator=generator)
            inputs = torch.cat([run[step.source] for run in runs])
            plans[step.layer] = plan_layer(step.layer, layer, inputs, config, codes.to(torch.uint8))
    blocks = config.blocks_of(len(items[0].inputs[INPUT]))
    codes = torch.randint(0, 4, (1, 1, SHAPE.heads, blocks, blocks), generator=generator)
    codes[..., 0] |= 1
    attention = plan_attention(TOKENS, config, torch.tensor([[5, 2]]), codes)
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
