"""One co-simulation: jobs through a target, and their words against those of the integer model."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from firmware_model.host.jobs import Job
from firmware_model.parallel import thread_pool
from firmware_model.progress import Progress
from firmware_model.quality.evaluate import OUTPUTS_FILE, REPORT_FILE
from paro.config import Config, files
from sim.cache import cache_folder
from sim.cosim.report import Report
from sim.cosim.session import Session
from sim.cosim.simulators import SIMULATORS, get_simulator
from sim.cosim.target import Simulation, Target
from sim.cosim.work import ideal_cycles
from sim.cycles.cycle_model import compile_model
from sim.trace.events import write_events
from sim.trace.page import write_page

__all__ = ["REPLAY_FILE", "TRACE_FILE", "Run", "Setup", "imbalance", "run_jobs", "utilisation"]

#: Names of the trace's files among the results.
TRACE_FILE, REPLAY_FILE = "trace.json", "replay.html"
_RESULTS = (REPORT_FILE, OUTPUTS_FILE, TRACE_FILE, REPLAY_FILE)


@dataclass(frozen=True)
class Setup:
    """Where and how to simulate.

    Parameters
    ----------
    simulator : str
        Name in `sim.cosim.simulators.SIMULATORS`.
    out_dir : Path
        Receives ``report.json``, ``outputs.safetensors`` and, if asked for, the waveforms, the
        trace and the page that replays it.
    build_dir : Path, optional
        Where Verilog and compiled simulators are kept; the user's `sim.cache.cache_folder` by
        default.
    waves : bool
        Record waveforms.
    trace : bool
        Record a trace.
    progress : Progress, optional
        Called with (work done, work in all); a target says which work.
    """

    simulator: str
    out_dir: Path
    build_dir: Path | None = None
    waves: bool = False
    trace: bool = False
    progress: Progress | None = None

    def session(self) -> Session:
        """Where the simulation runs; ParoError if the simulator is missing."""
        return Session(
            simulator=get_simulator(self.simulator),
            build_dir=self.build_dir or cache_folder(),
            run_dir=self.out_dir / "simulation",
            waves=self.waves,
            trace=self.trace,
            progress=self.progress,
        )


@dataclass(frozen=True, eq=False)
class Run:
    """Jobs that were simulated, and how their words compare.

    Parameters
    ----------
    config : Config
        The core.
    jobs : sequence of Job
        What was simulated.
    target : Target
        By what.
    session : Session
        Where.
    simulation : Simulation
        Outcome.
    expected : list of np.ndarray
        int16, for each job all words of the integer model.
    """

    config: Config
    jobs: Sequence[Job]
    target: Target
    session: Session
    simulation: Simulation
    expected: list[np.ndarray]

    def first_mismatch(self) -> tuple[int, int] | None:
        """Job and index of the first word that is wrong."""
        for number, wrong in enumerate(self._wrong()):
            if wrong.any():
                return number, int(wrong.argmax())
        return None

    def filled(self, number: int) -> np.ndarray:
        """Words of a job, in the shape of the expected ones; those that did not come are 0."""
        words = np.zeros_like(self.expected[number])
        got = self.simulation.words[number]
        words.ravel()[: len(got)] = got
        return words

    def report(self) -> dict[str, Any]:
        """Fields of `sim.cosim.report.Report` that tell of the simulation."""
        simulation, session = self.simulation, self.session
        compared = sum(map(len, simulation.words))
        complete = compared == sum(words.size for words in self.expected) > 0
        mismatches = sum(int(wrong.sum()) for wrong in self._wrong())
        prediction = None
        if simulation.failure is None and self.target.is_predicted(self.config):
            prediction = self.target.predict(self.config, self.jobs)
        cores = self._cores()
        ideal = sum(ideal_cycles(self.config, job) for job in self.jobs)
        if cores is not None:
            ideal = ceil(ideal / len(cores))
        return {
            "bit_exact": complete and mismatches == 0 and simulation.failure is None,
            "outputs_compared": compared,
            "mismatches": mismatches,
            "failure": simulation.failure,
            "cycles": simulation.total_cycles,
            "predicted_cycles": prediction and prediction.total_cycles,
            "cycles_as_predicted": prediction
            and self.target.is_as_predicted(prediction, simulation),
            "ideal_cycles": ideal,
            "utilisation": utilisation(ideal, simulation.total_cycles),
            "stages": simulation.stages,
            "cores": cores,
            "imbalance": cores and imbalance(cores),
            "top": self.target.name,
            "memory": self.target.memory_report(self.config, self.jobs, simulation),
            "simulator": session.description,
            "stall_seed": self.target.stall_seed,
            "simulation_seconds": round(simulation.seconds, 2),
            "cycles_per_second": round(simulation.simulated_cycles / simulation.seconds),
            "waves": simulation.waves and simulation.waves.name,
            "trace": simulation.trace and TRACE_FILE,
            "replay": simulation.trace and REPLAY_FILE,
            "link": simulation.link,
        }

    def finish(self, out_dir: Path, report: Report, labels: Sequence[str]) -> None:
        """Add to the results of a report the waveforms, the trace and the page that replays it.

        Of a run that is bit exact the simulation's own files are removed.

        Parameters
        ----------
        out_dir : Path
            Folder of the results.
        report : Report
            The run's.
        labels : sequence of str
            Names of the jobs.
        """
        waves, trace = self.simulation.waves, self.simulation.trace
        if waves is not None:
            shutil.move(waves, out_dir / waves.name)
        if trace is not None:
            write_events(out_dir / TRACE_FILE, trace, labels)
            write_page(out_dir / REPLAY_FILE, trace, labels, report.to_dict())
        if report.bit_exact:
            shutil.rmtree(self.session.run_dir, ignore_errors=True)

    def _cores(self) -> list[dict[str, dict[str, int]]] | None:
        """Stages of each core, if there are several."""
        counters = self.simulation.counters
        return counters.cores if counters and len(counters.cores) > 1 else None

    def _wrong(self) -> list[np.ndarray]:
        return [
            got != want.ravel()[: len(got)]
            for got, want in zip(self.simulation.words, self.expected, strict=True)
        ]


def run_jobs(
    config: Config,
    jobs: Sequence[Job],
    model: Callable[[], list[np.ndarray]],
    target: Target,
    setup: Setup,
) -> Run:
    """Simulate some jobs, while the integer model computes their words.

    Parameters
    ----------
    config : Config
        The core.
    jobs : sequence of Job
        What to simulate.
    model : callable
        Returns the words that the integer model has for each job, int16.
    target : Target
        The core alone, or the whole accelerator.
    setup : Setup
        Where and how to simulate; results of an earlier run there are removed.

    Raises
    ------
    ParoError
        If the simulator is missing, the target is none of the configuration or the folders cannot
        be written.
    """
    session = setup.session()
    target.check(config)
    # Nothing of an earlier run may be taken for this one's.
    results = (*_RESULTS, *(cls.waves_file for cls in SIMULATORS.values()))
    files.remove_files(*(setup.out_dir / name for name in results))
    with thread_pool(1) as pool:
        expected = pool.submit(model)
        compiled = pool.submit(compile_model) if target.is_predicted(config) else None
        simulation = target.simulate(config, jobs, session)
        words = expected.result()
        if compiled is not None:
            compiled.result()
    return Run(config, jobs, target, session, simulation, words)


def imbalance(cores: list[dict[str, dict[str, int]]]) -> float | None:
    """Cycles in which the busiest core's array works, over those of the mean, if there are any."""
    work = [core["qk"]["busy"] + core["pv"]["busy"] for core in cores]
    return round(len(work) * max(work) / sum(work), 4) if any(work) else None


def utilisation(ideal: int, cycles: int | None) -> float | None:
    """Ideal cycles over cycles, if there are any."""
    return round(ideal / cycles, 4) if cycles else None
