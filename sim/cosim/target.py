"""Targets of a co-simulation: one interface of the core alone and of the whole accelerator."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from firmware_model.host.driver import Counters
from firmware_model.host.jobs import Job
from paro.config import Config
from sim.cosim.report import LinkReport, MemoryReport
from sim.cosim.session import Session
from sim.cycles.cycle_model import Prediction
from sim.trace.trace import Trace

__all__ = ["Simulation", "Target"]


@dataclass(frozen=True)
class Simulation:
    """Outcome of a simulation.

    Parameters
    ----------
    words : list of np.ndarray
        int16 [words], for each job its output words: of a head in order, fewer than expected after
        a failure; of a layer [tokens, outputs], or none after one.
    cycles : list of int or None
        For each job, cycles from its command to its last output beat; ``None`` if it did not end,
        or if the accelerator does not count them.
    total_cycles : int or None
        Cycles from the first command to the last output of all.
    stages : dict of str to dict of str to int
        For each stage of the core, of all cores together, cycles of ``total_cycles`` in which it
        was ``busy``, ``starved`` and ``blocked``; in the others it had nothing to do.
    failure : str or None
        Objection of the bench.
    simulated_cycles : int
        All cycles simulated.
    seconds : float
        Wall-clock time of the simulation, without builds.
    waves : Path or None
        File with the waveforms.
    counters : Counters, optional
        Those of the accelerator.
    trace : Trace, optional
        If it was asked for and something happened.
    link : LinkReport, optional
        Of a board.
    """

    words: list[np.ndarray]
    cycles: list[int | None]
    total_cycles: int | None
    stages: dict[str, dict[str, int]]
    failure: str | None
    simulated_cycles: int
    seconds: float
    waves: Path | None
    counters: Counters | None = None
    trace: Trace | None = None
    link: LinkReport | None = None


class Target(Protocol):
    """A design to simulate, and how its surroundings behave."""

    #: Name that users give.
    name: ClassVar[str]

    @property
    def stall_seed(self) -> int | None:
        """Seed of random stalls on every stream or channel; ``None`` for none."""
        ...

    def check(self, config: Config) -> None:
        """Raise ParoError if the target is not one of this configuration."""
        ...

    def simulate(self, config: Config, jobs: Sequence[Job], session: Session) -> Simulation:
        """Simulate some jobs, one directly after the other.

        Raises
        ------
        ParoError
            If jobs and configuration do not fit each other, the Verilog does not compile or the
            folders cannot be written.
        """
        ...

    def is_predicted(self, config: Config) -> bool:
        """Whether the cycle model follows the target of this configuration."""
        ...

    def predict(self, config: Config, jobs: Sequence[Job]) -> Prediction:
        """Predict by the cycle model the cycles that `simulate` finds."""
        ...

    def is_as_predicted(self, prediction: Prediction, simulation: Simulation) -> bool:
        """Whether a simulation took the cycles of the cycle model."""
        ...

    def memory_report(
        self, config: Config, jobs: Sequence[Job], simulation: Simulation
    ) -> MemoryReport | None:
        """Traffic of the memory port; ``None`` if there is none, or nothing was counted."""
        ...
