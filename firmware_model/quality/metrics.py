"""How close an output is to the reference. All take tensors of one shape, any float type."""

import math
from collections.abc import Iterable

import torch


def finite(value: float) -> float | None:
    """Six significant digits of a figure for a report; ``None`` if it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def finite_mean(values: Iterable[float]) -> float | None:
    """Mean of the finite ones, as `finite`; ``None`` if there are none."""
    found = [value for value in values if math.isfinite(value)]
    return finite(sum(found) / len(found)) if found else None


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


def psnr_db(video: torch.Tensor, reference: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0 .. 1; infinite if the two are equal."""
    error = rmse(video, reference)
    return -20 * math.log10(error) if error else math.inf


def ssim(video: torch.Tensor, reference: torch.Tensor) -> float:
    """Structural similarity of pictures in 0 .. 1, [frames, height, width, colours].

    Wang et al. (2004) with a uniform window of 7 x 7 pixels, mean over windows, frames and colours.
    """
    first, second = (x.double().permute(0, 3, 1, 2) for x in (video, reference))

    def mean(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 7, stride=1)

    stable_mean, stable_variance = 0.01**2, 0.03**2
    mean_1, mean_2 = mean(first), mean(second)
    # Sample variances, as the 49 pixels of a window are a sample.
    unbiased = 49 / 48
    variance_1 = (mean(first * first) - mean_1**2) * unbiased
    variance_2 = (mean(second * second) - mean_2**2) * unbiased
    covariance = (mean(first * second) - mean_1 * mean_2) * unbiased
    similarity = (2 * mean_1 * mean_2 + stable_mean) * (2 * covariance + stable_variance)
    similarity /= (mean_1**2 + mean_2**2 + stable_mean) * (
        variance_1 + variance_2 + stable_variance
    )
    return similarity.mean().item()
