"""The core in simulation: beats in, beats out, and what it did in between."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from firmware_model.parallel import thread_pool
from gen.names import CORE
from paro.config import Config
from paro.config.formats import Operand, Stage
from rtl import interfaces
from sim.cosim.core_harness import (
    BENCH_TOP,
    COUNTER_BITS,
    harness_verilog,
    status_bits,
    visible_ports,
)
from sim.cosim.core_stimulus import Run, make_stimulus, unpack_words
from sim.cosim.simulators import Simulator
from sim.cosim.verilog import kept_verilog

__all__ = ["Simulation", "follow", "simulate"]

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
    memory : dict of str to int
        Of the accelerator: bursts and beats on its memory port.
    """

    words: list[np.ndarray]
    cycles: list[int | None]
    total_cycles: int | None
    stages: dict[str, dict[str, int]]
    failure: str | None
    simulated_cycles: int
    seconds: float
    waves: Path | None
    memory: dict[str, int] = field(default_factory=dict)


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
        Where Verilog and compiled simulators are kept, see `sim.cache`.
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
    sources = {
        f"{CORE}.v": kept_verilog(config, CORE, build_dir),
        f"{BENCH_TOP}.v": harness_verilog(config, depth),
    }
    ports = visible_ports(config)
    with simulator.build(sources, BENCH_TOP, build_dir, visible=ports, waves=waves) as build:
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
        with thread_pool(1) as pool:
            future = pool.submit(simulator.run, build, f"{__package__}.core_bench", run_dir)
            rows = run_dir / "progress"
            follow(
                future,
                lambda: rows.stat().st_size if rows.exists() else 0,
                sum(len(run.query_blocks) for run in runs),
                progress,
            )
            future.result()
        seconds = time.perf_counter() - started
    return _read_result(stimulus.runs, run_dir, simulator, waves, seconds)


def follow(
    future: "Future[None]",
    done: Callable[[], int],
    total: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Report a bench's progress until the simulation ends."""
    while wait([future], timeout=POLL_SECONDS).not_done:
        if progress is not None:
            # After a reset the bench begins again.
            progress(min(done(), total), total)
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
    """Clocks that the stages spent from the command of one run to the last output of another."""
    spent = np.array(last["activity_end"]) - np.array(first["activity_start"])
    flags = list(interfaces.Activity.as_shape().members)  # in the order of their bits
    return {
        stage.name.lower(): dict(zip(flags, map(int, counts), strict=True))
        for stage, counts in zip(Stage, spent.reshape(-1, len(flags)), strict=True)
    }
