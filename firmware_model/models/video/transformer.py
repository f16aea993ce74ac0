"""The video transformer: 3D full attention with rotary positions, adaptive normalisation.

The attention product itself is a parameter, so that any attention of the project can take its
place.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from firmware_model.models.video.dataset import CLASSES, FRAMES, HEIGHT, WIDTH

#: Pixels on a side of a patch, one frame deep.
PATCH = 2
#: Token grid F, H, W.
GRID = (FRAMES, HEIGHT // PATCH, WIDTH // PATCH)
#: Number of tokens.
TOKENS = math.prod(GRID)
#: Class index that stands for "no class".
NO_CLASS = CLASSES

#: Attention of one layer: (layer, q, k, v) to the output, all float32
#: [videos, heads, tokens, head_dim]; the softmax scale is 1/sqrt(head_dim).
LayerAttention = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def plain_attention(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Softmax attention as torch computes it."""
    return nn.functional.scaled_dot_product_attention(q, k, v)


#: Computes all blocks: (tokens, modulation) to tokens, float32 [videos, tokens, width], see
#: `VideoTransformer.embed`.
Blocks = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Size of a `VideoTransformer`.

    Parameters
    ----------
    layers : int
        Transformer blocks.
    heads : int
        Attention heads of a block.
    head_dim : int
        Channels of a head, a multiple of 8.
    """

    layers: int = 4
    heads: int = 4
    head_dim: int = 32

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.heads * self.head_dim


class VideoTransformer(nn.Module):
    """Predicts the velocity of a noisy video, noise minus video.

    Parameters
    ----------
    shape : Shape
        Its size.
    """

    rotation: torch.Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.patches = nn.Linear(PATCH * PATCH, width)
        self.positions = nn.Parameter(torch.randn(TOKENS, width) * 0.02)
        self.classes = nn.Embedding(CLASSES + 1, width)
        self.noise = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.output = nn.Linear(width, PATCH * PATCH)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.register_buffer("rotation", rotary_angles(shape.head_dim), persistent=False)

    def forward(
        self,
        videos: torch.Tensor,
        noise_level: torch.Tensor,
        classes: torch.Tensor,
        attention: LayerAttention = plain_attention,
        blocks: Blocks | None = None,
    ) -> torch.Tensor:
        """Velocity of noisy videos.

        Parameters
        ----------
        videos : torch.Tensor
            [videos, FRAMES, HEIGHT, WIDTH], dtype of the weights.
        noise_level : torch.Tensor
            float32 [videos], 0 (clean) .. 1 (noise).
        classes : torch.Tensor
            int64 [videos], 0 .. 9 or `NO_CLASS`.
        attention : LayerAttention
            Attention of every layer.
        blocks : callable, optional
            Takes the place of all blocks, attention included.

        Returns
        -------
        torch.Tensor
            Shape and dtype of ``videos``.
        """
        tokens, modulation = self.embed(videos, noise_level, classes)
        if blocks is None:
            for layer, block in enumerate(self.blocks):
                tokens = block(tokens, modulation.unsqueeze(1), self.rotation, attention, layer)
        else:
            tokens = blocks(tokens, modulation).to(tokens)
        return _from_patches(self.output(self.norm(tokens)))

    def embed(
        self, videos: torch.Tensor, noise_level: torch.Tensor, classes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the blocks are given.

        Returns
        -------
        tokens : torch.Tensor
            [videos, TOKENS, width].
        modulation : torch.Tensor
            [videos, 6 * width]: condition that all blocks share.
        """
        tokens = self.patches(_to_patches(videos)) + self.positions
        conditions = self.noise(_noise_features(noise_level, self.shape.width).to(videos))
        return tokens, self.condition(conditions + self.classes(classes))


class Block(nn.Module):
    """Attention and a two-layer network, each scaled and gated by the condition."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self._heads = shape.heads
        # One condition serves all blocks; each adds its own offsets.
        self.offsets = nn.Parameter(torch.zeros(6 * width))
        with torch.no_grad():
            for gate in (2, 5):
                self.offsets.unflatten(0, (6, width))[gate] = 1
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(shape.head_dim)
        self.k_norm = nn.LayerNorm(shape.head_dim)
        self.projection = nn.Linear(width, width)
        self.network = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(
        self,
        tokens: torch.Tensor,
        modulation: torch.Tensor,
        rotation: torch.Tensor,
        attention: LayerAttention,
        layer: int,
    ) -> torch.Tensor:
        """Tokens after the block, [videos, tokens, width], as those before it."""
        parts = (modulation + self.offsets).chunk(6, dim=-1)
        shift, scale, gate, network_shift, network_scale, network_gate = parts
        normed = self.norm(tokens) * (1 + scale) + shift
        heads = self.qkv(normed).unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(self.q_norm(heads[0]), rotation), rotate(self.k_norm(heads[1]), rotation)
        mixed = attention(layer, q, k, heads[2]).transpose(1, 2).flatten(2)
        tokens = tokens + gate * self.projection(mixed)
        normed = self.norm(tokens) * (1 + network_scale) + network_shift
        return tokens + network_gate * self.network(normed)


def rotary_angles(head_dim: int) -> torch.Tensor:
    """Rotary position angles of every token: float32 [TOKENS, head_dim / 2].

    A quarter of the channel pairs turns with the frame, the rest half and half with row and column.
    """
    frame_pairs = head_dim // 8
    side_pairs = (head_dim // 2 - frame_pairs) // 2
    axes = torch.meshgrid(*(torch.arange(size).float() for size in GRID), indexing="ij")
    pairs = (frame_pairs, side_pairs, side_pairs)
    angles = [
        axis.flatten().unsqueeze(1) * 100 ** -(torch.arange(count) / count)
        for axis, count in zip(axes, pairs, strict=True)
    ]
    return torch.cat(angles, dim=1)


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn the channel pairs (i, i + head_dim / 2) of x [..., tokens, head_dim] by ``angles``."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def _to_patches(videos: torch.Tensor) -> torch.Tensor:
    """[videos, F, H, W] pixels to [videos, TOKENS, PATCH * PATCH], W fastest."""
    cut = videos.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
    return cut.transpose(3, 4).flatten(4).flatten(1, 3)


def _from_patches(patches: torch.Tensor) -> torch.Tensor:
    """Inverse of `_to_patches`."""
    cut = patches.unflatten(2, (PATCH, PATCH)).unflatten(1, GRID)
    return cut.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _noise_features(noise_level: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines of a noise level: float32 [videos, width]."""
    frequencies = torch.exp(torch.linspace(0, math.log(1000), width // 2)).to(noise_level.device)
    angles = noise_level.unsqueeze(1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)
