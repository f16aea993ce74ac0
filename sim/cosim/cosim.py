"""Co-simulation: the generated Verilog against the integer model, word for word."""

import shutil
import time
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from firmware_model.calibration.plan import Plan
from firmware_model.capture import Capture
from firmware_model.codes import checked_query_blocks
from firmware_model.host.image import Image
from firmware_model.parallel import thread_pool
from firmware_model.quality.evaluate import (
    OUTPUTS_FILE,
    REPORT_FILE,
    check_plan_config,
    common_report,
    score_words,
    write_outputs,
)
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.methods import computed_positions
from firmware_model.reference.quantize import quantize_head
from paro.config import Config, files
from sim.cache import cache_folder
from sim.cosim.accelerator import place_runs, simulate_device
from sim.cosim.core import simulate
from sim.cosim.core_stimulus import Run
from sim.cosim.simulators import SIMULATORS, get_simulator
from sim.cycles import attention_time
from sim.cycles.cycle_model import Prediction, compile_model, predict, predict_accelerator
from sim.cycles.memory import Memory

__all__ = ["DEVICE_ERROR", "benchmark", "cosim", "ideal_cycles"]

#: What the cycle model may be wrong by, as a part of the accelerator's clocks.
DEVICE_ERROR = 0.01


def ideal_cycles(config: Config, run: Run) -> int:
    """Clocks of a run if every lane of the array worked in every one, on valid tokens only."""
    return ceil(attention_time.ideal_cycles(config, *_computed(run))[0])


def _computed(run: Run) -> tuple[np.ndarray, int, range]:
    """Codes [1, rows, blocks] that a run computes, its tokens, its block rows."""
    codes = run.codes[list(run.query_blocks)].numpy()
    return codes[None], run.head.tokens, run.query_blocks


