"""Charts of estimates: machines side by side, and the points of a sweep."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["estimate_figure", "sweep_figures"]

_ATTENTION, _LINEAR, _EXPOSED = "#3182bd", "#bdbdbd", "#e6550d"


def estimate_figure(report: dict[str, Any]) -> Figure:
    """Seconds of a step on every machine, at equal resources, gates and at the A100's peak."""
    figure = Figure(figsize=(11, 11), layout="constrained")
    above, middle, below = figure.subplots(3, 1)
    machine = report["machine"]
    _bars(
        above,
        report["equal_resources"],
        f"{machine['macs']:,.0f} multipliers, {machine['clock_mhz']:g} MHz, "
        f"{machine['bandwidth_gbs']:g} GB/s for all",
    )
    gates = report["multipliers"]["paro"]["gates"]
    _bars(
        middle,
        report["equal_gates"],
        f"{machine['macs'] * gates:,.0f} gates of multipliers for all (of ours {gates:,} each)",
    )
    _bars(below, report["a100_peak"], "at the A100's INT8 peak, bandwidth and cache")
    above.legend(loc="lower right")
    assumed = any(found["assumed"] for found in report["ours"])
    note = "; plans assumed, not measured" if assumed else ""
    figure.suptitle(
        f"{report['model']['title']}, one denoising step, bits of attention / linear layers{note}"
    )
    return figure


def _bars(axes: Axes, rows: list[dict[str, Any]], title: str) -> None:
    places = np.arange(len(rows))
    ends = np.zeros(len(rows))
    for part, colour, label in (
        ("attention", _ATTENTION, "attention"),
        ("linear", _LINEAR, "linear layers"),
        ("exposed", _EXPOSED, "waits for vector steps"),
    ):
        seconds = np.array([row[f"{part}_seconds"] for row in rows])
        axes.barh(places, seconds, left=ends, color=colour, label=label, height=0.7)
        ends += seconds
    longest = ends.max()
    for place, row in enumerate(rows):
        text = f" {row['step_seconds']:.3g} s, {row['speedup']:.2f}x ours"
        axes.text(row["step_seconds"], place, text, va="center", fontsize=8)
    axes.set_yticks(places, [row["machine"] for row in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.2 * longest), xlabel="seconds of a step", title=title)


def sweep_figures(result: dict[str, Any]) -> dict[str, Figure]:
    """Time against LUTs and quality against time, with the points that none other beats."""
    points = result["points"]
    figures = {
        "time_luts": _pareto(
            points, "luts", "sample_seconds", "LUT4 + 2 CCU2C, all cores", "mean bits"
        )
    }
    scored = [point for point in points if point["mean_snr_db"] is not None]
    if scored:
        figures["quality_time"] = _pareto(
            scored, "sample_seconds", "mean_snr_db", "seconds of a sample", "mean bits"
        )
    labels = {"sample_seconds": "seconds of a sample", "mean_snr_db": "SNR of attention / dB"}
    for name, figure in figures.items():
        (axes,) = figure.axes[:1]
        axes.set(
            ylabel=labels["sample_seconds" if name == "time_luts" else "mean_snr_db"],
            title=f"{result['title']}: {len(points)} points",
        )
    return figures


def _pareto(points: list[dict[str, Any]], x: str, y: str, label: str, colour: str) -> Figure:
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    name = "pareto_time_luts" if x == "luts" else "pareto_quality_time"
    scatter = axes.scatter(
        [point[x] for point in points],
        [point[y] for point in points],
        c=[point["avg_bits"] for point in points],
        cmap="viridis",
        s=22,
    )
    best = sorted((point[x], point[y]) for point in points if point[name])
    axes.plot(*zip(*best, strict=True), "o-", color="#e6550d", markerfacecolor="none", markersize=9)
    axes.lines[-1].set_label("not beaten in both")
    axes.set(xlabel=label, xscale="log")
    if y == "sample_seconds":
        axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.colorbar(scatter, ax=axes, label=colour)
    return figure
