"""Queues of any jobs: what they are, in few words, and what each of them must put out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from firmware_model.host.image import Image, place_jobs
from firmware_model.host.jobs import HeadJob, LayerJob
from firmware_model.host.tasks import Task
from firmware_model.reference.outputs import model_outputs, step_outputs
from paro.config import Config
from sim.verify.chains import cut_outputs, make_chain
from sim.verify.heads import HeadShape
from sim.verify.layers import LayerShape
from sim.verify.steps import StepShape

__all__ = ["ChainShape", "Item", "Layout", "Queue", "make_queue"]


@dataclass(frozen=True)
class ChainShape:
    """Heads and layers that hand results on, see `sim.verify.chains.make_chain`.

    Parameters
    ----------
    tokens : int
        Of each of them, at least 8.
    heads : int
        Heads.
    """

    tokens: int
    heads: int

    @property
    def line(self) -> str:
        """All of it in a few words."""
        return f"chain of {self.heads} heads, {self.tokens} tokens"


@dataclass(frozen=True)
class Item:
    """What one or more jobs of a queue are.

    Parameters
    ----------
    shape
        Of a head, layer, vector step or chain.
    seed : int
        Of operands and codes.
    cut : int
        ``out_cut`` of a head or layer.
    """

    shape: HeadShape | LayerShape | StepShape | ChainShape
    seed: int
    cut: int = 0

    @property
    def line(self) -> str:
        """All of it in a few words."""
        return f"{self.shape.line} seed {self.seed}" + f" cut {self.cut}" * bool(self.cut)


@dataclass(frozen=True, eq=False)
class Queue:
    """Jobs, and their outputs by the integer model.

    Parameters
    ----------
    tasks : list of Task
        The jobs.
    words : list of np.ndarray
        int16: words of each.
    mantissas : list of np.ndarray or None
        int32 [tokens] of a vector step that finds them.
    """

    tasks: list[Task]
    words: list[np.ndarray]
    mantissas: list[np.ndarray | None]

    @property
    def core_jobs(self) -> list[HeadJob | LayerJob]:
        """Heads and layers."""
        jobs = (task.job for task in self.tasks)
        return [job for job in jobs if isinstance(job, HeadJob | LayerJob)]

    @property
    def has_steps(self) -> bool:
        """Whether there is a vector step, which the cycle model does not know."""
        return len(self.core_jobs) < len(self.tasks)


@dataclass(frozen=True)
class Layout:
    """How a queue lies in memory, see `firmware_model.host.image.place_jobs`."""

    base: int = 0x10000
    interleaved: bool = False
    alignment: int = 64
    misalign: tuple[int, ...] = (0,)
    row_padding: int = 0
    shared: bool = False

    @property
    def line(self) -> str:
        """What differs from the plainest one."""
        words = [f"at {self.base:#x}"]
        words += ["interleaved"] * self.interleaved + ["shared"] * self.shared
        if any(self.misalign) or self.alignment != 64:
            words.append(f"misaligned {self.alignment}{list(self.misalign)}")
        words += [f"padded {self.row_padding}"] * bool(self.row_padding)
        return " ".join(words)

    def place(self, config: Config, queue: Queue) -> Image:
        """Lay out a queue."""
        return place_jobs(config, queue.tasks, **vars(self))


def make_queue(config: Config, items: Sequence[Item]) -> Queue:
    """Make all jobs of some items, and compute what they must put out."""
    queue = Queue([], [], [])
    for item in items:
        shape = item.shape
        if isinstance(shape, ChainShape):
            chain = make_chain(config, item.seed, shape.tokens, shape.heads)
            queue.tasks.extend(chain.tasks)
            queue.words.extend(chain.words)
            queue.mantissas.extend([None] * len(chain.tasks))
            continue
        mantissas = None
        if isinstance(shape, StepShape):
            job = shape.job(config, item.seed)
            words, mantissas = step_outputs(job)
        else:
            job = shape.job(config, item.seed)
            words = cut_outputs(model_outputs(config, job), item.cut)
        queue.tasks.append(Task(job, item.cut))
        queue.words.append(words)
        queue.mantissas.append(mantissas)
    return queue
