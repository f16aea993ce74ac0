"""Plans from block maps and token orders of other work."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from firmware_model.arrays import Tokens, as_tensor
from firmware_model.calibration.goal import step_group_starts
from firmware_model.calibration.plan import ModelPlan
from firmware_model.capture import Capture, CaptureSource
from firmware_model.choices import ORDERS, check_choice
from firmware_model.reorder import token_permutation
from firmware_model.tensorfile import file_digest
from paro.config.config import BLOCKS, blocks_of
from paro.config.errors import ParoError
from paro.config.formats import CODE_BITS

__all__ = ["MAP_BLOCKS", "MapPlan", "plan_of_maps"]

#: Tokens on a side of a block that a map may have.
MAP_BLOCKS = (16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, eq=False)
class MapPlan:
    """A plan, and what became of the maps.

    Parameters
    ----------
    plan : ModelPlan
    map_density : float
        Share of the maps' own blocks that are live.
    left_out : tuple of (int, int)
        Layer and head of each map without any live block, which the plan leaves out.
    """

    plan: ModelPlan
    map_density: float
    left_out: tuple[tuple[int, int], ...]


def plan_of_maps(
    maps: Any,
    captures: Sequence[CaptureSource],
    order: Any = None,
    *,
    bits: int = 8,
    block: int | None = None,
    grid_first: bool = False,
) -> MapPlan:
    """Make a plan of block maps.

    A block of the plan has the greatest width of all blocks of the map that share a query and a key
    with it: where blocks of both are cut alike, that of its own; where text moves to the end, or
    blocks of the map are larger, it covers the map.

    Parameters
    ----------
    maps : np.ndarray or torch.Tensor
        [heads, blocks, blocks], [layers, heads, blocks, blocks] or with groups of denoising steps
        before: 0 and 1 (a mask), or widths 0, 2, 4, 8. Blocks of queries and keys may differ.
    captures : sequence of CaptureSource
        One model's: whose tokens, heads and layers the maps are of.
    order : str, np.ndarray or torch.Tensor, optional
        How tokens stand in the maps: a name of `choices.ORDERS` for all heads; indices of them
        [heads] or [layers, heads]; or permutations [tokens], [heads, tokens] or [layers, heads,
        tokens] (position to token). By default as in the captures.
    bits : int
        Width of the live blocks of a mask.
    block : int, optional
        Tokens on a side of a block of the plan; by default the largest that the map's are made of.
    grid_first : bool
        Whether orders by name or index put the text after the grid, as the plan does; by default
        text stays where it is.

    Raises
    ------
    ParoError
        If maps, order and captures do not fit, an order is none of the hardware's or a row has no
        live block.
    """
    check_choice("bits", bits, CODE_BITS[1:])
    first = captures[0]
    layers = _layers(captures)
    tokens = Tokens(first.grid, first.prefix_tokens, first.suffix_tokens)
    codes = _codes(as_tensor("the map", maps), bits, len(layers), first.heads)
    sides = [_side(tokens.count, count) for count in codes.shape[-2:]]
    block = min(64, *sides) if block is None else block
    check_choice("block", block, BLOCKS)
    orders = _permutations(order, tokens, len(layers), first.heads, grid_first)
    blocks = blocks_of(tokens.count, block)
    found = torch.zeros(*codes.shape[:3], blocks, blocks, dtype=torch.uint8)
    indices = torch.zeros(len(layers), first.heads, dtype=torch.uint8)
    known: dict[bytes, tuple[int, list[torch.Tensor]]] = {}
    for layer in range(len(layers)):
        for head in range(first.heads):
            permutation = orders[layer][head]
            key = permutation.tobytes()
            if key not in known:
                index = _order(permutation, tokens, layers[layer], head)
                known[key] = index, _shares(permutation, tokens, index, block, sides)
            indices[layer, head], shares = known[key]
            found[:, layer, head] = _covering(codes[:, layer, head], *shares)
    left_out = _check_rows(found, layers)
    live = (codes != 0)[:, (found != 0).flatten(3).any(3).any(0)]
    if not live.numel():
        raise ParoError("the map has no live block; legal: one or more in each row of a head")
    plan = ModelPlan(
        model=first.model,
        calibrated_on=tuple(map(_digest, captures)),
        block=block,
        grid=first.grid,
        prefix_tokens=tokens.prefix,
        suffix_tokens=tokens.suffix,
        avg_bits=1.0,
        layers=tuple(layers),
        heads=tuple(range(first.heads)),
        step_groups=step_group_starts(len(codes)),
        orders=indices,
        transforms=torch.zeros_like(indices),
        codes=found,
    )
    return MapPlan(replace(plan, avg_bits=plan.mean_bits()), live.double().mean().item(), left_out)


def _layers(captures: Sequence[CaptureSource]) -> list[int]:
    """Layers of captures, ascending; ParoError if they are not of one model and shape."""
    first = captures[0]
    for capture in captures:
        for name in ("model", "grid", "heads", "prefix_tokens", "suffix_tokens"):
            if getattr(capture, name) != getattr(first, name):
                raise ParoError(
                    f"captures {first.path} and {capture.path} differ in {name}; legal: captures "
                    "of one model and prompt"
                )
    return sorted({capture.layer for capture in captures})


def _digest(capture: CaptureSource) -> str:
    return capture.digest if isinstance(capture, Capture) else file_digest(capture.path, "capture")


def _codes(maps: torch.Tensor, bits: int, layers: int, heads: int) -> torch.Tensor:
    """Codes of maps, uint8 [groups, layers, heads, blocks, blocks], checked."""
    shape = list(maps.shape)
    if not 3 <= maps.ndim <= 5 or 0 in shape:
        raise ParoError(
            f"the map has shape {shape}; legal: [heads, blocks, blocks], [layers, heads, blocks, "
            "blocks], or groups of denoising steps before"
        )
    maps = maps.reshape([1] * (5 - maps.ndim) + shape)
    if maps.shape[1:3] != (layers, heads):
        raise ParoError(
            f"the map has shape {shape}, {maps.shape[1]} layers of {maps.shape[2]} heads; the "
            f"captures have {layers} of {heads}; legal: the same"
        )
    values = set(maps.unique().tolist())
    if values <= {0, 1}:
        return (maps != 0).byte() * CODE_BITS.index(bits)
    beyond = values - set(CODE_BITS)
    if beyond:
        raise ParoError(
            f"the map has value {min(beyond):g}; legal: 0 and 1, a mask, or widths "
            f"{', '.join(map(str, CODE_BITS))}"
        )
    return sum((maps == width).byte() * code for code, width in enumerate(CODE_BITS))  # type: ignore[return-value]


def _side(tokens: int, count: int) -> int:
    """Tokens on a side of a map's block."""
    for side in MAP_BLOCKS:
        if blocks_of(tokens, side) == count:
            return side
    legal = ", ".join(f"{blocks_of(tokens, side)} (of {side})" for side in MAP_BLOCKS)
    raise ParoError(
        f"the map has {count} blocks on a side for {tokens} tokens; legal: {legal} tokens"
    )


