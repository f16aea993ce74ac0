"""`paro generate`: the Verilog of a core and what describes it."""

from paro_cli.console import key_value_table, stdout
from paro_cli.options import ConfigChoice, OutputDirectory, with_config


@with_config
def generate(output: OutputDirectory, config: ConfigChoice) -> None:
    """Write the Verilog of a core: one self-contained file, ports, configuration, filelists.

    The file suits Icarus, Verilator and Yosys. Same configuration, same bytes.

    [bold]Examples[/bold]

      paro generate -o core

      paro generate -o core --preset video

      paro generate -o core --rows 16 --cols 8 --block 32 --head-dim 128

      paro generate -o core --config core.toml --rows 16
    """
    from gen.generate import generate as write_core

    core = config.build()
    result = write_core(core, output)
    rows = {
        "array": f"{core.rows} x {core.cols}",
        "block": core.block,
        "head_dim": core.head_dim,
        "configuration": result["digest"],
        "lines of Verilog": result["lines"],
        "seconds": result["seconds"],
        "files": ", ".join(result["files"]),
    }
    stdout.print(key_value_table(f"core {output}", rows))
