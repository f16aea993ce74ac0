"""Small transformers of diffusers of random weights: their programs, in float and as networks."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from firmware_model.arrays import Tokens
from firmware_model.models.device_program import Item
from firmware_model.models.diffusers_adapter.programs import (
    INPUT,
    block_inputs,
    block_outputs,
    cross_text,
    replaced_blocks,
    transformer_parameters,
    transformer_steps,
)
from firmware_model.models.network import IntegerNetwork, run_float, values_of
from firmware_model.models.network_formats import Ranges, choose_formats
from firmware_model.program import Linear, cut_program
from paro.config import Config
from tests.firmware_model.models.small_plans import layer_shape, plan_attention, plan_layer

# What the library declares of its arguments is narrower than what it takes.
diffusers: Any = pytest.importorskip("diffusers")

CONFIG = Config(rows=8, cols=8, block=16, head_dim=32, vector_channels=256)
HEADS = {"num_attention_heads": 2, "attention_head_dim": 32}
#: Heads that no accelerator has.
NARROW = HEADS | {"attention_head_dim": 16}
BATCH = 2


def dit(heads: Mapping[str, int] = HEADS) -> tuple[Any, dict[str, Any], Tokens]:
    transformer = diffusers.DiTTransformer2DModel(
        **heads, in_channels=4, out_channels=8, num_layers=2, sample_size=10
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


def flux(heads: Mapping[str, int] = HEADS) -> tuple[Any, dict[str, Any], Tokens]:
    quarter = heads["attention_head_dim"] // 4
    transformer = diffusers.FluxTransformer2DModel(
        **heads,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=12,
        pooled_projection_dim=8,
        axes_dims_rope=(quarter, quarter, 2 * quarter),
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


def pixart(heads: Mapping[str, int] = HEADS) -> tuple[Any, dict[str, Any], Tokens]:
    """Of the two texts a mask hides tokens; neither is whole blocks, nor is the grid."""
    transformer = diffusers.PixArtTransformer2DModel(
        **heads,
        in_channels=4,
        num_layers=2,
        sample_size=10,
        caption_channels=12,
        cross_attention_dim=math.prod(heads.values()),
    )
    inputs = {
        "hidden_states": torch.randn(BATCH, 4, 10, 10),
        "encoder_hidden_states": torch.randn(BATCH, 21, 12),
        "encoder_attention_mask": torch.tensor([[1] * 19 + [0] * 2, [1] * 5 + [0] * 16]),
        "timestep": torch.tensor([900, 300]),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }
    return transformer, inputs, Tokens((1, 5, 5))


def wan(cross_attn_norm: bool = True) -> tuple[Any, dict[str, Any], Tokens]:
    """More tokens of text than of the grid."""
    transformer = diffusers.WanTransformer3DModel(
        **HEADS,
        in_channels=4,
        out_channels=4,
        text_dim=12,
        freq_dim=8,
        ffn_dim=128,
        num_layers=2,
        cross_attn_norm=cross_attn_norm,
        rope_max_seq_len=32,
    )
    inputs = {
        "hidden_states": torch.randn(BATCH, 4, 3, 4, 6),
        "encoder_hidden_states": torch.randn(BATCH, 37, 12),
        "timestep": torch.tensor([900, 300]),
    }
    return transformer, inputs, Tokens((3, 2, 3))


def narrow_flux() -> tuple[Any, dict[str, Any], Tokens]:
    return flux(NARROW)


def narrow_pixart() -> tuple[Any, dict[str, Any], Tokens]:
    return pixart(NARROW)


class Example:
    """A transformer of random weights, its program in float, and its network.

    Parameters
    ----------
    build : Callable
        Returns transformer, inputs and what its tokens are.
    seed : int, optional
        Of random widths of all blocks of weights and attention; all have 8 bits by default.
    """

    def __init__(
        self, build: Callable[[], tuple[Any, dict[str, Any], Tokens]], seed: int | None = None
    ) -> None:
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
        self.network = self.plan(seed)
        self.integers = [self.network.run(own.inputs, own.parameters) for own in self.items]

    @torch.no_grad()
    def run(self, *, watched: bool = False) -> torch.Tensor:
        """The library's own forward pass; keeps what each block makes if ``watched``."""
        hooks = [
            block.register_forward_hook(self.keep)
            for name in ("transformer_blocks", "single_transformer_blocks", "blocks")
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
        for item, inputs in enumerate(block_inputs(self.transformer, given)):
            parameters = transformer_parameters(self.transformer, given, item)
            own = Item(inputs, parameters)
            self.items.append(own)
            self.runs.append(run_float(self.steps, own.inputs, parameters, self.ranges))
        return torch.stack([run[self.steps[-1].result] for run in self.runs])

    def run_integers(self, given: Mapping[str, Any]) -> torch.Tensor:
        first = block_inputs(self.transformer, given)[0]
        assert torch.equal(first[INPUT], self.items[0].inputs[INPUT])
        return torch.stack([self.values(run, self.steps[-1].result) for run in self.integers])

    def values(self, run: dict[str, Any], name: str) -> torch.Tensor:
        return values_of(run[name], self.network.program.formats[name])

    def block(self, index: int) -> tuple[IntegerNetwork, list[Item], list[dict[str, Any]]]:
        """One block alone: its network, its items, and every tensor of each."""
        names = [INPUT, *block_outputs(self.transformer)]
        source, output = names[index : index + 2]
        text = self.network.text
        inputs = (source, text) if text else (source,)
        program = cut_program(self.network.program, inputs, (output,))
        network = replace(self.network, program=program)
        items = [
            Item({**own.inputs, source: self.values(run, source)}, own.parameters)
            for run, own in zip(self.integers, self.items, strict=True)
        ]
        return network, items, self.integers

    def plan(self, seed: int | None) -> IntegerNetwork:
        parameters, plans = self.items[0].parameters, {}
        widths = _widths(seed)
        for step in self.steps:
            if isinstance(step, Linear):
                layer = parameters.linears[step.layer]
                inputs = torch.cat([run[step.source] for run in self.runs])
                codes = widths(layer_shape(layer, CONFIG))
                plans[step.layer] = plan_layer(step.layer, layer, inputs, CONFIG, codes)
        blocks = CONFIG.blocks_of(self.tokens.count)
        orders = torch.arange(2 * len(self.blocks)).reshape(-1, 2) % 6
        codes = widths((1, *orders.shape, blocks, blocks))
        codes[..., 0] |= 1
        text = cross_text(self.transformer)
        program, layers = choose_formats(
            (INPUT, text) if text else (INPUT,),
            (self.steps[-1].result,),
            self.steps,
            self.ranges,
            plans,
            {name: parameters.linears[name].bias for name in plans},
            parameters.scale,
        )
        attention = plan_attention(self.tokens, CONFIG, orders, codes)
        return IntegerNetwork(
            program=program, layers=layers, attention=attention, tokens=self.tokens, text=text
        )


def _widths(seed: int | None) -> Callable[[Sequence[int]], torch.Tensor]:
    """Makes codes of a shape: of 8 bits, or random ones of a seed."""
    if seed is None:
        return lambda shape: torch.full(shape, 3, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randint(0, 4, shape, generator=generator, dtype=torch.uint8)


def _enliven(transformer: torch.nn.Module) -> None:
    """Give norms weights, and conditions gates, that a trained model has: none is near 1 or 0."""
    for name, parameter in transformer.named_parameters():
        parts = name.split(".")
        if "norm" in parts[-2:][0] or parts[-2:] == ["linear", "bias"]:
            parameter += 0.5 * torch.randn_like(parameter)
