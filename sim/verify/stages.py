"""The checks of a configuration, by stage."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware_model.progress import Progress
from gen.names import ACCELERATOR, CORE, module_name
from paro.config import Config, ParoError
from sim.cosim.simulators import SIMULATORS, get_simulator
from sim.cosim.verilog import kept_verilog
from sim.verify.report import Check
from sim.verify.test_plan import Stage

__all__ = ["CHECKS", "Kind", "Settings", "checks_of"]


@dataclass(frozen=True)
class Settings:
    """How to check a configuration.

    Parameters
    ----------
    config : Config
        The device.
    stage : Stage
        How far.
    seed : int
        What all that is random is drawn from.
    cases, mutants : int or None
        Random cases, and mutants; those of the stage by default.
    folder : Path
        Receives what the checks leave.
    build_dir : Path
        Keeps Verilog and compiled simulators, see `sim.cache`.
    """

    config: Config
    stage: Stage
    seed: int
    cases: int | None
    mutants: int | None
    folder: Path
    build_dir: Path

    @property
    def tops(self) -> tuple[str, ...]:
        """Tops that the configuration has; one core is no cluster."""
        return (ACCELERATOR,) if self.config.cores > 1 else (CORE, ACCELERATOR)


@dataclass(frozen=True)
class Kind:
    """A kind of check.

    Parameters
    ----------
    name : str
        What users call it.
    stage : Stage
        The first stage that has it.
    run : callable
        Makes it.
    """

    name: str
    stage: Stage
    run: Callable[[Settings, Progress | None], Check]


def _lint(settings: Settings, progress: Progress | None) -> Check:
    """Hold the Verilog against every warning of both simulators."""
    started = time.perf_counter()
    failures, done = [], 0
    total = len(settings.tops) * len(SIMULATORS)
    for top in settings.tops:
        text = kept_verilog(settings.config, top, settings.build_dir)
        path = settings.folder / f"{top}.v"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for name in SIMULATORS:
            try:
                get_simulator(name).lint(path, module_name(settings.config, top))
            except ParoError as error:
                failures.append(f"{top}: {error}")
            done += 1
            if progress is not None:
                progress(done, total)
        path.unlink()
    return Check(
        name="lint",
        holds=not failures,
        done=total - len(failures),
        total=total,
        unit="texts and simulators",
        goal="no warning",
        seconds=round(time.perf_counter() - started, 1),
        failures=failures,
    )


#: In the order in which they are made.
CHECKS: tuple[Kind, ...] = (Kind("lint", Stage.V1, _lint),)


def checks_of(stage: Stage) -> Sequence[Kind]:
    """Kinds of checks that a stage has."""
    return [kind for kind in CHECKS if stage.holds(kind.stage)]
