"""What a job of a queue waits for, from the bytes that it and the jobs before it use."""

from collections.abc import Sequence
from dataclasses import dataclass

from paro.config.descriptor import OVERLAP_MAX

__all__ = ["Access", "Accesses", "Wait", "done_before", "find_waits"]


@dataclass(frozen=True)
class Access:
    """Bytes that a job reads or writes: rows at equal distances.

    Parameters
    ----------
    start : int
        Address of the first byte.
    stride : int
        Bytes from one row to the next.
    rows : int
        Number of rows.
    width : int
        Bytes of a row, at most ``stride``.
    """

    start: int
    stride: int
    rows: int
    width: int

    @property
    def stop(self) -> int:
        """Address after the last byte."""
        return self.start + (self.rows - 1) * self.stride + self.width

    def meets(self, other: "Access") -> bool:
        """Whether they share a byte; of rows at different distances whether they may."""
        if self.stop <= other.start or other.stop <= self.start:
            return False
        if self.stride != other.stride:
            return True
        distance = (other.start - self.start) % self.stride
        return distance < self.width or distance + other.width > self.stride


@dataclass(frozen=True)
class Accesses:
    """What a job reads and what it writes."""

    reads: tuple[Access, ...] = ()
    writes: tuple[Access, ...] = ()

    def conflicts(self, other: "Accesses") -> bool:
        """Whether one writes what the other reads or writes."""
        return (
            _meet(self.writes, other.writes)
            or _meet(self.writes, other.reads)
            or _meet(self.reads, other.writes)
        )


@dataclass(frozen=True)
class Wait:
    """Fields ``after`` and ``overlap`` of a job's descriptor."""

    after: int = 0
    overlap: int = 0


def find_waits(jobs: Sequence[Accesses]) -> list[Wait]:
    """Let each job wait for the last one before it that it conflicts with.

    Jobs begin in the sequence of the queue: what one waited for is done for all behind it.
    """
    waits, done = [], 0
    for index, own in enumerate(jobs):
        last = next(
            (place for place in range(index - 1, done - 1, -1) if own.conflicts(jobs[place])), None
        )
        wait = Wait() if last is None else Wait(1, min(index - 1 - last, OVERLAP_MAX))
        done = done_before(wait, index, done)
        waits.append(wait)
    return waits


def done_before(wait: Wait, index: int, done: int) -> int:
    """First jobs of the queue that are done when job ``index`` begins; ``done`` before it waits."""
    return max(done, index - wait.overlap) if wait.after else done


def _meet(ours: Sequence[Access], theirs: Sequence[Access]) -> bool:
    return any(own.meets(other) for own in ours for other in theirs)
