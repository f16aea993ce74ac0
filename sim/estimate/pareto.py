"""The points of a sweep that are worth building: those that no other point beats."""

from collections.abc import Sequence
from typing import Any

__all__ = ["mark_best", "pareto", "without_equals"]


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Flag the points that no other beats: lower in one coordinate and not higher in the other."""
    best = [False] * len(points)
    lowest = float("inf")
    previous: tuple[float, float] | None = None
    for index in sorted(range(len(points)), key=lambda index: points[index]):
        if points[index][1] < lowest:
            lowest = points[index][1]
            previous = points[index]
            best[index] = True
        else:
            # Equal points do not beat each other.
            best[index] = points[index] == previous
    return best


def mark_best(points: Sequence[dict[str, Any]]) -> None:
    """Set the fields ``pareto_time_luts`` and ``pareto_quality_time`` of the points of a sweep.

    A point without a measured quality is never best in quality.
    """
    luts = pareto([(point["luts"], point["sample_seconds"]) for point in points])
    for point, best in zip(points, luts, strict=True):
        point |= {"pareto_time_luts": best, "pareto_quality_time": False}
    scored = [point for point in points if point["mean_snr_db"] is not None]
    quality = pareto([(point["sample_seconds"], -point["mean_snr_db"]) for point in scored])
    for point, best in zip(scored, quality, strict=True):
        point["pareto_quality_time"] = best


def without_equals(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of points with equal LUTs, time and quality keep the one with the least bandwidth."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for point in sorted(points, key=lambda point: point["bandwidth_gbs"]):
        same = (point["luts"], point["sample_seconds"], point["mean_snr_db"])
        kept.setdefault(same, point)
    return list(kept.values())
