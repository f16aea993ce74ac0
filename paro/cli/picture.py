"""`paro picture`: drawings of heads before and after calibration."""

from pathlib import Path
from typing import Annotated

import typer

from paro.cli.console import progress_bar, stdout
from paro.cli.options import (
    CaptureArgument,
    HeadsOption,
    OutputDirectory,
    check_captures,
    check_plan,
    parse_heads,
)


def picture(
    capture: CaptureArgument,
    plan: Annotated[
        Path, typer.Option("--plan", metavar="PLAN", help="plan that `paro calibrate` wrote")
    ],
    output: OutputDirectory,
    heads: HeadsOption = None,
) -> None:
    """Draw the attention map of each head before and after the reorder, and its bit map.

    Writes DIR/head_N.png. Without --heads, all heads of the plan.

    [bold]Examples[/bold]

      paro picture capture.safetensors --plan plan.safetensors --heads 3 -o pictures
    """
    check_captures([capture])
    check_plan(plan)

    from firmware_model.capture import load_capture
    from paro.cli.drawing import draw_head
    from paro.cli.inputs import find_plans

    source = load_capture(capture)
    (loaded,) = find_plans(plan, [source])
    chosen = list(loaded.heads) if heads is None else parse_heads(heads, source.heads)
    with progress_bar("draw") as progress:
        for done, head in enumerate(chosen):
            path = output / f"head_{head}.png"
            draw_head(source, loaded, head, path)
            progress(done + 1, len(chosen))
            stdout.print(f"drawn: {path}", highlight=False)
