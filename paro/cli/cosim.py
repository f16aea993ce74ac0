"""`paro cosim`: the generated Verilog against the integer model, word for word."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from paro.cli.console import key_value_table, progress_bar, stdout
from paro.cli.options import (
    CaptureArgument,
    ConfigChoice,
    HeadsOption,
    OutputDirectory,
    PlanOption,
    QueryBlocksOption,
    Top,
    check_captures,
    check_plan,
    is_number,
    parse_range,
    with_config,
)
from paro.cli.results import heads_table, layers_table
from paro.config import ParoError, files

if TYPE_CHECKING:
    from sim.cosim.report import Report
    from sim.cosim.target import Target
    from sim.cycles.memory import Memory

_PICTURE = "stages.png"


@with_config
def cosim(
    capture: CaptureArgument,
    output: OutputDirectory,
    config: ConfigChoice,
    plan: PlanOption = None,
    heads: HeadsOption = None,
    query_blocks: QueryBlocksOption = None,
    sim: Annotated[
        str, typer.Option("--sim", metavar="NAME", help="verilator or icarus")
    ] = "verilator",
    top: Annotated[
        Top, typer.Option(help="the core on streams, or the accelerator on an AXI memory")
    ] = Top.CORE,
    latency: Annotated[
        str,
        typer.Option(
            "--latency",
            metavar="CYCLES",
            help="cycles from a request to the memory's answer; A:B, of the accelerator alone: "
            "at random from A to B",
        ),
    ] = "0",
    bandwidth: Annotated[
        float | None,
        typer.Option(
            "--bandwidth",
            metavar="BYTES",
            help="accelerator: bytes a cycle that the memory gives, and takes, in the mean",
        ),
    ] = None,
    interleaved: Annotated[
        bool,
        typer.Option(
            "--interleaved",
            help="accelerator: all heads' tokens in one array [token, head, channel]",
        ),
    ] = False,
    stalls: Annotated[
        int | None,
        typer.Option("--stalls", metavar="SEED", help="random stalls on every stream or channel"),
    ] = None,
    waves: Annotated[bool, typer.Option("--waves", help="record waveforms")] = False,
    trace: Annotated[
        bool,
        typer.Option("--trace", help="record what stages and blocks do: trace.json, replay.html"),
    ] = False,
) -> None:
    """Run the generated Verilog under cocotb and compare every output word with the model.

    The capture is one of attention or of a linear layer. The core's head_dim follows the capture
    (of a layer: the plan) and its block follows the plan, unless an option or a configuration file
    says otherwise; a preset gives way to both. Without --plan, heads are calibrated first, at a
    mean of 4.8 bit, or the layer, at 4 bit.

    The compiled simulator is kept for later runs, wherever their -o is, in the folder paro of
    XDG_CACHE_HOME or ~/.cache (the environment variable PARO_CACHE_DIR names another); it holds at
    most 2 GiB, `paro doctor` shows how much, and it may be deleted at any time.

    Writes DIR/report.json, DIR/outputs.safetensors and DIR/stages.png, a picture of where the
    cycles went; with --trace also DIR/trace.json, for ui.perfetto.dev, and DIR/replay.html, a page
    that replays the run from the signals of the RTL. Exit status 1 if a word differs, or if the
    core alone takes other cycles than the cycle model predicts, the accelerator more than 1 % more
    or less.

    [bold]Examples[/bold]

      paro cosim capture.safetensors --heads 0 --query-blocks 0:4 -o cosim

      paro cosim capture.safetensors --plan plan.safetensors --preset video -o cosim

      paro cosim capture.safetensors --heads 0 --rows 4 --cols 16 --sim icarus --stalls 7 -o cosim

      paro cosim capture.safetensors --top accelerator --latency 1:200 --stalls 7 -o cosim

      paro cosim capture.safetensors --top accelerator --query-rows 4 --bandwidth 1.6 -o cosim

      paro cosim capture.safetensors --top accelerator --cores 4 --key-slots 4 -o cosim

      paro cosim capture.safetensors --heads 2 --trace -o cosim

      paro cosim capture.safetensors --heads 2 --query-blocks 0:1 --waves -o cosim

      paro cosim layer.safetensors --plan plan.safetensors --preset ulx3s -o cosim
    """
    check_captures([capture])
    if plan is not None:
        check_plan(plan)
    bounds = parse_range("query-blocks", query_blocks)
    cycles = _parse_latency(latency, top)
    for option, given in (("interleaved", interleaved), ("bandwidth", bandwidth is not None)):
        if given and top is Top.CORE:
            raise ParoError(f"--{option} is about the accelerator's memory; legal with it alone")

    from sim.cache import cache_folder
    from sim.cosim.simulators import get_simulator

    get_simulator(sim)
    cache_folder()

    from firmware_model.capture import is_layer
    from paro.cli.work import choose_work, cosim_work
    from sim.cosim.run import Setup
    from sim.cycles.memory import Memory

    target = _target(top, Memory(cycles, stalls, interleaved, bandwidth=bandwidth))
    if is_layer(capture) and (heads is not None or bounds is not None or interleaved):
        raise ParoError("--heads, --query-blocks and --interleaved are for attention")
    work = choose_work(capture, plan, config, heads, bounds)
    files.remove_files(output / _PICTURE)  # of an earlier run
    with progress_bar(sim) as progress:
        setup = Setup(sim, output, waves=waves, trace=trace, progress=progress)
        report = cosim_work(work, target, setup)
    title, content = f"co-simulation {output}", report.to_dict()
    stdout.print(
        heads_table(title, content) if "heads" in content else layers_table(title, [content])
    )
    if report.stages:
        # Only now: it takes a second, and the simulation shall begin.
        from paro.cli.drawing import save_figure, stages_figure

        stdout.print(_stages_table(report))
        save_figure(stages_figure(report), output / _PICTURE)
    stdout.print(_verdict(report))
    if not report.passed:
        raise typer.Exit(1)


def _target(top: Top, memory: "Memory") -> "Target":
    """Design to simulate, with its surroundings; the core has streams in place of a memory."""
    from sim.cosim.accelerator import AcceleratorTarget
    from sim.cosim.core import CoreTarget

    if top is Top.ACCELERATOR:
        return AcceleratorTarget(memory)
    return CoreTarget(memory.latency[0], memory.stall_seed)


def _parse_latency(text: str, top: Top) -> tuple[int, int]:
    """Least and most cycles."""
    low, colon, high = text.partition(":")
    limit = 65_535
    numbers = [low, high] if colon else [low, low]
    if not all(map(is_number, numbers)) or (colon and top is Top.CORE):
        raise ParoError(
            f"--latency {text!r} is not legal; legal: a number, or A:B with the accelerator"
        )
    least, most = map(int, numbers)
    if not least <= most <= limit:
        raise ParoError(f"--latency {text!r} is not legal; legal: 0 <= A <= B <= {limit:,}")
    return least, most


def _stages_table(report: "Report") -> Table:
    """Part of the cycles that each stage spent in each state."""
    table = Table(title="stages, % of the cycles", title_justify="left", box=box.SIMPLE_HEAD)
    states = list(next(iter(report.stages.values())))
    for name in ("stage", *states):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage, counts in report.stages.items():
        parts = [f"{100 * counts[state] / report.stage_cycles:.1f}" for state in states]
        table.add_row(stage.replace("_", " "), *parts)
    return table


def _verdict(report: "Report") -> Table:
    rows: dict[str, object] = {
        "bit_exact": report.bit_exact,
        "outputs_compared": report.outputs_compared,
        "mismatches": report.mismatches,
        "first_mismatch": report.first_mismatch and asdict(report.first_mismatch),
        "failure": report.failure,
        "cycles": report.cycles,
        "predicted_cycles": report.predicted_cycles,
        "cycles_as_predicted": report.cycles_as_predicted,
        "ideal_cycles": report.ideal_cycles,
        "utilisation": report.utilisation,
        **({} if report.imbalance is None else {"imbalance": report.imbalance}),
        "mean_bits": report.mean_bits,
        "density": report.density,
        "top": report.top,
        "simulator": report.simulator,
        "cycles_per_second": report.cycles_per_second,
        "waves": report.waves,
        "trace": report.trace,
        "replay": report.replay,
    }
    if report.memory is not None:
        for direction in ("read", "write"):
            traffic = asdict(getattr(report.memory, direction))
            rows |= {f"{direction}_{name}": value for name, value in traffic.items()}
    return key_value_table("", rows)
