"""Runs of random cases: what each came to, what differed and how little of it still does."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from firmware_model.progress import Progress
from paro.config import Config, ParoError, files
from sim.cosim.session import Session
from sim.cosim.simulators import get_simulator
from sim.verify.bins import summary
from sim.verify.cases import Case, batch_seeds, make_case
from sim.verify.plays import Outcome, play_cases
from sim.verify.shrink import shrink

__all__ = ["Difference", "RandomReport", "run_cases"]


@dataclass(frozen=True)
class Difference:
    """A case that was not as it must be.

    Parameters
    ----------
    seed : int
        Its seed.
    case : str
        All of it.
    objections : list of str
        What was wrong.
    together : list of int
        Seeds that must run before it, in one process, for it to fail; none if it fails alone.
    smallest : str
        The smallest case that still fails; empty if it does not fail alone.
    smallest_objections : list of str
        What is wrong of that.
    """

    seed: int
    case: str
    objections: list[str]
    together: list[int] = field(default_factory=list)
    smallest: str = ""
    smallest_objections: list[str] = field(default_factory=list)


@dataclass
class RandomReport:
    """What some seeds came to.

    Parameters
    ----------
    first, stop : int
        First seed, and the one after the last.
    cases : list of str
        A line for each case that was played.
    configurations : list of str
        A line for each configuration and target.
    words : int
        Words that were compared.
    cycles : int
        Cycles of all queues, undisturbed.
    seconds : float
        Wall-clock time of all, builds included.
    differences : list of Difference
        What was wrong.
    bins : dict
        Functional bins that were met, see `sim.verify.bins.summary`.
    simulators : list of str
        Names and versions.
    """

    first: int
    stop: int
    cases: list[str] = field(default_factory=list)
    configurations: list[str] = field(default_factory=list)
    words: int = 0
    cycles: int = 0
    seconds: float = 0.0
    differences: list[Difference] = field(default_factory=list)
    bins: dict[str, Any] = field(default_factory=dict)
    simulators: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all cases were played, and none differed."""
        return len(self.cases) == self.stop - self.first and not self.differences

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self) | {"passed": self.passed}


def run_cases(
    seeds: range,
    session: Session,
    *,
    config: Config | None = None,
    progress: Progress | None = None,
    log: Callable[[str], object] | None = None,
    path: Path | None = None,
    shrink_tries: int = 60,
) -> RandomReport:
    """Play the cases of some seeds, and shrink those that differ.

    Parameters
    ----------
    seeds : range
        Step 1. Whole batches (`sim.verify.cases.BATCH`) are cheapest.
    session : Session
        Where and how. If its simulator is Verilator, some small cases run under Icarus, where that
        is installed; else its own simulator runs all.
    config : Config, optional
        Configuration of all cases; by default each group of seeds has another.
    progress : Progress, optional
        Called with (cases done, cases in all).
    log : callable, optional
        Called with each line of the report as it comes.
    path : Path, optional
        File that receives the report as JSON, anew after each batch.
    shrink_tries : int
        Simulations to make of each case that differs, at most.

    Raises
    ------
    ParoError
        If seeds or folders are not legal, or the Verilog does not compile.
    """
    if not seeds or seeds.start < 0 or seeds.step != 1:
        raise ParoError(
            f"seeds {seeds.start} to {seeds.stop - 1} are not legal; legal: one or more, from 0 on"
        )
    run = _Run(session, config, RandomReport(seeds.start, seeds.stop), log, shrink_tries)
    for batch in batch_seeds(seeds):
        run.batch(batch)
        if path is not None:
            files.write_json(path, run.report.to_dict())
        if progress is not None:
            progress(len(run.report.cases), len(seeds))
    return run.report


