"""The blocks of transformers of diffusers as steps of a program, and what these name.

All blocks together have one input, the tokens that the first one is given, text before the grid;
each makes the tokens that the next one is given. A text that is read by cross attention is an input
of its own. The host keeps embeddings, positions, conditions, the last norm and layer, and the
sampler.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from firmware_model.arrays import Tokens
from firmware_model.models.diffusers_adapter.block_rules import (
    CROSS_TEXT,
    GRID,
    TEXT,
    BlockParameters,
    Rule,
    block_layers,
    rule_of,
)
from firmware_model.models.diffusers_adapter.block_steps import ROTATION, BlockSteps
from firmware_model.models.network import ChannelConstants, Parameters
from firmware_model.program import QuantizeTokens, Step
from paro.config.errors import ParoError

__all__ = [
    "HOST",
    "INPUT",
    "Blocks",
    "block_inputs",
    "block_outputs",
    "cross_text",
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


def cross_text(transformer: Any) -> str:
    """Input of a text that cross attention reads; none where there is none."""
    return CROSS_TEXT if any(rule.crosses for _, _, rule in _blocks(transformer)) else ""


def block_inputs(transformer: Any, given: Mapping[str, Any]) -> list[dict[str, torch.Tensor]]:
    """Inputs of the steps, for each item of a batch: name to tokens [tokens, width].

    Parameters
    ----------
    transformer : torch.nn.Module
        As for `transformer_steps`.
    given : Mapping
        Arguments of the first block, by name.
    """
    if not cross_text(transformer):
        return [{INPUT: tokens} for tokens in _joint_tokens(given)]
    text, hidden = given[TEXT], given.get("encoder_attention_mask")
    shown = torch.ones(text.shape[:2], dtype=torch.bool)
    if hidden is not None:
        shown = (hidden.reshape(len(text), -1) == 0).cpu()
    if not shown.any(dim=1).all():
        raise ParoError("a mask hides the whole text; legal: one that shows a token of it")
    return [
        {INPUT: tokens, CROSS_TEXT: own[mask]}
        for tokens, own, mask in zip(given[GRID], text, shown, strict=True)
    ]


def _joint_tokens(given: Mapping[str, Any]) -> torch.Tensor:
    """Tokens that a block is given, text before the grid, [batch, tokens, width]."""
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
            if made is None:
                parts = given
            else:
                tokens = made.to(given[GRID])
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
    rotated = (
        "axes_dims_rope" in config
        or "rope_max_seq_len" in config
        or config.get("use_rotary_positional_embeddings", False)
    )
    steps: list[Step] = []
    source, text = INPUT, cross_text(transformer)
    if text:
        steps.append(QuantizeTokens(result=f"{text}.int8", source=text))
    for layer, (name, block, rule) in enumerate(_blocks(transformer)):
        own = BlockSteps(name, width, head_dim, tokens, rotated, f"{text}.int8")
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
        rotations=_rotations(transformer, given),
        scale=transformer.config.attention_head_dim**-0.5,
    )


def _rotations(transformer: Any, given: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Angles of all tokens; 0 of text that has no positions."""
    positions = given.get("image_rotary_emb", given.get("rotary_emb"))
    if positions is None:
        return {}
    # Of Wan they have an axis of a batch and one of heads.
    cos, sin = (part.double().cpu().reshape(-1, part.shape[-1])[:, ::2] for part in positions)
    angles = torch.atan2(sin, cos)
    tokens = given[GRID] if cross_text(transformer) else _joint_tokens(given)
    text = tokens.shape[1] - len(angles)
    return {ROTATION: torch.cat([angles.new_zeros(text, angles.shape[1]), angles])}


def _blocks(transformer: Any) -> list[tuple[str, Any, Rule]]:
    """Name, module and rule of each block, in the order of execution."""
    found = []
    for blocks in ("transformer_blocks", "single_transformer_blocks", "blocks"):
        for index, block in enumerate(getattr(transformer, blocks, ())):
            found.append((f"transformer.{blocks}.{index}", block, rule_of(block)))
    return found
