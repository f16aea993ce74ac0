"""The runs that coverage is taken from: small configurations that have all of the source together.

Each plays random cases (`sim.verify.cases`), so that what is covered is also checked, and some of
its own for what no random case comes to: the far end of memory, each register, sums at their ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from firmware_model.progress import Progress
from gen.names import ACCELERATOR
from paro.config import Config, ParoError
from sim.cosim.accelerator import play_steps
from sim.cosim.accelerator_scenario import Step
from sim.cosim.session import Session
from sim.verify.cases import BATCH, Case, batch_seeds, make_case
from sim.verify.checks import words_wrong
from sim.verify.coverage import (
    EXCLUSIONS,
    CoverageReport,
    Hits,
    coverage_session,
    load_exclusions,
    merge,
    read_coverage,
)
from sim.verify.plays import play_cases
from sim.verify.queues import make_queue

__all__ = ["RUNS", "CoverageRun", "measure", "play_orders"]

#: Seeds of the core alone, see `sim.verify.cases.make_case`.
_CORE = 160
#: Where images lie in turn: their upper address bits rise and fall.
_PLACES = (0, 0x55_5555_5000, 0xAA_AAAA_A000, 0xFF_F000_0000)
_SMALL = Config(rows=4, cols=4, block=16, head_dim=32, axi_bits=64, max_tokens=128)


@dataclass(frozen=True)
class CoverageRun:
    """Cases of one configuration.

    Parameters
    ----------
    name : str
        What it is for.
    config : Config
        Whose source comes to work.
    seeds : range
        Of its random cases, in whole batches.
    """

    name: str
    config: Config
    seeds: range

    def batches(self) -> list[list[Case]]:
        """Cases, by what is played in one process."""
        return [
            [_far(make_case(seed, self.config)) for seed in batch]
            for batch in batch_seeds(self.seeds)
        ]


def _far(case: Case) -> Case:
    """Case whose image lies elsewhere."""
    place = _PLACES[case.seed % len(_PLACES)]
    return replace(case, layout=replace(case.layout, base=case.layout.base + place))


#: Of the accelerator without and with stalls, faults of every kind in each; of the core too.
RUNS: tuple[CoverageRun, ...] = (
    CoverageRun("core", _SMALL, range(_CORE, _CORE + 2 * BATCH)),
    CoverageRun("accelerator", _SMALL, range(4 * BATCH)),
    CoverageRun(
        "vector unit, superblocks",
        _SMALL.changed(vector_channels=128, query_rows=2),
        range(4 * BATCH),
    ),
    CoverageRun(
        "cluster",
        _SMALL.changed(vector_channels=128, query_rows=2, cores=2, key_slots=4),
        range(2 * BATCH),
    ),
    CoverageRun(
        "operands wider than the port",
        Config(rows=8, cols=8, block=16, head_dim=32, axi_bits=64, max_tokens=128),
        range(2 * BATCH),
    ),
)


def play_orders(case: Case, session: Session) -> list[str]:
    """Play what its registers make an accelerator do; returns what was not as it must be.

    All registers are probed, a reset follows a start at once, then the queue is computed.
    """
    queue = make_queue(case.config, case.items)
    image = case.layout.place(case.config, queue)
    steps = [Step(probes=True, resets=True), Step(disturb="start_and_reset"), Step(probes=True)]
    run = play_steps(case.config, [image], steps, session)
    if run.failure is not None:
        return [run.failure]
    return [
        sentence
        for outputs in (run.outputs[0], run.outputs[-1])
        for job, (words, want) in enumerate(zip(outputs, queue.words, strict=True))
        for sentence in words_wrong(f"job {job}", words, want)
    ]


def _agree(case: Case, objections: list[str]) -> None:
    """Raise ParoError if a case differs from its model: what it covered is then worth nothing."""
    if objections:
        raise ParoError(f"{case.line}: {'; '.join(objections)}")


def measure(
    build_dir: Path,
    run_dir: Path,
    *,
    runs: Sequence[CoverageRun] = RUNS,
    exclusions: Path = EXCLUSIONS,
    progress: Progress | None = None,
) -> CoverageReport:
    """Play the cases of some runs and tell what they covered.

    Parameters
    ----------
    build_dir : Path
        Keeps Verilog and compiled simulators, see `sim.cache`.
    run_dir : Path
        Receives the files of the simulations; emptied before each.
    runs : sequence of CoverageRun
        What to play.
    exclusions : Path
        What is left out, see `sim.verify.coverage.load_exclusions`.
    progress : Progress, optional
        Called with (cases done, cases in all).

    Raises
    ------
    ParoError
        If a case differs from its model, if Verilator is missing, the Verilog does not compile or
        the folders cannot be written.
    """
    left_out = load_exclusions(exclusions)
    session = coverage_session(build_dir, run_dir)
    found: dict[str, Hits] = {}
    done, total = 0, sum(len(run.seeds) for run in runs)
    for run in runs:
        hits, words, cycles = Hits({}), 0, 0
        batches = run.batches()
        for batch in batches:
            for case, outcome in zip(batch, play_cases(batch, session), strict=True):
                _agree(case, outcome.objections)
                words, cycles = words + outcome.words, cycles + outcome.cycles
            hits = merge([hits, read_coverage(run_dir)])
            done += len(batch)
            if progress is not None:
                progress(done, total)
        first = batches[0][0]
        if first.target == ACCELERATOR:
            _agree(first, play_orders(first, session))
            hits = merge([hits, read_coverage(run_dir)])
        line = (
            f"{run.name}: {first.name}, seeds {run.seeds.start} to {run.seeds.stop - 1}, "
            f"{words:,} words equal, {cycles:,} cycles"
        )
        found[line] = hits
    return CoverageReport(found, left_out)
