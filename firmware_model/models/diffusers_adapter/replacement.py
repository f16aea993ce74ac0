"""Put another attention in place of the library's."""

import math
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from firmware_model.models.pipeline import Attention, AttentionCall, ModelShape
from firmware_model.progress import Progress
from paro.config.errors import ParoError


class StepCounter:
    """Counts the denoising steps of a run and compares them with the number announced.

    Attributes
    ----------
    step : int
        The step that is running, from 0.
    """

    def __init__(self, steps: int, scheduler: str, progress: Progress | None) -> None:
        self.step = 0
        self._steps = steps
        self._scheduler = scheduler
        self._progress = progress

    def advance(self, *_: Any) -> None:
        """Count a step that is done; arguments are ignored, for use as a hook."""
        self.step += 1
        if self._progress is not None:
            self._progress(self.step, self._steps)

    def check(self, *, finished: bool) -> None:
        """Raise ParoError if the scheduler makes more steps or, ``finished``, fewer."""
        if self.step != self._steps if finished else self.step >= self._steps:
            raise ParoError(
                f"scheduler {self._scheduler} does not run the transformer in exactly "
                f"{self._steps} steps; legal: a scheduler of first order, such as DDIM, or "
                "another number of steps"
            )


class Replacement(TorchFunctionMode):
    """While active, hands the products of the attention layers to another attention.

    Parameters
    ----------
    shape : ModelShape
        Attention of the model; a product over other tokens is left alone, but for tokens after
        them that a mask hides from everything.
    attention : Attention
        Computes the products.
    counter : StepCounter
        Counts the steps.
    """

    def __init__(self, shape: ModelShape, attention: Attention, counter: StepCounter) -> None:
        super().__init__()
        self._tokens = shape.tokens
        self._attention = attention
        self._counter = counter
        self._layer: int | None = None
        self._items = self._replaced = 0

    def watch(self, layers: list[torch.nn.Module], stack: ExitStack) -> None:
        """Learn which layer is running; ``stack`` ends it."""
        # Hooks, not other processors: the library looks at the signature of a processor and drops
        # the arguments (the rotation among them) that a wrapper does not name.
        for index, layer in enumerate(layers):
            enter = partial(self._enter, index)
            stack.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(self._leave).remove)

    def _enter(
        self, layer: int, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._counter.check(finished=False)
        self._layer = layer
        self._items = len(args[0] if args else kwargs["hidden_states"])
        self._replaced = 0

    def _leave(self, *_: Any) -> None:
        if self._replaced != self._items:
            raise ParoError(
                f"attention layer {self._layer} computes {self._replaced} products over "
                f"{self._tokens} tokens; legal: {self._items}, one for each item of the batch, as "
                "the pipelines of diffusers 0.42 do"
            )
        self._layer = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._layer is not None and func is scaled_dot_product_attention:
            output = self._product(self._layer, *args, **kwargs)
            if output is not None:
                return output
        return func(*args, **kwargs)

    def _product(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor | None:
        """Result of `scaled_dot_product_attention`; None leaves the product to the library."""
        tokens = query.shape[-2]
        # Only a mask can take tokens off.
        if key.shape[-2] != tokens or tokens < self._tokens:
            return None
        if attn_mask is None and tokens != self._tokens:
            return None
        if is_causal or dropout_p or query.shape != key.shape:
            raise ParoError(
                f"attention layer {layer} is causal, drops out or shares keys between heads; "
                "legal: plain softmax attention"
            )
        if attn_mask is not None and not _shows_first(attn_mask, self._tokens, tokens):
            raise ParoError(
                f"attention layer {layer} hides tokens by a mask; legal: no mask, or one that "
                f"shows the first {self._tokens} tokens to each other and nothing else to them"
            )
        self._replaced += len(query)
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        q, k, v = (tensor[..., : self._tokens, :] for tensor in (query, key, value))
        last = self._replaced == self._items
        output = self._attention(AttentionCall(layer, self._counter.step, q, k, v, factor, last))
        # Tokens that are hidden from everything may be anything.
        return pad(output, (0, 0, 0, tokens - self._tokens))


def _shows_first(mask: torch.Tensor, shown: int, tokens: int) -> bool:
    """Whether the first ``shown`` of some tokens see each other and no others."""
    visible = torch.atleast_2d(mask if mask.dtype == torch.bool else mask == 0)
    if visible.shape[-2] != 1:  # else one row stands for all, of which there are many
        visible = visible[..., :shown, :]
    visible = visible.expand(*visible.shape[:-1], tokens)
    return bool(visible[..., :shown].all()) and not bool(visible[..., shown:].any())
