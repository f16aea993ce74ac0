"""Memory as it is laid out: what never changes, and buffers that take each other's places."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from paro.config.errors import ParoError
from paro.config.registers import MEMORY_ADDRESS_BITS

__all__ = ["Lifetime", "Memory", "place_lifetimes"]


@dataclass(frozen=True)
class Lifetime:
    """Bytes that are needed from one job of a queue to another, both included.

    Parameters
    ----------
    size : int
        Bytes.
    first, last : int
        Places of the jobs in the queue.
    """

    size: int
    first: int
    last: int

    def meets(self, other: "Lifetime") -> bool:
        """Whether both are needed at one time."""
        return self.first <= other.last and other.first <= self.last


def place_lifetimes(lives: Sequence[Lifetime], alignment: int) -> list[int]:
    """Give everything a place; what is needed at one time lies in different bytes.

    The largest come first, each to the lowest place that is free all its life.

    Parameters
    ----------
    lives : sequence of Lifetime
        What needs a place.
    alignment : int
        Places are multiples of it.

    Returns
    -------
    list of int
        Place of each, from 0 on.
    """
    places = [0] * len(lives)
    done: list[int] = []
    for index in sorted(range(len(lives)), key=lambda i: (-lives[i].size, lives[i].first)):
        own = lives[index]
        others = sorted((places[i], lives[i].size) for i in done if lives[i].meets(own))
        place = 0
        for start, size in others:
            if place + own.size <= start:
                break
            place = max(place, -(-(start + size) // alignment) * alignment)
        places[index] = place
        done.append(index)
    return places


@dataclass
class Memory:
    """Bytes that grow from ``base`` on.

    Parameters
    ----------
    base : int
        Address of the first byte.
    alignment : int
        Every array begins at a multiple of it, plus the next of ``misalign``.
    misalign : iterator of int
        Bytes added to the beginnings of arrays.
    fill : int
        Value of every byte that means nothing.
    shared : bool
        `constant` places equal arrays once.
    """

    base: int
    alignment: int
    misalign: Iterator[int]
    fill: int
    shared: bool = False
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0
    _known: dict[tuple[bytes, int], int] = field(default_factory=dict)

    def fill_word(self) -> int:
        """Word of four bytes that mean nothing."""
        return int.from_bytes(bytes([self.fill]) * 4, "little")

    def place(self, values: np.ndarray, unit: int = 1) -> int:
        """Append an array, filled up to whole units of bytes; return its address."""
        gap = -(self.base + self._size) % self.alignment + next(self.misalign)
        self._append(bytes([self.fill]) * gap)
        address = self.base + self._size
        self._append(values.tobytes())
        self._append(bytes([self.fill]) * (-values.nbytes % unit))
        return address

    def constant(self, values: np.ndarray, unit: int = 1) -> int:
        """As `place`, of what no job writes."""
        if not self.shared:
            return self.place(values, unit)
        key = values.tobytes(), unit
        if key not in self._known:
            self._known[key] = self.place(values, unit)
        return self._known[key]

    def contents(self) -> bytes:
        """All bytes."""
        return b"".join(self._parts)

    def _append(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)
        if self.base + self._size > 2**MEMORY_ADDRESS_BITS:
            raise ParoError(
                f"jobs placed from {self.base:#x} on leave the memory; "
                f"legal: addresses below {2**MEMORY_ADDRESS_BITS:#x}"
            )
