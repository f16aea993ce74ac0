"""`paro export`: Verilog, a memory image and a testbench for those who have no Python."""

from typing import Annotated

import typer

from paro.cli.console import key_value_table, stdout
from paro.cli.options import (
    AresetnOption,
    CaptureArgument,
    ClockOption,
    ConfigChoice,
    HeadsOption,
    OutputDirectory,
    PlanOption,
    QueryBlocksOption,
    check_captures,
    check_plan,
    parse_range,
    with_config,
)
from paro.config.clock import CLOCK_MHZ


@with_config
def export(
    capture: CaptureArgument,
    output: OutputDirectory,
    config: ConfigChoice,
    plan: PlanOption = None,
    heads: HeadsOption = None,
    query_blocks: QueryBlocksOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="of the top module; by default each configuration has another",
            show_default=False,
        ),
    ] = None,
    aresetn: AresetnOption = False,
    clock_mhz: ClockOption = CLOCK_MHZ,
) -> None:
    """Write an accelerator with a memory image, the words that it must write, and a testbench.

    The folder is all that is needed: the testbench is plain Verilog, with a memory, a host that
    starts the queue and a comparison of every word written. Configuration and plan are chosen as
    by `paro cosim`.

    Writes DIR/NAME.v and what `paro generate` writes beside it, DIR/memory.hex and .bin (the
    memory before the run), DIR/expected.hex (each word written: 10 digits of address, 2 of the
    bytes that count, 8 of data), DIR/expected.bin (the memory after it, but for bytes that are
    undefined: words of a layer past its last output), DIR/testbench.v, a driver in C99
    (DIR/paro_driver.c and .h) with DIR/example.c that runs this queue, and DIR/export.json (where
    everything lies). FuseSoC's NAME.core has targets lint and sim, which runs the testbench.

    [bold]Examples[/bold]

      paro export capture.safetensors --plan plan.safetensors --heads 0 -o bench

      paro export layer.safetensors --preset ulx3s -o bench

      cd bench && iverilog -g2005 -s testbench -o bench *.v && vvp bench

      fusesoc --cores-root bench run --target sim paro:accelerator:NAME

      cd bench && verilator --binary -Wno-fatal --top-module testbench *.v && obj_dir/Vtestbench
    """
    check_captures([capture])
    if plan is not None:
        check_plan(plan)
    bounds = parse_range("query-blocks", query_blocks)

    from paro.cli.work import choose_work
    from sim.cosim.cosim import LinearLayer, heads_work, layer_work
    from sim.cosim.export import export as write_stimuli

    chosen = choose_work(capture, plan, config, heads, bounds)
    work = layer_work(chosen) if isinstance(chosen, LinearLayer) else heads_work(chosen)
    facts = write_stimuli(work, output, name, aresetn=aresetn, clock_mhz=clock_mhz)
    rows = {
        "module": facts["module"],
        "jobs": len(facts["jobs"]),
        "bytes of memory": f"{facts['bytes']:,}",
        "words written": f"{facts['words_written']:,}",
        "files": ", ".join(facts["files"]),
    }
    stdout.print(key_value_table(f"export {output}", rows))
