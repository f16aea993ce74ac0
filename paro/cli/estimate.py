"""`paro estimate`: time of a whole model on the accelerator, beside its peers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from paro.cli.console import (
    format_value,
    header_table,
    key_value_table,
    print_json,
    stdout,
)
from paro.cli.machine_options import (
    EQUAL_QUALITY_BITS,
    LINEAR_BITS,
    MODEL_OPTION,
    PRUNED_DENSITY,
    BufferBandwidthOption,
    BufferOption,
    ClusterOption,
    CoresOption,
    LatencyOption,
    SourcesArgument,
    build_config,
    calibrated_plans,
    check_sources,
)
from paro.cli.options import ConfigChoice, JsonOption, parse_numbers, with_config, writable
from paro.config import ParoError
from paro.config.files import check_file
from paro.config.formats import PAPER_BITS

if TYPE_CHECKING:
    from firmware_model.calibration.plan import ModelPlan
    from sim.estimate.head_plans import HeadPlans
    from sim.estimate.workloads import Workload


@with_config
def estimate(
    config: ConfigChoice,
    captures: SourcesArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="folder for the results", callback=writable
        ),
    ] = None,
    model: Annotated[str | None, MODEL_OPTION] = None,
    clock: Annotated[float, typer.Option("--clock", metavar="MHZ", help="of the cores")] = 1000.0,
    bandwidth: Annotated[
        float, typer.Option("--bandwidth", metavar="GB/S", help="of the memory")
    ] = 128.0,
    cores: CoresOption = 2.0,
    cluster: ClusterOption = None,
    buffer: BufferOption = 0.0,
    buffer_bandwidth: BufferBandwidthOption = 0.0,
    latency: LatencyOption = 0,
    avg_bits: Annotated[
        float | None,
        typer.Option(
            "--avg-bits",
            metavar="BITS",
            help=f"mean width of the first plan, default {PAPER_BITS}, the papers'",
        ),
    ] = None,
    equal_quality_bits: Annotated[
        float | None,
        typer.Option(
            "--equal-quality-bits",
            metavar="BITS",
            help="mean width of the second plan: that of the papers' quality, as `paro study "
            f"formats` finds it, default {EQUAL_QUALITY_BITS}",
        ),
    ] = None,
    linear_bits: Annotated[
        str,
        typer.Option(
            "--linear-bits",
            metavar="LIST",
            help="mean widths of linear layers, 2 to 8; comparisons take the first",
        ),
    ] = LINEAR_BITS,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="PLAN", help="a plan of `paro calibrate` in place of both"),
    ] = None,
    assume_density: Annotated[
        float | None,
        typer.Option(
            "--assume-density",
            metavar="SHARE",
            help="in place of both: this share of the blocks at 8 bits; nothing measured",
        ),
    ] = None,
    pruned_density: Annotated[
        float,
        typer.Option(
            "--pruned-density",
            metavar="SHARE",
            help="attention weights that Sanger and ViTCoD must keep, as `paro study pruning` "
            "finds it",
        ),
    ] = PRUNED_DENSITY,
    checkpoints: Annotated[
        bool,
        typer.Option("--checkpoints", help="print the papers' figures that the model must meet"),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Estimate a whole model: heads, linear layers, what lies between, memory, other machines.

    Without --plan, heads of captures are calibrated and scaled to the model's grid, at the papers'
    mean width and at the one of equal quality; linear layers run at several mean widths. Peers get
    the same multipliers, clock, bandwidth and buffer; in a second table multipliers of as many
    gates as ours (`paro study pe`); a third has as many cores as the A100's INT8 peak takes.
    Without more about the array: 2 cores of 16 x 32 (1024 multipliers), each with a vector unit;
    --vector-channels 0 leaves out what lies between layers.

    Writes DIR/estimate.json and DIR/estimate.png. Exit status 1 if a checkpoint is missed.

    [bold]Examples[/bold]

      paro estimate --checkpoints

      paro estimate --model cogvideox-5b -o estimate

      paro estimate --model wan2.1-14b-720p --rows 16 --cols 16 --cores 4 --bandwidth 64 -o wan

      paro estimate --model my.toml captures/ --avg-bits 4 --json -o mine
    """
    calibrated = captures or avg_bits is not None or equal_quality_bits is not None
    of_plans = {
        "--plan": plan is not None,
        "--assume-density": assume_density is not None,
        "CAPTURE, --avg-bits, --equal-quality-bits": calibrated,
    }
    given = [name for name, is_given in of_plans.items() if is_given]
    if checkpoints:
        if model is not None or output is not None or given:
            raise ParoError("--checkpoints are of the papers' models; legal: alone or with --json")
        _print_checkpoints(json_)
        return
    if model is None or output is None:
        raise ParoError("give --model and -o, or --checkpoints")
    if len(given) > 1:
        raise ParoError(f"give plans by one of: {'; '.join(given)}")

    from paro.config.config import padded_head_dim
    from sim.estimate.linear_layers import check_linear_bits
    from sim.estimate.machine import Machine, check_density
    from sim.estimate.workloads import check_fits, load_workload

    workload = load_workload(model)
    own_plan = None if plan is None else _own_plan(plan)
    implied = {} if own_plan is None else {"block": own_plan.block}
    implied |= _vector_channels(config, workload)
    core = build_config(config, padded_head_dim(workload.head_dim), cluster, **implied)
    check_fits(workload, core)
    machine = Machine(
        config=core,
        cores=cores,
        clock_mhz=clock,
        bandwidth_gbs=bandwidth,
        buffer_mib=buffer,
        buffer_gbs=buffer_bandwidth,
        latency=latency,
    )
    check_density(pruned_density, "pruned density")
    layer_widths = parse_numbers("linear bits", linear_bits)
    for width in layer_widths:
        check_linear_bits(width)
    widths = (
        PAPER_BITS if avg_bits is None else avg_bits,
        EQUAL_QUALITY_BITS if equal_quality_bits is None else equal_quality_bits,
    )
    if assume_density is not None:
        check_density(assume_density)
    elif plan is None:
        check_sources(captures or [], widths)

    from paro.cli.charts import estimate_figure
    from paro.cli.drawing import save_figure
    from paro.config.files import write_json
    from sim.estimate.comparison import compare

    if plan is None and assume_density is None:
        plans = calibrated_plans(workload, core.block, widths, captures or [], output)
    else:
        plans = [_given_plans(workload, core.block, own_plan, f"plan {plan}", assume_density)]
    report = compare(workload, machine, plans, pruned_density, layer_widths)
    write_json(output / "estimate.json", report)
    save_figure(estimate_figure(report), output / "estimate.png")
    if json_:
        print_json(report)
        return
    _print_report(report)
    stdout.print(f"written: {output / 'estimate.json'}, estimate.png", highlight=False)


