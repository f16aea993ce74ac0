"""`paro sweep`: which array, clock, bandwidth and mean width a model is worth."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from paro.cli.console import format_value, print_json, progress_bar, stdout
from paro.cli.estimate import (
    BufferBandwidthOption,
    BufferOption,
    CoresOption,
    SourcesArgument,
    build_config,
    make_plans,
)
from paro.cli.options import ConfigChoice, JsonOption, OutputDirectory, parse_numbers, parse_shapes
from paro.config import Config
from paro.config.formats import PAPER_BITS
from sim.estimate.equal_quality import EQUAL_QUALITY_BITS

_MAX_TOKENS = Config.model_fields["max_tokens"].default


def sweep(
    output: OutputDirectory,
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="NAME", help="such as cogvideox-5b, or a file NAME.toml of your own"
        ),
    ],
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
    cores: CoresOption = 1.0,
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
    """
    from firmware_model.reference.quantize import padded_head_dim
    from paro.cli.charts import sweep_figures
    from paro.cli.drawing import save_figure
    from paro.config.files import write_json
    from sim.estimate.sweep import Grid, check_sweep, pareto
    from sim.estimate.sweep import sweep as run
    from sim.estimate.workloads import load_workload

    workload = load_workload(model)
    head_dim = padded_head_dim(workload.head_dim)
    choice = ConfigChoice(None, None, {"max_tokens": max_tokens})
    configs = tuple(
        build_config(choice, head_dim, rows=rows, cols=cols, axi_bits=axi_bits, block=block)
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
    check_sweep(workload, grid, jobs)  # before anything is measured
    widths = parse_numbers("bits", bits)
    plans = make_plans(workload, block, widths, captures or [], output)
    with progress_bar("points") as progress:
        points = run(workload, grid, plans, output / "points", jobs=jobs, progress=progress)
    snr = _qualities(captures or [], widths, block, output) if quality else {}
    width_of = {round(plan.mean_bits, 4): width for plan, width in zip(plans, widths, strict=True)}
    for point in points:
        point["mean_snr_db"] = snr.get(width_of[point["avg_bits"]])
    _mark(points, "pareto_time_luts", pareto([(p["luts"], p["sample_seconds"]) for p in points]))
    known = [point for point in points if point["mean_snr_db"] is not None]
    for point in points:
        point["pareto_quality_time"] = False
    _mark(
        known,
        "pareto_quality_time",
        pareto([(p["sample_seconds"], -p["mean_snr_db"]) for p in known]),
    )
    result = {"title": workload.title, "plans": plans[0].source, "points": points}
    write_json(output / "sweep.json", result)
    figures = sweep_figures(result)
    for name in ("time_luts", "quality_time"):
        if name in figures:
            save_figure(figures[name], output / f"{name}.png")
        else:
            (output / f"{name}.png").unlink(missing_ok=True)  # of an earlier sweep
    if json_:
        print_json(result)
        return
    best = _without_equals(
        [point for point in points if point["pareto_time_luts"] or point["pareto_quality_time"]]
    )
    stdout.print(_table(f"{workload.title}: {len(best)} of {len(points)} points not beaten", best))
    stdout.print(f"written: {output / 'sweep.json'} and plots", highlight=False)


def _qualities(
    captures: list[Path], widths: tuple[float, ...], block: int, output: Path
) -> dict[float, float]:
    """Mean SNR of the captured heads at each mean width; each is kept on disk."""
    from firmware_model import DEMO_CAPTURE
    from firmware_model.capture import load_captures
    from firmware_model.quality.study import format_study
    from firmware_model.reference.methods import INTEGER
    from paro.config.files import write_json
    from sim.sources import kept_path, read_kept

    sources = load_captures(captures or [DEMO_CAPTURE])
    digests = [source.digest for source in sources]
    paths = {width: kept_path(output / "quality", digests, width, block) for width in widths}
    missing = [width for width, path in paths.items() if not path.exists()]
    if missing:
        with progress_bar("quality") as progress:
            study = format_study(sources, missing, block, progress=progress)
        for row in study["rows"]:  # those at the papers' mean width are always among them
            if row["format"] == INTEGER and row["avg_bits"] in paths:
                write_json(paths[row["avg_bits"]], {"mean_snr_db": row["mean_snr_db"]})
    return {width: read_kept(path, {"mean_snr_db"})["mean_snr_db"] for width, path in paths.items()}


def _without_equals(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of points alike in what is compared, the one with the least bandwidth."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for point in sorted(points, key=lambda point: point["bandwidth_gbs"]):
        same = (point["luts"], point["sample_seconds"], point["mean_snr_db"])
        kept.setdefault(same, point)
    return list(kept.values())


def _mark(points: list[dict[str, Any]], name: str, flags: list[bool]) -> None:
    for point, flag in zip(points, flags, strict=True):
        point[name] = flag


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
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption="* larger than any core that was synthesised",
        caption_justify="left",
    )
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for point in sorted(points, key=lambda point: point["luts"]):
        table.add_row(*(cell(point) for cell in _COLUMNS.values()))
    return table
