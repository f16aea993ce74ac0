"""Checks of a simulation of the core alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from firmware_model.host.jobs import Job
from firmware_model.reference.outputs import model_outputs
from paro.config import Config
from sim.cosim.core import CoreTarget
from sim.cosim.session import Session
from sim.cosim.simulators import get_simulator
from sim.cosim.target import Simulation, Target


def simulate(
    target: Target,
    config: Config,
    jobs: Sequence[Job],
    build_dir: Path,
    run_dir: Path,
    simulator: str = "verilator",
) -> Simulation:
    return target.simulate(config, jobs, Session(get_simulator(simulator), build_dir, run_dir))


def assert_exact(config: Config, jobs: Sequence[Job], simulation: Simulation) -> None:
    assert simulation.failure is None
    assert len(simulation.words) == len(jobs) > 0
    for number, (job, words) in enumerate(zip(jobs, simulation.words, strict=True)):
        expected = model_outputs(config, job).ravel()
        assert len(words) == len(expected) > 0
        wrong = np.flatnonzero(words != expected)
        assert len(wrong) == 0, f"job {number}: {len(wrong)} of {len(words)} from {wrong[0]} on"


def assert_as_predicted(
    target: CoreTarget, config: Config, jobs: Sequence[Job], simulation: Simulation
) -> None:
    """The cycles of a simulation are those of the cycle model."""
    prediction = target.predict(config, jobs)
    assert target.is_as_predicted(prediction, simulation)
    assert simulation.cycles == prediction.cycles
    assert simulation.total_cycles == prediction.total_cycles
    assert simulation.stages == prediction.stages
