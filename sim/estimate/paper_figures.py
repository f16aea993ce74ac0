"""Figures of the papers that follow from shapes and widths alone, made again.

The convention of the end-to-end figures: an accelerator has the INT8 peak of the A100, which is
twice its FP16 peak, and reaches the same share of it as the A100 does. So the A100's FP16 time is
cut into attention and the rest, both halve at 8 bits, and each product of attention shrinks with
the width that it is computed at.
"""

from dataclasses import dataclass

from paro.config.formats import PAPER_BITS
from sim.estimate.workloads import Workload, load_workload

__all__ = ["Checkpoint", "checkpoints", "peak_speedup"]

#: Time of the papers' reorder, a share of the FP16 time or of the own time.
_REORDER = 0.01
#: Gigabytes of the papers' attention map are of 2^30 bytes.
_GIGABYTE = 2**30


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A published figure, and the same by this model.

    Parameters
    ----------
    figure : str
        Name of the figure.
    low, high : float
        Bounds of the published figure.
    found : tuple of float
        Lowest and highest of its readings.
    """

    figure: str
    low: float
    high: float
    found: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Whether all readings, rounded as the figure is, lie there."""
        return all(self.low <= round(value, 2) <= self.high for value in self.found)


def peak_speedup(
    share: float, attention: float, linear: float = 1.0, reorder: float = 0.0
) -> float:
    """Speed-up over the A100 in FP16 at its INT8 peak, under the convention.

    Parameters
    ----------
    share : float
        Share of attention in the FP16 time.
    attention, linear : float
        Times relative to all multipliers busy with 8-bit operands.
    reorder : float
        Time of the reorder, in parts of the FP16 time.
    """
    return 1 / (share / 2 * attention + (1 - share) / 2 * linear + reorder)


def _readings(workload: Workload, attention: float) -> tuple[float, float]:
    """Speed-up with a reorder of 1 % of the FP16 time, of the own time, or none."""
    share = workload.fp16_attention_share or 0
    none = peak_speedup(share, attention)
    of_own = none / (1 + _REORDER)
    of_fp16 = peak_speedup(share, attention, reorder=_REORDER)
    return min(none, of_own, of_fp16), max(none, of_own, of_fp16)


def checkpoints() -> list[Checkpoint]:
    """Every checkpoint, of CogVideoX-5B."""
    video = load_workload("cogvideox-5b")
    maps = video.map_bytes / _GIGABYTE
    width = PAPER_BITS / 8
    return [
        Checkpoint(
            figure="attention maps of one layer, FP16, both guidance passes, GB of 2^30",
            low=56.50,
            high=56.50,
            found=(maps, maps),
        ),
        Checkpoint(
            figure=f"end to end over A100 at its INT8 peak, PV alone at {PAPER_BITS} bit",
            low=2.26,
            high=2.31,
            found=_readings(video, (1 + width) / 2),
        ),
        Checkpoint(
            figure=f"end to end over A100 at its INT8 peak, QK and PV at {PAPER_BITS} bit",
            low=2.67,
            high=2.75,
            found=_readings(video, width),
        ),
    ]
