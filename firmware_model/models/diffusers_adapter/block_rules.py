"""What each class of blocks of diffusers computes: its steps, and the constants of an item."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from firmware_model.models.diffusers_adapter.block_steps import BlockSteps
from firmware_model.models.network import ChannelConstants
from paro.config.errors import ParoError

__all__ = [
    "CROSS_TEXT",
    "GRID",
    "TEXT",
    "BlockParameters",
    "Rule",
    "block_layers",
    "cut_layers",
    "rule_of",
]

#: Arguments of a block: tokens of the text, and of the grid.
TEXT, GRID = "encoder_hidden_states", "hidden_states"
#: Tensor of the text that cross attention reads.
CROSS_TEXT = "text"


@dataclass(eq=False)
class BlockParameters:
    """What the steps of a block name, for one item of a batch.

    Parameters
    ----------
    name : str
        Of the block in the model.
    constants : dict
        As those of `firmware_model.models.network.Parameters`.
    """

    name: str
    constants: dict[str, ChannelConstants] = field(default_factory=dict)

    def give(self, part: str, factor: torch.Tensor, offset: torch.Tensor | None = None) -> None:
        """Give the constants ``part`` their factors and offsets."""
        factor = factor.detach().double().cpu()
        offset = torch.zeros_like(factor) if offset is None else offset.detach().double().cpu()
        self.constants[f"{self.name}.{part}"] = factor, offset

    def give_norm(self, part: str, norm: Any, heads: int) -> None:
        """Give the constants ``part`` a norm's own, the same for all heads."""
        bias = getattr(norm, "bias", None)
        self.give(part, norm.weight.repeat(heads), None if bias is None else bias.repeat(heads))


@dataclass(frozen=True)
class Rule:
    """What a class of blocks computes.

    Parameters
    ----------
    steps : Callable
        Adds the steps of a block, which reads a tensor and is the attention of a number, and
        returns the tensor that it makes.
    constants : Callable
        Gives the constants of an item of a batch, from the arguments that the first block is given.
    returns : tuple of str
        Arguments of which a block returns others, in its sequence.
    cuts : Callable
        Layers that read several tensors side by side: to the name of each tensor and its channels.
    crosses : bool
        Whether its text stands apart, `CROSS_TEXT`, and is read by cross attention.
    """

    steps: Callable[[BlockSteps, Any, str, int], str]
    constants: Callable[[BlockParameters, Any, Mapping[str, Any], int], None]
    returns: tuple[str, ...]
    cuts: Callable[[Any], Mapping[str, Mapping[str, int]]] = lambda block: {}
    crosses: bool = False


def rule_of(block: Any) -> Rule:
    """Rule of a block; `ParoError` if there is none."""
    found = _find_rule(block)
    if found is None:
        raise ParoError(f"no rule for blocks {_kind(block)}; legal: {', '.join(_RULES)}")
    return found


def _find_rule(block: Any) -> Rule | None:
    return _RULES.get(_kind(block))


def _kind(block: Any) -> str:
    """Class of a block, and its norm where that decides what it computes."""
    name = type(block).__name__
    return f"{name} ({block.norm_type})" if name == "BasicTransformerBlock" else name


def cut_layers(block: Any) -> Mapping[str, Mapping[str, int]]:
    """Layers of a block that are one for each tensor that they read: names, inputs of each."""
    rule = _find_rule(block)
    return {} if rule is None else rule.cuts(block)


def block_layers(name: str, block: Any) -> dict[str, torch.nn.Linear]:
    """Linear layers of a block, by their names in the model.

    One that reads several tensors side by side is one layer ``LAYER.PART`` for each: what these
    make together is what it makes.
    """
    cuts, found = cut_layers(block), {}
    for layer, module in block.named_modules():
        if isinstance(module, torch.nn.Linear):
            if layer in cuts:
                parts = _in_parts(module, cuts[layer])
                found |= {f"{name}.{layer}.{part}": own for part, own in parts.items()}
            else:
                found[f"{name}.{layer}"] = module
    return found


