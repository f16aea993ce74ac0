"""The six token orders of PAROAttention: axis orders of the token grid."""

import torch

from firmware_model.choices import ORDERS


def token_permutation(
    grid: tuple[int, int, int], prefix_tokens: int, order: int, suffix_tokens: int = 0
) -> torch.Tensor:
    """Which token of the capture stands at each position of an order.

    Parameters
    ----------
    grid : (int, int, int)
        Frames, height, width.
    prefix_tokens : int
        Tokens before the grid. They come after it, in their own sequence.
    order : int
        Index in `choices.ORDERS`.
    suffix_tokens : int
        Tokens after the grid. They stay last, so that all text lies in the last blocks, and the
        blocks of the grid are the same whatever the length of the text.

    Returns
    -------
    torch.Tensor
        int64 [tokens]: ``x[permutation]`` is ``x`` in the order.
    """
    axes = ["FHW".index(axis) for axis in ORDERS[order]]
    frames, height, width = grid
    positions = torch.arange(frames * height * width).reshape(grid).permute(axes).reshape(-1)
    suffix = torch.arange(suffix_tokens) + prefix_tokens + len(positions)
    return torch.cat([prefix_tokens + positions, torch.arange(prefix_tokens), suffix])


def inverse_permutation(permutation: torch.Tensor) -> torch.Tensor:
    """Position in the order of each token of the capture; int64 [tokens]."""
    inverse = torch.empty_like(permutation)
    inverse[permutation] = torch.arange(len(permutation))
    return inverse
