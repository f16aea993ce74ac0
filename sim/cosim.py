"""Co-simulation: the generated Verilog against the integer model, word for word."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from firmware_model.capture import Capture
from firmware_model.evaluate import (
    check_plan_config,
    common_report,
    score_words,
    write_outputs,
)
from firmware_model.integer import checked_query_blocks, integer_attention
from firmware_model.methods import computed_positions
from firmware_model.plan import Plan
from firmware_model.quantize import quantize_head
from gen.verilog import TOP, generate_verilog
from paro_config import Config
from paro_config.formats import CODE_DIGITS, LANES, Operand, Stage
from rtl import interfaces
from sim.harness import BENCH_TOP, COUNTER_BITS, harness_verilog, status_bits, visible_ports
from sim.simulators import Simulator, get_simulator
from sim.stimulus import Run, make_stimulus, unpack_words

__all__ = ["Simulation", "benchmark", "cosim", "ideal_cycles", "simulate"]

#: Cycles without a transfer on any stream after which the core counts as hung. The longest a
#: working core is silent is a few blocks.
IDLE_LIMIT = 200_000
#: Fewest beats of a player's memory; a power of two, so that most captures share a build.
DEPTH_MIN = 2**16
#: Seconds between two looks at how far the simulation is.
POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Simulation:
    """What a simulation did.

    Parameters
    ----------
    words : list of np.ndarray
        int16 [words], for each run what came out, in order; shorter than expected after a failure.
    cycles : list of int or None
        For each run, clocks from its command to its last output beat; ``None`` if it did not end.
    total_cycles : int or None
        Clocks from the first command to the last output of all.
    stages : dict of str to dict of str to int
        For each stage of the core, clocks of ``total_cycles`` in which it was ``busy``,
        ``starved`` and ``blocked``; in the others it had nothing to do.
    failure : str or None
        What the bench objected to.
    simulated_cycles : int
        All clocks simulated.
    seconds : float
        Wall-clock time of the simulation, without builds.
    waves : Path or None
        File with the waveforms.
    """

    words: list[np.ndarray]
    cycles: list[int | None]
    total_cycles: int | None
    stages: dict[str, dict[str, int]]
    failure: str | None
    simulated_cycles: int
    seconds: float
    waves: Path | None


def simulate(
    config: Config,
    runs: Sequence[Run],
    simulator: Simulator,
    build_dir: Path,
    run_dir: Path,
    *,
    memory_latency: int = 0,
    stall_seed: int | None = None,
    reset_at: int | None = None,
    waves: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Simulate some runs, one directly after the other.

    Parameters
    ----------
    config : Config
        The core.
    runs : sequence of Run
        What to compute.
    simulator : Simulator
        Runs the Verilog.
    build_dir : Path
        Where compiled simulators are kept, to be used again.
    run_dir : Path
        Receives all files of this simulation; emptied first.
    memory_latency : int
        Cycles from a fetch (for codes: from the run before) to its first beat.
    stall_seed : int, optional
        Random gaps on both sides of every stream; ``None`` for none.
    reset_at : int, optional
        Cycle at which the core is reset; everything is then done again from the first run.
    waves : bool
        Record waveforms.
    progress : callable, optional
        Called with (block rows begun, block rows).

    Raises
    ------
    ParoError
        If the Verilog does not compile or the folders cannot be written.
    """
    stimulus = make_stimulus(config, list(runs))
    depth = max(DEPTH_MIN, 1 << (stimulus.depth - 1).bit_length())
    build = simulator.build(
        {f"{TOP}.v": generate_verilog(config), f"{BENCH_TOP}.v": harness_verilog(config, depth)},
        BENCH_TOP,
        build_dir,
        visible=visible_ports(config),
        waves=waves,
    )
    shutil.rmtree(run_dir, ignore_errors=True)
    request: Any = interfaces.fetch_signature(config).members["payload"].shape
    stimulus.write(
        run_dir,
        memory_latency=memory_latency,
        stall_seed=stall_seed,
        reset_at=reset_at,
        idle_limit=IDLE_LIMIT,
        status_bits=status_bits(config),
        operands=[operand.name for operand in Operand],
        fetch_block_offset=request["block"].offset,
        counter_bits=COUNTER_BITS,
    )
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(simulator.run, build, "sim.bench", run_dir)
        _follow(future, run_dir / "progress", sum(len(run.query_blocks) for run in runs), progress)
        future.result()
    seconds = time.perf_counter() - started
    return _read_result(stimulus.runs, run_dir, simulator, waves, seconds)