def _in_parts(whole: torch.nn.Linear, parts: Mapping[str, int]) -> dict[str, torch.nn.Linear]:
    """Layers of a layer's inputs; the first one has its bias."""
    columns = whole.weight.detach().split(list(parts.values()), dim=1)
    bias = None if whole.bias is None else whole.bias.detach()
    found = {}
    for part, weight in zip(parts, columns, strict=True):
        outputs, inputs = weight.shape
        own = torch.nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
        own.weight = torch.nn.Parameter(weight)
        if bias is not None:
            own.bias = torch.nn.Parameter(bias)
            bias = None
        found[part] = own
    return found


def _modulation(condition: torch.Tensor, norm: Any, parts: int) -> tuple[torch.Tensor, ...]:
    """Shifts, scales and gates that an adaptive norm makes of an item's condition."""
    return norm.linear(norm.silu(condition)).chunk(parts)


def _give_modulated(
    found: BlockParameters, part: str, norm: Any, scale: torch.Tensor, shift: torch.Tensor
) -> None:
    """Give the constants of a LayerNorm, with its own where it has some, and a modulation."""
    factor, offset = 1 + scale, shift
    if norm.elementwise_affine:
        factor, offset = norm.weight * factor, norm.bias * factor + shift
    found.give(part, factor, offset)


def _give_both(
    found: BlockParameters, parts: Sequence[torch.Tensor], norms: Mapping[int, Any]
) -> None:
    """Give the constants of two norms, by their numbers, and of the gates behind them.

    Parts are shift, scale and gate of one, then of the other.
    """
    for (number, norm), (shift, scale, gate) in zip(
        norms.items(), (parts[:3], parts[3:]), strict=True
    ):
        _give_modulated(found, f"norm{number}", norm, scale, shift)
        found.give(f"gate{number}", gate)


def _check_gelu(own: Any) -> None:
    if getattr(own, "approximate", "") != "tanh":
        raise ParoError(
            f"activation {type(own).__name__} is not legal; legal: GELU by its tanh formula"
        )


# DiT: one kind of tokens, plain attention.


def _dit_steps(own: BlockSteps, block: Any, source: str, layer: int) -> str:
    _check_gelu(block.ff.net[0])
    source = _plainly_attended(own, source, block.norm1.norm.eps, layer)
    normed = own.quantized(own.modulated(source, "norm3", block.norm3.eps))
    return own.gated(own.network(normed, "ff"), source, "gate3", "tokens")


def _plainly_attended(own: BlockSteps, source: str, epsilon: float, layer: int) -> str:
    """Tokens plus attention over them all, without norms of Q and K."""
    normed = own.quantized(own.modulated(source, "norm1", epsilon))
    q, k, v = (own.linear(normed, f"attn1.to_{letter}") for letter in "qkv")
    return _attended(own, (own.moved(q, "q"), own.moved(k, "k"), v), source, layer)


def _attended(own: BlockSteps, operands: tuple[str, str, str], source: str, layer: int) -> str:
    """Tokens plus what attention over them all makes of Q, K and V, all of them words."""
    q, k, v = operands
    heads = own.attend(q, k, own.values(v, "v"), layer)
    mixed = own.linear(own.quantized(own.moved(heads, "mixed")), "attn1.to_out.0")
    return own.gated(mixed, source, "gate1", "attended")


def _dit_constants(found: BlockParameters, block: Any, given: Mapping[str, Any], item: int) -> None:
    conditions = block.norm1.emb(
        given["timestep"], given["class_labels"], hidden_dtype=given[GRID].dtype
    )
    parts = _modulation(conditions[item], block.norm1, 6)
    _give_both(found, parts, {1: block.norm1.norm, 3: block.norm3})


# PixArt: cross attention to the text, of the tokens as they are; scales from one table a block.


