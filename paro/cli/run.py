"""`paro run`: heads, a layer or a whole model on a device, compared with the integer model."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from paro.cli.console import key_value_table, progress_bar, stdout
from paro.cli.options import (
    ON_MODEL,
    ON_RTL,
    ConfigChoice,
    FramesOption,
    HeadsOption,
    HeightOption,
    OutputDirectory,
    PlanOption,
    PromptOption,
    QueryBlocksOption,
    StepsOption,
    VariantOption,
    WidthOption,
    check_captures,
    check_plan,
    parse_range,
    with_config,
)
from paro.cli.results import heads_table, layers_table
from paro.config import ParoError
from paro.config.files import check_file

if TYPE_CHECKING:
    from fpga.soc.device import BoardTarget
    from sim.cosim.report import Report

_SIMULATED = "sim"


@with_config
def run(
    capture: Annotated[
        Path,
        typer.Argument(
            metavar="CAPTURE|MODEL",
            help="capture of heads or a layer; or moving-digits, a checkpoint of it, or a folder "
            "of a diffusers pipeline",
            show_default=False,
        ),
    ],
    output: OutputDirectory,
    config: ConfigChoice,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="WHERE",
            help="serial:/dev/ttyUSB0, udp:HOST (Ethernet), tcp:HOST:PORT, litex:HOST:PORT, or "
            "sim: a simulated board; of a model also rtl: the accelerator's Verilog in a "
            "simulator, and model: the integer model alone",
        ),
    ],
    plan: PlanOption = None,
    heads: HeadsOption = None,
    query_blocks: QueryBlocksOption = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", metavar="N", help="of a model: which video or image, default 0"),
    ] = None,
    steps: StepsOption = None,
    prompt: PromptOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    frames: FramesOption = None,
    variant: VariantOption = None,
    on_device: Annotated[
        str | None,
        typer.Option(
            "--on-device",
            metavar="A:B",
            help="of a model: the device computes denoising steps A up to B - 1, the integer model "
            "the others; default all",
        ),
    ] = None,
    simulator: Annotated[
        str, typer.Option("--sim", metavar="NAME", help="with --device rtl: verilator or icarus")
    ] = "verilator",
    silence: Annotated[
        float | None,
        typer.Option(
            "--silence", metavar="SECONDS", help="how long to wait for a byte that does not come"
        ),
    ] = None,
) -> None:
    """Compute heads, a layer or a model on a device; compare every word with the integer model.

    The board must have a bitstream of `paro synth --board`. It says itself which accelerator it
    has; options of the configuration are for --device sim, which compiles a simulated board and
    keeps it, as `paro cosim` does, and for --device rtl and model.

    What the link loses or changes is noticed and sent again. A run ends with the right result, or
    with one sentence that says what did not work.

    Of a model (moving-digits, a checkpoint of it, or a folder that a diffusers pipeline was saved
    to: CogVideoX, DiT, Flux, PixArt, Wan) the device computes all blocks of every denoising step,
    both halves of the guidance, from one start: linear layers, attention and the vector steps
    between them. The host keeps embeddings, condition and sampler. Without --plan one is
    calibrated. The same tokens go through the blocks in float, and the error of each block is told.

    Writes DIR/report.json and DIR/outputs.safetensors; of a model DIR/report.json, DIR/film.gif
    (above float, below the device), DIR/contact_sheet.png and the plan that was made. Exit status 1
    if a word differs.

    [bold]Examples[/bold]

      paro run capture.safetensors --plan plan.safetensors --device serial:/dev/ttyUSB0 -o run

      paro run capture.safetensors --heads 0 --device sim --rows 4 --cols 4 -o run

      paro run capture.safetensors --plan plan.safetensors --device udp:192.168.1.50 -o run

      paro run moving-digits --device rtl --rows 16 --cols 16 --steps 25 --on-device :1 -o run

      paro run CogVideoX-2b/ --prompt "a panda" --frames 9 --device model -o run

      paro run layer.safetensors --plan plan.safetensors --device tcp:127.0.0.1:2000 -o run
    """
    from firmware_model.models.names import is_model

    options = {
        "steps": steps,
        "prompt": prompt,
        "height": height,
        "width": width,
        "frames": frames,
        "variant": variant,
    }
    if is_model(capture):
        if heads is not None or query_blocks is not None or silence is not None:
            raise ParoError("--heads, --query-blocks and --silence are for captures")
        chosen = parse_range("on-device", on_device)
        _run_model(capture, output, config, device, plan, options, (sample or 0, chosen, simulator))
        return
    if capture.is_dir():
        raise ParoError(
            f"{capture} is a folder without model_index.json; legal: one of a diffusers pipeline, "
            "or the file of a capture or a checkpoint"
        )
    for name, value in (options | {"sample": sample, "on-device": on_device}).items():
        if value is not None:
            raise ParoError(f"--{name} is for a model, but {capture} is a capture")
    _run_capture(capture, output, config, device, plan, heads, query_blocks, silence)


def _check_device(device: str, others: str) -> None:
    """Refuse a board as it is named, before the long work."""
    from firmware_model.host.link import open_bus

    open_bus(device, others=others)


def _run_capture(
    capture: Path,
    output: Path,
    config: ConfigChoice,
    device: str,
    plan: Path | None,
    heads: str | None,
    query_blocks: str | None,
    silence: float | None,
) -> None:
    """Run heads or a layer on a board."""
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
        _check_device(device, f", or {_SIMULATED}")

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


def _run_model(
    model: Path,
    output: Path,
    config: ConfigChoice,
    device: str,
    plan: Path | None,
    options: dict[str, Any],
    choices: tuple[int, tuple[int, int | None] | None, str],
) -> None:
    """Check what can be checked at once, then run a model."""
    if plan is not None:
        check_file(plan, "plan")
    if device == _SIMULATED:
        raise ParoError("a simulated board is too small for a model; legal: rtl, model or a board")
    if device not in (ON_MODEL, ON_RTL):
        _check_device(device, f", {ON_RTL} or {ON_MODEL}")
    sample, on_device, simulator = choices
    from sim.cosim.simulators import get_simulator

    if device == ON_RTL:
        get_simulator(simulator)
    from paro.cli.network import NetworkRequest, run_network

    request = NetworkRequest(model, options, plan, device, sample, on_device, simulator, output)
    if not run_network(request, config):
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
