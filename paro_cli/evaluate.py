"""`paro evaluate`: the integer model alone, whole heads."""

from pathlib import Path
from typing import Annotated

import typer

from paro_cli.console import progress_bar, stdout
from paro_cli.options import CaptureArgument, HeadsOption, OutputDirectory, parse_heads
from paro_cli.results import heads_table


def evaluate(
    capture: CaptureArgument,
    plan: Annotated[
        Path, typer.Option("--plan", metavar="PLAN", help="plan that `paro calibrate` wrote")
    ],
    output: OutputDirectory,
    heads: HeadsOption = None,
) -> None:
    """Run the integer model on whole heads and score it against float64 attention.

    Writes DIR/report.json and DIR/outputs.safetensors, as `paro cosim` does. Without --heads, all
    heads of the plan.

    [bold]Examples[/bold]

      paro evaluate capture.safetensors --plan plan.safetensors -o evaluation

      paro evaluate capture.safetensors --plan plan.safetensors --heads 0,3 -o evaluation
    """
    from firmware_model import evaluate as evaluation
    from firmware_model.capture import load_capture
    from firmware_model.plan import load_plan
    from paro_cli.workload import model_config

    source = load_capture(capture)
    loaded = load_plan(plan, source)
    chosen = list(loaded.heads) if heads is None else parse_heads(heads, source.heads)
    config = model_config(source, loaded.block)
    with progress_bar("integer model") as progress:
        result = evaluation.evaluate(source, loaded, chosen, config, progress=progress)
    evaluation.write_outputs(output, result.results, result.report)
    stdout.print(heads_table(f"evaluation {output}", result.report))