def _pixart_steps(own: BlockSteps, block: Any, source: str, layer: int) -> str:
    _check_gelu(block.ff.net[0])
    if block.attn2 is None or block.attn1.norm_q is not None or block.pos_embed is not None:
        raise ParoError(
            "no rule for blocks that attend to no text, with norms of heads or with positions in "
            "their blocks; legal: those of PixArt"
        )
    source = _plainly_attended(own, source, block.norm1.eps, layer)
    q = own.linear(own.quantized(source), "attn2.to_q")
    k, v = (own.linear(own.text, f"attn2.to_{letter}") for letter in "kv")
    q, k = own.moved(q, "cross.q"), own.moved(k, "cross.k")
    source = _crossed(own, q, k, v, source)
    normed = own.quantized(own.modulated(source, "norm2", block.norm2.eps))
    return own.gated(own.network(normed, "ff"), source, "gate2", "tokens")


def _crossed(own: BlockSteps, q: str, k: str, v: str, source: str) -> str:
    """Tokens plus what cross attention makes of Q, K and V, all of them words."""
    heads = own.cross_attend(q, k, own.values(v, "cross.v"), "cross.heads")
    mixed = own.linear(own.quantized(own.moved(heads, "cross.mixed")), "attn2.to_out.0")
    return own.added(mixed, source, "crossed")


def _pixart_constants(
    found: BlockParameters, block: Any, given: Mapping[str, Any], item: int
) -> None:
    parts = block.scale_shift_table + given["timestep"][item].reshape(6, -1)
    _give_both(found, parts, {1: block.norm1, 2: block.norm2})


# Wan: cross attention behind a norm; norms of Q and K over all heads together.


def _wan_steps(own: BlockSteps, block: Any, source: str, layer: int) -> str:
    _check_gelu(block.ffn.net[0])
    if block.attn2.add_k_proj is not None:
        raise ParoError(
            "no rule for blocks of Wan that attend to an image; legal: those that attend to text"
        )

    def operands(read: str, kept: str, attention: str) -> tuple[str, str, str]:
        """Words of Q, made of one tensor, and of K and V, made of another."""
        q, k, v = (
            own.linear(tokens, f"{attention}.to_{letter}")
            for tokens, letter in zip((read, kept, kept), "qkv", strict=True)
        )
        module = getattr(block, attention)
        q = own.balanced(q, f"{attention}.norm_q", module.norm_q.eps)
        return q, own.balanced(k, f"{attention}.norm_k", module.norm_k.eps), v

    normed = own.quantized(own.modulated(source, "norm1", block.norm1.eps))
    source = _attended(own, operands(normed, normed, "attn1"), source, layer)
    read = source
    if not isinstance(block.norm2, torch.nn.Identity):
        read = own.modulated(source, "norm2", block.norm2.eps)
    source = _crossed(own, *operands(own.quantized(read), own.text, "attn2"), source)
    normed = own.quantized(own.modulated(source, "norm3", block.norm3.eps))
    return own.gated(own.network(normed, "ffn"), source, "gate3", "tokens")


def _wan_constants(found: BlockParameters, block: Any, given: Mapping[str, Any], item: int) -> None:
    condition = given["temb"][item]
    if condition.ndim == 3:  # Wan 2.2 of 5B has one of each token.
        if not (condition == condition[0]).all():
            raise ParoError(
                "no rule for noise levels that differ between tokens, as Wan 2.2 has them from an "
                "image; legal: one for all"
            )
        condition = condition[0]
    parts = block.scale_shift_table[0] + condition
    _give_both(found, parts, {1: block.norm1, 3: block.norm3})
    if not isinstance(block.norm2, torch.nn.Identity):
        found.give_norm("norm2", block.norm2, 1)
    for attention in ("attn1", "attn2"):
        for name in ("norm_q", "norm_k"):
            found.give_norm(f"{attention}.{name}", getattr(getattr(block, attention), name), 1)


# CogVideoX: layers that text and grid share, modulation and gates of their own.