def cosim(
    capture: Capture,
    plan: Plan,
    heads: Sequence[int],
    config: Config,
    simulator: str,
    out_dir: Path,
    *,
    query_blocks: range | None = None,
    memory: Memory | None = None,
    memory_latency: int = 0,
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
        Name in `sim.cosim.simulators.SIMULATORS`.
    out_dir : Path
        Receives ``report.json``, ``outputs.safetensors`` and, if asked for, the waveforms.
    query_blocks : range, optional
        Block rows to compute; all by default.
    memory : Memory, optional
        Simulate the whole accelerator on this memory; by default the core alone, on streams.
    memory_latency, stall_seed
        For the core alone, see `sim.cosim.core.simulate`.
    waves : bool
        Record waveforms.
    build_dir : Path, optional
        Where Verilog and compiled simulators are kept; the user's `sim.cache.cache_folder` by
        default.
    progress : callable, optional
        Called with (block rows begun, block rows).

    Returns
    -------
    dict
        The report, as written. The check holds if ``bit_exact`` is true. ``predicted_cycles`` are
        those of the cycle model, and ``cycles_as_predicted`` tells whether every head of the core
        alone took just these, or the accelerator these within `DEVICE_ERROR`.

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
            quantize_head(capture, head, plan.head_order(head), config, plan.head_transform(head)),
            plan.head_codes(head),
            rows,
        )
        for head in heads
    ]
    folders = build_dir or cache_folder(), out_dir / "simulation"
    # Nothing of an earlier run may be taken for this one's.
    results = (REPORT_FILE, OUTPUTS_FILE, *(cls.waves_file for cls in SIMULATORS.values()))
    files.remove_files(*(out_dir / name for name in results))
    # The integer model works while the simulator does.
    with thread_pool(1) as pool:
        model = pool.submit(
            lambda: [integer_attention(run.head, run.codes, config, rows) for run in runs]
        )
        compiled = pool.submit(compile_model)
        settings: dict[str, Any] = {"waves": waves, "progress": progress}
        image: Image | None = None
        if memory is None:
            simulation = simulate(
                config,
                runs,
                chosen,
                *folders,
                memory_latency=memory_latency,
                stall_seed=stall_seed,
                **settings,
            )
        else:
            image = place_runs(config, runs, capture, memory)
            simulation = simulate_device(
                config, runs, image, chosen, *folders, memory=memory, **settings
            )
        expected = model.result()
        compiled.result()
    scored, compared, mismatches, first_mismatch = [], 0, 0, None
    for head, run, got, want in zip(heads, runs, simulation.words, expected, strict=True):
        differs = got != want.flatten().numpy()[: len(got)]
        compared += len(got)
        mismatches += int(differs.sum())
        if first_mismatch is None and differs.any():
            first_mismatch = _describe_mismatch(config, head, run, got, want, int(differs.argmax()))
        words = np.zeros(want.numel(), np.int16)
        words[: len(got)] = got
        words = torch.from_numpy(words.reshape(want.shape))
        scored.append(score_words(capture, head, run.head, run.codes, words, config, rows))
    complete = compared == sum(want.numel() for want in expected) > 0
    common = common_report(capture, config, plan.avg_bits, scored)
    ideal = [ideal_cycles(config, run) for run in runs]
    for entry, cycles, best in zip(common["heads"], simulation.cycles, ideal, strict=False):
        entry |= {"cycles": cycles, "ideal_cycles": best, "utilisation": _ratio(best, cycles)}
    predicted: Prediction | None = None
    as_predicted: bool | None = None
    works = [run.work(config) for run in runs]
    if simulation.failure is None and memory is None:
        predicted = predict(config, works, memory_latency=memory_latency, stall_seed=stall_seed)
        as_predicted = simulation.cycles == predicted.cycles
    elif simulation.failure is None and memory and image:
        predicted = predict_accelerator(config, works, image, memory)
        taken = simulation.total_cycles or 0
        as_predicted = abs(predicted.total_cycles - taken) <= DEVICE_ERROR * taken
    report = {
        "bit_exact": complete and mismatches == 0 and simulation.failure is None,
        "outputs_compared": compared,
        "mismatches": mismatches,
        "first_mismatch": first_mismatch,
        "failure": simulation.failure,
        "cycles": simulation.total_cycles,
        "predicted_cycles": predicted.total_cycles if predicted else None,
        "cycles_as_predicted": as_predicted,
        "ideal_cycles": sum(ideal),
        "utilisation": _ratio(sum(ideal), simulation.total_cycles),
        "stages": simulation.stages,
        "top": "core" if memory is None else "accelerator",
        "memory": _memory_report(config, runs, memory, simulation.memory),
        "simulator": f"{chosen.name} ({chosen.version()})",
        "stall_seed": memory.stall_seed if memory else stall_seed,
        "query_blocks": [rows.start, rows.stop],
        "simulation_seconds": round(simulation.seconds, 2),
        "cycles_per_second": round(simulation.simulated_cycles / simulation.seconds),
        **common,
    }
    if simulation.waves is not None:
        report["waves"] = simulation.waves.name
        shutil.move(simulation.waves, out_dir / simulation.waves.name)
    write_outputs(out_dir, scored, report)
    if report["bit_exact"]:
        shutil.rmtree(out_dir / "simulation")
    return report


def _memory_report(
    config: Config, runs: Sequence[Run], memory: Memory | None, counted: dict[str, int]
) -> dict[str, Any] | None:
    """What the memory port moved, and which part of it was wanted."""
    if memory is None or not counted:
        return None
    beat_bytes = config.axi_bits // 8
    wanted = wanted_bytes(config, runs)
    report: dict[str, Any] = {"latency": list(memory.latency), "interleaved": memory.interleaved}
    for direction in ("read", "write"):
        bursts, beats = counted[f"{direction}_bursts"], counted[f"{direction}_beats"]
        report[direction] = {
            "bytes_wanted": wanted[direction],
            "bursts": bursts,
            "beats": beats,
            "beats_per_burst": round(beats / bursts, 2),
            "bytes_wanted_per_beat_byte": round(wanted[direction] / (beats * beat_bytes), 4),
        }
    return report


def wanted_bytes(config: Config, runs: Sequence[Run]) -> dict[str, int]:
    """Bytes that some runs must read and write: live blocks with their scales, codes, outputs."""
    read = sum(attention_time.read_bytes(config, *_computed(run))[0][0] for run in runs)
    queries = sum(len(run.queries(config)) for run in runs)
    return {"read": int(read), "write": attention_time.written_bytes(config, queries)}


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
    """Measure co-simulation: simulated clocks a second, and the seconds of all else.

    The latter hold the build, unless it is kept from an earlier run.

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
