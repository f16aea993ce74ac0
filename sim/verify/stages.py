"""The checks that `paro verify` makes of a configuration, by stage."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_model.progress import Progress
from gen.names import ACCELERATOR, CORE, module_name
from paro.config import Config, ParoError, files
from sim.cosim.session import Session
from sim.cosim.simulators import SIMULATORS, Icarus, Verilator, get_simulator
from sim.cosim.verilog import kept_verilog
from sim.verify.coverage import GOALS
from sim.verify.coverage_runs import measure
from sim.verify.gate_level import gate_level_run
from sim.verify.mutation import LEAST_SCORE, run_mutation
from sim.verify.paths import handshake_paths
from sim.verify.random_runs import run_cases
from sim.verify.report import Check, Table
from sim.verify.test_plan import Stage
from sim.verify.widths import accumulator_widths

__all__ = ["KINDS", "Kind", "Settings", "kinds_of"]

#: Random cases, and mutants, of each stage.
_CASES = {Stage.V1: 40, Stage.V2: 200, Stage.V3: 1000}
_MUTANTS = {Stage.V2: 200, Stage.V3: 1000}
_RANDOM_FILE = "random.json"
#: Figures of coverage, and what was not covered.
_COVERAGE_FILE, _PLACES_FILE = "coverage.json", "uncovered.json"
_SHARES = ", ".join(f"{kind} {least:g} %" for kind, least in GOALS.items())


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

    def session(self, simulator: str) -> Session:
        """Where simulations run."""
        return Session(get_simulator(simulator), self.build_dir, self.folder / "simulation")


@dataclass(frozen=True)
class Kind:
    """A kind of check.

    Parameters
    ----------
    name : str
        What users call it.
    stage : Stage
        The first stage that has it.
    goal : str
        What must hold.
    run : callable
        Makes it; returns fields of `Check`.
    """

    name: str
    stage: Stage
    goal: str
    run: Callable[[Settings, Progress], dict[str, Any]]

    def check(self, settings: Settings, progress: Progress) -> Check:
        """Make the check.

        Raises
        ------
        ParoError
            If a tool is missing or fails, or the folders cannot be written.
        """
        started = time.perf_counter()
        found = self.run(settings, progress)
        return Check(
            name=self.name,
            goal=self.goal,
            seconds=round(time.perf_counter() - started, 1),
            **found,
        )


def _counted(unit: str, total: int, failures: list[str], **more: Any) -> dict[str, Any]:
    """Fields of a check of which each thing fails with a sentence of its own."""
    return {
        "holds": total > 0 and not failures,
        "done": total - len(failures),
        "total": total,
        "unit": unit,
        "failures": failures,
        **more,
    }


def _lint(settings: Settings, progress: Progress) -> dict[str, Any]:
    failures, done = [], 0
    total = len(settings.tops) * len(SIMULATORS)
    settings.folder.mkdir(parents=True, exist_ok=True)
    for top in settings.tops:
        path = settings.folder / f"{top}.v"
        path.write_text(kept_verilog(settings.config, top, settings.build_dir, contracts=False))
        for name in SIMULATORS:
            try:
                get_simulator(name).lint(path, module_name(settings.config, top))
            except ParoError as error:
                failures.append(f"{top}: {error}")
            done += 1
            progress(done, total)
        path.unlink()
    return _counted("texts in a simulator", total, failures)


def _handshakes(settings: Settings, progress: Progress) -> dict[str, Any]:
    failures = []
    for done, top in enumerate(settings.tops):
        progress(done, len(settings.tops))
        paths = handshake_paths(settings.config, top)
        if paths:
            listed = ", ".join(f"{path.output} from {path.input}" for path in paths[:5])
            failures.append(f"{top}: {len(paths)} combinational paths: {listed}")
    progress(len(settings.tops), len(settings.tops))
    return _counted("tops", len(settings.tops), failures)


def _widths(settings: Settings, progress: Progress) -> dict[str, Any]:
    progress(0, 1)
    widths = accumulator_widths(settings.config)
    progress(1, 1)
    failures = [
        f"{width.component}.{width.register} of {width.bits} bits may have to hold {width.low} to "
        f"{width.high}"
        for width in widths
        if not width.fits
    ]
    rows = [
        (f"{width.component}.{width.register}", width.bits, f"{width.low:,} to {width.high:,}")
        for width in widths
    ]
    tables = [Table("registers", ("register", "bits", "holds at most"), rows)]
    return _counted("registers", len(widths), failures, tables=tables)


def _random(settings: Settings, progress: Progress) -> dict[str, Any]:
    count = settings.cases or _CASES[settings.stage]
    report = run_cases(
        range(settings.seed * count, (settings.seed + 1) * count),
        settings.session(Verilator.name),
        config=settings.config,
        progress=progress,
        path=settings.folder / _RANDOM_FILE,
    )
    failures = [
        f"seed {found.seed}: {'; '.join(found.objections)}; smallest: {found.smallest or 'itself'}"
        for found in report.differences
    ]
    return {
        "holds": report.passed,
        "done": len(report.cases) - len(report.differences),
        "total": count,
        "unit": "cases",
        "failures": failures,
        "facts": {
            "words compared": report.words,
            "cycles": report.cycles,
            "functional bins": f"{report.bins['hit']} of {report.bins['all']}",
        },
        "tables": [Table("cases", ("case",), [(line,) for line in report.cases])],
    }


def _gate_level(settings: Settings, progress: Progress) -> dict[str, Any]:
    failures, rows = [], []
    session = settings.session(Icarus.name)
    for done, top in enumerate(settings.tops):
        progress(done, len(settings.tops))
        found = gate_level_run(settings.config, top, "gates", session)  # pyright: ignore[reportArgumentType]
        if not found["passed"]:
            failures.append(f"{top}: {'; '.join(found['objections'])}")
        rows.append((top, sum(found["netlist"].values()), found["words"], found["cycles"]))
    progress(len(settings.tops), len(settings.tops))
    tables = [Table("netlists", ("top", "cells", "words equal", "cycles"), rows)]
    return _counted("netlists", len(settings.tops), failures, tables=tables)


def _mutation(settings: Settings, progress: Progress) -> dict[str, Any]:
    count = settings.mutants or _MUTANTS[settings.stage]
    report = run_mutation(
        count,
        settings.build_dir,
        settings.folder / "mutants",
        seed=settings.seed,
        subjects={"own": settings.config},
        progress=progress,
    )
    counts = report.counts
    equivalent = counts.get("equivalent", 0)
    survivors = [result.mutant.text for result in report.survivors]
    return {
        "holds": report.score >= LEAST_SCORE,
        "done": len(report.results) - equivalent - len(survivors),
        "total": len(report.results) - equivalent,
        "unit": "mutants",
        "failures": [] if report.score >= LEAST_SCORE else survivors,
        "facts": {"score": round(report.score, 4), **counts},
        "tables": [
            Table("killed by", ("what differed", "mutants"), list(report.killers.items())),
            Table("survivors", ("mutant",), [(line,) for line in survivors]),
        ],
    }


def _coverage(settings: Settings, progress: Progress) -> dict[str, Any]:
    report = measure(settings.build_dir, settings.folder / "coverage", progress=progress)
    told, missed = report.to_dict(), len(report.uncovered)
    files.write_json(settings.folder / _COVERAGE_FILE, told)
    files.write_json(settings.folder / _PLACES_FILE, report.places())
    failures, wanted = report.failures(), len(report.wanted)
    return {
        "holds": wanted > 0 and not failures,
        "done": wanted - missed,
        "total": wanted,
        "unit": "points",
        "failures": failures,
        "facts": {
            f"{kind}, per cent": figures["percent"] for kind, figures in told["totals"].items()
        },
        "tables": [
            Table(
                "left out",
                ("points", "kind", "file", "why"),
                [(e["points"], e["kind"], e["file"], e["reason"]) for e in told["exclusions"]],
            ),
            Table("runs", ("run",), [(one["run"],) for one in told["runs"]]),
        ],
    }


#: In the order in which they are made.
KINDS: tuple[Kind, ...] = (
    Kind("lint", Stage.V1, "no warning of a simulator", _lint),
    Kind("widths", Stage.V1, "no register can overflow, by intervals", _widths),
    Kind("handshakes", Stage.V1, "no combinational path to a handshake", _handshakes),
    Kind("random cases", Stage.V1, "every word, error and cycle as the models have it", _random),
    Kind("gate level", Stage.V2, "exact from unknown registers on", _gate_level),
    Kind("mutants", Stage.V2, f"{LEAST_SCORE:.0%} of the mutants are found", _mutation),
    Kind("coverage", Stage.V3, f"{_SHARES}, in small configurations with all code", _coverage),
)


def kinds_of(stage: Stage, only: Sequence[str] = ()) -> Sequence[Kind]:
    """Kinds of checks that a stage has, or those of them with some names.

    Raises
    ------
    ParoError
        If a name is of none.
    """
    kinds = {kind.name: kind for kind in KINDS if stage.holds(kind.stage)}
    for name in only:
        if name not in kinds:
            raise ParoError(
                f"{stage.value} has no check {name!r}; legal: {', '.join(map(repr, kinds))}"
            )
    return [kind for name, kind in kinds.items() if not only or name in only]
