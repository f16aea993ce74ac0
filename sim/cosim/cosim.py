"""Co-simulation: the generated Verilog against the integer model, word for word."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from firmware_model.calibration.plan import Plan
from firmware_model.capture import Capture
from firmware_model.codes import checked_query_blocks
from firmware_model.host.jobs import HeadJob
from firmware_model.parallel import thread_pool
from firmware_model.progress import Progress
from firmware_model.quality.evaluate import (
    OUTPUTS_FILE,
    REPORT_FILE,
    HeadResult,
    check_plan_config,
    common_report,
    score_words,
    write_outputs,
)
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.jobs import head_job
from firmware_model.reference.quantize import QuantizedHead, quantize_head
from paro.config import Config, files
from sim.cache import cache_folder
from sim.cosim.core import CoreTarget
from sim.cosim.report import Mismatch, Report
from sim.cosim.session import Session
from sim.cosim.simulators import SIMULATORS, get_simulator
from sim.cosim.target import Simulation, Target
from sim.cosim.work import ideal_cycles
from sim.cycles.cycle_model import compile_model

__all__ = ["Heads", "Setup", "Timing", "benchmark", "cosim"]


@dataclass(frozen=True, eq=False)
class Heads:
    """Heads to compute.

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
    query_blocks : range, optional
        Block rows to compute; all by default.
    """

    capture: Capture
    plan: Plan
    heads: Sequence[int]
    config: Config
    query_blocks: range | None = None

    def rows(self) -> range:
        """Block rows to compute; ParoError if there are none or the plan has no such."""
        return checked_query_blocks(self.query_blocks, self.plan.blocks)


@dataclass(frozen=True)
class Setup:
    """Where and how to simulate.

    Parameters
    ----------
    simulator : str
        Name in `sim.cosim.simulators.SIMULATORS`.
    out_dir : Path
        Receives ``report.json``, ``outputs.safetensors`` and, if asked for, the waveforms.
    build_dir : Path, optional
        Where Verilog and compiled simulators are kept; the user's `sim.cache.cache_folder` by
        default.
    waves : bool
        Record waveforms.
    progress : Progress, optional
        Called with (work done, work in all); a target says which work.
    """

    simulator: str
    out_dir: Path
    build_dir: Path | None = None
    waves: bool = False
    progress: Progress | None = None

    def session(self) -> Session:
        """Where the simulation runs; ParoError if the simulator is missing."""
        return Session(
            simulator=get_simulator(self.simulator),
            build_dir=self.build_dir or cache_folder(),
            run_dir=self.out_dir / "simulation",
            waves=self.waves,
            progress=self.progress,
        )


@dataclass(frozen=True, eq=False)
class _Task:
    """One of the heads, for the integer model and for the target."""

    head: int
    quantized: QuantizedHead
    codes: torch.Tensor
    job: HeadJob


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Output words against those of the integer model, and against float64 attention."""

    compared: int
    mismatches: int
    first_mismatch: Mismatch | None
    #: Whether every word came out.
    complete: bool
    scored: list[HeadResult]

    @property
    def exact(self) -> bool:
        return self.complete and self.mismatches == 0


def cosim(heads: Heads, target: Target, setup: Setup) -> Report:
    """Simulate some heads, compare every output word with the integer model, write the results.

    Parameters
    ----------
    heads : Heads
        Heads to compute.
    target : Target
        The core alone, or the whole accelerator.
    setup : Setup
        Where and how to simulate.

    Returns
    -------
    Report
        As written. The check holds if it has ``passed``.

    Raises
    ------
    ParoError
        If inputs do not fit each other, the simulator is missing or the folders cannot be written.
    """
    session = setup.session()
    check_plan_config(heads.plan, heads.config)
    tasks = _tasks(heads)
    # Nothing of an earlier run may be taken for this one's.
    results = (REPORT_FILE, OUTPUTS_FILE, *(cls.waves_file for cls in SIMULATORS.values()))
    files.remove_files(*(setup.out_dir / name for name in results))
    simulation, expected = _simulate(heads, tasks, target, session)
    comparison = _compare(heads, tasks, simulation.words, expected)
    report = _report(heads, tasks, target, session, simulation, comparison)
    if simulation.waves is not None:
        shutil.move(simulation.waves, setup.out_dir / simulation.waves.name)
    write_outputs(setup.out_dir, comparison.scored, report.to_dict())
    if report.bit_exact:
        shutil.rmtree(session.run_dir)
    return report


def _tasks(heads: Heads) -> list[_Task]:
    rows, tasks = heads.rows(), []
    for head in heads.heads:
        order, transform = heads.plan.head_order(head), heads.plan.head_transform(head)
        quantized = quantize_head(heads.capture, head, order, heads.config, transform)
        codes = heads.plan.head_codes(head)
        tasks.append(_Task(head, quantized, codes, head_job(heads.capture, quantized, codes, rows)))
    return tasks


