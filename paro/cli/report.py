"""The report of an evaluation as one HTML file that stands alone."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from firmware_model.calibration.plan import Plan
from firmware_model.capture import Capture
from firmware_model.progress import Progress
from firmware_model.quality.evaluate import Evaluation
from firmware_model.quality.study import format_study
from paro.cli.drawing import figure_png, format_figure, head_figure
from paro.config.files import write_text
from paro.config.formats import PAPER_BITS

__all__ = ["write_report"]

#: Heads that are drawn, the worst first.
_HEADS_DRAWN = 6
#: Mean widths of the curve.
_WIDTHS = (2.0, 3.0, 4.0, 6.0)


def write_report(
    path: Path,
    captures: Sequence[Capture],
    plans: Sequence[Plan],
    evaluations: Sequence[Evaluation],
    summary: dict[str, Any],
    heads_studied: Sequence[int] | None,
    progress: Progress | None = None,
) -> None:
    """Write the report, whole or not at all.

    Parameters
    ----------
    path : Path
        HTML file.
    captures, plans, evaluations : sequence
        Inputs and results, one for one.
    summary : dict
        Figures over all heads.
    heads_studied : sequence of int or None
        Heads of every capture in the curve; all for ``None``.
    progress : Progress, optional
        Called while the quality at other widths is measured, by far the longest part.
    """
    heads = [
        (entry, result, capture, plan)
        for evaluation, capture, plan in zip(evaluations, captures, plans, strict=True)
        for entry, result in zip(evaluation.report["heads"], evaluation.results, strict=True)
    ]
    worst = sorted(heads, key=lambda head: head[1].snr_db)[:_HEADS_DRAWN]
    study = format_study(captures, _WIDTHS, plans[0].block, heads=heads_studied, progress=progress)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("paro.cli"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    text = environment.get_template("report.html").render(
        title=", ".join(capture.name for capture in captures),
        format=evaluations[0].report["format"],
        summary=summary,
        heads=[(capture.name, entry) for entry, _, capture, _ in heads],
        curve=_embedded(format_figure(study)),
        equal_bits=study["equal_bits"],
        paper_bits=PAPER_BITS,
        drawings=[
            (
                f"{capture.name}, head {entry['head']}: {result.snr_db:.1f} dB",
                _embedded(head_figure(capture, plan, entry["head"])),
            )
            for entry, result, capture, plan in worst
        ],
    )
    write_text(path, text)


def _embedded(figure: Figure) -> str:
    return base64.b64encode(figure_png(figure)).decode()
