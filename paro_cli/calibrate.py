"""`paro calibrate`: token order and block widths of each head of a capture."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from paro_cli.console import progress_bar, stdout
from paro_cli.options import AVG_BITS_DEFAULT, CaptureArgument, HeadsOption, parse_heads


def calibrate(
    capture: CaptureArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PLAN", help="plan to write (safetensors)")
    ],
    avg_bits: Annotated[
        float, typer.Option("--avg-bits", metavar="BITS", help="mean width of a block, up to 8")
    ] = AVG_BITS_DEFAULT,
    block: Annotated[
        int, typer.Option("--block", metavar="B", help="tokens on a side of a block: 16, 32, 64")
    ] = 64,
    heads: HeadsOption = None,
) -> None:
    """Choose the token order and the width of every block, for each head of a capture.

    The order is the best of six by PAROAttention's metric; the widths (0, 2, 4 or 8 bit) are those
    of least output error at the mean asked for, measured with the hardware's own formats.

    [bold]Examples[/bold]

      paro calibrate capture.safetensors -o plan.safetensors

      paro calibrate capture.safetensors -o plan.safetensors --avg-bits 3 --block 32 --heads 0,3
    """
    from firmware_model import calibrate as calibration
    from firmware_model.capture import load_capture
    from firmware_model.plan import density, mean_bits, save_plan
    from firmware_model.reorder import ORDERS

    source = load_capture(capture)
    chosen = parse_heads(heads, source.heads)
    with progress_bar("calibrate") as progress:
        plan = calibration.calibrate(source, chosen, avg_bits, block, progress)
    save_plan(plan, output)
    table = Table(title=f"plan {output}", title_justify="left")
    for column in ("head", "order", "mean bits", "density"):
        table.add_column(column, justify="right")
    for head in plan.heads:
        codes = plan.head_codes(head)
        order = ORDERS[plan.head_order(head)]
        table.add_row(str(head), order, f"{mean_bits(codes):.2f}", f"{density(codes):.2f}")
    stdout.print(table)
