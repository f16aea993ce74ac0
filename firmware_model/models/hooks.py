"""Attention of any PyTorch module: watched, or computed as a plan says.

What is caught is `torch.nn.functional.scaled_dot_product_attention`, however a module came to it,
while a context of this module is open. No adapter for the network is needed.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

from firmware_model.arrays import Tokens
from firmware_model.calibration.plan import ModelPlan
from firmware_model.capture import Capture
from firmware_model.choices import INTEGER
from firmware_model.models.pipeline import Attention, AttentionCall
from firmware_model.models.replacement import PlannedAttention, call_capture
from firmware_model.reference.methods import Method
from paro.config.errors import ParoError

__all__ = ["Watched", "check_plain", "planned", "replaced", "watch"]

_SDPA = torch.nn.functional.scaled_dot_product_attention
#: Arguments of it, in order.
_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


@dataclass
class Watched:
    """Attention that a network computed within a context.

    Parameters
    ----------
    captures : list of Capture
        Of `watch`: one for each attention over its tokens, of a batch the first item.
    calls : int
        Attentions over the tokens.
    others : list of int
        Key tokens of the attentions over other tokens, which are left alone.
    """

    captures: list[Capture] = field(default_factory=list)
    calls: int = 0
    others: list[int] = field(default_factory=list)

    def check(self, tokens: Tokens) -> None:
        """Raise ParoError if no attention of these tokens was seen."""
        if not self.calls:
            seen = ", ".join(map(str, sorted(set(self.others)))) or "none"
            raise ParoError(
                f"no attention over {tokens.count} tokens was computed (tokens seen: {seen}); "
                "legal: a network that calls scaled_dot_product_attention on prefix, grid and "
                "suffix"
            )


class _Layers:
    """Numbers layers in the order of their first attention, and counts passes.

    A module that no other one called (or the one network that is given) computes the same layers
    each time it is called.
    """

    def __init__(self, network: torch.nn.Module | None) -> None:
        self._network = network
        self._depth = 0
        self._running: torch.nn.Module | None = None
        #: Layers since the running module was called.
        self._within = 0
        #: Of each module that was called: its first layer, its layers, its calls with attention.
        self._first: dict[torch.nn.Module | None, int] = {}
        self._count: dict[torch.nn.Module | None, int] = {}
        self._passes: dict[torch.nn.Module | None, int] = {}
        self._layers = 0

    def watch(self, stack: ExitStack) -> None:
        """Follow calls of modules; ``stack`` ends it."""
        if self._network is None:
            before = register_module_forward_pre_hook(self._enter)
            after = register_module_forward_hook(self._leave, always_call=True)
        else:
            before = self._network.register_forward_pre_hook(self._enter)
            after = self._network.register_forward_hook(self._leave, always_call=True)
        stack.callback(before.remove)
        stack.callback(after.remove)

    def _enter(self, module: torch.nn.Module, *_: Any) -> None:
        if self._depth == 0:
            self._running, self._within = module, 0
        self._depth += 1

    def _leave(self, *_: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._running = None

    @property
    def outside(self) -> bool:
        """Whether a network is given, and does not run."""
        return self._network is not None and self._running is None

    def next(self) -> tuple[int, int]:
        """Layer and pass of the attention that comes now."""
        module = self._running
        if module not in self._first:
            self._first[module], self._passes[module] = self._layers, 0
        elif module is not None and self._within == 0:
            self._passes[module] += 1
        if module is None:  # functions alone: one layer after another
            layer = self._layers
        else:
            layer = self._first[module] + self._within
            if self._passes[module] and self._within == self._count[module]:
                raise ParoError(
                    f"a call of {type(module).__name__} computes more attention than its first, "
                    f"which had {self._count[module]} layers; legal: as many each time, or "
                    "`network`, the module whose call is one pass"
                )
        self._within += 1
        self._count[module] = max(self._count.get(module, 0), self._within)
        self._layers = max(self._layers, layer + 1)
        return layer, self._passes[module]


class _Mode(TorchFunctionMode):
    """Passes attention over some tokens to another one, and everything else on."""

    def __init__(
        self, tokens: Tokens, attention: Attention, layers: _Layers, steps: int, watched: Watched
    ) -> None:
        super().__init__()
        self._tokens, self._attention, self._layers = tokens, attention, layers
        self._steps, self._watched = steps, watched

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
        same = q.shape[-2] == k.shape[-2] == self._tokens.count
        if not same or self._layers.outside:
            self._watched.others.append(k.shape[-2])
            return _SDPA(*args, **kwargs)
        check_plain(given.get("attn_mask"), given.get("dropout_p"), given.get("is_causal"))
        if len({tensor.shape[-1] for tensor in (q, k, v)}) > 1:
            raise ParoError("Q, K and V of the network have different channels; legal: the same")
        scale = given.get("scale")
        shape = q.shape
        q, k, v = (_four_dimensions(tensor) for tensor in (q, k, v))
        if k.shape[1] != q.shape[1]:  # grouped queries: each head of K and V serves several of Q
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        scale = 1 / math.sqrt(shape[-1]) if scale is None else float(scale)
        layer, passed = self._layers.next()
        self._watched.calls += 1
        output = self._attention(AttentionCall(layer, passed % self._steps, q, k, v, scale))
        return output.reshape(shape)


def check_plain(
    attn_mask: object = None, dropout_p: object = None, is_causal: object = None
) -> None:
    """Raise ParoError unless arguments of an attention ask for softmax over all tokens, alone."""
    for value, what in (
        (attn_mask, "a mask"),
        (is_causal, "a causal mask"),
        (dropout_p, "dropout"),
    ):
        if value is not None and not (isinstance(value, (bool, int, float)) and not value):
            raise ParoError(f"the network's attention has {what}; legal: attention without")


def _four_dimensions(tensor: torch.Tensor) -> torch.Tensor:
    """Return [batch, heads, tokens, channels]."""
    if tensor.ndim < 3:
        raise ParoError(
            f"attention on {tensor.ndim} dimensions; legal: 3 or more, heads third last"
        )
    return tensor.reshape(-1, *tensor.shape[-3:])


@contextmanager
def replaced(
    attention: Attention,
    tokens: Tokens,
    network: torch.nn.Module | None = None,
    steps: int = 1,
    watched: Watched | None = None,
) -> Iterator[Watched]:
    """Have another attention compute every attention over these tokens.

    Parameters
    ----------
    attention : Attention
        Called for each of them.
    tokens : Tokens
        What the network's tokens are.
    network : torch.nn.Module, optional
        Whose calls are the passes, and whose attention alone is meant; by default every module that
        no other module calls. Layers are numbered in the order of their first attention, and the
        same in each pass.
    steps : int
        Passes of one run, such as denoising steps: the n-th is at n / steps of the run, and then
        another run begins.
    watched : Watched, optional
        Counts what is computed.

    Raises
    ------
    ParoError
        At the end, if no such attention was computed; at once, if one has a mask or dropout, a pass
        more layers than the first, or ``steps`` is not legal.
    """
    if steps < 1:
        raise ParoError(f"steps = {steps} is not legal; legal: 1 or more")
    watched = Watched() if watched is None else watched
    layers = _Layers(network)
    # PyTorch's own module has a way around, which is closed.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as stack:
            layers.watch(stack)
            stack.enter_context(_Mode(tokens, attention, layers, steps, watched))
            yield watched
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    watched.check(tokens)


@contextmanager
def watch(
    tokens: Tokens,
    model: str = "",
    *,
    network: torch.nn.Module | None = None,
    steps: int = 1,
) -> Iterator[Watched]:
    """Keep Q, K and V of every attention over these tokens.

    Parameters
    ----------
    tokens, network, steps
        As of `replaced`. Captures of several passes at one share of the steps are averaged by a
        calibration.
    model : str
        Tells the network's weights apart from others'.

    Raises
    ------
    ParoError
        As `replaced`.
    """
    watched = Watched()

    def keep(call: AttentionCall) -> torch.Tensor:
        capture = call_capture(call, 0, tokens, steps, model)
        copies = {name: getattr(capture, name).clone() for name in "qkv"}
        watched.captures.append(replace(capture, **copies))
        # Within a mode's own function it is not active.
        return _SDPA(call.q, call.k, call.v, scale=call.scale)

    with replaced(keep, tokens, network, steps, watched):
        yield watched


@contextmanager
def planned(
    plan: ModelPlan,
    tokens: Tokens | None = None,
    method: str = INTEGER,
    *,
    network: torch.nn.Module | None = None,
    steps: int = 1,
) -> Iterator[Watched]:
    """Compute every attention over some tokens as a plan says.

    Parameters
    ----------
    plan : ModelPlan
        With every layer.
    tokens : Tokens, optional
        What the network's tokens are; by default those of the plan.
    method : str
        ``integer``, the bit-exact model, or another of `firmware_model.choices.METHODS`.
    network, steps
        As of `replaced`.

    Raises
    ------
    ParoError
        If the plan lacks a layer, or as `replaced`.
    """
    tokens = tokens or plan.tokens
    attention = PlannedAttention(plan, tokens, steps, Method(method))
    with replaced(attention, tokens, network, steps) as watched:
        yield watched
