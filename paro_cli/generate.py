"""`paro generate`: the Verilog of a core or an accelerator and what describes it."""

from typing import Annotated

import typer

from paro_cli.console import key_value_table, stdout
from paro_cli.options import ConfigChoice, OutputDirectory, Top, with_config


@with_config
def generate(
    output: OutputDirectory,
    config: ConfigChoice,
    top: Annotated[
        Top,
        typer.Option(help="the core, on streams, or the accelerator: the core on an AXI bus"),
    ] = Top.CORE,
) -> None:
    """Write Verilog: one self-contained file, its ports, configuration and filelists.

    With the accelerator come its registers: a page, JSON and a C header. The Verilog suits Icarus,
    Verilator and Yosys. Same configuration, same bytes.

    [bold]Examples[/bold]

      paro generate -o core

      paro generate -o core --preset video

      paro generate -o device --top accelerator --preset video

      paro generate -o core --rows 16 --cols 8 --block 32 --head-dim 128

      paro generate -o core --config core.toml --rows 16
    """
    from gen.generate import generate as write_verilog

    core = config.build()
    result = write_verilog(core, output, f"paro_{top.value}")
    rows = {
        "array": f"{core.rows} x {core.cols}",
        "block": core.block,
        "head_dim": core.head_dim,
        "configuration": result["digest"],
        "lines of Verilog": result["lines"],
        "seconds": result["seconds"],
        "files": ", ".join(result["files"]),
    }
    stdout.print(key_value_table(f"{top.value} {output}", rows))
