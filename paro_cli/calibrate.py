"""`paro calibrate`: token order and block widths of each head of a model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from paro_cli.console import progress_bar, stdout
from paro_cli.options import CapturesArgument, HeadsOption, parse_heads
from paro_config import ParoError
from paro_config.formats import PAPER_BITS

#: Longest table of heads that is printed; a plan of more is summed up by layer.
_HEADS_SHOWN = 64


def calibrate(
    captures: CapturesArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="PLAN", help="plan to write; a folder for several models"
        ),
    ],
    avg_bits: Annotated[
        float, typer.Option("--avg-bits", metavar="BITS", help="mean width of a block, up to 8")
    ] = PAPER_BITS,
    density: Annotated[
        float | None,
        typer.Option("--density", metavar="SHARE", help="a mask in place of widths: live blocks"),
    ] = None,
    block: Annotated[
        int, typer.Option("--block", metavar="B", help="tokens on a side of a block: 16, 32, 64")
    ] = 64,
    heads: HeadsOption = None,
    per_head: Annotated[
        bool, typer.Option("--per-head", help="the same budget for each head; shared otherwise")
    ] = False,
    floor_bits: Annotated[
        float, typer.Option("--floor-bits", metavar="BITS", help="least mean width of a head")
    ] = 0.0,
    relative_to: Annotated[
        str,
        typer.Option(
            "--relative-to",
            metavar="WHAT",
            help="a head's errors count against its best (at 8 bits) or its signal; the latter "
            "keeps generated videos closest",
        ),
    ] = "best",
    order: Annotated[
        str,
        typer.Option(
            "--order",
            metavar="HOW",
            help="metric (PAROAttention's), error (least error; six times the work), or one for "
            "all heads: FHW (no reorder), FWH, HWF, HFW, WHF, WFH",
        ),
    ] = "metric",
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="whose errors are measured: digit (ours), digit-4, paper, linear",
        ),
    ] = "digit",
    step_groups: Annotated[
        int,
        typer.Option(
            "--step-groups",
            metavar="N",
            help="sets of codes: N - 1 for the first half of the steps, one for the second",
        ),
    ] = 1,
) -> None:
    """Choose the token order of every head and the width (0, 2, 4 or 8 bit) of every block.

    All heads share one budget: those that need little pay for those that need much. The error of a
    block at a width is measured with the hardware's own formats. Captures of one model (its layers,
    its times) make one plan; with captures of several models PLAN is a folder, with a plan for
    each.

    [bold]Examples[/bold]

      paro calibrate capture.safetensors -o plan.safetensors

      paro calibrate capture.safetensors -o plan.safetensors --avg-bits 3 --block 32 --heads 0,3

      paro calibrate captures/ -o plan.safetensors --step-groups 5 --relative-to signal

      paro calibrate one.safetensors other.safetensors -o plans/ --density 0.3 --order FHW
    """
    from firmware_model import calibrate as calibration
    from firmware_model.capture import load_captures
    from firmware_model.plan import save_plan

    goal = calibration.Goal(
        avg_bits=avg_bits,
        density=density,
        block=block,
        order=order,
        rounding=format_,  # type: ignore[arg-type]  # refused if not legal
        step_groups=calibration.step_group_starts(step_groups),
        per_head=per_head,
        floor_bits=floor_bits,
        relative_to=relative_to,  # type: ignore[arg-type]  # refused if not legal
    )
    sources = load_captures(captures)
    names = {}
    for source in sources:
        names.setdefault(source.model, source.name)
    if len(names) > 1 and output.suffix == ".safetensors":
        raise ParoError(
            f"the captures are of {len(names)} models, but {output} is a file; legal: a folder"
        )
    if len(set(names.values())) < len(names):
        raise ParoError("captures of different models have one name; give them names of their own")
    fewest = min(source.heads for source in sources)
    chosen = None if heads is None else parse_heads(heads, fewest)
    with progress_bar("calibrate") as progress:
        plans = calibration.calibrate(sources, goal, chosen, progress)
    for plan in plans:
        path = output if len(plans) == 1 else output / f"{names[plan.model]}.safetensors"
        save_plan(plan, path)
        stdout.print(_table(path, plan))


def _table(path: Path, plan) -> Table:
    from firmware_model.plan import density, mean_bits
    from firmware_model.reorder import ORDERS

    table = Table(
        title=f"plan {path}: {plan.mean_bits():.2f} bits, {plan.density():.0%} of the blocks live",
        title_justify="left",
    )
    single = len(plan.layers) * len(plan.heads) <= _HEADS_SHOWN
    for column in ("layer", "head" if single else "heads", "order", "mean bits", "density"):
        table.add_column(column, justify="right")
    for index, layer in enumerate(plan.layers):
        codes, orders = plan.codes[:, index], plan.orders[index]
        if not single:
            found = sorted({ORDERS[order] for order in orders.tolist()})
            table.add_row(
                str(layer),
                str(len(plan.heads)),
                " ".join(found),
                f"{mean_bits(codes):.2f}",
                f"{density(codes):.2f}",
            )
            continue
        for position, head in enumerate(plan.heads):
            table.add_row(
                str(layer),
                str(head),
                ORDERS[int(orders[position])],
                f"{mean_bits(codes[:, position]):.2f}",
                f"{density(codes[:, position]):.2f}",
            )
    return table
