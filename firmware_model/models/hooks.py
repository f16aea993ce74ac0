"""Attention of any PyTorch module: watched, or computed as a plan says.

What is caught is `torch.nn.functional.scaled_dot_product_attention`, however a module came to it,
while a context of this module is open. No adapter for the network is needed.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode

from firmware_model.calibration.plan import ModelPlan
from firmware_model.calibration.sensitivity import model_config
from firmware_model.capture import Capture
from firmware_model.parallel import map_rows
from firmware_model.quality.planned import attend_planned
from firmware_model.reference.attention import reference_attention
from firmware_model.reference.methods import Method
from paro.config.errors import ParoError

__all__ = ["Tokens", "Watched", "attend", "planned", "watch"]

_SDPA = torch.nn.functional.scaled_dot_product_attention
#: Arguments of it, in order.
_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


@dataclass(frozen=True)
class Tokens:
    """What the tokens of a network are.

    Parameters
    ----------
    grid : (int, int, int)
        Frames, height, width, width fastest; an image has one frame.
    prefix, suffix : int
        Tokens before and after the grid (class tokens, text).
    """

    grid: tuple[int, int, int]
    prefix: int = 0
    suffix: int = 0

    @property
    def count(self) -> int:
        """Tokens in all."""
        return self.prefix + math.prod(self.grid) + self.suffix


@dataclass
class Watched:
    """Attention that a network computed while it was watched.

    Parameters
    ----------
    captures : list of Capture
        One for each call of `Tokens.count` tokens, as layers in the order of their calls; of a
        batch its first item.
    others : list of int
        Key tokens of the calls that are not of these tokens, which are left alone.
    """

    captures: list[Capture] = field(default_factory=list)
    others: list[int] = field(default_factory=list)

    def check(self, tokens: Tokens) -> None:
        """Raise ParoError if no attention of these tokens was seen."""
        if not self.captures:
            seen = ", ".join(map(str, sorted(set(self.others)))) or "none"
            raise ParoError(
                f"no attention over {tokens.count} tokens was computed (tokens seen: {seen}); "
                "legal: a network that calls scaled_dot_product_attention on prefix, grid and "
                "suffix"
            )


class _Mode(TorchFunctionMode):
    """Passes attention over some tokens to a function, and everything else on."""

    def __init__(
        self,
        tokens: Tokens,
        compute: Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor],
        others: list[int],
    ):
        super().__init__()
        self._tokens, self._compute, self._others = tokens, compute, others
        self._layer = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.multi_head_attention_forward:
            # It comes here itself, and no mode is active within: what it calls is replaced.
            with patch.object(torch.nn.functional, _SDPA.__name__, self._attend):
                return func(*args, **kwargs)
        return self._attend(*args, **kwargs) if func is _SDPA else func(*args, **kwargs)

    def _attend(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Stand in for `scaled_dot_product_attention`."""
        given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        q, k, v = (given[name] for name in ("query", "key", "value"))
        if not q.shape[-2] == k.shape[-2] == self._tokens.count:
            self._others.append(k.shape[-2])
            return _SDPA(*args, **kwargs)
        _check_call(given)
        scale = given.get("scale")
        shape = q.shape
        q, k, v = (_four_dimensions(tensor) for tensor in (q, k, v))
        if k.shape[1] != q.shape[1]:  # grouped queries: each head of K and V serves several of Q
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        scale = 1 / math.sqrt(shape[-1]) if scale is None else float(scale)
        output = self._compute(self._layer, q, k, v, scale)
        self._layer += 1
        return output.reshape(*shape[:-1], v.shape[-1])