_PARTS = ("text", "grid")


def _cogvideox_steps(own: BlockSteps, block: Any, source: str, layer: int) -> str:
    _check_gelu(block.ff.net[0])
    attention = block.attn1

    def modulated(source: str, norm: str) -> str:
        rows = own.split(source, f"{norm}.read")
        epsilon = getattr(block, norm).norm.eps
        parts = [
            own.modulated(tokens, f"{norm}.{part}", epsilon)
            for tokens, part in zip(rows, _PARTS, strict=True)
        ]
        return own.quantized(own.join(parts, f"{norm}.joined"))

    def gated(source: str, base: str, norm: str, result: str) -> str:
        rows, bases = own.split(source, f"{norm}.made"), own.split(base, f"{norm}.base")
        parts = [
            own.gated(tokens, added, f"{norm}.{part}.gate", f"{result}.{part}")
            for tokens, added, part in zip(rows, bases, _PARTS, strict=True)
        ]
        return own.join(parts, result)

    normed = modulated(source, "norm1")
    q, k, v = (own.linear(normed, f"attn1.to_{letter}") for letter in "qkv")
    q = own.headed(q, "attn1.norm_q", True, attention.norm_q.eps)
    k = own.headed(k, "attn1.norm_k", True, attention.norm_k.eps)
    heads = own.attend(q, k, own.values(v, "v"), layer)
    mixed = own.linear(own.quantized(own.moved(heads, "mixed")), "attn1.to_out.0")
    source = gated(mixed, source, "norm1", "attended")
    return gated(own.network(modulated(source, "norm2"), "ff"), source, "norm2", "tokens")


def _cogvideox_constants(
    found: BlockParameters, block: Any, given: Mapping[str, Any], item: int
) -> None:
    condition = given["temb"][item]
    for name in ("norm1", "norm2"):
        norm = getattr(block, name)
        parts = _modulation(condition, norm, 6)
        for part, (shift, scale, gate) in zip(_PARTS, (parts[3:], parts[:3]), strict=True):
            _give_modulated(found, f"{name}.{part}", norm.norm, scale, shift)
            found.give(f"{name}.{part}.gate", gate)
    for name in ("norm_q", "norm_k"):
        found.give_norm(f"attn1.{name}", getattr(block.attn1, name), block.attn1.heads)


# Flux: at first layers of their own for text and grid, then blocks that see no difference.


class _Stream(NamedTuple):
    """What text, or the grid, has of its own in a block, by the names of the modules."""

    norm: str
    layers: tuple[str, str, str]
    head_norms: tuple[str, str]
    last_layer: str
    network_norm: str
    network: str


_STREAMS = (
    _Stream(
        "norm1_context",
        ("add_q_proj", "add_k_proj", "add_v_proj"),
        ("norm_added_q", "norm_added_k"),
        "to_add_out",
        "norm2_context",
        "ff_context",
    ),
    _Stream("norm1", ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), "to_out.0", "norm2", "ff"),
)


def _flux_steps(own: BlockSteps, block: Any, source: str, layer: int) -> str:
    rows = own.split(source, "given")
    operands = []
    for tokens, stream in zip(rows, _STREAMS, strict=True):
        epsilon = getattr(block, stream.norm).norm.eps
        normed = own.quantized(own.modulated(tokens, stream.norm, epsilon))
        operands.append(_flux_operands(own, block, normed, stream))
    q, k, v = (
        own.join(parts, name)
        for parts, name in zip(zip(*operands, strict=True), "qkv", strict=True)
    )
    heads = own.split(own.attend(q, k, v, layer), "heads")
    results = []
    for tokens, mixed, stream, part in zip(rows, heads, _STREAMS, _PARTS, strict=True):
        _check_gelu(getattr(block, stream.network).net[0])
        mixed = own.quantized(own.moved(mixed, f"mixed.{part}"))
        mixed = own.linear(mixed, f"attn.{stream.last_layer}")
        summed = own.gated(mixed, tokens, f"{stream.norm}.gate", f"attended.{part}")
        epsilon = getattr(block, stream.network_norm).eps
        normed = own.quantized(own.modulated(summed, stream.network_norm, epsilon))
        made = own.network(normed, stream.network)
        results.append(own.gated(made, summed, f"{stream.network_norm}.gate", f"tokens.{part}"))
    return own.join(results, "tokens")


