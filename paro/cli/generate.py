"""`paro generate`: the Verilog of a core or an accelerator and what describes it."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from paro.cli.console import key_value_table, stdout, warn
from paro.cli.options import (
    AresetnOption,
    ClockOption,
    ConfigChoice,
    OutputDirectory,
    Top,
    with_config,
)
from paro.config import PRESETS, Config
from paro.config.clock import CLOCK_MHZ

if TYPE_CHECKING:
    from gen.summary import Summary


def _list_presets(wanted: bool) -> None:
    """Print the presets and their sizes, and end."""
    if not wanted:
        return
    table = Table(title="presets", title_justify="left")
    for column in ("preset", "array", "block", "head_dim", "multipliers", "LUT4 + 2 CCU2C, ECP5"):
        table.add_column(column, justify="left" if column == "preset" else "right")
    for name, config in PRESETS.items():
        shape = f"{config.rows} x {config.cols}"
        sizes = (config.block, config.head_dim, config.rows * config.cols)
        table.add_row(name, shape, *map(str, sizes), _luts(config, 1))
    stdout.print(table)
    raise typer.Exit


def _luts(config: Config, cores: int) -> str:
    """Estimated size of some cores, in words."""
    from sim.estimate.area import load_area_model

    model = load_area_model()
    beyond = " (beyond what was measured)" if model.extrapolated(config.rows, config.cols) else ""
    return f"about {cores * model.luts(config.rows, config.cols):,.0f}{beyond}"


def _figures(summary: "Summary") -> dict[str, str]:
    """Rows of the table: figures of a summary."""

    def by_width(values: dict[int, str]) -> str:
        return ", ".join(f"{value} at {bits} bit" for bits, value in values.items())

    return {
        "cores": str(summary.cores),
        "multipliers": f"{summary.multipliers:,}",
        "products a cycle": by_width(
            {bits: f"{count:,}" for bits, count in summary.products_per_cycle.items()}
        ),
        "bits of memory": f"{summary.memory_bits:,}",
        "K and V, bytes a cycle": by_width(
            {bits: f"{count:.2f}" for bits, count in summary.bytes_per_cycle.items()}
        ),
    }


@with_config
def generate(
    output: OutputDirectory,
    config: ConfigChoice,
    top: Annotated[
        Top,
        typer.Option(help="the core, on streams, or the accelerator: the core on an AXI bus"),
    ] = Top.CORE,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="of the top module and the files; by default each configuration has another",
            show_default=False,
        ),
    ] = None,
    aresetn: AresetnOption = False,
    clock_mhz: ClockOption = CLOCK_MHZ,
    list_: Annotated[
        bool,
        typer.Option(
            "--list",
            help="print the presets and their sizes, and end",
            is_eager=True,
            callback=_list_presets,
        ),
    ] = False,
) -> None:
    """Write Verilog: one self-contained file, its ports, configuration and filelists.

    Beside it lie an instance to paste (NAME.instance.vh), constraints (NAME.sdc), timing diagrams
    (SVG, and JSON for WaveDrom) and FuseSoC's NAME.core with a target lint. With the accelerator
    come its registers: a page, JSON, a C header and SystemRDL (NAME.rdl). The Verilog suits Icarus,
    Verilator and Yosys. Same configuration, same bytes.

    All files begin with the name of the top module, and so do all modules: several cores and
    accelerators can be in one folder and in one design. With --name it stays when the
    configuration changes. A warning tells of an array that drains slower than it computes, and
    what has as many lanes at full rate.

    [bold]Examples[/bold]

      paro generate --list

      paro generate -o core

      paro generate -o core --preset video

      paro generate -o attention --top accelerator --preset video --name attention

      paro generate -o attention --top accelerator --aresetn --clock-mhz 250

      paro generate -o core --rows 16 --cols 8 --block 32 --head-dim 128

      paro generate -o core --config core.toml --rows 16

      paro generate -o cluster --top accelerator --cores 4 --query-rows 4 --key-slots 4
    """
    from gen.generate import generate as write_verilog

    core = config.build()
    result = write_verilog(core, output, top.value, name, aresetn=aresetn, clock_mhz=clock_mhz)
    rows = {
        "module": result["module"],
        "array": f"{core.rows} x {core.cols}",
        "block": core.block,
        "head_dim": core.head_dim,
        **_figures(result["summary"]),
        "LUT4 + 2 CCU2C of the cores, ECP5": _luts(core, result["summary"].cores),
        "configuration": result["digest"],
        "lines of Verilog": result["lines"],
        "seconds": result["seconds"],
        "files": ", ".join(result["files"]),
    }
    stdout.print(key_value_table(f"{top.value} {output}", rows))
    if result["advice"] is not None:
        warn(result["advice"])