@contextmanager
def _caught(mode: _Mode) -> Iterator[None]:
    """Let a mode see all attention: PyTorch's own module has a way around, which is closed."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with mode:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _check_call(given: dict[str, Any]) -> None:
    for name, what in (
        ("attn_mask", "a mask"),
        ("is_causal", "a causal mask"),
        ("dropout_p", "dropout"),
    ):
        value = given.get(name)
        if value is not None and not (isinstance(value, (bool, int, float)) and not value):
            raise ParoError(f"the network's attention has {what}; legal: attention without")
    shapes = [given[name].shape for name in ("query", "key", "value")]
    if len({shape[-1] for shape in shapes}) > 1:
        raise ParoError("Q, K and V of the network have different channels; legal: the same")


def _four_dimensions(tensor: torch.Tensor) -> torch.Tensor:
    """Return [batch, heads, tokens, channels]."""
    if tensor.ndim < 3:
        raise ParoError(
            f"attention on {tensor.ndim} dimensions; legal: 3 or more, heads third last"
        )
    return tensor.reshape(-1, *tensor.shape[-3:])


@contextmanager
def watch(tokens: Tokens, model: str = "") -> Iterator[Watched]:
    """Keep Q, K and V of every attention over these tokens.

    Parameters
    ----------
    tokens : Tokens
        What the network's tokens are.
    model : str
        Tells the network's weights apart from others'.

    Raises
    ------
    ParoError
        At the end, if no such attention was computed; at once, if one has a mask or dropout.
    """
    watched = Watched()

    def keep(
        layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        first = [tensor[0].detach().cpu().clone() for tensor in (q, k, v)]
        watched.captures.append(as_capture(first, tokens, scale, model, layer))
        return _SDPA(q, k, v, scale=scale)  # within a mode's own function it is not active

    with _caught(_Mode(tokens, keep, watched.others)):
        yield watched
    watched.check(tokens)


def as_capture(
    operands: list[torch.Tensor], tokens: Tokens, scale: float, model: str, layer: int
) -> Capture:
    """Make a capture of [heads, tokens, channels] each of Q, K and V."""
    q, k, v = operands
    return Capture(
        path=Path(f"layer_{layer:02}.safetensors"),
        q=q,
        k=k,
        v=v,
        grid=tokens.grid,
        prefix_tokens=tokens.prefix,
        scale=scale,
        source=f"layer {layer} of a network that was watched",
        digest="",
        model=model,
        suffix_tokens=tokens.suffix,
        layer=layer,
    )


def attend(capture: Capture, plan: ModelPlan, method: Method) -> torch.Tensor:
    """Attention of all heads of a capture as a plan says.

    Returns
    -------
    torch.Tensor
        float64 [heads, tokens, head_dim], in the capture's order. Heads that the plan leaves out
        are exact.

    Raises
    ------
    ParoError
        If the plan has another grid, or lacks the layer.
    """
    if plan.grid != capture.grid:
        raise ParoError(
            f"the plan is for a grid of {plan.grid}, not of {capture.grid}; legal: the same"
        )
    own = plan.at(capture.layer, capture.progress, capture.text_tokens)
    config = model_config(capture, own.block)

    def one(head: int) -> torch.Tensor:
        if head in own.heads:
            return attend_planned(method, capture, head, own, config)[1].double()
        operands = (capture.q[head], capture.k[head], capture.v[head])
        return reference_attention(*operands, capture.scale)

    return torch.stack(map_rows(one, range(capture.heads)))


@contextmanager
def planned(plan: ModelPlan, tokens: Tokens, method: Method | None = None) -> Iterator[Watched]:
    """Compute every attention over these tokens as a plan says, layers in the order of their calls.

    Parameters
    ----------
    plan : ModelPlan
        With every layer.
    tokens : Tokens
        What the network's tokens are.
    method : Method, optional
        By default the bit-exact integer model.

    Raises
    ------
    ParoError
        If the plan lacks a layer, or as `watch`.
    """
    chosen = Method() if method is None else method
    watched = Watched()

    def compute(
        layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        captures = [
            as_capture([tensor.detach().cpu() for tensor in item], tokens, scale, plan.model, layer)
            for item in zip(q, k, v, strict=True)
        ]
        watched.captures.append(captures[0])
        return torch.stack([attend(capture, plan, chosen) for capture in captures]).to(q)

    with _caught(_Mode(tokens, compute, watched.others)):
        yield watched
    watched.check(tokens)
