"""`paro cosim`: the generated Verilog against the integer model, word for word."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from paro_cli.console import key_value_table, progress_bar, stdout
from paro_cli.options import (
    CaptureArgument,
    ConfigChoice,
    HeadsOption,
    OutputDirectory,
    parse_range,
    with_config,
)
from paro_cli.results import heads_table


@with_config
def cosim(
    capture: CaptureArgument,
    output: OutputDirectory,
    config: ConfigChoice,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="PLAN", help="plan; without one, the heads are calibrated at 4.8 bit"
        ),
    ] = None,
    heads: HeadsOption = None,
    query_blocks: Annotated[
        str | None,
        typer.Option(
            "--query-blocks", metavar="A:B", help="block rows A up to B - 1; all by default"
        ),
    ] = None,
    sim: Annotated[
        str, typer.Option("--sim", metavar="NAME", help="verilator or icarus")
    ] = "verilator",
    stalls: Annotated[
        int | None,
        typer.Option(
            "--stalls", metavar="SEED", help="random stalls on both sides of every stream"
        ),
    ] = None,
    waves: Annotated[bool, typer.Option("--waves", help="record waveforms")] = False,
) -> None:
    """Run the generated Verilog under cocotb and compare every output word with the model.

    The core's head_dim follows the capture and its block follows the plan, unless an option or a
    configuration file says otherwise; a preset gives way to both. Without --plan, the heads are
    calibrated first, at a mean of 4.8 bit.

    Writes DIR/report.json and DIR/outputs.safetensors. Exit status 1 if a word differs.

    [bold]Examples[/bold]

      paro cosim capture.safetensors --heads 0 --query-blocks 0:4 -o cosim

      paro cosim capture.safetensors --plan plan.safetensors --preset video -o cosim

      paro cosim capture.safetensors --heads 0 --rows 4 --cols 16 --sim icarus --stalls 7 -o cosim

      paro cosim capture.safetensors --heads 2 --query-blocks 0:1 --waves -o cosim
    """
    from firmware_model.capture import load_capture
    from paro_cli.workload import as_range, capture_config, choose_plan
    from sim.cosim import cosim as simulate
    from sim.simulators import get_simulator

    source = load_capture(capture)
    get_simulator(sim)  # a missing one is refused before the long work
    chosen_plan, chosen = choose_plan(plan, source, heads, config)
    core = capture_config(config, source, chosen_plan)
    rows = as_range(parse_range("query-blocks", query_blocks), chosen_plan.blocks)
    with progress_bar(sim) as progress:
        report = simulate(
            source,
            chosen_plan,
            chosen,
            core,
            sim,
            output,
            query_blocks=rows,
            stall_seed=stalls,
            waves=waves,
            progress=progress,
        )
    stdout.print(heads_table(f"co-simulation {output}", report))
    stdout.print(_verdict(report))
    if not report["bit_exact"]:
        raise typer.Exit(1)


def _verdict(report: dict[str, Any]) -> Table:
    names = (
        "bit_exact",
        "outputs_compared",
        "mismatches",
        "first_mismatch",
        "failure",
        "cycles",
        "ideal_cycles",
        "utilisation",
        "mean_bits",
        "density",
        "simulator",
        "cycles_per_second",
        "waves",
    )
    return key_value_table("", {name: report.get(name) for name in names})
