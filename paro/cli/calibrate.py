"""`paro calibrate`: order, transform and block widths of each head; widths of linear layers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from paro.cli.console import header_table, progress_bar, stdout, warn
from paro.cli.options import (
    CapturesArgument,
    HeadsOption,
    check_captures,
    parse_heads,
    parse_numbers,
    writable_file,
)
from paro.config import ParoError
from paro.config.config import HEAD_DIMS
from paro.config.formats import PAPER_BITS

if TYPE_CHECKING:
    from firmware_model.calibration.calibrate import Calibrated
    from firmware_model.calibration.goal import Goal
    from firmware_model.capture import CaptureFile
    from firmware_model.layer import LayerFile

#: Longest table of heads that is printed; a plan of more is summed up by layer.
_HEADS_SHOWN = 64
#: Heads and layers that lose much, named one by one.
_LOSERS_NAMED = 8
#: Share by which a mean may exceed the one asked for: the rounding of sums.
_MEAN_SLACK = 1e-4


def calibrate(
    captures: CapturesArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="PLAN",
            help="plan to write; a folder for several models, or with --sweep",
            callback=writable_file,
        ),
    ],
    avg_bits: Annotated[
        float, typer.Option("--avg-bits", metavar="BITS", help="mean width of a block, up to 8")
    ] = PAPER_BITS,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep",
            metavar="LIST",
            help="several widths, such as 2,2.64,3,4.8: a plan of each, and one table",
        ),
    ] = None,
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
            help="error (least error), metric (PAROAttention's), or one for all heads: FHW (no "
            "reorder), FWH, HWF, HFW, WHF, WFH",
        ),
    ] = "error",
    transform: Annotated[
        str,
        typer.Option(
            "--transform",
            metavar="HOW",
            help="of the channels of Q and K: error (least error), or one for all heads: none, "
            "balance, rotate, balance-rotate",
        ),
    ] = "error",
    text_bits: Annotated[
        int,
        typer.Option(
            "--text-bits", metavar="BITS", help="least width of blocks with text: 0, 2, 4, 8"
        ),
    ] = 0,
    max_loss: Annotated[
        float,
        typer.Option(
            "--max-loss",
            metavar="DB",
            help="warn of heads and layers that lose more against their 8 bits",
        ),
    ] = 4.0,
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
    weight_bits: Annotated[
        float | None,
        typer.Option(
            "--weight-bits",
            metavar="BITS",
            help="linear layers: mean width of a weight, 2 to 8, default 4",
        ),
    ] = None,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared", help="one budget in cycles for attention and linear layers: --avg-bits"
        ),
    ] = False,
    input_transform: Annotated[
        str,
        typer.Option(
            "--input-transform",
            metavar="HOW",
            help="of the inputs of linear layers: error (rotate where that pays), none",
        ),
    ] = "error",
    head_dim: Annotated[
        int | None,
        typer.Option(
            "--head-dim",
            metavar="D",
            help="inputs of a layer's tile: 32, 64, 128, 256; by default that of the heads, or 64",
        ),
    ] = None,
) -> None:
    """Choose the token order of every head and the width (0, 2, 4 or 8 bit) of every block.

    All heads share one budget: those that need little pay for those that need much. The error of a
    block at a width is measured with the hardware's own formats. Captures of one model (its layers,
    its times, prompts of any length) make one plan; with captures of several models PLAN is a
    folder, with a plan for each. Captures are read one at a time.

    Captures of linear layers join the plan: their weights are rounded with error feedback, at
    --weight-bits in the mean over all layers, by tokens. From 4 bits on a layer has one width,
    below each tile of --block outputs times --head-dim inputs its own. With --shared heads and
    layers have one budget, --avg-bits over all cycles of the array; that needs --relative-to
    signal.

    The tables show the loss of each head and layer against its own 8 bits (a layer's: weights
    rounded to nearest). A warning names each that loses more than --max-loss, each head whose
    logits the format does not hold, and a mean that cannot be met.

    With --sweep PLAN is a folder: bits_2.64.safetensors and so on, and sweep.json, the table (mean
    and worst quality, live blocks, cycles of an 8 x 8 core against 8 bits everywhere). Nothing is
    written before all widths are calibrated.

    [bold]Examples[/bold]

      paro calibrate capture.safetensors -o plan.safetensors

      paro calibrate capture.safetensors -o plan.safetensors --avg-bits 3 --block 32 --heads 0,3

      paro calibrate capture.safetensors -o plans/ --sweep 2,2.64,3,4.8

      paro calibrate captures/ -o plan.safetensors --step-groups 5 --relative-to signal

      paro calibrate captures/ -o plan.safetensors --avg-bits 4.8 --weight-bits 3.5

      paro calibrate captures/ -o plan.safetensors --shared --avg-bits 4 --relative-to signal

      paro calibrate capture.safetensors -o plan.safetensors --order metric --transform none

      paro calibrate one.safetensors other.safetensors -o plans/ --density 0.3 --order FHW
    """
    from firmware_model.calibration import goal as goals
    from firmware_model.choices import INPUT_TRANSFORMS, check_choice

    if shared and weight_bits is not None:
        raise ParoError("--weight-bits is not for --shared, which has one budget: --avg-bits")
    check_choice("input_transform", input_transform, INPUT_TRANSFORMS)
    if head_dim is not None:
        check_choice("head_dim", head_dim, HEAD_DIMS)
    goal = goals.Goal(
        avg_bits=avg_bits,
        density=density,
        block=block,
        order=order,
        transform=transform,
        rounding=format_,  # type: ignore[arg-type]  # refused if not legal
        step_groups=goals.step_group_starts(step_groups),
        per_head=per_head,
        floor_bits=floor_bits,
        text_bits=text_bits,
        relative_to=relative_to,  # type: ignore[arg-type]  # refused if not legal
        weight_bits=goals.WEIGHT_BITS if weight_bits is None else weight_bits,
        shared=shared,
        rotate=input_transform == "error",
    )
    widths = _widths(sweep, goal, output)
    check_captures(captures)

    from firmware_model.calibration.calibrate import calibrate_models
    from firmware_model.calibration.plan import save_plan
    from firmware_model.layer import open_sources

    attention, layers = open_sources(captures)
    names = _plan_names([*attention, *layers], output)
    if not attention and (heads is not None or density is not None or shared):
        raise ParoError("--heads, --density and --shared are for attention; there are layers alone")
    _check_kinds(bool(layers), shared, bool(widths))
    fewest = min((source.heads for source in attention), default=0)
    chosen = None if heads is None else parse_heads(heads, fewest)
    if widths:
        from paro.cli.widths import sweep_widths

        sweep_widths(attention, goal, widths, chosen, output, names)
        return
    with progress_bar("calibrate") as progress:
        results = calibrate_models(attention, layers, goal, chosen, head_dim, progress)
    for result in results:
        plan = result.plan
        path = output if len(results) == 1 else output / f"{names[plan.model]}.safetensors"
        save_plan(plan, path)
        if plan.has_attention:
            stdout.print(_table(path, result))
        if plan.linear:
            stdout.print(_layer_table(path, result))
        for sentence in _warnings(result, goal, max_loss):
            warn(sentence)


def _check_kinds(layers: bool, shared: bool, sweep: bool) -> None:
    """Raise ParoError if an option does not suit captures with or without linear layers."""
    if shared and not layers:
        raise ParoError("--shared is for attention and linear layers; there is attention alone")
    if sweep and layers:
        raise ParoError("--sweep is for attention alone; there are linear layers")


def _widths(sweep: str | None, goal: "Goal", output: Path) -> tuple[float, ...]:
    """Widths to calibrate at; `ParoError` if they or the other options do not suit a sweep."""
    if sweep is None:
        return ()
    if goal.density is not None or goal.shared or goal.avg_bits != PAPER_BITS:
        raise ParoError(
            "--sweep has widths of its own; legal: without --avg-bits, --density, --shared"
        )
    if output.suffix == ".safetensors":
        raise ParoError(f"--sweep writes several plans, but {output} is a file; legal: a folder")
    widths = parse_numbers("sweep", sweep)
    for width in widths:
        replace(goal, avg_bits=width)  # refuses it
    if len({f"{width:g}" for width in widths}) < len(widths):
        raise ParoError(f"sweep = {sweep!r} has a width twice; legal: each once")
    return widths


def _plan_names(sources: "Sequence[CaptureFile | LayerFile]", output: Path) -> dict[str, str]:
    """Name of the plan of each model; `ParoError` if ``output`` does not suit them."""
    names = {}
    for source in sources:
        names.setdefault(source.model, source.path.stem)
    if len(names) > 1 and output.suffix == ".safetensors":
        raise ParoError(
            f"the captures are of {len(names)} models, but {output} is a file; legal: a folder"
        )
    if len(set(names.values())) < len(names):
        raise ParoError("captures of different models have one name; give them names of their own")
    return names


def _warnings(result: "Calibrated", goal: "Goal", max_loss: float) -> Iterator[str]:
    """Warnings about a plan, a sentence each."""
    yield from (f"{sentence}; the plan leaves it out" for sentence in result.left_out)
    if result.plan.has_attention and not goal.shared:
        yield from _missed_means(result, goal)
    losers = [
        (head.loss_db, f"head {head.head} of layer {head.layer}", head) for head in result.heads
    ]
    losers += [(layer.loss_db, f"layer {layer.name}", layer) for layer in result.layers]
    losers = sorted((one for one in losers if one[0] > max_loss), key=lambda one: -one[0])
    for loss, name, report in losers[:_LOSERS_NAMED]:
        yield (
            f"{name} loses {loss:.1f} dB against its own 8 bits ({report.snr_db:.1f} of "
            f"{report.eight_bit_snr_db:.1f} dB), more than {max_loss:g}"
        )
    if len(losers) > _LOSERS_NAMED:
        yield f"{len(losers) - _LOSERS_NAMED} more lose more than {max_loss:g} dB"


def _missed_means(result: "Calibrated", goal: "Goal") -> Iterator[str]:
    """Say it where a plan has more than was asked for."""
    if goal.density is None:
        asked, met, unit = goal.avg_bits, result.plan.mean_bits(), "bits"
    else:
        asked, met, unit = 100 * goal.density, 100 * result.plan.density(), "% of the blocks"
    if met > asked * (1 + _MEAN_SLACK):
        yield (
            f"{asked:.2f} {unit} were asked for and the plan has {met:.2f}: every row keeps a live "
            "block, and floors hold"
        )


def _layer_table(path: Path, result: "Calibrated") -> Table:
    """Table of the linear layers of a plan."""
    layers = result.layers
    table = header_table(
        f"plan {path}: {len(layers)} linear layers, {result.plan.weight_bits():.2f} bits a weight",
        ("layer", "outputs", "inputs", "transform", "bits", "dB", "8-bit dB", "loss"),
        boxed=True,
    )
    for plan, layer in zip(result.plan.linear, layers, strict=True):
        table.add_row(
            layer.name,
            str(plan.outputs),
            str(plan.inputs),
            "none" if layer.rotation == 1 else f"rotate {layer.rotation}",
            f"{layer.mean_bits:.2f}",
            f"{layer.snr_db:.1f}",
            f"{layer.eight_bit_snr_db:.1f}",
            f"{layer.loss_db:.1f}",
        )
    losses = [layer.loss_db for layer in layers]
    table.caption = (
        f"loss against 8 bits: {sum(losses) / len(losses):.1f} dB in the mean, {max(losses):.1f} "
        "at most"
    )
    return table


def _table(path: Path, result: "Calibrated") -> Table:
    from firmware_model.choices import ORDERS, TRANSFORMS
    from firmware_model.quality.metrics import finite_mean

    plan = result.plan
    single = len(result.heads) <= _HEADS_SHOWN
    columns = ("order", "transform", "bits", "live", "dB", "8-bit dB", "loss")
    table = header_table(
        f"plan {path}: {plan.mean_bits():.2f} bits, {plan.density():.0%} of the blocks live",
        ("layer", "head" if single else "heads", *columns),
        boxed=True,
    )
    for layer in plan.layers:
        heads = [head for head in result.heads if head.layer == layer]
        for some in [[head] for head in heads] if single else [heads]:
            if not some:
                continue
            worst = max(some, key=lambda head: head.loss_db)
            table.add_row(
                str(layer),
                str(some[0].head if single else len(some)),
                " ".join(sorted({ORDERS[head.order] for head in some})),
                " ".join(sorted({TRANSFORMS[head.transform] for head in some})),
                f"{sum(head.mean_bits for head in some) / len(some):.2f}",
                f"{sum(head.density for head in some) / len(some):.2f}",
                f"{worst.snr_db:.1f}",
                f"{worst.eight_bit_snr_db:.1f}",
                f"{worst.loss_db:.1f}",
            )
    losses = [head.loss_db for head in result.heads]
    worst = min(result.heads, key=lambda head: head.snr_db)
    mean = finite_mean(head.snr_db for head in result.heads)
    table.caption = (
        f"quality: {math.inf if mean is None else mean:.1f} dB in the mean, {worst.snr_db:.1f} at "
        f"worst (head {worst.head} of layer {worst.layer}); loss against 8 bits: "
        f"{sum(losses) / len(losses):.1f} dB in the mean, {max(losses):.1f} at most"
    )
    if not single:
        table.caption += "; of several heads the one that loses most is shown"
    return table