def _given_plans(
    workload: "Workload", block: int, own: "ModelPlan | None", name: str, density: float | None
) -> "HeadPlans":
    """Plans of a file, or assumed ones of a density."""
    from sim.estimate import head_plans

    if own is not None:
        return head_plans.plans_of(own, workload, block, name)
    assert density is not None
    return head_plans.assumed_plans(workload, block, density)


def _vector_channels(config: ConfigChoice, workload: "Workload") -> dict[str, int]:
    """A vector unit that takes the rows of a model, unless an option or a file says which."""
    from paro.config.config import fitting_vector_channels

    if config.file is not None or config.fields["vector_channels"] is not None:
        return {}
    try:
        return {"vector_channels": fitting_vector_channels(workload.widest)}
    except ParoError as error:
        raise ParoError(f"{error}, or --vector-channels 0 to leave vector steps out") from None


def _own_plan(path: Path) -> "ModelPlan":
    """Plan of a file, with attention."""
    check_file(path, "plan")
    from firmware_model.calibration.plan import load_model_plan

    plan = load_model_plan(path)
    plan.check_attention()
    return plan


def _print_checkpoints(json_: bool) -> None:
    from sim.estimate.paper_figures import checkpoints
    from sim.estimate.peers import checks

    points, peers = checkpoints(), checks()
    held = all(point.holds for point in points) and all(check.holds for check in peers)
    if json_:
        print_json(
            {
                "checkpoints": [vars(point) | {"holds": point.holds} for point in points],
                "peers": [
                    vars(check) | {"error": check.error, "holds": check.holds} for check in peers
                ],
            }
        )
    else:
        table = _left_table("the papers' figures", ("figure", "wanted", "found", "holds"))
        for point in points:
            wanted, found = _span(point.low, point.high), _span(*point.found)
            table.add_row(point.figure, wanted, found, format_value(point.holds))
        stdout.print(table)
        table = _left_table(
            "peers beside their own figures",
            ("peer", "figure", "published", "model", "error", "stated", "holds"),
        )
        for check in peers:
            table.add_row(
                check.peer,
                check.figure,
                f"{check.published:.4g}",
                f"{check.modelled:.4g}",
                f"{check.error:+.0%}",
                f"{check.tolerance:.0%}",
                format_value(check.holds),
            )
        stdout.print(table)
    if not held:
        raise typer.Exit(1)


def _left_table(title: str, columns: tuple[str, ...]) -> Table:
    """Table whose first column stands to the left."""
    return header_table(title, columns, left=columns[:1])


def _span(low: float, high: float) -> str:
    texts = f"{low:.2f}", f"{high:.2f}"
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)


