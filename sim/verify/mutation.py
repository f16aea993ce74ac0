"""Mutation testing of the generated accelerator: how many small faults its checks find.

Yosys chooses mutants of a configuration's Verilog (`sim.verify.mutants`), each plays a script that
has all kinds of work and faults (`sim.verify.stimuli`), and is killed by the first thing that a
test of this project would see: words in memory, errors, registers, bursts, a rule of AXI, cycles.
"""

import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from gen.names import ACCELERATOR, module_name
from paro.config import Config, ParoError, files
from sim.cosim.verilog import kept_verilog
from sim.verify.equivalence import same_in_every_state
from sim.verify.mutants import Mutant, choose_mutants, mutated_verilog
from sim.verify.mutation_bench import Outcome, mutation_bench
from sim.verify.script import Script
from sim.verify.stimuli import make_scripts

__all__ = [
    "LEAST_SCORE",
    "SUBJECTS",
    "Judgement",
    "MutantResult",
    "MutationReport",
    "load_judgements",
    "run_mutation",
]

#: Configurations whose mutants are tried: one core, and a cluster with superblocks. Few tokens, so
#: that counters of tokens and of blocks can be brought to their ends.
_ONE = Config(
    rows=4, cols=4, block=16, head_dim=32, axi_bits=64, vector_channels=128, max_tokens=1024
)
SUBJECTS: Mapping[str, Config] = {
    "one core": _ONE,
    "cluster": _ONE.changed(query_rows=2, cores=2, key_slots=4),
}
#: Share of mutants that must be killed, of those that are not equivalent.
LEAST_SCORE = 0.95
_JUDGEMENTS = Path(__file__).with_name("data") / "survivors.toml"


@dataclass(frozen=True)
class Judgement:
    """Why some mutants survive.

    Parameters
    ----------
    subject : str
        Their configuration, of `SUBJECTS`.
    module : str
        Their module, without what the generator numbers.
    reason : str
        Why no check can or does find them.
    equivalent : bool
        Whether none can: the device does the same.
    line : str
        What their line of the Verilog contains.
    ports, modes : tuple of str
        Their ports and modes; any by default.
    bits : tuple of int
        Their bits; any by default.
    """

    subject: str
    module: str
    reason: str
    equivalent: bool
    line: str = ""
    ports: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    bits: tuple[int, ...] = ()

    def is_of(self, subject: str, mutant: Mutant) -> bool:
        """Whether it speaks of a mutant of a configuration."""
        return (
            subject == self.subject
            and mutant.place == self.module
            and self.line in mutant.line
            and (not self.ports or mutant.port in self.ports)
            and (not self.modes or mutant.mode in self.modes)
            and (not self.bits or mutant.bit in self.bits)
        )


def load_judgements(path: Path = _JUDGEMENTS) -> list[Judgement]:
    """Read the judgements of survivors.

    Raises
    ------
    ParoError
        If the file cannot be read.
    """
    try:
        entries = tomllib.loads(path.read_text())["survivor"]
        return TypeAdapter(list[Judgement]).validate_python(entries)
    except (OSError, ValueError, KeyError) as error:
        raise ParoError(f"cannot read judgements of survivors {path}: {error}") from error


@dataclass(frozen=True)
class MutantResult:
    """A mutant and what became of it.

    Parameters
    ----------
    subject : str
        Its configuration, of `SUBJECTS`.
    mutant : Mutant
        The mutant.
    verdict : str
        See `sim.verify.mutation_bench.Outcome`; ``equivalent`` if it survived and is proved, or
        judged, to be so.
    what : str
        What differed.
    where : str
        What the device was doing.
    reason : str
        Judgement of a survivor.
    seconds : float
        That it took.
    """

    subject: str
    mutant: Mutant
    verdict: str
    what: str
    where: str
    reason: str
    seconds: float


