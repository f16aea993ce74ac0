"""Places of the buffers of a queue: memory that nobody needs any more is used again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from firmware_model.host.memory import Lifetime, Memory, place_lifetimes
from firmware_model.host.tasks import Buffer, Task
from paro.config import Config

__all__ = ["NO_BUFFERS", "REUSE_DISTANCE", "BufferPlaces", "place_buffers"]

#: Jobs between the last that uses a buffer and the first that may use its memory anew. It would be
#: right at 1, for dependences follow from places; but then jobs wait that could overlap.
REUSE_DISTANCE = 4


@dataclass(frozen=True)
class BufferPlaces:
    """Where the buffers of a queue lie.

    Parameters
    ----------
    addresses : dict of str to int
        First byte of each, by its name.
    used : range
        Addresses of all of them.
    without_reuse : int
        Bytes that they would have if none took another's place.
    """

    addresses: dict[str, int]
    used: range
    without_reuse: int


#: Places of a queue without buffers.
NO_BUFFERS = BufferPlaces({}, range(0), 0)


def place_buffers(
    config: Config, tasks: Sequence[Task], memory: Memory, *, reuse: bool
) -> BufferPlaces:
    """Place all buffers, each alive from the first job that uses it to the last.

    One with a content, one that is kept, and one that no job reads live from the beginning or to
    the end: they are the host's.

    Parameters
    ----------
    config : Config
        The accelerator: its beats are whole in every buffer.
    tasks : sequence of Task
        The queue.
    memory : Memory
        Is given the buffers' bytes.
    reuse : bool
        Whether buffers take each other's places.
    """
    uses, read = _uses(tasks)
    buffers = list(uses)
    if not buffers:
        return NO_BUFFERS
    unit = max(config.load_bytes, config.output_bytes)
    shifts = [next(memory.misalign) for _ in buffers]
    lives = []
    for buffer, shift in zip(buffers, shifts, strict=True):
        first, last = uses[buffer][0], uses[buffer][-1] + REUSE_DISTANCE - 1
        held = buffer.kept or buffer.content is not None
        if held or not reuse or buffer not in read:
            last = len(tasks) + REUSE_DISTANCE
        if buffer.content is not None or not reuse:
            first = 0
        size = -(-buffer.tokens * buffer.row_bytes // unit) * unit
        lives.append(Lifetime(shift + size, first, last))
    places = place_lifetimes(lives, memory.alignment)
    room = np.full(
        max(place + life.size for place, life in zip(places, lives, strict=True)),
        memory.fill,
        np.uint8,
    )
    starts = [place + shift for place, shift in zip(places, shifts, strict=True)]
    for buffer, start in zip(buffers, starts, strict=True):
        if buffer.content is not None:
            content = np.frombuffer(buffer.content.tobytes(), np.uint8)
            room[start : start + len(content)] = content
    base = memory.place(room)
    addresses = {buffer.name: base + start for buffer, start in zip(buffers, starts, strict=True)}
    return BufferPlaces(addresses, range(base, base + len(room)), sum(life.size for life in lives))


def _uses(tasks: Sequence[Task]) -> tuple[dict[Buffer, list[int]], set[Buffer]]:
    """Places of the jobs that use each buffer, and which buffers any job reads."""
    uses: dict[Buffer, list[int]] = {}
    read: set[Buffer] = set()
    for index, task in enumerate(tasks):
        read |= {columns.buffer for columns in task.inputs.values()}
        for buffer in task.buffers():
            uses.setdefault(buffer, []).append(index)
    return uses, read
