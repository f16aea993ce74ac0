"""The sequence of a queue: jobs of several items, so that cores and vector unit both have work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from firmware_model.host.jobs import LayerJob
from firmware_model.host.tasks import Buffer, Task
from firmware_model.host.vector_job import VectorJob
from paro.config import Config
from paro.config.formats import CODE_DIGITS, LANES

__all__ = [
    "Work",
    "end_of",
    "interleave",
    "job_cycles",
    "queue_cycles",
    "sequence",
    "vector_cycles",
]

#: Cycles from a pass to the next one of the same token, in the mean: adders, roots, reciprocals.
_PASS_LATENCY = 32
#: Cycles between two passes.
_PASS_GAP = 1.1
#: Cycles from a step's program to its first pass, and from its last one to the answer of memory.
_STEP_ENDS = 450
#: The same of a head or a layer: first operands, last outputs.
_JOB_ENDS = 1200
#: Beginnings of a sequence that the search keeps: with the same jobs, and of one length.
_ALIKE = 4
_KEPT = 512
#: Engines: the cores, and the vector unit.
_CORES, _VECTOR = 0, 1


@dataclass(frozen=True)
class Work:
    """What the search knows of a job.

    Parameters
    ----------
    on_vector_unit : bool
        Whether the vector unit does it, and not the cores.
    cycles : float
        That it takes if nothing holds it up.
    waits_for : int
        The last job of the same item that must be written before; -1: none.
    """

    on_vector_unit: bool
    cycles: float
    waits_for: int

    @property
    def engine(self) -> int:
        """Index of its engine."""
        return _VECTOR if self.on_vector_unit else _CORES


@dataclass(frozen=True)
class _Beginning:
    """A sequence as far as it is chosen.

    Parameters
    ----------
    bound : float
        Cycles that it takes at least, with all that is left.
    end : float
        Cycle in which all of it is written.
    taken : float
        Cycle in which its last job was taken.
    step_begun : float
        Cycle in which its last vector step began: the next one is taken from then on.
    free : tuple of float
        Cycle in which each engine is free.
    ends : tuple of tuple of float
        For each item's jobs, when they and all before them in the queue are written.
    before, item : _Beginning or None, int
        The sequence without its last job, and whose that one is.
    """

    bound: float = 0.0
    end: float = 0.0
    taken: float = 0.0
    step_begun: float = 0.0
    free: tuple[float, float] = (0.0, 0.0)
    ends: tuple[tuple[float, ...], ...] = ()
    before: "_Beginning | None" = None
    item: int = -1

    @property
    def places(self) -> tuple[int, ...]:
        """Jobs of each item in it."""
        return tuple(map(len, self.ends))

    def items(self) -> list[int]:
        """Whose each job is."""
        made, here = [], self
        while here.before is not None:
            made.append(here.item)
            here = here.before
        return made[::-1]


def interleave(queues: Sequence[Sequence[Task]], config: Config) -> list[Task]:
    """Put the queues of some items into one, each in its own sequence.

    A beam search for the sequence that ends first, by what jobs roughly take: jobs begin in the
    sequence of the queue, when all that they wait for is written and their engine is free; a vector
    step is taken while the one before it is worked on.

    Parameters
    ----------
    queues : sequence of sequence of Task
        Of each item.
    config : Config
        The accelerator.
    """
    places = [iter(queue) for queue in queues]
    return [next(places[item]) for item in sequence([_works(own, config) for own in queues])]


def sequence(works: Sequence[Sequence[Work]], kept: int = _KEPT) -> list[int]:
    """Find the sequence of some items' jobs that ends first; see `interleave`.

    Parameters
    ----------
    works : sequence of sequence of Work
        Of each item.
    kept : int
        Beginnings of one length that the search keeps.

    Returns
    -------
    list of int
        For each place of the queue, the item whose next job stands there.
    """
    left = [_left(own) for own in works]
    layer = [_Beginning(ends=((),) * len(works))]
    for _ in range(sum(map(len, works))):
        following = [
            _follow(beginning, item, works[item][place], left)
            for beginning in layer
            for item, place in enumerate(beginning.places)
            if place < len(works[item])
        ]
        layer = list(_best(following, kept))
    return min(layer, key=lambda found: found.end).items()


def end_of(works: Sequence[Sequence[Work]], items: Sequence[int]) -> float:
    """Cycle in which the last job of a sequence of some items' jobs is written."""
    here, left = _Beginning(ends=((),) * len(works)), [_left(own) for own in works]
    for item in items:
        here = _follow(here, item, works[item][here.places[item]], left)
    return here.end


