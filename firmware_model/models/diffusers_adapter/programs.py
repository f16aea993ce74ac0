"""The blocks of transformers of diffusers as steps of a program, and what these name.

All blocks together have one input, the tokens that the first one is given, text before the grid;
each makes the tokens that the next one is given. The host keeps embeddings, positions, conditions,
the last norm and layer, and the sampler.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from firmware_model.arrays import Tokens
from firmware_model.models.diffusers_adapter.block_rules import (
    GRID,
    RULES,
    TEXT,
    BlockParameters,
    Rule,
    block_layers,
)
from firmware_model.models.diffusers_adapter.block_steps import ROTATION, BlockSteps
from firmware_model.models.network import ChannelConstants, Parameters
from firmware_model.program import Step
from paro.config.errors import ParoError

__all__ = [
    "HOST",
    "INPUT",
    "Blocks",
    "block_outputs",
    "block_tokens",
    "replaced_blocks",
    "transformer_parameters",
    "transformer_steps",
]

#: Tensor that the steps begin with.
INPUT = "tokens"
#: What stays on the host, in words.
HOST = (
    "embeddings of latents and text, positions",
    "noise level, scales, shifts and gates",
    "last norm and layer",
    "guidance, sampler and decoder",
)


def block_outputs(transformer: Any) -> list[str]:
    """Tensors that the blocks make, in their order."""
    return [f"{name}.tokens" for name, _, _ in _blocks(transformer)]


def block_tokens(given: Mapping[str, Any]) -> torch.Tensor:
    """Tokens that a block is given, [batch, tokens, width].

    Parameters
    ----------
    given : Mapping
        Arguments of the block, by name.
    """
    parts = (given.get(TEXT), given[GRID])
    return torch.cat([part for part in parts if part is not None], dim=1)


#: Computes all blocks: the first one's arguments, by name, to tokens [batch, tokens, width]; or
#: to nothing, and the blocks compute themselves.
Blocks = Callable[[Mapping[str, Any]], torch.Tensor | None]


@contextmanager
def replaced_blocks(transformer: Any, compute: Blocks) -> Iterator[None]:
    """For a while, let something else compute all blocks of a transformer.

    Parameters
    ----------
    transformer : torch.nn.Module
        As for `transformer_steps`.
    compute : Blocks
        Takes their place.
    """

    computed = True

    def forward(own: Callable[..., Any], rule: Rule, first: bool) -> Callable[..., Any]:
        signature = inspect.signature(own)

        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal computed
            given = signature.bind(*args, **kwargs).arguments
            made = compute(given) if first else None
            if first:
                computed = made is not None
            if not computed:
                return own(*args, **kwargs)
            tokens = block_tokens(given) if made is None else made.to(given[GRID])
            text = tokens.shape[1] - given[GRID].shape[1]
            parts = {TEXT: tokens[:, :text], GRID: tokens[:, text:]}
            first_made, *more = (parts[name] for name in rule.returns)
            return (first_made, *more) if more else first_made

        return run

    with ExitStack() as stack:
        for place, (_, block, rule) in enumerate(_blocks(transformer)):
            block.forward = forward(block.forward, rule, place == 0)
            stack.callback(delattr, block, "forward")
        yield


def transformer_steps(transformer: Any, tokens: Tokens) -> tuple[Step, ...]:
    """Steps of all blocks; the last one's result is the output.

    Parameters
    ----------
    transformer : torch.nn.Module
        Of a class of diffusers.
    tokens : Tokens
        What the tokens are, text before the grid.

    Raises
    ------
    ParoError
        If there is no rule for its blocks or its tokens.
    """
    if tokens.suffix:
        raise ParoError(f"{tokens.suffix} tokens behind the grid; legal: text before it")
    config = transformer.config
    head_dim = config.attention_head_dim
    width = config.num_attention_heads * head_dim
    rotated = "axes_dims_rope" in config or config.get("use_rotary_positional_embeddings", False)
    steps: list[Step] = []
    source = INPUT
    for layer, (name, block, rule) in enumerate(_blocks(transformer)):
        own = BlockSteps(name, width, head_dim, tokens, rotated)
        source = rule.steps(own, block, source, layer)
        steps += own.steps
    return tuple(steps)


def transformer_parameters(transformer: Any, given: Mapping[str, Any], item: int) -> Parameters:
    """What the steps name, for one item of a batch.

    Parameters
    ----------
    transformer : torch.nn.Module
        As for `transformer_steps`.
    given : Mapping
        Arguments of the first block, by name: its condition and positions.
    item : int
        Index in the batch.
    """
    linears: dict[str, torch.nn.Linear] = {}
    constants: dict[str, ChannelConstants] = {}
    for name, block, rule in _blocks(transformer):
        found = BlockParameters(name)
        rule.constants(found, block, given, item)
        linears |= block_layers(name, block)
        constants |= found.constants
    return Parameters(
        linears=linears,
        constants=constants,
        rotations=_rotations(given),
        scale=transformer.config.attention_head_dim**-0.5,
    )


def _rotations(given: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Angles of all tokens; 0 of text that has no positions."""
    positions = given.get("image_rotary_emb")
    if positions is None:
        return {}
    cos, sin = (part.double().cpu()[:, ::2] for part in positions)
    angles = torch.atan2(sin, cos)
    text = block_tokens(given).shape[1] - len(angles)
    return {ROTATION: torch.cat([angles.new_zeros(text, angles.shape[1]), angles])}


def _blocks(transformer: Any) -> list[tuple[str, Any, Rule]]:
    """Name, module and rule of each block, in the order of execution."""
    found = []
    for blocks in ("transformer_blocks", "single_transformer_blocks"):
        for index, block in enumerate(getattr(transformer, blocks, ())):
            kind = type(block).__name__
            if kind not in RULES:
                raise ParoError(f"no rule for blocks {kind}; legal: {', '.join(RULES)}")
            found.append((f"transformer.{blocks}.{index}", block, RULES[kind]))
    return found
