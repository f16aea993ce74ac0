"""`paro calibrate --sweep`: plans of several mean widths, and one table of what they cost."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from firmware_model.calibration.calibrate import Calibrated, calibrate_models
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.plan import save_plan
from firmware_model.capture import CaptureFile
from firmware_model.quality.metrics import finite, finite_mean
from paro.cli.console import header_table, progress_bar, stdout
from paro.config.files import write_json
from sim.estimate.block_study import LATENCY, plan_cost, uniform_cost

__all__ = ["sweep_widths"]

#: Array whose cycles are told.
_ROWS = _COLS = 8


def sweep_widths(
    captures: Sequence[CaptureFile],
    goal: Goal,
    widths: Sequence[float],
    heads: Sequence[int] | None,
    output: Path,
    names: dict[str, str],
) -> None:
    """Calibrate at each mean width, then write all plans and ``sweep.json``, and print the table.

    Parameters
    ----------
    captures : sequence of CaptureFile
    goal : Goal
        All but the width.
    widths : sequence of float
    heads : sequence of int, optional
        Heads of every layer; all by default.
    output : Path
        Folder.
    names : dict
        Name of each model's plan; of one model alone plans are named by their widths.
    """
    found: list[list[Calibrated]] = []
    with progress_bar("sweep") as progress:
        for index, width in enumerate(widths):

            def advance(done: int, total: int, before: int = index) -> None:
                progress(before * total + done, len(widths) * total)

            own = replace(goal, avg_bits=width)
            found.append(calibrate_models(captures, [], own, heads, None, advance))
    eight = uniform_cost(captures, [result.plan for result in found[0]], _ROWS, _COLS).cycles
    rows = []
    for width, results in zip(widths, found, strict=True):
        plans = [result.plan for result in results]
        paths = {plan.model: _path(output, width, names, plan.model) for plan in plans}
        cycles = plan_cost(captures, plans, _ROWS, _COLS).cycles
        rows.append(
            {"avg_bits": width, **_quality(results), "cycles": cycles}
            | {"relative_cycles": round(cycles / eight, 6)}
            | {"plans": [str(path.relative_to(output)) for path in paths.values()]}
        )
        for plan in plans:
            save_plan(plan, paths[plan.model])
    report = {
        "captures": [capture.name for capture in captures],
        "block": goal.block,
        "array": f"{_ROWS} x {_COLS}",
        "memory_latency": LATENCY,
        "cycles_at_8_bits": eight,
        "rows": rows,
    }
    write_json(output / "sweep.json", report)
    _show(output, rows)


def _path(output: Path, width: float, names: dict[str, str], model: str) -> Path:
    stem = f"bits_{width:g}"
    if len(names) == 1:
        return output / f"{stem}.safetensors"
    return output / stem / f"{names[model]}.safetensors"


def _quality(results: Sequence[Calibrated]) -> dict[str, Any]:
    """Widths, live blocks and quality of all heads of some plans."""
    heads = [head for result in results for head in result.heads]
    worst = min(heads, key=lambda head: head.snr_db)
    return {
        "mean_bits": round(sum(head.mean_bits for head in heads) / len(heads), 6),
        "density": round(sum(head.density for head in heads) / len(heads), 6),
        "mean_snr_db": finite_mean(head.snr_db for head in heads),
        "worst_snr_db": finite(worst.snr_db),
        "worst_layer": worst.layer,
        "worst_head": worst.head,
        "left_out": [sentence for result in results for sentence in result.left_out],
    }


def _show(output: Path, rows: Sequence[dict[str, Any]]) -> None:
    table = header_table(
        f"sweep {output}",
        ("asked", "bits", "mean dB", "worst dB", "of head", "live blocks", "cycles"),
        caption=f"cycles of an {_ROWS} x {_COLS} core, of those at 8 bits in every block",
    )
    for row in rows:
        decibels = [row["mean_snr_db"], row["worst_snr_db"]]
        table.add_row(
            f"{row['avg_bits']:g}",
            f"{row['mean_bits']:.2f}",
            *("inf" if value is None else f"{value:.1f}" for value in decibels),
            f"{row['worst_head']} of layer {row['worst_layer']}",
            f"{row['density']:.0%}",
            f"{row['relative_cycles']:.3f}",
        )
    stdout.print(table)
