"""Channel transforms of Q and K that change no logit, but what rounding loses.

A logit is a sum over channels, so an invertible map of Q's channels and its inverse transpose on K
leave it as it is. Both are applied on the host, before a head is quantised.
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
        q, k = _hadamard(q), _hadamard(k)
    return q, k


def _hadamard(x: torch.Tensor) -> torch.Tensor:
    """Orthonormal Walsh-Hadamard transform of the last dimension, a power of two."""
    channels, half = x.shape[-1], 1
    while half < channels:
        upper, lower = x.unflatten(-1, (-1, 2, half)).unbind(-2)
        x = torch.stack([upper + lower, upper - lower], dim=-2).flatten(-3)
        half *= 2
    return x / channels**0.5
