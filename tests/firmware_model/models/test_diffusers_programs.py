"""Transformers of diffusers as programs: float against the library, integers, a queue's bytes."""

import importlib
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from firmware_model.arrays import Tokens
from firmware_model.host.tasks import job_tokens
from firmware_model.models.device_program import Item, device_program
from firmware_model.models.diffusers_adapter.programs import (
    INPUT,
    block_outputs,
    block_tokens,
    replaced_blocks,
    transformer_parameters,
    transformer_steps,
)
from firmware_model.models.network import IntegerNetwork, run_float, values_of
from firmware_model.models.network_formats import Ranges, choose_formats
from firmware_model.program import Linear
from firmware_model.quality.metrics import snr_db
from paro.config import Config, ParoError
from tests.firmware_model.models.memory_player import MemoryPlayer
from tests.firmware_model.models.small_plans import layer_shape, plan_attention, plan_layer
from tests.firmware_model.models.test_device_program import checked_overlaps
from tests.firmware_model.models.unit_player import play_steps

pytest.importorskip("diffusers")
# What the library declares of its arguments is narrower than what it takes.
diffusers: Any = importlib.import_module("diffusers")

CONFIG = Config(rows=8, cols=8, block=16, head_dim=32, vector_channels=256)
HEADS = {"num_attention_heads": 2, "attention_head_dim": 32}
BATCH = 2
#: What integers may lose at 8 bits, in each block's tokens.
BOUND_DB = 35


def dit() -> tuple[Any, dict[str, Any], Tokens]:
    transformer = diffusers.DiTTransformer2DModel(
        **HEADS, in_channels=4, out_channels=8, num_layers=2, sample_size=10
    )
    inputs = {
        "hidden_states": torch.randn(BATCH, 4, 10, 10),
        "timestep": torch.tensor([900, 300]),
        "class_labels": torch.tensor([7, 1000]),
    }
    return transformer, inputs, Tokens((1, 5, 5))


def cogvideox() -> tuple[Any, dict[str, Any], Tokens]:
    transformer = diffusers.CogVideoXTransformer3DModel(
        **HEADS,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=12,
        num_layers=2,
        sample_width=6,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=6,
        use_rotary_positional_embeddings=True,
    )
    angles = 6 * torch.rand(36, 16).repeat_interleave(2, dim=1)
    inputs = {
        "hidden_states": torch.randn(BATCH, 3, 4, 8, 6),
        "encoder_hidden_states": torch.randn(BATCH, 6, 12),
        "timestep": torch.tensor([900, 300]),
        "image_rotary_emb": (angles.cos(), angles.sin()),
    }
    return transformer, inputs, Tokens((3, 4, 3), prefix=6)


def flux() -> tuple[Any, dict[str, Any], Tokens]:
    transformer = diffusers.FluxTransformer2DModel(
        **HEADS,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=12,
        pooled_projection_dim=8,
        axes_dims_rope=(8, 12, 12),
    )
    places = torch.cartesian_prod(torch.zeros(1), torch.arange(5.0), torch.arange(7.0))
    inputs = {
        "hidden_states": torch.randn(BATCH, 35, 16),
        "encoder_hidden_states": torch.randn(BATCH, 9, 12),
        "pooled_projections": torch.randn(BATCH, 8),
        "timestep": torch.tensor([0.9, 0.3]),
        "img_ids": places,
        "txt_ids": torch.zeros(9, 3),
    }
    return transformer, inputs, Tokens((1, 5, 7), prefix=9)


