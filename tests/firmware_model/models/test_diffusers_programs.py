"""Transformers of diffusers as programs: float against the library, integers, a queue's bytes."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from firmware_model.arrays import Tokens
from firmware_model.host.tasks import job_tokens
from firmware_model.models.compiler import compile_network
from firmware_model.models.diffusers_adapter.programs import (
    INPUT,
    block_inputs,
    block_outputs,
    replaced_blocks,
    transformer_parameters,
    transformer_steps,
)
from firmware_model.models.network import run_float
from firmware_model.quality.metrics import snr_db
from paro.config import ParoError
from tests.firmware_model.models.memory_player import MemoryPlayer
from tests.firmware_model.models.network_tensors import assert_tensors
from tests.firmware_model.models.small_transformers import (
    CONFIG,
    Example,
    cogvideox,
    dit,
    flux,
    narrow_flux,
    narrow_pixart,
    pixart,
    wan,
)
from tests.firmware_model.models.test_compiler import checked_overlaps
from tests.firmware_model.models.unit_player import play_steps

#: What integers may lose at 8 bits, in each block's tokens.
BOUND_DB = 35
#: Transformers, and whether they are tried in the fast suite.
EXAMPLES = {
    dit: True,
    cogvideox: True,
    flux: True,
    pixart: False,
    wan: True,
    narrow_flux: False,
    narrow_pixart: True,
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(build, id=build.__name__, marks=() if fast else pytest.mark.slow)
        for build, fast in EXAMPLES.items()
    ],
)
def example(request) -> Example:
    return Example(request.param)


def test_the_steps_in_float_are_the_library(example):
    for name, wanted in zip(block_outputs(example.transformer), example.blocks, strict=True):
        got = torch.stack([run[name] for run in example.runs])
        assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max(), name
    assert (example.in_float - example.exact).abs().max() < 1e-5 * example.exact.abs().max()


def test_the_network_is_near_float(example):
    """In tokens, in what all blocks add to them, and in what the library makes of them."""
    start = torch.stack([item.inputs[INPUT] for item in example.items])
    for name, wanted in zip(block_outputs(example.transformer), example.blocks, strict=True):
        got = torch.stack([example.values(run, name) for run in example.integers])
        tokens, added = snr_db(got, wanted), snr_db(got - start, wanted - start)
        print(f"{name}: {tokens:.1f} dB, of what was added {added:.1f} dB")
        assert min(tokens, added) > BOUND_DB
    with replaced_blocks(example.transformer, example.run_integers):
        output = snr_db(example.run(), example.exact)
    print(f"output of the transformer: {output:.1f} dB")
    assert output > BOUND_DB


def test_the_blocks_as_a_queue(example):
    """Every tensor in memory, and the output where memory is used again."""
    items, network = example.items, example.network
    device = compile_network(network, items, CONFIG)
    image = device.image(0x1000, reuse=False)
    memory = MemoryPlayer(CONFIG, device.tasks, image).play()
    assert_tensors(device, image, memory, example.integers)
    for tensors in device.tensors:
        assert set(block_outputs(example.transformer)) <= set(tensors)
    image = device.image(0x1000)
    assert len(image.buffers.used) < 0.5 * image.buffers.without_reuse
    assert checked_overlaps(device, image) > len(device.tasks)
    memory = MemoryPlayer(CONFIG, device.tasks, image).play()
    assert_tensors(device, image, memory, example.integers, network.program.outputs)


def test_the_vector_steps_on_the_unit(example, seed):
    """What is compared with the network is what the hardware makes of the same streams."""
    device = compile_network(example.network, example.items[:1], CONFIG)
    player = MemoryPlayer(CONFIG, device.tasks, device.image())
    player.play()
    cycles = play_steps(CONFIG, player.steps, range(1), random.Random(seed))
    print(f"{len(player.steps)} vector steps, {cycles} cycles")


def test_words_of_a_joined_tensor(example):
    """As a driver returns them, of every job; two make the output where text is apart."""
    device = compile_network(example.network, example.items, CONFIG)
    (output,) = example.network.program.outputs
    buffer = device.tensors[1][output].columns.buffer
    wanted, outputs = example.integers[1][output], [np.zeros((0, 0))] * len(device.tasks)
    for place, task in enumerate(device.tasks):
        if task.output is not None and task.output.buffer is buffer:
            first = task.output.token
            outputs[place] = wanted[first : first + job_tokens(task.job)].numpy()
    assert torch.equal(device.words(outputs, 1, output), wanted)


def float_blocks(transformer: Any, tokens: Tokens, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Output of a transformer whose blocks are steps in float."""
    steps = transformer_steps(transformer, tokens)

    def compute(given: Mapping[str, Any]) -> torch.Tensor:
        runs = [
            run_float(steps, own, transformer_parameters(transformer, given, item))
            for item, own in enumerate(block_inputs(transformer, given))
        ]
        return torch.stack([run[steps[-1].result] for run in runs])

    with replaced_blocks(transformer, compute):
        return transformer(**inputs, return_dict=False)[0]


@torch.no_grad()
def test_wan_with_a_noise_level_of_each_token():
    """As Wan 2.2 of 5B has them, one and the same; its cross attention may have no norm before."""
    torch.manual_seed(4)
    transformer, inputs, tokens = wan(cross_attn_norm=False)
    transformer.eval()
    inputs["timestep"] = inputs["timestep"][:, None].repeat(1, tokens.count)
    exact = transformer(**inputs, return_dict=False)[0]
    found = float_blocks(transformer, tokens, inputs)
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()
    inputs["timestep"][1, 3] += 1
    with pytest.raises(ParoError, match="noise levels that differ between tokens"):
        float_blocks(transformer, tokens, inputs)


@torch.no_grad()
def test_texts_and_images_that_cross_attention_does_not_take():
    transformer, inputs, tokens = pixart()
    inputs["encoder_attention_mask"][1] = 0
    with pytest.raises(ParoError, match="a mask hides the whole text; legal: one that shows a tok"):
        float_blocks(transformer, tokens, inputs)
    transformer.transformer_blocks[1].attn2 = None
    with pytest.raises(ParoError, match="no rule for blocks that attend to no text"):
        transformer_steps(transformer, tokens)
    transformer, _, tokens = wan()
    transformer.blocks[0].attn2.add_k_proj = torch.nn.Linear(64, 64)
    with pytest.raises(ParoError, match="no rule for blocks of Wan that attend to an image"):
        transformer_steps(transformer, tokens)


def test_what_has_no_rule_is_refused(example):
    tokens = example.tokens
    with pytest.raises(ParoError, match="2 tokens behind the grid; legal: text before it"):
        transformer_steps(example.transformer, Tokens(tokens.grid, tokens.prefix, 2))
    name = "blocks" if hasattr(example.transformer, "blocks") else "transformer_blocks"
    blocks = getattr(example.transformer, name)
    network = getattr(blocks[0], "ffn" if name == "blocks" else "ff").net
    activation = network[0]
    network[0] = torch.nn.ReLU()
    with pytest.raises(ParoError, match="activation ReLU is not legal; legal: GELU by its tanh"):
        transformer_steps(example.transformer, tokens)
    network[0] = activation
    blocks.append(torch.nn.Identity())
    with pytest.raises(ParoError, match="no rule for blocks Identity; legal: BasicTransformerBl"):
        transformer_steps(example.transformer, tokens)
    del blocks[-1]
