"""Time of what lies between attention and linear layers: the vector unit's, and what it adds.

Each accelerator (a core or a cluster) has a vector unit, which works on its share of the tokens
while the cores compute for another item of the queue, such as the other half of the guidance. What
is not hidden so is found by the search that the host makes for its queues
(`firmware_model.host.schedule`), on one transformer block after another.

The steps are those of a block of CogVideoX as it runs on the device: layer norms with scale and
shift, norms and rotary positions of the heads of Q and K, GELU, gates and residuals, and INT8 for
every layer and head; around a cross attention those of a block of Wan, but for the text's rows. A
test holds them against the queues of such blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from firmware_model.host.schedule import Work, end_of, sequence, vector_cycles
from paro.config import Config
from sim.estimate.machine import Machine
from sim.estimate.workloads import Workload

__all__ = ["BLOCK_STEPS", "CROSS_STEPS", "Row", "VectorStep", "VectorTime", "vector_time"]

#: Q, K and V: layers of a block that are one of a workload's.
_PROJECTIONS = 3
#: Groups of heads; the heads of one count as one job.
_HEAD_GROUPS = 4
#: Blocks in a row, fewer and more: their difference is what a block takes.
_FEWER, _MORE = 1, 3
#: Beginnings that the search keeps.
_KEPT = 16
#: Bytes of a word.
_WORD = 2


class Row(Enum):
    """Channels of a vector step's row."""

    TOKEN = "a token"
    HEAD = "a token of a head"
    HIDDEN = "a token in the feed-forward network"


@dataclass(frozen=True)
class VectorStep:
    """A job of the vector unit.

    Parameters
    ----------
    row : Row
        What it works on.
    passes : int
        Over each row.
    seconds : int
        Second rows that it reads for each row.
    makes_bytes : bool
        Whether its results are INT8, not words.
    """

    row: Row
    passes: int
    seconds: int = 0
    makes_bytes: bool = True

    def bytes_moved(self, channels: int) -> int:
        """Bytes that it reads and writes for a row; mantissas, tables and programs left out."""
        return channels * (_WORD * (1 + self.seconds) + (1 if self.makes_bytes else _WORD))


_NORM = VectorStep(Row.TOKEN, 4, makes_bytes=False)  # centred, with scale and shift
_INT8 = VectorStep(Row.TOKEN, 2)
_VALUES = VectorStep(Row.TOKEN, 1)  # V in INT8
_HEADS = VectorStep(Row.HEAD, 7, seconds=2)  # of Q or K: norm, rotary positions, INT8
_GATE = VectorStep(Row.TOKEN, 1, seconds=1, makes_bytes=False)
_ACTIVATION = VectorStep(Row.HIDDEN, 3)  # GELU, INT8
_NORM_INT8 = VectorStep(Row.TOKEN, 5)  # centred, with scale and shift
_BALANCED = VectorStep(Row.TOKEN, 4, makes_bytes=False)  # norm of all heads of Q together
_QUERIES = VectorStep(Row.HEAD, 2)  # Q in INT8

#: Of a block, in their sequence.
BLOCK_STEPS = (
    *(_NORM, _INT8, _VALUES, _HEADS, _HEADS, _INT8, _GATE),
    *(_NORM, _INT8, _ACTIVATION, _GATE),
)
#: Around a cross attention, which stands between the two halves of these.
CROSS_STEPS = (_NORM_INT8, _BALANCED, _QUERIES, _INT8, _GATE)


@dataclass(frozen=True)
class VectorTime:
    """What the vector unit takes for one pass through a transformer layer.

    Parameters
    ----------
    busy_seconds : float
        In which it works, on one item.
    exposed_seconds : float
        In which the cores wait for it.
    moved_bytes : float
        Between memory and all units.
    """

    busy_seconds: float
    exposed_seconds: float
    moved_bytes: float