@dataclass
class MutationReport:
    """What mutants of some configurations came to.

    Parameters
    ----------
    seed : int
        Of the choice of mutants.
    subjects : dict of str to dict
        Configurations by name.
    cycles, seconds : dict of str to int or float
        Of the scripts without a mutant, by configuration.
    results : list of MutantResult
        All mutants.
    """

    seed: int
    subjects: dict[str, dict[str, Any]] = field(default_factory=dict)
    cycles: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    results: list[MutantResult] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Mutants by verdict."""
        return dict(Counter(result.verdict for result in self.results))

    @property
    def killers(self) -> dict[str, int]:
        """Mutants that are killed, by what differed."""
        killed = (result for result in self.results if result.verdict in ("killed", "timing"))
        return dict(Counter(result.what for result in killed).most_common())

    @property
    def score(self) -> float:
        """Share of the mutants that are killed, of those that are not equivalent."""
        return self._share("killed", "timing")

    @property
    def score_without_time(self) -> float:
        """The same if cycles, and the order of bursts, killed none."""
        return self._share("killed")

    @property
    def survivors(self) -> list[MutantResult]:
        """Mutants that survived and are not equivalent."""
        return [result for result in self.results if result.verdict == "survived"]

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "score": self.score,
            "score_without_time": self.score_without_time,
            "counts": self.counts,
            "killers": self.killers,
            **asdict(self),
        }

    def _share(self, *verdicts: str) -> float:
        counts = self.counts
        tried = len(self.results) - counts.get("equivalent", 0)
        return sum(counts.get(verdict, 0) for verdict in verdicts) / max(tried, 1)


def run_mutation(
    count: int,
    cache: Path,
    folder: Path,
    *,
    seed: int = 1,
    subjects: Mapping[str, Config] = SUBJECTS,
    batch: int = 600,
    processes: int = 1,
    judgements: Sequence[Judgement] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MutationReport:
    """Try mutants of some configurations, as many of each.

    What is done is kept in the folder, batch by batch: a later call with the same arguments goes on
    where this one ended.

    Parameters
    ----------
    count : int
        Mutants that Yosys chooses, of all configurations together.
    cache : Path
        Keeps Verilog and compiled benches, see `sim.cache`.
    folder : Path
        Receives all files.
    seed : int
        Of the choice.
    subjects : mapping of str to Config
        Configurations by name.
    batch : int
        Most mutants in one compiled model.
    processes : int
        Mutants at a time.
    judgements : sequence of Judgement, optional
        Of survivors; those of `load_judgements` by default.
    progress : callable, optional
        Called with (mutants tried, mutants in all).

    Raises
    ------
    ParoError
        If a tool is missing or fails, or the device without a mutant does not do what it must.
    """
    report = MutationReport(seed, {name: own.model_dump() for name, own in subjects.items()})
    known = load_judgements() if judgements is None else judgements
    done = 0
    for place, (name, config) in enumerate(subjects.items()):
        share = count * (place + 1) // len(subjects) - count * place // len(subjects)
        own = _Subject(name, config, cache, folder / name.replace(" ", "_"))
        mutants, scripts = own.choose(share, seed), make_scripts(config)
        for first in range(0, len(mutants), batch):
            some = mutants[first : first + batch]

            def tell(number: int, before: int = done) -> None:
                if progress is not None:
                    progress(min(before + number, count), count)

            report.cycles[name] = 0
            report.seconds[name] = 0.0
            for played in own.try_batch(some, scripts, processes, tell):
                report.cycles[name] += played.cycles
                report.seconds[name] += played.seconds
                report.results += [
                    _result(name, some, played.script, each, known) for each in played.outcomes
                ]
            done += len(some)
    if progress is not None:
        progress(count, count)
    return report


@dataclass(frozen=True)
class _Played:
    """A script that mutants played: what it takes without one, and what they came to."""

    script: Script
    cycles: int
    seconds: float
    outcomes: list[Outcome]


@dataclass(frozen=True)
class _Subject:
    """A configuration whose mutants are tried, and the folder of its files."""

    name: str
    config: Config
    cache: Path
    folder: Path

    @property
    def top(self) -> str:
        return module_name(self.config, ACCELERATOR)

    def choose(self, count: int, seed: int) -> list[Mutant]:
        """Choose mutants."""
        verilog = kept_verilog(self.config, ACCELERATOR, self.cache, contracts=False)
        return choose_mutants(verilog, self.top, count, seed, self.folder)

    def try_batch(
        self,
        mutants: Sequence[Mutant],
        scripts: Sequence[Script],
        processes: int,
        tell: Callable[[int], None],
    ) -> list["_Played"]:
        """Try some mutants, or find what they came to; survivors of a script play the next."""
        verilog, first = mutated_verilog(self.top, mutants, self.folder), mutants[0].number
        left, all_played = list(mutants), []
        for script in scripts:
            numbers = [mutant.number for mutant in left]
            text = f"{verilog}{script.digest()}{numbers}"
            key = hashlib.sha256(text.encode()).hexdigest()[:16]
            path = self.folder / f"outcomes_{key}.json"
            if not path.exists():
                before = len(mutants) - len(left)
                found = self._play(
                    verilog, numbers, script, processes, lambda done, b=before: tell(b + done)
                )
                files.write_json(path, found)
            cycles, seconds, found = json.loads(path.read_text())
            outcomes = self._without_same(left, [Outcome(**each) for each in found], key)
            survived = [each.number for each in outcomes if each.verdict == "survived"]
            is_last = script is scripts[-1]
            ended = [each for each in outcomes if is_last or each.verdict != "survived"]
            all_played.append(_Played(script, cycles, seconds, ended))
            left = [mutants[number - first] for number in survived]
            if not left:
                break
        tell(len(mutants))
        return all_played

    def _play(
        self,
        verilog: str,
        numbers: Sequence[int],
        script: Script,
        processes: int,
        tell: Callable[[int], None],
    ) -> tuple[int, float, list[dict[str, Any]]]:
        """Play a script with each of some mutants."""
        seen = 0

        def count(_: Outcome) -> None:
            nonlocal seen
            seen += 1
            tell(seen)

        with mutation_bench(self.config, verilog, self.cache) as bench:
            cycles, seconds, outcomes = bench.play(
                script, numbers, self.folder / "play", processes=processes, progress=count
            )
        outcomes.sort(key=lambda outcome: outcome.number)
        return cycles, seconds, [asdict(each) for each in outcomes]

    def _without_same(
        self, mutants: Sequence[Mutant], outcomes: Sequence[Outcome], key: str
    ) -> list[Outcome]:
        """Outcomes, ``equivalent`` for a survivor that is proved to be no change of its module."""
        path = self.folder / f"same_{key}.json"
        if path.exists():
            same = json.loads(path.read_text())
        else:
            survived = {each.number for each in outcomes if each.verdict == "survived"}
            left = [mutant for mutant in mutants if mutant.number in survived]
            same = [
                mutant.number
                for mutant in left
                if mutant.module and same_in_every_state(self.top, mutant, self.folder)
            ]
            files.write_json(path, same)
        return [
            replace(each, verdict="equivalent") if each.number in same else each
            for each in outcomes
        ]


def _result(
    subject: str,
    mutants: Sequence[Mutant],
    script: Script,
    outcome: Outcome,
    judgements: Sequence[Judgement],
) -> MutantResult:
    """Mutant, outcome and judgement in one."""
    mutant = mutants[outcome.number - mutants[0].number]
    verdict, reason = outcome.verdict, ""
    if verdict == "equivalent":
        reason = "Proved: from any state, outputs and next states are those of the module itself."
    if verdict == "survived":
        judgement = next((each for each in judgements if each.is_of(subject, mutant)), None)
        if judgement is not None:
            reason = judgement.reason
            verdict = "equivalent" if judgement.equivalent else verdict
    where = "" if verdict in ("survived", "equivalent") else script.place(outcome.step)
    return MutantResult(subject, mutant, verdict, outcome.what, where, reason, outcome.seconds)
