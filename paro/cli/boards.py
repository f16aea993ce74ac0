"""`paro boards`: the boards that there are bitstreams for."""

import json
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from paro.cli.console import stdout


def boards(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON in place of a table")] = False,
) -> None:
    """List the boards of `paro synth --board`: device, memory, link, what fits, what was tried.

    [bold]Examples[/bold]

      paro boards

      paro boards --json
    """
    rows = board_rows()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*row.values())
    stdout.print(table)
    from fpga.soc.sizes import counted_presets

    stdout.print(
        f"largest preset: of those whose cells were counted ({', '.join(counted_presets())}), not "
        "placed. Any other target of LiteX is taken as litex:TARGET, a file with one of your own "
        "as litex:FILE.py."
    )


def board_rows() -> list[dict[str, str]]:
    """What is said of each board, by column."""
    from fpga.soc.boards import SOC_BOARDS
    from fpga.soc.sizes import largest_preset

    rows: list[dict[str, str]] = []
    for board in SOC_BOARDS.values():
        memory = board.memory
        assert memory is not None
        rows.append(
            {
                "board": board.name,
                "device": board.device,
                "memory": f"{memory.kind}, {memory.size >> 20} MiB, {memory.data_bits} bit",
                "link": f"{board.link}, {board.baud:,} bit/s"
                + ("; Ethernet" if board.has_ethernet else ""),
                "clock": f"{board.clock_mhz:g} MHz",
                "largest preset": largest_preset(board.device, board),
                "tried": board.tried,
            }
        )
    return rows