def vector_time(
    workload: Workload,
    machine: Machine,
    attention: float,
    linear: Sequence[float],
    crossed: float = 0.0,
) -> VectorTime:
    """Time and traffic of the vector steps of a transformer layer.

    Parameters
    ----------
    workload : Workload
        The model; as many items are in the queue as it has passes of guidance.
    machine : Machine
        Ours; nothing is counted if its configuration has no vector unit.
    attention : float
        Cycles of the heads of a layer, of all cores at the same time.
    linear : sequence of float
        The same of each of ``workload.linear_layers``.
    crossed : float
        The same of the heads of a cross attention.
    """
    config = machine.config
    if not config.vector_channels:
        return VectorTime(0.0, 0.0, 0.0)
    jobs = _Jobs(workload, config, workload.tokens / machine.clusters)
    _add_block(jobs, attention, linear, crossed)
    block = tuple(jobs.works)
    busy, cores = (
        sum(work.cycles for work in block if work.on_vector_unit is is_vector)
        for is_vector in (True, False)
    )
    waits = max(0.0, _block_cycles(block, workload.guidance_passes) - cores)
    steps = BLOCK_STEPS + (CROSS_STEPS if workload.cross_tokens else ())
    moved = sum(step.bytes_moved(jobs.channels(step.row)) for step in steps)
    return VectorTime(
        busy_seconds=busy / machine.resources.clock_hz,
        exposed_seconds=waits / machine.resources.clock_hz,
        moved_bytes=float(moved * workload.tokens),
    )


@dataclass
class _Jobs:
    """Jobs of a block on one accelerator, which has some of the tokens."""

    workload: Workload
    config: Config
    tokens: float
    works: list[Work] = field(default_factory=list)

    def channels(self, row: Row) -> int:
        """Channels of a token in all rows of a step."""
        return self.workload.ffn if row is Row.HIDDEN else self.workload.width

    def add(self, cycles: float, waits_for: int) -> int:
        """Add a job of the cores; returns its place."""
        self.works.append(Work(False, cycles, waits_for))
        return len(self.works) - 1

    def add_step(self, step: VectorStep, waits_for: int, share: float = 1) -> int:
        """Add a share of a vector step; returns its place."""
        rows = self.workload.heads if step.row is Row.HEAD else 1
        channels = self.channels(step.row) // rows
        cycles = vector_cycles(self.config, self.tokens, channels, step.passes, step.seconds)
        self.works.append(Work(True, share * rows * cycles, waits_for))
        return len(self.works) - 1


def _add_block(jobs: _Jobs, attention: float, linear: Sequence[float], crossed: float) -> None:
    """Add the jobs of a block in the sequence of its queue."""
    projections, output, *others = linear
    inputs = jobs.add_step(_INT8, jobs.add_step(_NORM, -1))
    q, k, v = (jobs.add(projections / _PROJECTIONS, inputs) for _ in range(_PROJECTIONS))
    place = values = jobs.add_step(_VALUES, v)
    for _ in range(_HEAD_GROUPS):
        jobs.add_step(_HEADS, q, 1 / _HEAD_GROUPS)
        keys = jobs.add_step(_HEADS, k, 1 / _HEAD_GROUPS)
        place = jobs.add(attention / _HEAD_GROUPS, max(keys, values))
    place = jobs.add_step(_GATE, jobs.add(output, jobs.add_step(_INT8, place)))
    if jobs.workload.cross_tokens:
        projection, output, *others = others
        q = jobs.add_step(_BALANCED, jobs.add(projection, jobs.add_step(_NORM_INT8, place)))
        for _ in range(_HEAD_GROUPS):
            place = jobs.add(crossed / _HEAD_GROUPS, jobs.add_step(_QUERIES, q, 1 / _HEAD_GROUPS))
        place = jobs.add_step(_GATE, jobs.add(output, jobs.add_step(_INT8, place)))
    place = jobs.add_step(_INT8, jobs.add_step(_NORM, place))
    if others:
        expansion, reduction = others
        place = jobs.add_step(_ACTIVATION, jobs.add(expansion, place))
        place = jobs.add(reduction, place)
    jobs.add_step(_GATE, place)


@lru_cache(maxsize=256)
def _block_cycles(block: tuple[Work, ...], items: int) -> float:
    """Cycles of a block of one item, where several items take turns and blocks follow blocks."""
    fewer, more = (_run_cycles([_repeated(block, blocks)] * items) for blocks in (_FEWER, _MORE))
    return (more - fewer) / (_MORE - _FEWER) / items


def _run_cycles(works: Sequence[Sequence[Work]]) -> float:
    return end_of(works, sequence(works, _KEPT))


def _repeated(block: Sequence[Work], count: int) -> list[Work]:
    size = len(block)
    return [
        Work(work.on_vector_unit, work.cycles, work.waits_for + number * size)
        for number in range(count)
        for work in block
    ]
