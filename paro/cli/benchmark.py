"""`paro benchmark`: how fast the integer model and the co-simulation are."""

import resource
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from paro.cli.console import key_value_table, print_json, progress_bar, stdout
from paro.cli.options import (
    ConfigChoice,
    JsonOption,
    check_captures,
    check_plan,
    parse_range,
    with_config,
)


@with_config
def benchmark(
    config: ConfigChoice,
    capture: Annotated[
        Path | None,
        typer.Argument(metavar="[CAPTURE]", help="capture; the one that ships by default"),
    ] = None,
    head: Annotated[int, typer.Option("--head", metavar="N", help="head to compute")] = 0,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="PLAN", help="plan; without one, calibrated at 4.8 bit"),
    ] = None,
    query_blocks: Annotated[
        str, typer.Option("--query-blocks", metavar="A:B", help="block rows to co-simulate")
    ] = "0:2",
    sim: Annotated[
        str, typer.Option("--sim", metavar="NAME", help="verilator or icarus")
    ] = "verilator",
    json: JsonOption = False,
) -> None:
    """Time the integer model on a whole head, and the co-simulation on some block rows of it.

    [bold]Examples[/bold]

      paro benchmark

      paro benchmark capture.safetensors --head 2 --query-blocks 0:1 --json
    """
    if capture is not None:
        check_captures([capture])
    if plan is not None:
        check_plan(plan)
    bounds = parse_range("query-blocks", query_blocks)

    from sim.cosim.simulators import get_simulator

    get_simulator(sim)

    from firmware_model import DEMO_CAPTURE
    from firmware_model.capture import load_capture
    from firmware_model.quality.evaluate import evaluate
    from paro.cli.inputs import as_range, capture_config, choose_plan
    from sim.cosim.cosim import Heads
    from sim.cosim.cosim import benchmark as time_cosim
    from sim.cosim.run import Setup

    source = load_capture(capture or DEMO_CAPTURE)
    started = time.perf_counter()
    chosen_plan, _ = choose_plan(plan, source, str(head), config)
    calibrated = time.perf_counter()
    core = capture_config(config, source, chosen_plan)
    with progress_bar("integer model") as progress:
        started_model = time.perf_counter()
        result = evaluate(source, chosen_plan, [head], core, progress=progress)
        model_seconds = time.perf_counter() - started_model
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = as_range(bounds, chosen_plan.blocks)
    with TemporaryDirectory(prefix="paro_benchmark_") as folder, progress_bar(sim) as progress:
        timing = time_cosim(
            Heads(source, chosen_plan, [head], core, rows),
            Setup(sim, Path(folder), progress=progress),
        )
    figures = {
        "capture": source.name,
        "head": head,
        "tokens": source.tokens,
        "calibration_seconds": round(calibrated - started, 2) if plan is None else None,
        "integer_model_seconds": round(model_seconds, 2),
        "integer_model_peak_gib": round(memory, 2),
        "snr_db": result.report["heads"][0]["snr_db"],
        "array": f"{core.rows} x {core.cols}",
        **{f"cosim_{name}": value for name, value in asdict(timing).items()},
    }
    if json:
        print_json(figures)
    else:
        stdout.print(key_value_table("benchmark", figures))
    if not timing.bit_exact:
        raise typer.Exit(1)