class _Run:
    """A run as it goes on."""

    def __init__(
        self,
        session: Session,
        config: Config | None,
        report: RandomReport,
        log: Callable[[str], object] | None,
        tries: int,
    ) -> None:
        self.session, self.config, self.report = session, config, report
        self.log, self.tries = log, tries
        self.started = time.perf_counter()
        self.hit: set[str] = set()
        self.name = ""
        self.sessions = {session.simulator.name: session}
        self.note_simulator(session)

    def note_simulator(self, session: Session) -> None:
        """Tell of a simulator."""
        self.report.simulators.append(session.description)

    def session_of(self, name: str) -> Session:
        """Session of a simulator; the run's own where that is missing."""
        if name not in self.sessions:
            try:
                found = replace(self.session, simulator=get_simulator(name))
                self.note_simulator(found)
            except ParoError:
                found = self.session
            self.sessions[name] = found
        return self.sessions[name]

    def play(self, cases: Sequence[Case]) -> list[Outcome]:
        """Play cases in one process."""
        return play_cases(cases, self.session_of(cases[0].simulator))

    def batch(self, seeds: range) -> None:
        """Play the cases of a batch, and note what they came to."""
        cases = [self.case(seed) for seed in seeds]
        if cases[0].name != self.name:
            self.name = cases[0].name
            self.report.configurations.append(f"seeds from {seeds.start}: {self.name}")
            self.tell(self.report.configurations[-1])
        outcomes = self.play(cases)
        if outcomes[0].stopped and len(cases) > 1:
            # Which of them stopped the bench is seen when each runs alone.
            alone = [self.play([case])[0] for case in cases]
            interplay = not any(outcome.objections for outcome in alone)
            outcomes = [*alone[:-1], outcomes[-1]] if interplay else alone
        for number, (case, outcome) in enumerate(zip(cases, outcomes, strict=True)):
            self.note(case, outcome)
            if outcome.objections:
                self.differs(cases[: number + 1], outcome)
        report = self.report
        report.seconds = round(time.perf_counter() - self.started, 1)
        report.bins = summary(self.hit)

    def case(self, seed: int) -> Case:
        """Case of a seed, under a simulator that is there."""
        case = make_case(seed, self.config)
        if self.session.simulator.name != "verilator":
            return replace(case, simulator=self.session.simulator.name)
        return replace(case, simulator=self.session_of(case.simulator).simulator.name)

    def note(self, case: Case, outcome: Outcome) -> None:
        """Add a case to the report."""
        report = self.report
        report.words += outcome.words
        report.cycles += outcome.cycles
        self.hit |= outcome.bins
        words = [f"{len(case.items)} jobs", f"{outcome.words} words", f"{outcome.cycles} cycles"]
        if case.fault is not None:
            told = f" told as {', '.join(outcome.struck)}" if outcome.struck else ""
            words.append(case.fault.line + told)
        words += [f"{len(outcome.objections)} OBJECTIONS"] if outcome.objections else []
        report.cases.append(f"{case.seed}: {case.simulator}, {', '.join(words)}")
        self.tell(report.cases[-1])

    def tell(self, line: str) -> None:
        """Hand a line on."""
        if self.log is not None:
            self.log(line)

    def differs(self, cases: Sequence[Case], outcome: Outcome) -> None:
        """Find out how little of a case still fails: alone, or after which others."""
        case = cases[-1]
        if not self.play([case])[0].objections:
            seeds = [before.seed for before in self.predecessors(cases)]
            self.add(Difference(case.seed, case.line, outcome.objections, seeds))
            return

        def fails(smaller: Case) -> bool:
            try:
                return bool(self.play([smaller])[0].objections)
            except ParoError:  # no legal case: of heads side by side one became smaller
                return False

        smallest = shrink(case, fails, self.tries)
        left = self.play([smallest])[0].objections
        self.add(Difference(case.seed, case.line, outcome.objections, [], smallest.line, left))

    def predecessors(self, cases: Sequence[Case]) -> list[Case]:
        """Cases that must run before the last one for it to fail."""
        before, last = list(cases[:-1]), cases[-1]
        for case in cases[:-1]:
            fewer = [other for other in before if other is not case]
            if self.play([*fewer, last])[-1].objections:
                before = fewer
        return before

    def add(self, difference: Difference) -> None:
        """Add what differed to the report."""
        self.report.differences.append(difference)
        self.tell(f"differs: {difference.case}: {'; '.join(difference.objections)}")
        if difference.smallest:
            self.tell(f"smallest: {difference.smallest}: {difference.smallest_objections[0]}")
