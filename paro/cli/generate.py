"""`paro generate`: the Verilog of a core or an accelerator and what describes it."""

from typing import Annotated

import typer

from paro.cli.console import key_value_table, stdout, warn
from paro.cli.options import ConfigChoice, OutputDirectory, Top, with_config


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
) -> None:
    """Write Verilog: one self-contained file, its ports, configuration and filelists.

    With the accelerator come its registers: a page, JSON and a C header. The Verilog suits Icarus,
    Verilator and Yosys. Same configuration, same bytes.

    All files begin with the name of the top module, and so do all modules: several cores and
    accelerators can be in one folder and in one design. With --name it stays when the
    configuration changes. A warning tells of an array that drains slower than it computes, and
    what has as many lanes at full rate.

    [bold]Examples[/bold]

      paro generate -o core

      paro generate -o core --preset video

      paro generate -o attention --top accelerator --preset video --name attention

      paro generate -o core --rows 16 --cols 8 --block 32 --head-dim 128

      paro generate -o core --config core.toml --rows 16

      paro generate -o cluster --top accelerator --cores 4 --query-rows 4 --key-slots 4
    """
    from gen.generate import generate as write_verilog

    core = config.build()
    result = write_verilog(core, output, top.value, name)
    rows = {
        "module": result["module"],
        "array": f"{core.rows} x {core.cols}",
        "block": core.block,
        "head_dim": core.head_dim,
        "configuration": result["digest"],
        "lines of Verilog": result["lines"],
        "seconds": result["seconds"],
        "files": ", ".join(result["files"]),
    }
    stdout.print(key_value_table(f"{top.value} {output}", rows))
    if result["advice"] is not None:
        warn(result["advice"])