def _follow(
    future: "Future[None]", path: Path, total: int, progress: Callable[[int, int], None] | None
) -> None:
    """Report the bench's progress until the simulation ends."""
    while wait([future], timeout=POLL_SECONDS).not_done:
        if progress is not None and path.exists():
            # After a reset the bench begins again.
            progress(min(path.stat().st_size, total), total)
    if progress is not None:
        progress(total, total)


def _read_result(
    runs: list[dict[str, Any]],
    run_dir: Path,
    simulator: Simulator,
    waves: bool,
    seconds: float,
) -> Simulation:
    result_file, output_file = run_dir / "result.json", run_dir / "o.hex"
    result: dict[str, Any]
    if result_file.exists():
        result = json.loads(result_file.read_text())
    else:
        result = {"failure": f"the simulator stopped; see {run_dir / 'sim.log'}"}
    lines = output_file.read_text().split() if output_file.exists() else []
    lines = lines[result.get("outputs_discarded", 0) :]
    words, first = [], 0
    for run in runs:
        words.append(unpack_words(lines[first : first + run["output_beats"]]))
        first += run["output_beats"]
    spans: list[dict[str, Any]] = result.get("runs", [])
    finished = [span for span in spans if "end" in span]
    waves_path = run_dir / simulator.waves_file
    return Simulation(
        words=words,
        cycles=[span["end"] - span["start"] if "end" in span else None for span in spans],
        total_cycles=finished[-1]["end"] - spans[0]["start"] if finished else None,
        stages=_stages(spans[0], finished[-1]) if finished else {},
        failure=result["failure"],
        simulated_cycles=result.get("cycles", 0),
        seconds=seconds,
        waves=waves_path if waves and waves_path.exists() else None,
    )


