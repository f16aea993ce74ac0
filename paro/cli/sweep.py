"""`paro sweep`: which array, clock, bandwidth and mean width a model is worth."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from paro.cli.console import format_value, header_table, print_json, progress_bar, stdout
from paro.cli.machine_options import (
    EQUAL_QUALITY_BITS,
    MODEL_OPTION,
    BufferBandwidthOption,
    BufferOption,
    ClusterOption,
    CoresOption,
    SourcesArgument,
    build_config,
    calibrated_plans,
    check_sources,
)
from paro.cli.options import ConfigChoice, JsonOption, OutputDirectory, parse_numbers, parse_shapes
from paro.config import Config
from paro.config.formats import PAPER_BITS

_MAX_TOKENS = Config.model_fields["max_tokens"].default


def sweep(
    output: OutputDirectory,
    model: Annotated[str, MODEL_OPTION],
    captures: SourcesArgument = None,
    arrays: Annotated[
        str, typer.Option("--arrays", metavar="LIST", help="rows x cols of a core")
    ] = "8x8,16x16,16x32,32x32",
    clocks: Annotated[str, typer.Option("--clocks", metavar="LIST", help="MHz")] = "250,500,1000",
    bandwidths: Annotated[
        str, typer.Option("--bandwidths", metavar="LIST", help="GB/s")
    ] = "16,32,64,128",
    bits: Annotated[
        str, typer.Option("--bits", metavar="LIST", help="mean widths of a block")
    ] = f"2,{EQUAL_QUALITY_BITS},4,{PAPER_BITS},6",
    linear_bits: Annotated[
        float,
        typer.Option("--linear-bits", metavar="BITS", help="mean width of linear layers, 2 to 8"),
    ] = 4.0,
    cores: CoresOption = 1.0,
    cluster: ClusterOption = None,
    buffer: BufferOption = 0.0,
    buffer_bandwidth: BufferBandwidthOption = 0.0,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", metavar="N", help=f"that each core must take, default {_MAX_TOKENS}"
        ),
    ] = None,
    axi_bits: Annotated[
        int, typer.Option("--axi-bits", metavar="N", help="data bits of each core's memory port")
    ] = 512,
    block: Annotated[
        int, typer.Option("--block", metavar="B", help="tokens on a side of a block: 16, 32, 64")
    ] = 64,
    quality: Annotated[
        bool,
        typer.Option(
            "--quality/--no-quality", help="measure the quality of the captures at each mean width"
        ),
    ] = True,
    query_rows: Annotated[
        int | None,
        typer.Option(
            "--query-rows", metavar="S", help="block rows that share one load of K and V, default 1"
        ),
    ] = None,
    key_slots: Annotated[
        int | None,
        typer.Option("--key-slots", metavar="N", help="blocks of K and of V of a core, default 2"),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", help="processes; -1 for all")] = -1,
    json_: JsonOption = False,
) -> None:
    """Estimate a model on every combination of array, clock, bandwidth and mean width.

    On all cores; points that DIR holds are not computed again. Writes DIR/points/, DIR/sweep.json
    and the plots DIR/time_luts.png and DIR/quality_time.png. LUTs come from measured cores (ECP5);
    larger ones are extrapolated.

    [bold]Examples[/bold]

      paro sweep --model cogvideox-5b -o sweep

      paro sweep --model cogvideox-2b --arrays 8x8,16x16 --clocks 50,100 --bandwidths 3,12 -o board

      paro sweep --model cogvideox-2b --cores 4 --cluster 4 --query-rows 4 --key-slots 4 -o cluster
    """
    from paro.config.config import padded_head_dim
    from sim.estimate.grid import Grid, check_sweep
    from sim.estimate.linear_layers import check_linear_bits
    from sim.estimate.workloads import load_workload

    workload = load_workload(model)
    head_dim = padded_head_dim(workload.head_dim)
    fields = {"max_tokens": max_tokens, "query_rows": query_rows, "key_slots": key_slots}
    choice = ConfigChoice(None, None, fields)
    configs = tuple(
        build_config(
            choice, head_dim, cluster, rows=rows, cols=cols, axi_bits=axi_bits, block=block
        )
        for rows, cols in parse_shapes("arrays", arrays)
    )
    grid = Grid(
        configs=configs,
        clocks_mhz=parse_numbers("clocks", clocks),
        bandwidths_gbs=parse_numbers("bandwidths", bandwidths),
        cores=cores,
        buffer_mib=buffer,
        buffer_gbs=buffer_bandwidth,
    )
    check_sweep(workload, grid, jobs)
    check_linear_bits(linear_bits)
    widths = parse_numbers("bits", bits)
    check_sources(captures or [], widths)

    from paro.cli.charts import sweep_figures
    from paro.cli.drawing import save_figure
    from paro.config.files import remove_files, write_json
    from sim.estimate.pareto import without_equals
    from sim.estimate.sweep import sweep as run
    from sim.estimate.sweep import sweep_report

    plans = calibrated_plans(workload, block, widths, captures or [], output)
    with progress_bar("points") as progress:
        points = run(
            workload,
            grid,
            plans,
            output / "points",
            linear_bits=linear_bits,
            jobs=jobs,
            progress=progress,
        )
    snr = _quality(captures or [], widths, block, output) if quality else {}
    by_width = {
        round(plan.mean_bits, 4): snr.get(width) for plan, width in zip(plans, widths, strict=True)
    }
    result = sweep_report(workload, plans, points, by_width)
    write_json(output / "sweep.json", result)
    figures = sweep_figures(result)
    for name in ("time_luts", "quality_time"):
        if name in figures:
            save_figure(figures[name], output / f"{name}.png")
        else:
            remove_files(output / f"{name}.png")  # of an earlier sweep
    if json_:
        print_json(result)
        return
    best = without_equals(
        [point for point in points if point["pareto_time_luts"] or point["pareto_quality_time"]]
    )
    stdout.print(_table(f"{workload.title}: {len(best)} of {len(points)} points not beaten", best))
    stdout.print(f"written: {output / 'sweep.json'} and plots", highlight=False)


def _quality(
    captures: list[Path], widths: tuple[float, ...], block: int, output: Path
) -> dict[float, float | None]:
    """Mean SNR of the captured heads at each mean width."""
    from firmware_model import DEMO_CAPTURE
    from firmware_model.capture import load_captures
    from sim.estimate.sweep import captured_quality

    sources = load_captures(captures or [DEMO_CAPTURE])
    with progress_bar("quality") as progress:
        return captured_quality(sources, widths, block, output / "quality", progress)


_COLUMNS = {
    "array": lambda p: f"{p['rows']} x {p['cols']}",
    "MHz": lambda p: f"{p['clock_mhz']:g}",
    "GB/s": lambda p: f"{p['bandwidth_gbs']:g}",
    "bits": lambda p: f"{p['avg_bits']:.2f}",
    "LUTs": lambda p: format_value(p["luts"]) + ("*" if p["luts_extrapolated"] else ""),
    "sample": lambda p: f"{p['sample_seconds']:,.0f}",
    "dB": lambda p: "" if p["mean_snr_db"] is None else f"{p['mean_snr_db']:.1f}",
    "bound by": lambda p: max(p["attention_bounds"], key=p["attention_bounds"].get),
    "best in": lambda p: ", ".join(
        label
        for name, label in (("pareto_time_luts", "LUTs"), ("pareto_quality_time", "dB"))
        if p[name]
    ),
}


def _table(title: str, points: list[dict[str, Any]]) -> Table:
    table = header_table(
        title,
        _COLUMNS,
        no_wrap=_COLUMNS,
        caption="* larger than any core that was synthesised",
    )
    for point in sorted(points, key=lambda point: point["luts"]):
        table.add_row(*(cell(point) for cell in _COLUMNS.values()))
    return table
