"""How close an output is to the reference. All take tensors of one shape, any float type."""

import math

import torch


def snr_db(output: torch.Tensor, reference: torch.Tensor) -> float:
    """Signal-to-noise ratio in dB; infinite if the two are equal."""
    reference = reference.double()
    noise = (output.double() - reference).square().sum().item()
    signal = reference.square().sum().item()
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def cosine(output: torch.Tensor, reference: torch.Tensor) -> float:
    """Cosine of the angle between the two, taken as vectors; 1 if both are zero."""
    output, reference = output.double().flatten(), reference.double().flatten()
    norms = (output.norm() * reference.norm()).item()
    if norms == 0:
        return float(torch.equal(output, reference))
    return (output @ reference).item() / norms


def relative_l1(output: torch.Tensor, reference: torch.Tensor) -> float:
    """Sum of absolute errors over the sum of absolute reference values."""
    reference = reference.double()
    error = (output.double() - reference).abs().sum().item()
    size = reference.abs().sum().item()
    if error == 0:
        return 0.0
    return error / size if size else math.inf


def rmse(output: torch.Tensor, reference: torch.Tensor) -> float:
    """Root of the mean squared error."""
    return (output.double() - reference.double()).square().mean().sqrt().item()