class Example:
    """A transformer of random weights, its program in float, and its network at 8 bits."""

    def __init__(self, build: Callable[[], tuple[Any, dict[str, Any], Tokens]]) -> None:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            self.transformer, self.inputs, self.tokens = build()
            self.transformer.eval()
            _enliven(self.transformer)
            self.blocks: list[torch.Tensor] = []
            self.exact = self.run(watched=True)
        self.steps = transformer_steps(self.transformer, self.tokens)
        self.ranges, self.runs, self.items = Ranges(), [], []
        with replaced_blocks(self.transformer, self.run_float):
            self.in_float = self.run()
        self.network = self.plan()
        self.integers = [self.network.run(own.inputs, own.parameters) for own in self.items]

    @torch.no_grad()
    def run(self, *, watched: bool = False) -> torch.Tensor:
        """The library's own forward pass; keeps what each block makes if ``watched``."""
        hooks = [
            block.register_forward_hook(self.keep)
            for name in ("transformer_blocks", "single_transformer_blocks")
            for block in getattr(self.transformer, name, ())
            if watched
        ]
        made = self.transformer(**self.inputs, return_dict=False)[0]
        for hook in hooks:
            hook.remove()
        return made

    def keep(self, block: torch.nn.Module, _: Any, made: Any) -> None:
        parts = made if isinstance(made, tuple) else (made,)
        text_first = parts if "Flux" in type(block).__name__ else reversed(parts)
        self.blocks.append(torch.cat(list(text_first), dim=1))

    @torch.no_grad()
    def run_float(self, given: Mapping[str, Any]) -> torch.Tensor:
        for item, tokens in enumerate(block_tokens(given)):
            parameters = transformer_parameters(self.transformer, given, item)
            own = Item({INPUT: tokens}, parameters)
            self.items.append(own)
            self.runs.append(run_float(self.steps, own.inputs, parameters, self.ranges))
        return torch.stack([run[self.steps[-1].result] for run in self.runs])

    def run_integers(self, given: Mapping[str, Any]) -> torch.Tensor:
        assert torch.equal(block_tokens(given)[0], self.items[0].inputs[INPUT])
        return torch.stack([self.values(run, self.steps[-1].result) for run in self.integers])

    def values(self, run: dict[str, Any], name: str) -> torch.Tensor:
        return values_of(run[name], self.network.program.formats[name])

    def plan(self) -> IntegerNetwork:
        parameters, plans = self.items[0].parameters, {}
        for step in self.steps:
            if isinstance(step, Linear):
                layer = parameters.linears[step.layer]
                inputs = torch.cat([run[step.source] for run in self.runs])
                codes = torch.full(layer_shape(layer, CONFIG), 3, dtype=torch.uint8)
                plans[step.layer] = plan_layer(step.layer, layer, inputs, CONFIG, codes)
        blocks = CONFIG.blocks_of(self.tokens.count)
        orders = torch.arange(2 * len(self.blocks)).reshape(-1, 2) % 6
        codes = torch.full((1, *orders.shape, blocks, blocks), 3)
        program, layers = choose_formats(
            (INPUT,),
            (self.steps[-1].result,),
            self.steps,
            self.ranges,
            plans,
            {name: parameters.linears[name].bias for name in plans},
            parameters.scale,
        )
        attention = plan_attention(self.tokens, CONFIG, orders, codes)
        return IntegerNetwork(
            program=program, layers=layers, attention=attention, tokens=self.tokens
        )


def _enliven(transformer: torch.nn.Module) -> None:
    """Give norms weights, and conditions gates, that a trained model has: none is near 1 or 0."""
    for name, parameter in transformer.named_parameters():
        parts = name.split(".")
        if "norm" in parts[-2] or parts[-2:] == ["linear", "bias"]:
            parameter += 0.5 * torch.randn_like(parameter)


@pytest.fixture(scope="module", params=[dit, cogvideox, flux], ids=lambda build: build.__name__)
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
    (output,) = network.program.outputs
    device = device_program(network, items, CONFIG)
    image = device.image(0x1000, reuse=False)
    memory = MemoryPlayer(CONFIG, device.tasks, image).play()
    for index, wanted in enumerate(example.integers):
        for name in device.tensors[index]:
            assert_same(device.integers(image, memory, index, name), wanted[name], name)
        for name in block_outputs(example.transformer):
            assert name in device.tensors[index]
    image = device.image(0x1000)
    assert len(image.buffers.used) < 0.5 * image.buffers.without_reuse
    assert checked_overlaps(device, image) > len(device.tasks)
    memory = MemoryPlayer(CONFIG, device.tasks, image).play()
    for index, wanted in enumerate(example.integers):
        assert_same(device.integers(image, memory, index, output), wanted[output], output)


def test_the_vector_steps_on_the_unit(example, seed):
    """What is compared with the network is what the hardware makes of the same streams."""
    device = device_program(example.network, example.items[:1], CONFIG)
    player = MemoryPlayer(CONFIG, device.tasks, device.image())
    player.play()
    cycles = play_steps(CONFIG, player.steps, range(1), random.Random(seed))
    print(f"{len(player.steps)} vector steps, {cycles} cycles")


def test_words_of_a_joined_tensor(example):
    """As a driver returns them, of every job; two make the output where text is apart."""
    device = device_program(example.network, example.items, CONFIG)
    (output,) = example.network.program.outputs
    buffer = device.tensors[1][output].columns.buffer
    wanted, outputs = example.integers[1][output], [np.zeros((0, 0))] * len(device.tasks)
    for place, task in enumerate(device.tasks):
        if task.output is not None and task.output.buffer is buffer:
            first = task.output.token
            outputs[place] = wanted[first : first + job_tokens(task.job)].numpy()
    assert torch.equal(device.words(outputs, 1, output), wanted)


def test_what_has_no_rule_is_refused(example):
    tokens = example.tokens
    with pytest.raises(ParoError, match="2 tokens behind the grid; legal: text before it"):
        transformer_steps(example.transformer, Tokens(tokens.grid, tokens.prefix, 2))
    block = example.transformer.transformer_blocks[0]
    activation = block.ff.net[0]
    block.ff.net[0] = torch.nn.ReLU()
    with pytest.raises(ParoError, match="activation ReLU is not legal; legal: GELU by its tanh"):
        transformer_steps(example.transformer, tokens)
    block.ff.net[0] = activation
    example.transformer.transformer_blocks.append(torch.nn.Identity())
    with pytest.raises(ParoError, match="no rule for blocks Identity; legal: BasicTransformerBl"):
        transformer_steps(example.transformer, tokens)
    del example.transformer.transformer_blocks[-1]


def assert_same(got: Any, wanted: Any, name: str) -> None:
    if not isinstance(got, tuple):
        got, wanted = (got,), (wanted,)
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other), name
