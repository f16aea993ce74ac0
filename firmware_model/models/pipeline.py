"""The interface of a generating model, whose attention and layers can be watched or replaced.

The project's own video transformer (`firmware_model.models.video`) and pipelines of the diffusers
library (`firmware_model.models.diffusers_adapter`) both are a `Pipeline`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from firmware_model.arrays import Tokens
from firmware_model.progress import Progress


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One self-attention of a running model.

    Parameters
    ----------
    layer : int
        Which attention layer, in the order of execution, from 0.
    step : int
        Which denoising step, from 0.
    q, k, v : torch.Tensor
        [batch, heads, tokens, head_dim], any float type, after positional rotation. The tokens are
        prefix, grid (F, H, W, W fastest) and suffix, as in `ModelShape`.
    scale : float
        Factor of the logits before softmax.
    last : bool
        Whether the last item is the last of the model's batch: some models compute each item of a
        batch by a call of its own.
    """

    layer: int
    step: int
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float
    last: bool = True


#: Computes an attention: returns [batch, heads, tokens, head_dim], dtype of ``q``.
Attention = Callable[[AttentionCall], torch.Tensor]


@dataclass(frozen=True, eq=False)
class LinearCall:
    """One linear layer of a running model, applied to its tokens.

    Parameters
    ----------
    name : str
        Name of the layer in the model.
    step : int
        Which denoising step, from 0.
    x : torch.Tensor
        [..., tokens, inputs], two tokens or more, any float type.
    layer : torch.nn.Linear
        Its weights, and what it computes.
    """

    name: str
    step: int
    x: torch.Tensor
    layer: torch.nn.Linear


#: Computes a linear layer: returns [..., tokens, outputs], dtype of ``x``.
Linear = Callable[[LinearCall], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Attention of a model, as far as plans depend on it.

    Parameters
    ----------
    layers, heads, head_dim : int
        Self-attention layers over all tokens, heads of each, channels of a head.
    grid : (int, int, int)
        Frames, height, width of the token grid.
    prefix_tokens, suffix_tokens : int
        Text or class tokens before and after the grid.
    steps : int
        Denoising steps of a run.
    """

    layers: int
    heads: int
    head_dim: int
    grid: tuple[int, int, int]
    prefix_tokens: int = 0
    suffix_tokens: int = 0
    steps: int

    @property
    def tokens(self) -> int:
        """Number of tokens in all."""
        return self.layout.count

    @property
    def layout(self) -> Tokens:
        """What the tokens are."""
        return Tokens(self.grid, self.prefix_tokens, self.suffix_tokens)


class Pipeline(Protocol):
    """A model that generates videos or images.

    Attributes
    ----------
    identity : str
        Digest of the model's weights, hexadecimal, which plans refer to.
    shape : ModelShape
        Its attention.
    linears : Mapping
        Name to linear layer, of all within its transformer blocks.
    """

    identity: str
    shape: ModelShape
    linears: Mapping[str, torch.nn.Linear]

    def generate(
        self,
        sample: int,
        attention: Attention | None = None,
        progress: Progress | None = None,
        linear: Linear | None = None,
    ) -> torch.Tensor:
        """Generate one video or image.

        Parameters
        ----------
        sample : int
            Which one: the seed of its noise (and the choice of its class or prompt).
        attention : Attention, optional
            Takes the place of every self-attention over all tokens; by default the model's own.
        progress : Progress, optional
            Called after each denoising step.
        linear : Linear, optional
            Takes the place of every layer of ``linears`` that is applied to tokens (and not to one
            vector, as those that scale and shift by the noise level); by default the layer itself.

        Returns
        -------
        torch.Tensor
            float32 [frames, height, width, colours], 0 .. 1; one frame for an image.
        """
        ...


def float_linear(call: LinearCall) -> torch.Tensor:
    """A layer as torch computes it."""
    return torch.nn.functional.linear(call.x, call.layer.weight, call.layer.bias)


def float_attention(call: AttentionCall) -> torch.Tensor:
    """Softmax attention as torch computes it."""
    return torch.nn.functional.scaled_dot_product_attention(
        call.q, call.k, call.v, scale=call.scale
    )


@contextmanager
def replaced_linears(
    linears: Mapping[str, torch.nn.Linear], linear: Linear | None, step: Callable[[], int]
) -> Iterator[None]:
    """For a while, have ``linear`` compute what layers do to tokens; ``step`` tells the step."""
    if linear is None:
        yield
        return

    def forward(name: str, layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        if x.dim() < 3 or x.shape[-2] == 1:
            return torch.nn.Linear.forward(layer, x)
        return linear(LinearCall(name, step(), x, layer))

    try:
        for name, layer in linears.items():
            vars(layer)["forward"] = partial(forward, name, layer)
        yield
    finally:
        for layer in linears.values():
            vars(layer).pop("forward", None)


def block_linears(blocks: torch.nn.Module, prefix: str) -> dict[str, torch.nn.Linear]:
    """Linear layers within some blocks, by name below ``prefix``, in their sequence."""
    return {
        f"{prefix}.{name}": module
        for name, module in blocks.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