def _permutations(
    order: Any, tokens: Tokens, layers: int, heads: int, grid_first: bool
) -> list[list[np.ndarray]]:
    """Token at each position of the maps, int64 [tokens], for each layer and head."""
    if order is None or isinstance(order, str):
        if order is not None:
            check_choice("order", order, ORDERS)
        index = 0 if order is None else ORDERS.index(order)
        one = _named(tokens, index, grid_first and order is not None)
        return [[one] * heads] * layers
    values = as_tensor("the order", order)
    shape = list(values.shape)
    if values.is_floating_point() or values.dtype == torch.bool:
        raise ParoError(f"the order has {values.dtype}; legal: integers")
    if shape in ([heads], [layers, heads]):
        if values.min() < 0 or values.max() >= len(ORDERS):
            raise ParoError(
                f"the order has index {int(values.max())}; legal: 0 to {len(ORDERS) - 1}, "
                f"{', '.join(ORDERS)}"
            )
        named = [_named(tokens, index, grid_first) for index in range(len(ORDERS))]
        return [[named[i] for i in row] for row in values.expand(layers, heads).tolist()]
    count = tokens.count
    if shape not in ([count], [heads, count], [layers, heads, count]):
        raise ParoError(
            f"the order has shape {shape}; legal: indices [{heads}] or [{layers}, {heads}], "
            f"permutations [{count}], [{heads}, {count}] or [{layers}, {heads}, {count}]"
        )
    return [list(row) for row in values.long().expand(layers, heads, count).numpy()]