def _flux_operands(
    own: BlockSteps, block: Any, normed: str, stream: _Stream
) -> tuple[str, str, str]:
    """Words of Q and K, and V in INT8."""
    q, k, v = (own.linear(normed, f"attn.{layer}") for layer in stream.layers)
    q, k = (
        own.headed(tokens, f"attn.{norm}", False, getattr(block.attn, norm).eps)
        for tokens, norm in zip((q, k), stream.head_norms, strict=True)
    )
    return q, k, own.values(v, f"attn.{stream.layers[2]}.int8")


def _flux_constants(
    found: BlockParameters, block: Any, given: Mapping[str, Any], item: int
) -> None:
    for stream in _STREAMS:
        parts = _modulation(given["temb"][item], getattr(block, stream.norm), 6)
        shift, scale, gate, ff_shift, ff_scale, ff_gate = parts
        found.give(stream.norm, 1 + scale, shift)
        found.give(f"{stream.norm}.gate", gate)
        found.give(stream.network_norm, 1 + ff_scale, ff_shift)
        found.give(f"{stream.network_norm}.gate", ff_gate)
        for norm in stream.head_norms:
            found.give_norm(f"attn.{norm}", getattr(block.attn, norm), block.attn.heads)


def _flux_single_steps(own: BlockSteps, block: Any, source: str, layer: int) -> str:
    _check_gelu(block.act_mlp)
    normed = own.quantized(own.modulated(source, "norm", block.norm.norm.eps))
    heads = own.attend(*_flux_operands(own, block, normed, _STREAMS[1]), layer)
    # The last layer reads both; their mantissas are their own, so it is two layers.
    mixed = own.linear(own.quantized(own.moved(heads, "mixed")), "proj_out.attention")
    active = own.activated(own.linear(normed, "proj_mlp"), "active")
    made = own.linear(own.quantized(active), "proj_out.network")
    return own.gated(made, own.gated(mixed, source, "gate", "attended"), "gate", "tokens")


def _flux_single_constants(
    found: BlockParameters, block: Any, given: Mapping[str, Any], item: int
) -> None:
    shift, scale, gate = _modulation(given["temb"][item], block.norm, 3)
    found.give("norm", 1 + scale, shift)
    found.give("gate", gate)
    for norm in _STREAMS[1].head_norms:
        found.give_norm(f"attn.{norm}", getattr(block.attn, norm), block.attn.heads)


def _flux_single_cuts(block: Any) -> Mapping[str, Mapping[str, int]]:
    hidden = block.mlp_hidden_dim
    return {"proj_out": {"attention": block.proj_out.in_features - hidden, "network": hidden}}


#: By the name of the class in diffusers.
_RULES: Mapping[str, Rule] = {
    "BasicTransformerBlock (ada_norm_zero)": Rule(_dit_steps, _dit_constants, (GRID,)),
    "BasicTransformerBlock (ada_norm_single)": Rule(
        _pixart_steps, _pixart_constants, (GRID,), crosses=True
    ),
    "WanTransformerBlock": Rule(_wan_steps, _wan_constants, (GRID,), crosses=True),
    "CogVideoXBlock": Rule(_cogvideox_steps, _cogvideox_constants, (GRID, TEXT)),
    "FluxTransformerBlock": Rule(_flux_steps, _flux_constants, (TEXT, GRID)),
    "FluxSingleTransformerBlock": Rule(
        _flux_single_steps, _flux_single_constants, (TEXT, GRID), _flux_single_cuts
    ),
}
