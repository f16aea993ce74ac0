"""The six token orders of PAROAttention: axis orders of the token grid."""

import numpy as np

from firmware_model.choices import ORDERS


def token_permutation(
    grid: tuple[int, int, int], prefix_tokens: int, order: int, suffix_tokens: int = 0
) -> np.ndarray:
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
    np.ndarray
        int64 [tokens]: ``x[permutation]`` is ``x`` in the order.
    """
    axes = ["FHW".index(axis) for axis in ORDERS[order]]
    frames, height, width = grid
    positions = np.arange(frames * height * width).reshape(grid).transpose(axes).ravel()
    suffix = np.arange(suffix_tokens) + prefix_tokens + len(positions)
    return np.concatenate([prefix_tokens + positions, np.arange(prefix_tokens), suffix])