def _named(tokens: Tokens, order: int, grid_first: bool) -> np.ndarray:
    own = token_permutation(tokens.grid, tokens.prefix, order, tokens.suffix)
    if grid_first:
        return own
    grid = tokens.count - tokens.prefix - tokens.suffix
    return np.concatenate([np.arange(tokens.prefix), own[:grid], own[grid + tokens.prefix :]])


def _order(permutation: np.ndarray, tokens: Tokens, layer: int, head: int) -> int:
    """Index of the order in which the tokens of the grid stand; ParoError if it is none."""
    if not np.array_equal(np.sort(permutation), np.arange(tokens.count)):
        raise ParoError(
            f"the order of head {head} in layer {layer} is no permutation; legal: each of "
            f"{tokens.count} tokens once"
        )
    grid = tokens.count - tokens.prefix - tokens.suffix
    places = permutation - tokens.prefix
    places = places[(places >= 0) & (places < grid)]
    for index in range(len(ORDERS)):
        if np.array_equal(places, token_permutation(tokens.grid, 0, index)):
            return index
    raise ParoError(
        f"the order of head {head} in layer {layer} is none that the address generator makes; "
        f"legal: the grid of {' x '.join(map(str, tokens.grid))} in one of {', '.join(ORDERS)} "
        "(axes from slowest to fastest), text anywhere"
    )


def _shares(
    permutation: np.ndarray, tokens: Tokens, order: int, block: int, sides: Sequence[int]
) -> list[torch.Tensor]:
    """Which blocks of the map share a token with one of the plan.

    bool [blocks, blocks of the map], for queries and for keys.
    """
    position = np.arange(tokens.count)
    own = np.empty_like(position)
    own[token_permutation(tokens.grid, tokens.prefix, order, tokens.suffix)] = position // block
    found = []
    for side in sides:
        share = torch.zeros(
            blocks_of(tokens.count, block), blocks_of(tokens.count, side), dtype=torch.bool
        )
        share[own[permutation], position // side] = True
        found.append(share)
    return found


def _covering(codes: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Greatest code of the map's blocks that share a query and a key with each of the plan."""
    left, right = queries.float(), keys.float().T
    found = torch.zeros(len(codes), len(left), right.shape[1], dtype=torch.uint8)
    for code in range(1, len(CODE_BITS)):
        found[left @ (codes == code).float() @ right > 0] = code
    return found


def _check_rows(codes: torch.Tensor, layers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Layer and head of maps without a live block; ParoError if one has some dead rows."""
    live = (codes != 0).any(-1)
    held = live.any(-1).any(0)
    dead = (~live & held.unsqueeze(-1)).nonzero()
    if len(dead):
        _, layer, head, row = dead[0].tolist()
        raise ParoError(
            f"block row {row} of head {head} in layer {layers[layer]} has no live block in the "
            "map; legal: 1 or more in each row"
        )
    return tuple((layers[layer], head) for layer, head in (~held).nonzero().tolist())
