"""How much faster attention on a plan's blocks is on this machine, beside torch's own."""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from firmware_model.arrays import Tokens
from firmware_model.calibration.calibrate import calibrate
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.plan import ModelPlan
from firmware_model.capture import Capture
from firmware_model.models.pipeline import AttentionCall
from firmware_model.models.sparse import SparseAttention, sparse, usable_kernels
from firmware_model.progress import Progress, Steps
from firmware_model.quality.metrics import finite, snr_db

__all__ = ["COGVIDEOX", "block_study", "head_study", "local_head"]

#: Tokens of CogVideoX at 480 x 720 pixels, 49 frames.
COGVIDEOX = Tokens(grid=(13, 30, 45), prefix=226)
#: Its heads and their channels (2B), and the width of its noise level's embedding.
_HEADS, _CHANNELS, _TIME = 30, 64, 512
#: Times that each way is run, in turns; the fastest counts.
_REPEATS = 3


def local_head(tokens: Tokens = COGVIDEOX, reach: float = 3.0, seed: int = 0) -> Capture:
    """Make up a head that looks at its neighbourhood, and at some of the text.

    Parameters
    ----------
    tokens : Tokens
    reach : float
        Width of the neighbourhood in tokens, along each axis.
    seed : int
        Of what is random in it.
    """
    random = torch.Generator().manual_seed(seed)
    axes = [torch.arange(n).float() for n in tokens.grid]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 2)
    angles = places @ torch.randn(3, _CHANNELS // 2, generator=random) / reach
    # Their products are the mean of cosines of the distance: a bell around each token.
    near = torch.cat([angles.cos(), angles.sin()], 1)

    def operand() -> torch.Tensor:
        text = [torch.randn(n, _CHANNELS, generator=random) for n in (tokens.prefix, tokens.suffix)]
        noise = torch.randn(near.shape, generator=random)
        return torch.cat([text[0], 1.6 * near + 0.3 * noise, text[1]])[None]

    q, k = operand(), operand()
    v = torch.randn(q.shape, generator=random)
    return Capture(
        path=Path(f"neighbourhood_{tokens.count}.safetensors"),
        q=q,
        k=k,
        v=v,
        grid=tokens.grid,
        prefix_tokens=tokens.prefix,
        scale=_CHANNELS**-0.5 * 4,
        source="made up",
        digest="0" * 64,
        model="neighbourhood",
        suffix_tokens=tokens.suffix,
    )


def _side_by_side(
    ways: dict[str, Callable[[], torch.Tensor]],
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Least seconds and result of each way, run in turns after one run each that is not counted."""
    results = {name: way() for name, way in ways.items()}
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(_REPEATS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds, results


def _rows(
    what: str, plan: ModelPlan, tokens: int, ways: dict[str, Callable[[], torch.Tensor]]
) -> list[dict[str, Any]]:
    """Measure ways, the first of which is torch's own attention; one row for each other one."""
    seconds, results = _side_by_side(ways)
    own = next(iter(ways))
    density = plan.density()
    return [
        {
            "what": what,
            "kernel": name,
            "tokens": tokens,
            "density": round(density, 4),
            "dense_seconds": round(seconds[own], 6),
            "sparse_seconds": round(seconds[name], 6),
            "ratio": round(seconds[own] / seconds[name], 3),
            "ratio_times_density": round(seconds[own] / seconds[name] * density, 3),
            "snr_db": finite(snr_db(results[name], results[own])),
        }
        for name in list(ways)[1:]
    ]


@torch.no_grad()
def head_study(
    captures: Sequence[Capture],
    densities: Sequence[float],
    block: int = 64,
    kernels: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], list[ModelPlan]]:
    """Time the first head of captures under masks of some densities, beside the whole map.

    Returns
    -------
    list of dict
        For each capture, density and kernel: seconds of
        `torch.nn.functional.scaled_dot_product_attention` and of `SparseAttention`, reorder and
        its inverse included, their ratio, that ratio times the density (1 would be as fast a block)
        and the quality against the whole map.
    list of ModelPlan
        The masks of the last capture.
    """
    kernels = usable_kernels() if kernels is None else kernels
    steps = Steps(progress, len(captures) * len(densities))
    rows, plans = [], []
    for capture in captures:
        tokens = Tokens(capture.grid, capture.prefix_tokens, capture.suffix_tokens)
        q, k, v = (x[:1][None].float() for x in (capture.q, capture.k, capture.v))
        call = AttentionCall(capture.layer, 0, q, k, v, capture.scale)
        plans = []
        for density in densities:
            (plan,) = calibrate([capture], Goal(density=density, block=block), [0])
            plans.append(plan)
            ways = _head_ways(call, plan, tokens, kernels)
            rows += _rows(f"head 0 of {capture.name}", plan, tokens.count, ways)
            steps.advance()
    return rows, plans


def _head_ways(
    call: AttentionCall, plan: ModelPlan, tokens: Tokens, kernels: Sequence[str]
) -> dict[str, Callable[[], torch.Tensor]]:
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "torch": lambda: scaled_dot_product_attention(call.q, call.k, call.v, scale=call.scale)
    }
    for kernel in kernels:
        ways[kernel] = partial(SparseAttention(plan, tokens, kernel=kernel), call)
    return ways


@torch.no_grad()
def block_study(
    plans: Sequence[ModelPlan], kernel: str | None = None, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Time a whole transformer block of CogVideoX-2B with random weights, likewise.

    Parameters
    ----------
    plans : sequence of ModelPlan
        Of one head over `COGVIDEOX` or other tokens, which all heads of the block take. The quality
        is that of random weights, whose attention is nearly even: not one of the model.
    kernel : str, optional
        One of `sparse.KERNELS`; by default the last that is usable.
    progress : Progress, optional
        Called after each plan.
    """
    kernel = kernel or usable_kernels()[-1]
    library: Any = importlib.import_module("diffusers.models.transformers.cogvideox_transformer_3d")
    torch.manual_seed(0)
    width = _HEADS * _CHANNELS
    block = library.CogVideoXBlock(width, _HEADS, _CHANNELS, _TIME).eval()
    rows = []
    for done, plan in enumerate(plans):
        whole = replace(
            plan,
            layers=(0,),
            heads=tuple(range(_HEADS)),
            orders=plan.orders[:1, :1].expand(1, _HEADS),
            transforms=plan.transforms[:1, :1].expand(1, _HEADS),
            codes=plan.codes[:, :1, :1].expand(-1, 1, _HEADS, -1, -1),
        )
        tokens = plan.tokens
        grid, text = torch.randn(1, tokens.count, width).split(
            [tokens.count - tokens.prefix, tokens.prefix], dim=1
        )
        own = partial(_joined, block, grid, text, torch.randn(1, _TIME))
        ways = {"torch": own, kernel: partial(_planned, own, whole, block, kernel)}
        rows += _rows("CogVideoX-2B block", plan, tokens.count, ways)
        if progress is not None:
            progress(done + 1, len(plans))
    return rows


def _joined(block: torch.nn.Module, *operands: torch.Tensor) -> torch.Tensor:
    return torch.cat(block(*operands), 1)


def _planned(
    run: Callable[[], torch.Tensor], plan: ModelPlan, network: torch.nn.Module, kernel: str
) -> torch.Tensor:
    with sparse(plan, network=network, kernel=kernel):
        return run()
