"""`paro study`: the comparisons that the docs rest on, over captures of your own."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from paro.cli.console import format_value, header_table, stdout
from paro.cli.options import OutputDirectory, check_captures, parse_numbers
from paro.cli.studies import STUDIES, Settings, Study
from paro.config import ParoError
from paro.config.files import check_file
from paro.config.formats import PAPER_BITS

#: Shares of live blocks by default.
_DENSITIES = "0.5,0.3,0.2"
#: Where the plan of carry-over is calibrated by default, as a share of the denoising steps.
_AT = 0.7
#: Videos of the studies of layers and of the network by default.
_SAMPLES = 20
#: Quality that pruning must reach by default: that of the papers' formats at 4.8 bits, by the study
#: formats over the captures of docs/quality.md.
_PAPER_SNR_DB = 36.0
#: fit: board and clock by default.
_BOARD, _MIN_MHZ = "ulx3s-85f", 80.0


def study(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help=", ".join(STUDIES), show_default=False)
    ],
    output: OutputDirectory,
    captures: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CAPTURE...",
            help="captures (safetensors), or folders of them; pe: by default the shipped one, "
            "processors: a head of 17,776 tokens that is made up",
            show_default=False,
        ),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            "--bits",
            metavar="LIST",
            help="mean widths; formats: default 2,2.5,3,3.5,4,4.8,6, blocks: default 3,4.8, "
            "layers: default 8,4,3.5,3,2.64,2",
        ),
    ] = None,
    density: Annotated[
        str | None,
        typer.Option(
            "--density",
            metavar="LIST",
            help="sparsity, processors: live blocks, default 0.5,0.3,0.2",
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
    samples: Annotated[
        int | None,
        typer.Option("--samples", metavar="N", help="layers, network: videos, default 20"),
    ] = None,
    no_place: Annotated[
        bool, typer.Option("--no-place", help="pe: without place and route, so without Fmax")
    ] = False,
    liberty: Annotated[
        Path | None,
        typer.Option(
            "--liberty", metavar="FILE", help="pe: standard cells, for areas on silicon too"
        ),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option("--board", metavar="NAME", help="fit: board, default ulx3s-85f"),
    ] = None,
    min_mhz: Annotated[
        float | None,
        typer.Option("--min-mhz", metavar="MHZ", help="fit: clock to aim at, default 80"),
    ] = None,
) -> None:
    """Calibrate captures in many ways and tabulate the quality.

    formats: the integer model beside the paper's formats at many mean widths, all heads under one
    budget. blocks: blocks of 16, 32 and 64 tokens, orders and transforms chosen or not, against the
    cycles, bytes of codes and bytes read of an 8 x 8 core. sparsity: exact attention under masks,
    with and without reorder, head by head. ablation: sparse, INT8, INT4 and both, row or block
    groups, with and without reorder. carry-over: a plan of one noise level at the others. pruning:
    exact attention on its largest weights alone. layers: videos of moving-digits, whose linear
    layers are quantised in many ways (its captures are given). network: videos of moving-digits,
    all of whose blocks are computed in integers, under three budgets; it makes its captures itself.
    processors: seconds of attention on a plan's blocks (`paro.sparse`) beside torch's own, on this
    machine: the first head of each capture, and with diffusers a whole block of CogVideoX-2B with
    random weights. pe: processing elements to choose from, their area and speed on an ECP5 and the
    quality of the numbers they take. fit: the largest array that a board's FPGA holds, its largest
    superblock, and a dense INT8 array in the FPGA's multipliers beside it, both placed and routed.

    Writes DIR/WHAT.json; formats and pe also DIR/WHAT.png, pe and fit also DIR/build.

    [bold]Examples[/bold]

      paro study formats captures/ -o study --bits 3,4,4.8

      paro study blocks captures/ -o study --bits 3

      paro study sparsity capture.safetensors -o study --density 0.3,0.2

      paro study ablation captures/ -o study --block 16

      paro study carry-over captures/ -o study --at 0.7 --avg-bits 4.8

      paro study pruning captures/ -o study --target 36

      paro study layers captures/ -o study --bits 8,4,3.5

      paro study network -o study --samples 4

      paro study processors -o study --density 0.3,0.2

      paro study pe -o study

      paro study pe --no-place --liberty cells.lib -o study

      paro study fit --board ulx3s-85f -o study
    """
    from firmware_model.calibration.goal import Goal
    from firmware_model.choices import check_avg_bits, check_weight_bits

    if what not in STUDIES:
        raise ParoError(f"there is no study {what!r}; legal: {', '.join(STUDIES)}")
    chosen = STUDIES[what]
    given = {
        "bits": bits,
        "density": density,
        "at": at,
        "avg_bits": avg_bits,
        "order": order,
        "target": target,
        "samples": samples,
        "no_place": no_place or None,
        "liberty": liberty,
        "board": board,
        "min_mhz": min_mhz,
    }
    for name, value in given.items():
        if value is not None and name not in chosen.options:
            raise ParoError(f"--{name.replace('_', '-')} is not for the study {what!r}")
    settings = Settings(
        goal=Goal(
            avg_bits=PAPER_BITS if avg_bits is None else avg_bits,
            block=block,
            order="error" if order is None else order,
        ),
        widths=parse_numbers("bits", bits or chosen.widths),
        densities=parse_numbers("density", density or _DENSITIES),
        at=_AT if at is None else at,
        target_snr_db=_PAPER_SNR_DB if target is None else target,
        place=not no_place,
        samples=_SAMPLES if samples is None else samples,
        liberty=liberty,
        board=_BOARD if board is None else board,
        min_mhz=_MIN_MHZ if min_mhz is None else min_mhz,
        folder=output,
    )
    for width in settings.widths:
        check_weight_bits(width) if chosen.of_layers else check_avg_bits(width)
    if samples is not None and samples < 1:
        raise ParoError(f"samples = {samples} is not legal; legal: 1 or more")
    if captures is None and chosen.needs_captures:
        raise ParoError(f"the study {what!r} needs captures: give one or more, or folders of them")
    check_captures(captures or [])
    if liberty is not None:
        check_file(liberty, "cell library")

    from firmware_model import DEMO_CAPTURE
    from firmware_model.capture import load_captures
    from firmware_model.layer import open_sources

    if chosen.of_layers:
        _, sources = open_sources(captures or [])
    elif captures is None and chosen.own is not None:
        sources = chosen.own()
    else:
        sources = load_captures(captures or [DEMO_CAPTURE])
    result = chosen.run(sources, settings)
    _show(what, chosen, result, output)


def _show(what: str, chosen: Study, result: Any, output: Path) -> None:
    """Write and draw the result of a study, and print its tables."""
    from paro.config.files import write_json

    path = output / f"{what}.json"
    write_json(path, result)
    if chosen.chart is not None:
        from paro.cli.drawing import save_figure

        save_figure(chosen.chart(result), path.with_suffix(".png"))
    if chosen.tables is None:
        tables = [(f"study {path}", chosen.rows(result))]
    else:
        tables = chosen.tables(result)
    for title, rows in tables:
        stdout.print(_table(title, rows))
    for line in chosen.closing(result, output):
        stdout.print(line, highlight=False)


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    columns = [name.replace("_", " ") for name in rows[0]]
    # A text is the same in many rows: a narrow terminal shall cut it, not wrap it.
    texts = [
        column
        for column, value in zip(columns, rows[0].values(), strict=True)
        if isinstance(value, str)
    ]
    table = header_table(title, columns, no_wrap=texts)
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if "cosine" in name or name == "ssim" else f"{value:.2f}"
    return format_value(value)
