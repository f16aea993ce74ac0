"""`paro study`: the comparisons behind the docs, over captures of your own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from paro.cli.console import format_value, progress_bar, stdout
from paro.cli.options import OutputDirectory, parse_numbers
from paro.config import ParoError
from paro.config.formats import PAPER_BITS

#: What can be studied, and the options that each takes beside --block.
STUDIES = {
    "formats": ("bits", "order"),
    "blocks": ("bits",),
    "sparsity": ("density",),
    "ablation": (),
    "carry-over": ("at", "avg_bits", "order"),
    "pruning": ("target",),
    "pe": ("no_place",),
}
#: pruning: least weights that live, relative to the mean; and the papers' formats at 4.8 bits, by
#: the study formats over the captures of docs/quality.md.
_THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
_PAPER_SNR_DB = 36.0
#: formats: mean widths by default.
_WIDTHS = "2,2.5,3,3.5,4,4.8,6"


def study(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help=", ".join(STUDIES), show_default=False)
    ],
    output: OutputDirectory,
    captures: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CAPTURE...",
            help="captures (safetensors), or folders of them; pe: by default the shipped one",
            show_default=False,
        ),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            "--bits",
            metavar="LIST",
            help="mean widths; formats: default 2,2.5,3,3.5,4,4.8,6, blocks: default 3,4.8",
        ),
    ] = None,
    density: Annotated[
        str | None,
        typer.Option(
            "--density", metavar="LIST", help="sparsity: live blocks, default 0.5,0.3,0.2"
        ),
    ] = None,
    at: Annotated[
        float | None,
        typer.Option(
            "--at", metavar="SHARE", help="carry-over: where the plan is calibrated, default 0.7"
        ),
    ] = None,
    avg_bits: Annotated[
        float | None,
        typer.Option(
            "--avg-bits", metavar="BITS", help=f"carry-over: mean width, default {PAPER_BITS}"
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option("--target", metavar="DB", help="pruning: mean quality wanted, default 36"),
    ] = None,
    block: Annotated[
        int, typer.Option("--block", metavar="B", help="tokens on a side of a block: 16, 32, 64")
    ] = 64,
    order: Annotated[
        str | None,
        typer.Option(
            "--order", metavar="HOW", help="formats, carry-over: as `paro calibrate --order`"
        ),
    ] = None,
    no_place: Annotated[
        bool, typer.Option("--no-place", help="pe: without place and route, so without Fmax")
    ] = False,
) -> None:
    """Calibrate captures in many ways and tabulate the quality.

    formats: the integer model beside the paper's formats at many mean widths, all heads under one
    budget. blocks: blocks of 16, 32 and 64 tokens, orders and transforms chosen or not, against the
    cycles, bytes of codes and bytes read of an 8 x 8 core. sparsity: exact attention under masks,
    with and without reorder, head by head. ablation: sparse, INT8, INT4 and both, row or block
    groups, with and without reorder. carry-over: a plan of one noise level at the others. pruning:
    exact attention on its largest weights alone. pe: processing elements to choose from, their area
    and speed on an ECP5 and the quality of the numbers they take.

    Writes DIR/WHAT.json; formats and pe also DIR/WHAT.png, pe also DIR/build.

    [bold]Examples[/bold]

      paro study formats captures/ -o study --bits 3,4,4.8

      paro study blocks captures/ -o study --bits 3

      paro study sparsity capture.safetensors -o study --density 0.3,0.2

      paro study ablation captures/ -o study --block 16

      paro study carry-over captures/ -o study --at 0.7 --avg-bits 4.8

      paro study pruning captures/ -o study --target 36

      paro study pe -o study
    """
    from firmware_model import DEMO_CAPTURE
    from firmware_model.calibration.allocation import check_avg_bits
    from firmware_model.calibration.goal import Goal
    from firmware_model.capture import load_captures
    from firmware_model.quality import study as studies
    from paro.cli.drawing import format_figure, save_figure
    from paro.config.files import write_json
    from sim.estimate.block_study import block_study

    if what not in STUDIES:
        raise ParoError(f"there is no study {what!r}; legal: {', '.join(STUDIES)}")
    given = {
        "bits": bits,
        "density": density,
        "at": at,
        "avg_bits": avg_bits,
        "order": order,
        "target": target,
        "no_place": no_place or None,
    }
    for name, value in given.items():
        if value is not None and name not in STUDIES[what]:
            raise ParoError(f"--{name.replace('_', '-')} is not for the study {what!r}")
    widths = parse_numbers("bits", bits or ("3,4.8" if what == "blocks" else _WIDTHS))
    densities = parse_numbers("density", density or "0.5,0.3,0.2")
    goal = Goal(
        avg_bits=PAPER_BITS if avg_bits is None else avg_bits,
        block=block,
        order="error" if order is None else order,
    )
    if captures is None and what != "pe":
        raise ParoError(f"the study {what!r} needs captures: give one or more, or folders of them")
    sources = load_captures(captures or [DEMO_CAPTURE])
    if what == "pe":
        _pe_study(sources, block, not no_place, output)
        return
    result: Any
    with progress_bar(what) as progress:
        if what == "formats":
            result = studies.format_study(
                sources, widths, goal.block, goal.order, progress=progress
            )
            hidden = ("avg_bits", "worst_head")
            rows = [
                {name: value for name, value in row.items() if name not in hidden}
                for row in result["rows"]
            ]
        elif what == "blocks":
            for width in widths:
                check_avg_bits(width)
            result = rows = block_study(sources, widths, progress=progress)
        elif what == "sparsity":
            result = rows = studies.sparsity_study(sources, densities, block, progress)
        elif what == "ablation":
            result = rows = studies.ablation_study(sources, block, progress)
        elif what == "pruning":
            wanted = _PAPER_SNR_DB if target is None else target
            result = studies.pruning_study(sources, _THRESHOLDS, wanted, progress)
            rows = result["rows"]
        else:
            static = 0.7 if at is None else at
            result = rows = studies.carry_over_study(sources, static, goal, progress)
    write_json(output / f"{what}.json", result)
    if what == "sparsity":
        rows = [
            {name: row[name] for name in ("capture", "head", "order")} | part
            for row in rows
            for part in row["densities"]
        ]
    stdout.print(_table(f"study {output / what}.json", rows))
    if what == "pruning":
        stdout.print(
            f"{result['target_snr_db']:g} dB need {result['equal_density']} of the weights."
        )
    if what == "formats":
        save_figure(format_figure(result), output / "formats.png")
        equal = result["equal_bits"]
        stdout.print(
            f"The integer model is as good as the paper's formats at {PAPER_BITS} bits at {equal}."
            if equal is not None
            else f"The integer model meets the paper's formats at {PAPER_BITS} bits at none of the "
            "widths between those tried."
        )
        stdout.print(f"drawn: {output / 'formats.png'}", highlight=False)


def _pe_study(sources: Sequence[Any], block: int, place: bool, output: Path) -> None:
    """Measure the candidates for a processing element, print their tables, draw them."""
    from firmware_model.quality.study import rounding_study
    from fpga.pe import pe_study
    from fpga.pe.pe_candidates import CANDIDATES
    from paro.cli.drawing import pe_figure, save_figure
    from paro.config.files import write_json

    with progress_bar("area and speed" if place else "area") as progress:
        measured = pe_study.measure(output / "build", place=place, progress=progress)
    formats = list(dict.fromkeys(CANDIDATES[row["name"]].number_format for row in measured))
    with progress_bar("quality") as progress:
        quality = rounding_study(sources, formats, (PAPER_BITS, 3.0), block, progress=progress)
    result = pe_study.report(measured, quality)
    write_json(output / "pe.json", result)
    save_figure(pe_figure(result), output / "pe.png")
    rows = result["rows"]
    title = f"one PE, accumulator of {result['accumulator_bits']} bits, area = LUT4 + 2 CCU2C"
    stdout.print(_table(title, [_pe_area(row, place) for row in rows]))
    title = "by width of a block (8/4/2 bit), and attention at two mean widths"
    stdout.print(_table(title, [_pe_quality(row) for row in rows]))
    stdout.print(f"report: {output / 'pe.json'}, drawn: {output / 'pe.png'}", highlight=False)


def _pe_area(row: dict[str, Any], place: bool) -> dict[str, Any]:
    fmax = row["fmax_mhz"]
    return {
        "PE": row["name"],
        "LUT4": row["lut4"],
        "CCU2C": row["carry"],
        "FF": row["ff"],
        "area": row["area"],
        "4-LUTs only": row["narrow_area"],
        "gates": row["generic_cells"],
        **({"4x4 MHz": "-" if fmax is None else f"{fmax:.1f}"} if place else {}),
    }


def _pe_quality(row: dict[str, Any]) -> dict[str, Any]:
    errors = row["logit_rmse"].values()
    return {
        "PE": row["name"],
        "MACs": "/".join(map(str, row["macs"].values())),
        "area a MAC": "/".join(f"{area:.0f}" for area in row["area_per_mac"].values()),
        "format": row["format"],
        "logit RMSE": "/".join("-" if error is None else f"{error:.3f}" for error in errors),
        **{f"dB at {width}": snr for width, snr in row["mean_snr_db"].items()},
    }


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, value in rows[0].items():
        table.add_column(name.replace("_", " "), justify="right", no_wrap=isinstance(value, str))
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if "cosine" in name else f"{value:.2f}"
    return format_value(value)
