"""The runs that coverage is taken from: small configurations that have all of the source together.

Each plays random cases (`sim.verify.cases`), so that what is covered is also checked, and some of
its own for what no random case comes to: the far end of memory, each register, sums at their ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from firmware_model.progress import Progress
from paro.config import Config, ParoError
from sim.cosim.accelerator import play_steps
from sim.cosim.accelerator_scenario import Step
from sim.cosim.session import Session
from sim.cycles.memory import Memory
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
from sim.verify.faults import REFUSED, Fault, FaultKind
from sim.verify.heads import HeadShape
from sim.verify.layers import LayerShape
from sim.verify.plays import play_cases
from sim.verify.queues import Item, Layout, make_queue
from sim.verify.steps import StepShape, legal_channels

__all__ = ["RUNS", "CoverageRun", "measure", "play_orders"]

#: Faults of which there are several, and how many of them are played.
_SEVERAL: tuple[FaultKind, ...] = ("queue", "outside", "empty row", "program")
_SEEDS = 4
#: Tiles in a row of a layer: several words of codes.
_CHUNKS = 40
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
        """Cases, by what is played in one process: random ones, then those of its own."""
        found = [
            [_far(make_case(seed, self.config)) for seed in batch]
            for batch in batch_seeds(self.seeds)
        ]
        return [*found, self.own_cases()]

    def own_cases(self) -> list[Case]:
        """Cases for what random ones rarely meet: the longest heads, and each fault."""
        plain = replace(
            make_case(self.seeds.start, self.config),
            memory=Memory(),
            layout=Layout(),
            fault=None,
            again=False,
        )
        short = replace(plain, items=_short(self.config))
        faults = [Fault("descriptor", cause=cause) for cause in REFUSED]
        faults += [Fault(kind, seed=seed) for kind in _SEVERAL for seed in range(_SEEDS)]
        return [
            replace(plain, items=_longest(self.config)),
            *(_far(replace(short, seed=n, fault=fault)) for n, fault in enumerate(faults)),
        ]


def _longest(config: Config) -> tuple[Item, ...]:
    """Heads of as many tokens as there may be, each block in turn a row's only one; long rows.

    One row of blocks has equal weights, and so the largest sum; a layer skips its many tiles.
    """
    grid = (1, 1, config.max_tokens)
    ones = [Item(HeadShape(grid, width="2", skips="all but one"), seed) for seed in range(_SEEDS)]
    flat = HeadShape(grid, width="8", skips="none", values="zero keys", rows=(0, 1))
    sharp = replace(flat, values="extreme")
    skipped = LayerShape(4, _CHUNKS * config.head_dim, config.max_tokens, codes=0)
    return (*ones, Item(flat, 0), Item(sharp, 0), Item(skipped, 0))


def _short(config: Config) -> tuple[Item, ...]:
    """One job of each kind."""
    head = HeadShape((1, 1, config.block), width="8", skips="none")
    items = [Item(head, 0), Item(LayerShape(4, config.head_dim, 4, codes=3), 0)]
    if config.vector_channels:
        items.append(Item(StepShape((1, 1, 2), legal_channels(config)[0], passes=2), 0))
    return tuple(items)


def _far(case: Case) -> Case:
    """Case whose image lies elsewhere."""
    place = _PLACES[case.seed % len(_PLACES)]
    return replace(case, layout=replace(case.layout, base=case.layout.base + place))


#: Random cases without and with stalls, faults of every kind in each.
RUNS: tuple[CoverageRun, ...] = (
    CoverageRun("accelerator", _SMALL, range(4 * BATCH)),
    CoverageRun(
        "cluster, vector unit, superblocks",
        _SMALL.changed(vector_channels=128, query_rows=2, cores=2, key_slots=4),
        range(2 * BATCH),
    ),
    CoverageRun(
        "operands wider than the port, a slow drain",
        Config(rows=16, cols=8, block=16, head_dim=32, axi_bits=64, max_tokens=256),
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
    plans = [(run, run.batches()) for run in runs]
    done, total = 0, sum(len(batch) for _, batches in plans for batch in batches)
    for run, batches in plans:
        hits, words, cycles = Hits({}), 0, 0
        for batch in batches:
            for case, outcome in zip(batch, play_cases(batch, session), strict=True):
                _agree(case, outcome.objections)
                words, cycles = words + outcome.words, cycles + outcome.cycles
            hits = merge([hits, read_coverage(run_dir)])
            done += len(batch)
            if progress is not None:
                progress(done, total)
        first = batches[-1][1]
        _agree(first, play_orders(first, session))
        hits = merge([hits, read_coverage(run_dir)])
        line = (
            f"{run.name}: {first.name}, seeds {run.seeds.start} to {run.seeds.stop - 1}, "
            f"{words:,} words equal, {cycles:,} cycles"
        )
        found[line] = hits
    return CoverageReport(found, left_out)
