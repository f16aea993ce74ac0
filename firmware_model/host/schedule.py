"""The sequence of a queue: jobs of several items, so that cores and vector unit both have work."""

from collections.abc import Sequence

import numpy as np

from firmware_model.host.jobs import LayerJob
from firmware_model.host.tasks import Buffer, Task
from firmware_model.host.vector_job import VectorJob
from paro.config import Config
from paro.config.formats import CODE_DIGITS, LANES

__all__ = ["interleave", "job_cycles"]

#: Cycles from a pass to the next one of the same token, in the mean: adders, roots, reciprocals.
_PASS_LATENCY = 25
#: Cycles between two passes.
_PASS_GAP = 1.5


def interleave(queues: Sequence[Sequence[Task]], config: Config) -> list[Task]:
    """Put the queues of some items into one, each in its own sequence.

    The next job is the one that could begin first, by what jobs roughly take: jobs begin in the
    sequence of the queue, when all that they wait for is written and their engine is free.

    Parameters
    ----------
    queues : sequence of sequence of Task
        Of each item.
    config : Config
        The accelerator.
    """
    places = [0] * len(queues)
    made: list[Task] = []
    ends: list[float] = []  # of each job and all before it
    begun, free = [0.0, 0.0], [0.0, 0.0]  # of the last job of the cores, of the vector unit
    writers: dict[Buffer, int] = {}
    now = 0.0
    while any(place < len(queue) for place, queue in zip(places, queues, strict=True)):
        offers = []
        for item, (place, queue) in enumerate(zip(places, queues, strict=True)):
            if place < len(queue):
                task = queue[place]
                read = [columns.buffer for columns in task.inputs.values()]
                last = max((writers.get(buffer, -1) for buffer in read), default=-1)
                taken = max(now, ends[last] if last >= 0 else 0.0)
                # A vector step is taken while the one before it is worked on.
                taken = max(taken, begun[1] if _is_step(task) else free[0])
                offers.append((max(taken, free[_is_step(task)]), taken, item))
        begins, now, item = min(offers)
        task = queues[item][places[item]]
        places[item] += 1
        begun[_is_step(task)] = begins
        free[_is_step(task)] = end = begins + job_cycles(task, config)
        for buffer in _written(task):
            writers[buffer] = len(made)
        made.append(task)
        ends.append(max(end, ends[-1]) if ends else end)
    return made


def job_cycles(task: Task, config: Config) -> float:
    """Cycles that a job roughly takes, if nothing holds it up."""
    job = task.job
    if isinstance(job, VectorJob):
        beats = job.channels // config.vector_lanes
        longest = config.vector_channels // config.vector_lanes
        places = 2 * longest // (beats * max(1, job.seconds))
        turn = min(config.vector_rows, max(1, places))
        return job.tokens * len(job.passes) * max(beats + _PASS_GAP, _PASS_LATENCY / turn)
    digits = int(np.array(CODE_DIGITS)[job.codes].sum())
    products = config.block * config.head_dim
    if isinstance(job, LayerJob):
        products *= job.tokens
    else:
        products *= 2 * config.block
    return digits * products / (LANES * config.rows * config.cols * config.cores)


def _is_step(task: Task) -> bool:
    return isinstance(task.job, VectorJob)


def _written(task: Task) -> list[Buffer]:
    made = [] if task.output is None else [task.output.buffer]
    return made if task.mantissas is None else [*made, task.mantissas]
