"""Attention on the blocks that a plan keeps, in the model's own numbers, on processors and GPUs.

What PAROAttention promises of GPUs: reorder, skip blocks, put back. Widths do not matter here: a
block is computed or not.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

# The function itself: contexts of `hooks` replace its name.
from torch.nn.functional import scaled_dot_product_attention

from firmware_model.arrays import Tokens
from firmware_model.calibration.plan import ModelPlan, step_group
from firmware_model.choices import check_choice
from firmware_model.models.hooks import Watched, replaced
from firmware_model.models.pipeline import AttentionCall
from firmware_model.parallel import map_rows
from firmware_model.reorder import token_permutation
from paro.config.config import blocks_of
from paro.config.errors import ParoError

__all__ = ["KERNELS", "SparseAttention", "sparse", "usable_kernels"]

#: Ways to compute: row by row of blocks, with torch's own attention; or compiled flex_attention.
KERNELS = ("rows", "flex")
#: Least tokens on a side of a block of `flex_attention`.
_FLEX_BLOCK = 64


@dataclass(frozen=True, eq=False)
class _Layer:
    """What is computed of an attention layer.

    Parameters
    ----------
    order : torch.Tensor
        int64 [heads, tokens]: which token stands at each position.
    live : torch.Tensor
        bool [heads, blocks, blocks].
    block : int
        Tokens on a side of a block.
    """

    order: torch.Tensor
    live: torch.Tensor
    block: int


class SparseAttention:
    """Computes every attention of a model on the blocks that a plan keeps.

    Parameters
    ----------
    plan : ModelPlan
        With every layer. Heads that it leaves out are computed whole.
    tokens : Tokens
        What the model's tokens are.
    steps : int
        Denoising steps of a run.
    kernel : str, optional
        One of `KERNELS`; by default "flex", and "rows" on a CPU without a compiler.

    Raises
    ------
    ParoError
        If the plan has another grid, or there is no such kernel.
    """

    def __init__(
        self, plan: ModelPlan, tokens: Tokens, steps: int = 1, kernel: str | None = None
    ) -> None:
        if kernel is not None:
            check_choice("kernel", kernel, KERNELS)
        plan.check_grid(tokens.grid)
        self._plan, self._tokens, self._steps, self._kernel = plan, tokens, steps, kernel
        self._prepared: dict[Any, tuple[torch.Tensor, Any]] = {}

    def __call__(self, call: AttentionCall) -> torch.Tensor:
        """Compute one attention; `ParoError` if gradients are asked for, or as `ModelPlan.at`."""
        if torch.is_grad_enabled() and any(x.requires_grad for x in (call.q, call.k, call.v)):
            raise ParoError("sparse attention has no gradients; legal: within torch.no_grad()")
        device = call.q.device
        kernel = self._kernel or ("flex" if device.type != "cpu" else usable_kernels()[-1])
        group = step_group(self._plan.step_groups, call.step / self._steps)
        heads = call.q.shape[1]
        key = (call.layer, group, heads, device, kernel)
        if key not in self._prepared:
            layer = self._layer(call.layer, call.step / self._steps, heads)
            prepare = _live_blocks if kernel == "rows" else _block_mask
            self._prepared[key] = layer.order.to(device), prepare(layer, device)
        order, prepared = self._prepared[key]
        index = order[None, :, :, None].expand(call.q.shape)
        q, k, v = (tensor.gather(2, index) for tensor in (call.q, call.k, call.v))
        compute = _rows if kernel == "rows" else _flex
        found = compute(q, k, v, prepared, call.scale)
        return torch.empty_like(found).scatter_(2, index, found)

    def _layer(self, layer: int, progress: float, heads: int) -> _Layer:
        """Orders and live blocks of all heads of a layer."""
        tokens = self._tokens
        own = self._plan.at(layer, progress, tokens.prefix + tokens.suffix)
        blocks = blocks_of(tokens.count, own.block)
        live = torch.ones(heads, blocks, blocks, dtype=torch.bool)
        orders = [0] * heads
        for head, order, codes in zip(own.heads, own.orders, own.codes, strict=True):
            if head < heads:
                live[head], orders[head] = codes != 0, order
        permutations = {
            order: torch.from_numpy(
                token_permutation(tokens.grid, tokens.prefix, order, tokens.suffix)
            )
            for order in set(orders)
        }
        return _Layer(torch.stack([permutations[order] for order in orders]), live, own.block)


#: Tokens on a side of a block, and the live blocks of each head and block row, int64 [live].
_LiveBlocks = tuple[int, list[list[torch.Tensor]]]


def _live_blocks(layer: _Layer, device: torch.device) -> _LiveBlocks:
    live = layer.live.to(device)
    return layer.block, [[row.nonzero().ravel() for row in head] for head in live]


def _rows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, live: _LiveBlocks, scale: float
) -> torch.Tensor:
    """Attention of each block row with its live keys, which are put side by side."""
    block, heads = live
    output = torch.empty_like(q)
    padding = -q.shape[2] % block
    padded = (torch.nn.functional.pad(x, (0, 0, 0, padding)) for x in (k, v))
    operands = [x.unflatten(2, (-1, block)) for x in padded]
    last = len(heads[0]) - 1

    def row(place: tuple[int, int, int]) -> None:
        item, head, index = place
        blocks, queries = heads[head][index], slice(index * block, (index + 1) * block)
        count = len(blocks) * block - (padding if blocks[-1] == last else 0)
        keys, values = (
            x[item, head].index_select(0, blocks).flatten(0, 1)[None, None, :count]
            for x in operands
        )
        # Four dimensions: with fewer, torch takes a slower way.
        one = q[item : item + 1, head : head + 1, queries]
        output[item, head, queries] = scaled_dot_product_attention(one, keys, values, scale=scale)[
            0, 0
        ]

    map_rows(row, product(range(len(q)), range(q.shape[1]), range(last + 1)))
    return output


def _block_mask(layer: _Layer, device: torch.device) -> BlockMask:
    """Mask of `flex_attention`; partial blocks alone, since it compiles no others on a CPU."""
    tokens, block = layer.order.shape[1], layer.block
    size = max(block, _FLEX_BLOCK)
    live, ratio = layer.live.to(device), size // block
    blocks = blocks_of(tokens, size)
    padding = blocks * ratio - live.shape[1]
    padded = torch.nn.functional.pad(live, (0, padding, 0, padding))
    coarse = padded.unflatten(2, (blocks, ratio)).any(3).unflatten(1, (blocks, ratio)).any(2)

    def whole(_b: Any, _h: Any, _q: Any, kv: torch.Tensor) -> torch.Tensor:
        return kv >= 0

    def within(_b: Any, head: Any, query: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        return live[head, query // block, kv // block]

    counts = coarse.sum(-1, dtype=torch.int32)[None]
    places = coarse.int().argsort(dim=-1, descending=True, stable=True).int()[None]
    return BlockMask.from_kv_blocks(
        counts,
        places.contiguous(),
        BLOCK_SIZE=size,
        mask_mod=whole if ratio == 1 else within,
        seq_lengths=(tokens, tokens),
        compute_q_blocks=False,
    )


def usable_kernels() -> tuple[str, ...]:
    """Kernels that this machine can compute on its processor."""
    compilers = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return KERNELS if any(name and shutil.which(name) for name in compilers) else KERNELS[:1]


@cache
def _compiled() -> Any:
    if "flex" not in usable_kernels():
        raise ParoError(
            "the kernel 'flex' is compiled, and there is no C++ compiler; legal: one (g++), or the "
            "kernel 'rows'"
        )
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


def _flex(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: BlockMask, scale: float
) -> torch.Tensor:
    return _compiled()(q, k, v, block_mask=mask, scale=scale)


@contextmanager
def sparse(
    plan: ModelPlan,
    tokens: Tokens | None = None,
    *,
    network: torch.nn.Module | None = None,
    steps: int = 1,
    kernel: str | None = None,
) -> Iterator[Watched]:
    """Compute every attention over some tokens on the blocks that a plan keeps.

    Parameters
    ----------
    plan : ModelPlan
        With every layer.
    tokens : Tokens, optional
        What the network's tokens are; by default those of the plan.
    network, steps
        As of `hooks.replaced`.
    kernel : str, optional
        As of `SparseAttention`.

    Raises
    ------
    ParoError
        If the plan lacks a layer, or as `hooks.replaced` and `SparseAttention`.
    """
    tokens = tokens or plan.tokens
    attention = SparseAttention(plan, tokens, steps, kernel)
    with replaced(attention, tokens, network, steps) as watched:
        yield watched
