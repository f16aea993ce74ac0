"""`paro run`: heads or a layer on a board, compared with the integer model."""

from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from paro.cli.console import key_value_table, progress_bar, stdout
from paro.cli.options import (
    CaptureArgument,
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
from paro.cli.results import heads_table, layers_table
from paro.config import ParoError

if TYPE_CHECKING:
    from fpga.soc.device import BoardTarget
    from sim.cosim.report import Report

_SIMULATED = "sim"


@with_config
def run(
    capture: CaptureArgument,
    output: OutputDirectory,
    config: ConfigChoice,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="WHERE",
            help="serial:/dev/ttyUSB0, udp:HOST (Ethernet), tcp:HOST:PORT, litex:HOST:PORT, or "
            "sim: a simulated board",
        ),
    ],
    plan: PlanOption = None,
    heads: HeadsOption = None,
    query_blocks: QueryBlocksOption = None,
    silence: Annotated[
        float | None,
        typer.Option(
            "--silence", metavar="SECONDS", help="how long to wait for a byte that does not come"
        ),
    ] = None,
) -> None:
    """Compute heads, or a linear layer, on a board, and compare every word with the integer model.

    The board must have a bitstream of `paro synth --board`. It says itself which accelerator it
    has; options of the configuration are for --device sim alone, which compiles a simulated board
    and keeps it, as `paro cosim` does.

    What the link loses or changes is noticed and sent again. A run ends with the right result, or
    with one sentence that says what did not work.

    Writes DIR/report.json and DIR/outputs.safetensors. Exit status 1 if a word differs.

    [bold]Examples[/bold]

      paro run capture.safetensors --plan plan.safetensors --device serial:/dev/ttyUSB0 -o run

      paro run capture.safetensors --heads 0 --device sim --rows 4 --cols 4 -o run

      paro run capture.safetensors --plan plan.safetensors --device udp:192.168.1.50 -o run

      paro run layer.safetensors --plan plan.safetensors --device tcp:127.0.0.1:2000 -o run
    """
    check_captures([capture])
    if plan is not None:
        check_plan(plan)
    bounds = parse_range("query-blocks", query_blocks)
    simulated = device == _SIMULATED
    given = [name for name, value in config.fields.items() if value is not None]
    if not simulated and (given or config.preset or config.file):
        raise ParoError(
            "options of the configuration are for --device sim; a board says itself what it has"
        )
    if silence is not None and not silence > 0:
        raise ParoError(f"--silence {silence:g} is not legal; legal: more than 0")

    if not simulated:
        from firmware_model.host.link import open_bus

        open_bus(device)  # refused as it is named, before the long work

    from fpga.soc.device import BoardSetup, connect
    from paro.cli.work import choose_work, cosim_work, holds_layer

    layer = holds_layer(capture, heads, bounds)

    with ExitStack() as stack:
        target: BoardTarget
        if simulated:
            from fpga.soc.simulation import simulated_board
            from sim.cache import cache_folder

            work = choose_work(capture, plan, config, heads, bounds)
            board = stack.enter_context(simulated_board(work.config, cache_folder()))
            # A simulated board is slow.
            target = stack.enter_context(connect(board.device, silence=silence or 60.0))
        else:
            target = stack.enter_context(connect(device, silence=silence))
            own = ConfigChoice(None, None, target.config.model_dump())
            work = choose_work(capture, plan, own, heads, bounds)
        with progress_bar("board") as progress:
            setup = BoardSetup("", output, progress=progress, device=device)
            report = cosim_work(work, target, setup)
    title, content = f"run on {device} {output}", report.to_dict()
    stdout.print(layers_table(title, [content]) if layer else heads_table(title, content))
    stdout.print(_verdict(report))
    if not report.passed:
        raise typer.Exit(1)


def _verdict(report: "Report") -> Table:
    assert report.link is not None
    link = asdict(report.link)
    faults = link.pop("faults")
    rows: dict[str, object] = {
        "bit_exact": report.bit_exact,
        "outputs_compared": report.outputs_compared,
        "mismatches": report.mismatches,
        "first_mismatch": report.first_mismatch and asdict(report.first_mismatch),
        "cycles": report.cycles,
        "ideal_cycles": report.ideal_cycles,
        "utilisation": report.utilisation,
        "mean_bits": report.mean_bits,
        **link,
        "faults mended": len(faults),
    }
    return key_value_table("", rows)