def _simulate(
    heads: Heads, tasks: Sequence[_Task], target: Target, session: Session
) -> tuple[Simulation, list[np.ndarray]]:
    """Simulate the heads; also gives the words that the integer model has for each."""

    def model() -> list[np.ndarray]:
        return [
            integer_attention(task.quantized, task.codes, heads.config, heads.rows()).numpy()
            for task in tasks
        ]

    # The integer model works while the simulator does.
    with thread_pool(1) as pool:
        expected = pool.submit(model)
        compiled = pool.submit(compile_model)
        simulation = target.simulate(heads.config, [task.job for task in tasks], session)
        words = expected.result()
        compiled.result()
    return simulation, words


def _compare(
    heads: Heads,
    tasks: Sequence[_Task],
    words: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
) -> _Comparison:
    scored, compared, mismatches, first_mismatch = [], 0, 0, None
    for task, got, want in zip(tasks, words, expected, strict=True):
        differs = got != want.ravel()[: len(got)]
        compared += len(got)
        mismatches += int(differs.sum())
        if first_mismatch is None and differs.any():
            first_mismatch = _mismatch(heads.config, task, got, want, int(differs.argmax()))
        filled = np.zeros_like(want)
        filled.ravel()[: len(got)] = got
        scored.append(
            score_words(
                heads.capture,
                task.head,
                task.quantized,
                task.codes,
                torch.from_numpy(filled),
                heads.config,
                heads.rows(),
            )
        )
    complete = compared == sum(want.size for want in expected) > 0
    return _Comparison(compared, mismatches, first_mismatch, complete, scored)


def _mismatch(config: Config, task: _Task, got: np.ndarray, want: np.ndarray, at: int) -> Mismatch:
    row, channel = divmod(at, config.head_dim)
    position = task.job.queries(config)[row]
    return Mismatch(
        head=task.head,
        token=int(task.job.head.permutation[position]),
        position=position,
        channel=channel,
        got=int(got[at]),
        expected=int(want[row, channel]),
    )


def _report(
    heads: Heads,
    tasks: Sequence[_Task],
    target: Target,
    session: Session,
    simulation: Simulation,
    comparison: _Comparison,
) -> Report:
    config, jobs, rows = heads.config, [task.job for task in tasks], heads.rows()
    common = common_report(heads.capture, config, heads.plan.avg_bits, comparison.scored)
    ideal = [ideal_cycles(config, job) for job in jobs]
    for entry, cycles, best in zip(common["heads"], simulation.cycles, ideal, strict=False):
        entry |= {"cycles": cycles, "ideal_cycles": best, "utilisation": _ratio(best, cycles)}
    prediction = target.predict(config, jobs) if simulation.failure is None else None
    simulator, waves = session.simulator, simulation.waves
    return Report(
        bit_exact=comparison.exact and simulation.failure is None,
        outputs_compared=comparison.compared,
        mismatches=comparison.mismatches,
        first_mismatch=comparison.first_mismatch,
        failure=simulation.failure,
        cycles=simulation.total_cycles,
        predicted_cycles=prediction and prediction.total_cycles,
        cycles_as_predicted=prediction and target.is_as_predicted(prediction, simulation),
        ideal_cycles=sum(ideal),
        utilisation=_ratio(sum(ideal), simulation.total_cycles),
        stages=simulation.stages,
        top=target.name,
        memory=target.memory_report(config, jobs, simulation),
        simulator=f"{simulator.name} ({simulator.version()})",
        stall_seed=target.stall_seed,
        query_blocks=[rows.start, rows.stop],
        simulation_seconds=round(simulation.seconds, 2),
        cycles_per_second=round(simulation.simulated_cycles / simulation.seconds),
        **common,
        waves=waves and waves.name,
    )


def _ratio(ideal: int, cycles: int | None) -> float | None:
    return round(ideal / cycles, 4) if cycles else None


@dataclass(frozen=True)
class Timing:
    """Speed of a co-simulation.

    Parameters
    ----------
    simulator : str
        Name and version.
    cycles : int or None
        Cycles of the head.
    cycles_per_second : int
        Cycles simulated in a second.
    simulation_seconds, other_seconds : float
        Wall-clock time of the simulation, and of all else; that holds the build, unless it is
        kept from an earlier run.
    bit_exact : bool
        Whether every word is right.
    """

    simulator: str
    cycles: int | None
    cycles_per_second: int
    simulation_seconds: float
    other_seconds: float
    bit_exact: bool


def benchmark(heads: Heads, setup: Setup) -> Timing:
    """Measure co-simulation of the core; parameters as of `cosim`."""
    started = time.perf_counter()
    report = cosim(heads, CoreTarget(), setup)
    seconds = time.perf_counter() - started
    return Timing(
        simulator=report.simulator,
        cycles=report.cycles,
        cycles_per_second=report.cycles_per_second,
        simulation_seconds=report.simulation_seconds,
        other_seconds=round(seconds - report.simulation_seconds, 2),
        bit_exact=report.bit_exact,
    )