def _stages(first: dict[str, Any], last: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Clocks that the stages spent between the command of one run and the last output of another."""
    spent = np.array(last["activity_end"]) - np.array(first["activity_start"])
    flags = list(interfaces.Activity.as_shape().members)  # in the order of their bits
    return {
        stage.name.lower(): dict(zip(flags, map(int, counts), strict=True))
        for stage, counts in zip(Stage, spent.reshape(-1, len(flags)), strict=True)
    }


def ideal_cycles(config: Config, run: Run) -> int:
    """Clocks of a run if every lane of the array worked in every one, on valid tokens only."""
    tokens = torch.full((-(-run.head.tokens // config.block),), config.block)
    tokens[-1] = run.head.tokens - (len(tokens) - 1) * config.block
    digits = torch.tensor(CODE_DIGITS)[run.codes[list(run.query_blocks)].long()]
    products = digits * tokens[list(run.query_blocks)].unsqueeze(1) * tokens
    operations = 2 * config.head_dim * int(products.sum())
    return -(-operations // (LANES * config.rows * config.cols))


def cosim(
    capture: Capture,
    plan: Plan,
    heads: Sequence[int],
    config: Config,
    simulator: str,
    out_dir: Path,
    *,
    query_blocks: range | None = None,
    stall_seed: int | None = None,
    waves: bool = False,
    build_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Simulate some heads, compare every output word with the integer model, write the results.

    Parameters
    ----------
    capture : Capture
        Source of the heads.
    plan : Plan
        Orders and codes.
    heads : sequence of int
        Heads to compute.
    config : Config
        The core.
    simulator : str
        Name in `sim.simulators.SIMULATORS`.
    out_dir : Path
        Receives ``report.json``, ``outputs.safetensors`` and, if asked for, the waveforms.
    query_blocks : range, optional
        Block rows to compute; all by default.
    stall_seed : int, optional
        Random gaps on both sides of every stream; ``None`` for none.
    waves : bool
        Record waveforms.
    build_dir : Path, optional
        Where compiled simulators are kept; ``out_dir / "build"`` by default.
    progress : callable, optional
        Called with (block rows begun, block rows).

    Returns
    -------
    dict
        The report, as written. The check holds if ``bit_exact`` is true.

    Raises
    ------
    ParoError
        If inputs do not fit each other, the simulator is missing or the folders cannot be written.
    """
    chosen = get_simulator(simulator)
    check_plan_config(plan, config)
    rows = checked_query_blocks(query_blocks, plan.blocks)
    runs = [
        Run(
            quantize_head(capture, head, plan.head_order(head), config), plan.head_codes(head), rows
        )
        for head in heads
    ]
    # The integer model works while the simulator does.
    with ThreadPoolExecutor(1) as pool:
        model = pool.submit(
            lambda: [integer_attention(run.head, run.codes, config, rows) for run in runs]
        )
        simulation = simulate(
            config,
            runs,
            chosen,
            build_dir or out_dir / "build",
            out_dir / "simulation",
            stall_seed=stall_seed,
            waves=waves,
            progress=progress,
        )
        expected = model.result()
    results, compared, mismatches, first_mismatch = [], 0, 0, None
    for head, run, got, want in zip(heads, runs, simulation.words, expected, strict=True):
        differs = got != want.flatten().numpy()[: len(got)]
        compared += len(got)
        mismatches += int(differs.sum())
        if first_mismatch is None and differs.any():
            first_mismatch = _describe_mismatch(config, head, run, got, want, int(differs.argmax()))
        words = np.zeros(want.numel(), np.int16)
        words[: len(got)] = got
        words = torch.from_numpy(words.reshape(want.shape))
        results.append(score_words(capture, head, run.head, run.codes, words, config, rows))
    complete = compared == sum(want.numel() for want in expected) > 0
    common = common_report(capture, config, plan.avg_bits, results)
    ideal = [ideal_cycles(config, run) for run in runs]
    for entry, cycles, best in zip(common["heads"], simulation.cycles, ideal, strict=False):
        entry |= {"cycles": cycles, "ideal_cycles": best, "utilisation": _ratio(best, cycles)}
    report = {
        "bit_exact": complete and mismatches == 0 and simulation.failure is None,
        "outputs_compared": compared,
        "mismatches": mismatches,
        "first_mismatch": first_mismatch,
        "failure": simulation.failure,
        "cycles": simulation.total_cycles,
        "ideal_cycles": sum(ideal),
        "utilisation": _ratio(sum(ideal), simulation.total_cycles),
        "stages": simulation.stages,
        "simulator": f"{chosen.name} ({chosen.version()})",
        "stall_seed": stall_seed,
        "query_blocks": [rows.start, rows.stop],
        "simulation_seconds": round(simulation.seconds, 2),
        "cycles_per_second": round(simulation.simulated_cycles / simulation.seconds),
        **common,
    }
    if simulation.waves is not None:
        report["waves"] = simulation.waves.name
        shutil.move(simulation.waves, out_dir / simulation.waves.name)
    write_outputs(out_dir, results, report)
    if report["bit_exact"]:
        shutil.rmtree(out_dir / "simulation")
    return report


def _ratio(ideal: int, cycles: int | None) -> float | None:
    return round(ideal / cycles, 4) if cycles else None


def _describe_mismatch(
    config: Config, head: int, run: Run, got: np.ndarray, want: torch.Tensor, at: int
) -> dict[str, int]:
    row, channel = divmod(at, config.head_dim)
    position = int(computed_positions(run.head.tokens, run.query_blocks, config.block)[row])
    return {
        "head": head,
        "token": int(run.head.permutation[position]),
        "position": position,
        "channel": channel,
        "got": int(got[at]),
        "expected": int(want[row, channel]),
    }


def benchmark(
    capture: Capture,
    plan: Plan,
    head: int,
    config: Config,
    simulator: str,
    out_dir: Path,
    *,
    query_blocks: range | None = None,
    build_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure co-simulation: simulated clocks a second, and the seconds of the build before it.

    Parameters are those of `cosim`.
    """
    started = time.perf_counter()
    report = cosim(
        capture,
        plan,
        [head],
        config,
        simulator,
        out_dir,
        query_blocks=query_blocks,
        build_dir=build_dir,
        progress=progress,
    )
    seconds = time.perf_counter() - started
    return {
        "simulator": report["simulator"],
        "cycles": report["cycles"],
        "cycles_per_second": report["cycles_per_second"],
        "simulation_seconds": report["simulation_seconds"],
        "other_seconds": round(seconds - report["simulation_seconds"], 2),
        "bit_exact": report["bit_exact"],
    }
