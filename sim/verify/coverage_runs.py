"""The runs that coverage is taken from: small configurations that have all of the source together.

Each plays random cases (`sim.verify.cases`), so that what is covered is also checked, some of its
own for what no random case comes to: the far end of memory, each register, sums at their ends; and
what mutants play (`sim.verify.stimuli`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from firmware_model.progress import Progress
from gen.names import ACCELERATOR
from paro.config import Config
from paro.config.registers import PAGE_BYTES, Cause
from sim.cosim.accelerator import play_steps
from sim.cosim.accelerator_scenario import Step
from sim.cosim.session import Session
from sim.cosim.simulators import CoverageVerilator, Verilator
from sim.cosim.verilog import kept_verilog
from sim.cycles.bursts import head_fields
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
from sim.verify.images import changed_bytes
from sim.verify.layers import LayerShape
from sim.verify.mutation_bench import mutation_bench
from sim.verify.plays import play_cases
from sim.verify.queues import Item, make_queue
from sim.verify.steps import StepShape, legal_channels
from sim.verify.stimuli import make_scripts

__all__ = ["RUNS", "CoverageRun", "measure", "play_orders", "play_scripts"]

#: Faults of which there are several, and how many of them are played.
_SEVERAL: tuple[FaultKind, ...] = (
    "queue",
    "outside",
    "empty row",
    "program",
    "read error",
    "write error",
)
_SEEDS = 6
#: The source that must come to work.
_RTL = Path(__file__).parents[2] / "rtl"
#: Tiles in a row of a layer: several words of codes; more than a word has codes.
_CHUNKS, _LIVE_CHUNKS = 40, 17
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
        """Cases, by what is played in one process: random ones, then each fault."""
        found = [
            [_far(make_case(seed, self.config)) for seed in batch]
            for batch in batch_seeds(self.seeds)
        ]
        faults = [Fault("descriptor", cause=cause) for cause in REFUSED]
        faults += [
            Fault(kind, (seed + 0.5) / _SEEDS, seed=seed)
            for kind in _SEVERAL
            for seed in range(_SEEDS)
        ]
        short = self._plain(_short(self.config))
        found.append([_far(replace(short, seed=n, fault=one)) for n, one in enumerate(faults)])
        return found

    def orders(self) -> Case:
        """Case for `play_orders`."""
        return self._plain(_short(self.config) + _longest(self.config))

    def _plain(self, items: tuple[Item, ...]) -> Case:
        return Case(0, self.config, ACCELERATOR, Verilator.name, Memory(), items)


def _longest(config: Config) -> tuple[Item, ...]:
    """Heads of as many tokens as there may be, each block in turn a row's only one; long rows.

    One row of blocks has equal weights, and so the largest sum; a layer skips its many tiles; a
    vector step has more tokens than a block.
    """
    most = config.max_tokens
    # Grid, tokens before and after it: every bit of each number changes.
    places = [
        ((1, 1, most - 1), 1, 0),
        ((1, most - 1, 1), 0, 1),
        ((most - 1, 1, 1), 0, 0),
        ((2, 3, 5), most - 35, 0),
        ((3, 5, 2), 0, most - 35),
        ((5, 2, 6), most // 2 - 1, 3),
    ]
    ones = [
        Item(HeadShape(grid, before, after, order, "2", "all but one"), order)
        for order, (grid, before, after) in enumerate(places)
    ]
    flat = HeadShape((1, 1, most), width="8", skips="none", values="zero keys", rows=(0, 1))
    sharp = replace(flat, values="extreme")
    skipped = LayerShape(4, _CHUNKS * config.head_dim, most, codes=0)
    shapes = [flat, sharp, skipped]
    if config.vector_channels:
        channels = legal_channels(config)
        shapes += [
            StepShape(grid, channels[order % len(channels)], order + 1, before, after, order)
            for order, (grid, before, after) in enumerate(places)
        ]
    return (*ones, _wide(config), *(Item(shape, seed) for seed, shape in enumerate(shapes)))


def _wide(config: Config) -> Item:
    """Layer with more tiles in a row than a word has codes."""
    return Item(LayerShape(4, _LIVE_CHUNKS * config.head_dim, 2 * config.block), 0)


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
        range(4 * BATCH),
    ),
    CoverageRun(
        "operands wider than the port, a slow drain",
        Config(rows=16, cols=4, block=16, head_dim=32, axi_bits=64, max_tokens=256),
        range(2 * BATCH),
    ),
)


def play_orders(case: Case, session: Session) -> list[str]:
    """Play what its registers make an accelerator do; returns what was not as it must be.

    All registers are probed, a reset follows a start at once, the queue is computed; then its first
    beat is an error, it lies where no window is, and the codes of a row end too early.
    """
    queue = make_queue(case.config, case.items)
    image = case.layout.place(case.config, queue)
    outside = -(-image.bytes().stop // PAGE_BYTES) * PAGE_BYTES
    images = [image, replace(image, queue_base=outside)]
    causes = [Cause.READ_ERROR, Cause.READ_OUTSIDE]
    steps = [
        Step(probes=True, resets=True, disturb="start_and_reset"),
        Step(probes=True),
        Step(disturb="read_error", after=1),
        Step(image=1),
    ]
    if case.config.query_rows > 1:
        wide = case.layout.place(case.config, make_queue(case.config, [_wide(case.config)]))
        # The first word says which rows go on after so many codes: none.
        images.append(changed_bytes(wide, head_fields(wide, 0)["codes_address"], bytes(4)))
        steps.append(Step(image=2))
        causes.append(Cause.EMPTY_ROW)
    run = play_steps(case.config, images, steps, session)
    if run.failure is not None:
        return [run.failure]
    errors = [step.error and step.error.cause for step in run.steps[2:]]
    found = [] if errors == [cause.name for cause in causes] else [f"errors are {errors}"]
    for job, (words, want) in enumerate(zip(run.outputs[1], queue.words, strict=True)):
        found += words_wrong(f"job {job}", words, want)
    return found


def play_scripts(config: Config, build_dir: Path, run_dir: Path) -> tuple[Hits, int]:
    """Play what mutants play, and hold it against the model; returns coverage and cycles."""
    verilog = kept_verilog(config, ACCELERATOR, build_dir, contracts=False, points=True)
    hits, cycles = [], 0
    with mutation_bench(config, verilog, build_dir, CoverageVerilator()) as bench:
        for script in make_scripts(config):
            cycles += bench.play(script, [], run_dir)[0]
            hits.append(read_coverage(run_dir))
    return merge(hits), cycles


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
        If Verilator is missing, the Verilog does not compile or the folders cannot be written.
    """
    left_out = load_exclusions(exclusions)
    session = coverage_session(build_dir, run_dir)
    found: dict[str, Hits] = {}
    objections: list[str] = []
    plans = [(run, run.batches()) for run in runs]
    done, total = 0, sum(len(batch) for _, batches in plans for batch in batches)
    for run, batches in plans:
        hits, words, cycles = Hits({}), 0, 0
        for batch in batches:
            for case, outcome in zip(batch, play_cases(batch, session), strict=True):
                objections += [f"{case.line}: {sentence}" for sentence in outcome.objections]
                words, cycles = words + outcome.words, cycles + outcome.cycles
            hits = merge([hits, read_coverage(run_dir)])
            done += len(batch)
            if progress is not None:
                progress(done, total)
        orders = run.orders()
        objections += [f"{orders.line}: {said}" for said in play_orders(orders, session)]
        hits = merge([hits, read_coverage(run_dir)])
        scripted, more = play_scripts(run.config, build_dir, run_dir)
        hits, cycles = merge([hits, scripted]), cycles + more
        line = (
            f"{run.name}: {orders.name}, seeds {run.seeds.start} to {run.seeds.stop - 1}, "
            f"{words:,} words equal, {cycles:,} cycles"
        )
        found[line] = hits
    return CoverageReport(found, left_out, objections, [_RTL])
