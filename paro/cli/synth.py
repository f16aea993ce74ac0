"""`paro synth`: a bitstream, its frequency and its area."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from paro.cli.console import format_value, key_value_table, stdout, step_line
from paro.cli.options import ConfigChoice, OutputDirectory, with_config
from paro.config import Config, ParoError

#: Board and clock, MHz, by default.
_BOARD, _MIN_MHZ = "ulx3s-85f", 50.0


@with_config
def synth(
    output: OutputDirectory,
    config: ConfigChoice,
    board: Annotated[
        str | None,
        typer.Option(
            "--board",
            metavar="NAME",
            help=f"board of `paro boards`, litex:TARGET or litex:FILE.py; default {_BOARD}",
        ),
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="the core alone, which tests itself: no memory, no link"),
    ] = False,
    min_mhz: Annotated[
        float | None,
        typer.Option(
            "--min-mhz",
            help="clock of the bitstream; timing must meet it; default the board's own, "
            f"{_MIN_MHZ:g} with --self-test",
        ),
    ] = None,
    ip: Annotated[
        str | None,
        typer.Option(
            "--ip", metavar="ADDRESS", help="of a board with Ethernet, default 192.168.1.50"
        ),
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Yosys only: area in minutes less, no bitstream")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="seed of the placement, default 1")
    ] = None,
    liberty: Annotated[
        Path | None,
        typer.Option(
            "--liberty", metavar="FILE", help="standard cells in place of a board: area on silicon"
        ),
    ] = None,
) -> None:
    """Build an accelerator for a board: Yosys, nextpnr and ecppack, all from PyPI.

    The bitstream has the accelerator, a controller of the board's memory, a serial link and on some
    boards Ethernet, all of LiteX: `paro load` brings it to the board, `paro run` gives it work. The
    LEDs run in a row.
    Writes DIR/report.json, DIR/paro_board.bit and DIR/csr.json, which LiteX's own tools take.

    Any target of litex_boards is a board by the name litex:TARGET, with arguments of its BaseSoC
    behind commas, and so is a Python file with a target of your own: pins, clock, memory. For FPGAs
    other than ECP5 a project of their maker's tools is written to DIR/build/gateware, and not run.

    With --self-test it is the core alone, and needs no host: it computes a small built-in tile
    from block RAM over and over and compares a signature of its results with the golden
    reference. LEDs: 0 blinks with the runs, 1 a run has ended, 2 all were right, 3 one was wrong,
    4 to 7 low bits of the signature. The fire button starts again.
    Writes DIR/report.json and DIR/paro_top.bit.

    With --liberty the core is mapped to the cells of a library: their area, memories left out, and,
    where OpenSTA is installed, the longest path.

    Writes DIR/report.json. Exit status 1 if timing is not met; 2, before the long work, if the
    device cannot hold the design.

    [bold]Examples[/bold]

      paro synth --board ulx3s-85f --preset tiny -o board

      paro synth --board litex:digilent_arty,variant=a7-100 --preset tiny -o arty

      paro synth --board ulx3s-85f --preset ulx3s --self-test -o fpga-8x8

      paro synth --rows 4 --cols 4 --self-test --estimate -o fpga-4x4

      paro synth --preset ulx3s --self-test --min-mhz 62.5 --seed 3 -o fpga-8x8

      paro synth --preset ulx3s --liberty cells.lib -o silicon-8x8
    """
    if liberty is not None:
        of_boards = {
            "board": board,
            "self-test": self_test or None,
            "min-mhz": min_mhz,
            "ip": ip,
            "estimate": estimate or None,
            "seed": seed,
        }
        given = [name for name, value in of_boards.items() if value is not None]
        if given:
            raise ParoError(f"--{given[0]} is for a board; --liberty takes none")
        _synth_cells(config.build(), liberty, output)
        return
    core = config.build()
    name = _BOARD if board is None else board
    if self_test:
        from fpga.synth import synth as flow

        if ip is not None:
            raise ParoError("--ip is for a board's Ethernet; --self-test has no link")
        build = partial(flow, min_mhz=_MIN_MHZ if min_mhz is None else min_mhz)
    else:
        from fpga.soc.build import IP_ADDRESS, build_board

        address = IP_ADDRESS if ip is None else ip
        build = partial(build_board, clock_mhz=min_mhz, ip_address=address)
    with step_line(name) as progress:
        report = build(
            core,
            name,
            output,
            estimate=estimate,
            seed=1 if seed is None else seed,
            progress=progress,
        )
    if "project" in report:
        stdout.print(
            f"{report['device']} is not built for here: the project of {report['toolchain']} is "
            f"written, not run; its tools make the bitstream: sh {report['script']} "
            f"in {output / report['project']}"
        )
        return
    stdout.print(_area(report))
    if estimate:
        return
    stdout.print(_speed(report))
    if not report["timing_met"]:
        raise typer.Exit(1)


def _synth_cells(core: Config, liberty: Path, output: Path) -> None:
    from fpga.standard_cells import synth_cells

    with step_line(liberty.name) as progress:
        report = synth_cells(core, liberty, output, progress=progress)
    path = report["longest_path_ns"]
    rows = {
        "area (in um2 as a rule)": f"{report['area']:,.0f}",
        "  of it flip-flops": f"{report['sequential_share']:.0%}",
        "cells": report["cells"],
        "bits of memory, not in the area": report["memory_bits"],
        "longest path without wires, ns": "OpenSTA is not installed" if path is None else path,
    }
    stdout.print(key_value_table(f"core in {report['liberty']}", rows))


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
        **{
            f"  clock {name}": f"{clock['achieved']:g} of {clock['wanted']:g}"
            for name, clock in report.get("clocks", {}).items()
        },
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