def queue_cycles(tasks: Sequence[Task], config: Config) -> float:
    """Cycles that a queue roughly takes; see `interleave`."""
    return end_of([_works(tasks, config)], [0] * len(tasks))


def _works(queue: Sequence[Task], config: Config) -> list[Work]:
    writers: dict[Buffer, int] = {}
    works = []
    for place, task in enumerate(queue):
        read = (columns.buffer for columns in task.inputs.values())
        waits_for = max((writers.get(buffer, -1) for buffer in read), default=-1)
        is_vector = isinstance(task.job, VectorJob)
        works.append(Work(is_vector, job_cycles(task, config), waits_for))
        for buffer in _written(task):
            writers[buffer] = place
    return works


def _left(works: Sequence[Work]) -> list[list[float]]:
    """Cycles of each engine from each job on, and after the last one."""
    cycles = np.zeros((len(works) + 1, 2))
    for place, work in enumerate(works):
        cycles[place, work.engine] = work.cycles
    return cycles[::-1].cumsum(axis=0)[::-1].tolist()


def _follow(
    before: _Beginning, item: int, work: Work, left: Sequence[list[list[float]]]
) -> _Beginning:
    """Let a job of an item be the next one."""
    ends = before.ends[item]
    taken = max(
        before.taken,
        ends[work.waits_for] if work.waits_for >= 0 else 0.0,
        before.step_begun if work.engine == _VECTOR else before.free[_CORES],
    )
    begins = max(taken, before.free[work.engine])
    free = (
        (before.free[_CORES], begins + work.cycles)
        if work.engine == _VECTOR
        else (begins + work.cycles, before.free[_VECTOR])
    )
    end = max(before.end, begins + work.cycles)
    made = (*before.ends[:item], (*ends, end), *before.ends[item + 1 :])
    cores, vector = (
        free[engine] + sum(own[len(place)][engine] for own, place in zip(left, made, strict=True))
        for engine in (_CORES, _VECTOR)
    )
    return _Beginning(
        bound=max(cores, vector, end),
        end=end,
        taken=taken,
        step_begun=begins if work.engine == _VECTOR else before.step_begun,
        free=free,
        ends=made,
        before=before,
        item=item,
    )


def _best(found: list[_Beginning], most: int) -> Iterator[_Beginning]:
    """Those that promise most, few with the same jobs."""
    alike: dict[tuple[int, ...], set[tuple[float, ...]]] = {}
    kept = 0
    for beginning in sorted(found, key=lambda own: (own.bound, own.end, sum(own.free))):
        seen = alike.setdefault(beginning.places, set())
        times = (beginning.taken, *beginning.free)
        if times not in seen and len(seen) < _ALIKE and kept < most:
            seen.add(times)
            kept += 1
            yield beginning


def job_cycles(task: Task, config: Config) -> float:
    """Cycles that a job roughly takes, if nothing holds it up."""
    job = task.job
    if isinstance(job, VectorJob):
        return vector_cycles(config, job.tokens, job.channels, len(job.passes), job.seconds)
    codes = job.codes if isinstance(job, LayerJob) else job.codes[list(job.rows(config))]
    digits = int(np.array(CODE_DIGITS)[codes].sum())
    products = config.block * config.head_dim
    if isinstance(job, LayerJob):
        products *= job.tokens
    else:
        products *= 2 * config.block
    return _JOB_ENDS + digits * products / (LANES * config.rows * config.cols * config.cores)


def vector_cycles(config: Config, tokens: float, channels: int, passes: int, seconds: int) -> float:
    """Cycles that a vector step roughly takes.

    Parameters
    ----------
    config : Config
        The accelerator, with a vector unit.
    tokens, channels, passes : int
        Rows, words of a row, passes over it.
    seconds : int
        Second rows of a token.
    """
    beats = channels // config.vector_lanes
    longest = config.vector_channels // config.vector_lanes
    places = 2 * longest // (beats * max(1, seconds))
    turn = min(config.vector_rows, max(1, places))
    pass_cycles = max(beats + _PASS_GAP, _PASS_LATENCY / turn)
    return _STEP_ENDS + tokens * passes * pass_cycles


def _written(task: Task) -> list[Buffer]:
    return [own.buffer for own in (task.output, task.mantissas) if own is not None]
