"""Put another attention in place of the library's."""

import math
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from firmware_model.pipeline import Attention, AttentionCall, ModelShape
from firmware_model.progress import Progress
from paro_config.errors import ParoError


class Clock:
    """Counts the denoising steps of a run and holds them against what was announced.

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
        """Tell that a step is done; arguments are ignored, for use as a hook."""
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
        Attention of the model; a product over another number of tokens is left alone.
    attention : Attention
        Computes the products.
    clock : Clock
        Tells the step.
    """

    def __init__(self, shape: ModelShape, attention: Attention, clock: Clock) -> None:
        super().__init__()
        self._tokens = shape.tokens
        self._attention = attention
        self._clock = clock
        self._layer: int | None = None
        self._replaced = 0

    def watch(self, layers: list[torch.nn.Module], stack: ExitStack) -> None:
        """Learn which layer is running; ``stack`` ends it."""
        # Hooks, not other processors: the library looks at the signature of a processor and drops
        # the arguments (the rotation among them) that a wrapper does not name.
        for index, layer in enumerate(layers):
            stack.callback(layer.register_forward_pre_hook(partial(self._enter, index)).remove)
            stack.callback(layer.register_forward_hook(self._leave).remove)

    def _enter(self, layer: int, *_: Any) -> None:
        self._clock.check(finished=False)
        self._layer = layer
        self._replaced = 0

    def _leave(self, *_: Any) -> None:
        if self._replaced != 1:
            raise ParoError(
                f"attention layer {self._layer} computes {self._replaced} products over "
                f"{self._tokens} tokens; legal: 1, as the pipelines of diffusers 0.42 do"
            )
        self._layer = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._layer is not None and func is scaled_dot_product_attention:
            call = self._call(self._layer, *args, **kwargs)
            if call is not None:
                self._replaced += 1
                return self._attention(call)
        return func(*args, **kwargs)

    def _call(
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
    ) -> AttentionCall | None:
        """What `torch.nn.functional.scaled_dot_product_attention` is asked for."""
        if query.shape[-2] != self._tokens or key.shape[-2] != self._tokens:
            return None
        if is_causal or dropout_p or query.shape != key.shape:
            raise ParoError(
                f"attention layer {layer} is causal, drops out or shares keys between heads; "
                "legal: plain softmax attention"
            )
        if attn_mask is not None and not _hides_nothing(attn_mask):
            raise ParoError(f"attention layer {layer} hides tokens by a mask; legal: no mask")
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        return AttentionCall(layer, self._clock.step, query, key, value, factor)


def _hides_nothing(mask: torch.Tensor) -> bool:
    shown = mask if mask.dtype == torch.bool else mask == 0
    return bool(shown.all())
