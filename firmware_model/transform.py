"""Channel transforms that change no product, but what rounding loses.

A logit is a sum over channels, so an invertible map of Q's channels and its inverse transpose on K
leave it as it is. Both are applied on the host, before a head is quantised. Likewise a rotation of
a layer's inputs and of its weights leaves the outputs as they are.
"""

import torch

from firmware_model.choices import TRANSFORMS


def transform_channels(
    q: torch.Tensor, k: torch.Tensor, transform: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply a transform to one head.

    "balance" multiplies each channel of K, and divides it in Q, so that the largest magnitudes of
    both are equal there. "rotate" is a Hadamard rotation over the channels, which spreads what one
    channel holds over all. "balance-rotate" is one after the other. Sums are taken in a fixed
    sequence: the same input gives the same bits everywhere.

    Parameters
    ----------
    q, k : torch.Tensor
        float64 [tokens, channels], channels a power of two (zero-padded); K smoothed.
    transform : int
        Index in `choices.TRANSFORMS`.

    Returns
    -------
    q, k : torch.Tensor
        float64 [tokens, channels].
    """
    steps = TRANSFORMS[transform].split("-")
    if "balance" in steps:
        q_max, k_max = q.abs().amax(dim=0), k.abs().amax(dim=0)
        used = (q_max > 0) & (k_max > 0)
        factor = torch.where(used, (q_max / k_max).sqrt(), 1.0)
        q, k = q / factor, k * factor
    if "rotate" in steps:
        q, k = hadamard(q), hadamard(k)
    return q, k


def rotate_groups(x: torch.Tensor, group: int) -> torch.Tensor:
    """Rotate each ``group`` neighbouring channels of x [..., channels] by `hadamard`.

    ``group`` is a power of two that divides the channels; 1 changes nothing.
    """
    return x if group == 1 else hadamard(x.unflatten(-1, (-1, group))).flatten(-2)


def hadamard(x: torch.Tensor) -> torch.Tensor:
    """Orthonormal Walsh-Hadamard transform of the last dimension, a power of two."""
    channels, half = x.shape[-1], 1
    while half < channels:
        upper, lower = x.unflatten(-1, (-1, 2, half)).unbind(-2)
        x = torch.stack([upper + lower, upper - lower], dim=-2).flatten(-3)
        half *= 2
    return x / channels**0.5