def _print_report(report: dict[str, Any]) -> None:
    model, machine, array = report["model"], report["machine"], report["configuration"]
    title = (
        f"{model['title']}: {report['tokens']:,} tokens, {model['layers']} layers, "
        f"{model['steps']} steps x {model['guidance_passes']}"
    )
    own = report["linear_bits"][0]
    for found in report["ours"]:
        if found["linear_bits"] == report["ours"][0]["linear_bits"]:
            stdout.print(key_value_table(title, _attention_rows(found)))
            title = ""
    stdout.print(_linear_table(report))
    array_text = f"{machine['cores']:g} x {array['rows']} x {array['cols']}"
    memory = (
        f"{machine['clock_mhz']:g} MHz, {machine['bandwidth_gbs']:g} GB/s, "
        f"{machine['buffer_mib']:g} MiB"
    )
    last = report["ours"][len(report["ours"]) - len(report["linear_bits"])]
    ours = f"ours is that of {last['mean_bits']:.2f} / {own:.2f} bit"
    stdout.print(
        _machines(
            f"equal multipliers: {machine['macs']:,.0f} ({array_text}), {memory}; {ours} (in "
            "attention / in linear layers)",
            report["equal_resources"],
        )
    )
    stdout.print(
        _machines(
            f"equal gates of the multipliers (`paro study pe`): {_gates(report)}",
            report["equal_gates"],
        )
    )
    peak = report["ours_at_a100_peak"]
    reads = max(found[f"{part}core_reads_gbs"] for found in peak for part in ("", "linear_"))
    stdout.print(
        _machines(
            f"at the A100's INT8 peak ({report['a100_peak_cores']:.1f} cores), bandwidth, a buffer "
            f"of its cache's size that gives the up to {reads:,.0f} GB/s that the cores read; "
            "GPUs at their own efficiency",
            report["a100_peak"],
        )
    )
    _print_targets(report["targets"])
    names = [name for name in report["sensitivity"][0] if name != "assumption"]
    table = _left_table("speed-ups with one assumption changed", ("assumption", *names))
    for row in report["sensitivity"]:
        cells = ["" if row[name] is None else f"{row[name]:.2f}x" for name in names]
        table.add_row(row["assumption"], *cells)
    stdout.print(table)


def _attention_rows(found: dict[str, Any]) -> dict[str, Any]:
    """Rows of a plan's own table."""
    bounds = [f"{name} {share:.0%}" for name, share in found["attention_bounds"].items() if share]
    return {
        "plans": found["plans"],
        "mean bits": found["mean_bits"],
        "live blocks": found["density"],
        "utilisation in attention": found["utilisation"],
        "attention, s a step": found["attention_seconds"],
        "  bound by": ", ".join(bounds),
        "cores read in attention, GB/s": found["core_reads_gbs"],
    }


def _linear_table(report: dict[str, Any]) -> Table:
    """Table of all pairs of widths, with what linear layers take."""
    table = _left_table(
        "mean bits, seconds of a step; exposed: cores wait for vector steps",
        (
            "attention / linear bits",
            "linear utilisation",
            "linear, s",
            "bound by",
            "cores read, GB/s",
            "exposed, s",
            "step, s",
            "lanes at work",
            "sample, s",
            "memory, GB",
        ),
    )
    for found in report["ours"]:
        table.add_row(
            f"{found['mean_bits']:.2f} / {found['linear_bits']:.2f}",
            format_value(found["linear_utilisation"]),
            format_value(found["linear_seconds"]),
            found["linear_bound"],
            format_value(found["linear_core_reads_gbs"]),
            format_value(found["exposed_seconds"]),
            format_value(found["step_seconds"]),
            format_value(found["pass_utilisation"]),
            format_value(found["sample_seconds"]),
            format_value(found["gigabytes_per_step"]),
        )
    return table


def _gates(report: dict[str, Any]) -> str:
    """What multipliers are worth, in words."""
    known = report["multipliers"]
    own = known["paro"]["gates"]
    others = [
        f"{name} {figures['gates']:,} ({figures['gates'] / own:.2f})"
        for name, figures in known.items()
        if name != "paro"
    ]
    return f"our PE {own:,}, " + ", ".join(others)


def _print_targets(targets: list[dict[str, Any]]) -> None:
    table = _left_table(
        "targets; limit: of the mean bits of linear layers",
        ("over", "bits", "wanted", "found", "holds", "limit", "assumed", "would hold if"),
    )
    for target in targets:
        limit = target["linear_bits_limit"]
        table.add_row(
            target["over"],
            f"{target['mean_bits']:.2f} / {target['linear_bits']:.2f}",
            f"{target['wanted']:.2f}x",
            f"{target['found']:.2f}x",
            format_value(target["holds"]),
            "-" if limit is None else f"{limit:.2f}",
            target["assumption"],
            "; ".join(target["decided_by"]),
        )
    stdout.print(table)


def _machines(title: str, rows: list[dict[str, Any]]) -> Table:
    counted = "multipliers" in rows[0]
    table = _left_table(
        title,
        (
            "machine",
            *(("multipliers",) if counted else ()),
            "attention",
            "linear",
            "exposed",
            "step, s",
            "ours is",
            "in attention",
        ),
    )
    for row in rows:
        table.add_row(
            row["machine"],
            *((f"{row['multipliers']:,.0f}",) if counted else ()),
            *(
                format_value(row[f"{part}_seconds"])
                for part in ("attention", "linear", "exposed", "step")
            ),
            f"{row['speedup']:.2f}x",
            f"{row['attention_speedup']:.2f}x",
        )
    return table
