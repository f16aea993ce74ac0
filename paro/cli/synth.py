"""`paro synth`: a bitstream, its frequency and its area."""

from typing import Annotated, Any

import typer
from rich.table import Table

from paro.cli.console import format_value, key_value_table, stdout, step_line
from paro.cli.options import ConfigChoice, OutputDirectory, with_config


@with_config
def synth(
    output: OutputDirectory,
    config: ConfigChoice,
    board: Annotated[
        str, typer.Option("--board", metavar="NAME", help="board, such as ulx3s-85f")
    ] = "ulx3s-85f",
    min_mhz: Annotated[
        float, typer.Option("--min-mhz", help="clock of the bitstream; timing must meet it")
    ] = 50.0,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Yosys only: area in minutes less, no bitstream")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="seed of the placement")] = 1,
) -> None:
    """Build a core for a board: Yosys, nextpnr and ecppack, all from PyPI.

    The bitstream is a self test that the board can run: the core computes a small built-in tile
    from block RAM over and over and compares a signature of its results with the golden
    reference. LEDs: 0 blinks with the runs, 1 a run has ended, 2 all were right, 3 one was wrong,
    4 to 7 low bits of the signature. The fire button starts again.

    Writes DIR/report.json and DIR/paro_top.bit. Exit status 1 if timing is not met.

    [bold]Examples[/bold]

      paro synth --board ulx3s-85f --preset ulx3s -o fpga-8x8

      paro synth --rows 4 --cols 4 --estimate -o fpga-4x4

      paro synth --preset ulx3s --min-mhz 62.5 --seed 3 -o fpga-8x8
    """
    from fpga import synth as flow

    core = config.build()
    with step_line(board) as progress:
        report = flow.synth(
            core,
            board,
            output,
            min_mhz=min_mhz,
            estimate=estimate,
            seed=seed,
            progress=progress,
        )
    stdout.print(_area(report))
    if estimate:
        return
    stdout.print(_speed(report))
    if not report["timing_met"]:
        raise typer.Exit(1)


def _area(report: dict[str, Any]) -> Table:
    names = {
        "lut4": "LUT4",
        "carry": "CCU2C (2 carry bits each)",
        "ff": "flip-flops",
        "dsp": "DSP (18 x 18)",
        "bram": "block RAM (18 Kbit)",
        "lutram": "LUT RAM (16 x 4)",
    }
    rows = {label: report[name] for name, label in names.items()}
    return key_value_table(f"area on {report['device']}", rows)


def _speed(report: dict[str, Any]) -> Table:
    used = {
        f"{name} used": f"{format_value(count['used'])} of {format_value(count['available'])} "
        f"({count['used'] / count['available']:.0%})"
        for name, count in report["utilisation"].items()
    }
    path = report["critical_path"] or {}
    rows = {
        "Fmax, MHz": report["fmax_mhz"],
        "clock, MHz": report["clock_mhz"],
        "timing met": report["timing_met"],
        "slowest path, ns": path.get("delay_ns"),
        "  from": path.get("from"),
        "  to": path.get("to"),
        **used,
        "bitstream": report["bitstream"],
        "seconds": ", ".join(f"{name} {value}" for name, value in report["seconds"].items()),
    }
    return key_value_table("after place and route", rows)
