"""A board as the driver's transport: what goes over its link is checked, or sent again.

The line to a board loses, changes and repeats bytes, and UARTBone acknowledges nothing. So every
register is read twice around a word that is new each time, and what is written is read again or
compared by the board's own checksum.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from firmware_model.host.lines import LinkFault
from firmware_model.host.link import Bus
from paro.config.board_map import (
    MEMORY_BASE,
    READY,
    REGISTERS_BASE,
    UNTRAINED,
    WORD_BYTES,
    board_address,
    memory_checksum,
)
from paro.config.errors import ParoError
from paro.config.registers import REGISTERS

__all__ = ["Board", "BoardTransport", "Visit"]

Result = TypeVar("Result")

#: Bytes of memory that are checked at a time: at first and after a fault, and when many have gone
#: well; and those below which a region is not halved. A longer region waits for fewer answers.
_REGION_BYTES, _MOST_REGION, _LEAST_REGION = 4096, 16384, 512
#: Regions that go well until longer ones are tried.
_GOOD_REGIONS = 8
#: How often something is tried before the link counts as unusable.
_TRIES = 8
#: Looks at a checksum that is not ready; the board reads a region in some milliseconds. Later ones
#: ask for it so many times at once, which lasts longer and saves waiting for the link.
_LOOKS, _AT_ONCE = 64, 8
#: Seconds after which a word or region that still meets faults is given up.
_SECONDS = 300.0
#: Seconds that a memory may take to start: a millisecond, but on a simulated board.
_START_SECONDS = 120.0
#: Looks at a register that changes, most of which the link does not change.
_GLANCES = 8
#: Registers that read as they were written.
_KEPT = {
    register.offset
    for register in REGISTERS
    if all(part.access == "rw" for part in register.fields)
}


@dataclass(frozen=True)
class Board:
    """What a board tells of itself.

    Parameters
    ----------
    memory_bytes : int
        Size of its memory.
    clock_hz, baud : int
        Clock of bus and accelerator; bits a second of its line.
    """

    memory_bytes: int
    clock_hz: int
    baud: int


@dataclass(frozen=True)
class Visit:
    """A time in which nobody has reset the board, or written to its memory through a link.

    Parameters
    ----------
    token : int
        A word that the board forgets at a reset, and another host overwrites.
    stored : int
        Words of memory that had been written over links.
    """

    token: int
    stored: int


@dataclass
class _Traffic:
    """What went over the link."""

    written: int = 0
    read: int = 0
    faults: list[str] = field(default_factory=list)


class BoardTransport:
    """`firmware_model.host.driver.Transport` of a board; nothing that it returns is unchecked.

    Parameters
    ----------
    bus : Bus
        The way there.
    rng : random.Random, optional
        Of the words that tell new answers from old ones.

    Members
    -------
    traffic
        Bytes of memory ``written`` and ``read``, and what was noticed and mended: ``faults``.
    moved
        Called with the bytes of each region of memory that was written or read, and found right.
    """

    def __init__(self, bus: Bus, rng: random.Random | None = None) -> None:
        self._bus = bus
        self._rng = rng or random.SystemRandom()
        self.traffic = _Traffic()
        self.moved: Callable[[int], None] = lambda count: None
        #: Checksums that the board has found, if that is known.
        self._checks: int | None = None
        self._region, self._good = _REGION_BYTES, 0
        self._until = 0.0

    def identify(self) -> Board:
        """Find the board; ParoError if there is none, or one of another version."""
        self._bus.recover()
        self._begin()
        names = ("memory_bytes", "clock_hz", "baud")
        board = Board(**{name: self._register(name) for name in names})
        until = time.monotonic() + _START_SECONDS
        while (state := self._register("ready")) != READY:
            if state == UNTRAINED:
                windows = self._register("windows").to_bytes(WORD_BYTES, "little")
                raise ParoError(
                    f"the memory of the board at {self._bus.name} could not be trained: its byte "
                    f"lanes read right at {', '.join(map(str, windows))} delays (0: at none); "
                    "reset the board to try again"
                )
            if time.monotonic() > until:
                raise ParoError(f"the memory of the board at {self._bus.name} does not start")
        return board

    def noise(self, count: int) -> bytes:
        """So many random bytes."""
        return self._rng.randbytes(count)

    def visit(self) -> Visit:
        """Begin a visit."""
        token = self._rng.getrandbits(8 * WORD_BYTES) | 1  # never what a reset leaves
        place = board_address("token")
        self._begin()
        for _ in range(_TRIES):
            self._mended(lambda: self._bus.write(place, token.to_bytes(WORD_BYTES, "little")))
            if self._word(place) == token:
                return Visit(token, self._register("stored"))
            self._note("the token does not read as written")
        raise self._unusable("the token is not kept")

    def is_visited(self, visit: Visit) -> bool:
        """Whether a visit still lasts."""
        self._begin()
        return visit == Visit(self._register("token"), self._register("stored"))

    async def read32(self, address: int) -> int:
        """Read a register of the accelerator."""
        self._begin()
        return self._word(REGISTERS_BASE + address)

    async def write32(self, address: int, value: int) -> None:
        """Write a register of the accelerator; one that keeps its value is read again."""
        place = REGISTERS_BASE + address
        self._begin()
        for _ in range(_TRIES):
            self._mended(lambda: self._bus.write(place, value.to_bytes(WORD_BYTES, "little")))
            if address not in _KEPT or self._word(place) == value:
                return
            self._note(f"register {address:#x} does not read as written")
        raise self._unusable(f"register {address:#x} does not keep what is written")

    def glance(self, address: int) -> list[int]:
        """Read a register that changes some times; some of the words may be wrong."""
        self._begin()
        requests = [(REGISTERS_BASE + address, 1)] * _GLANCES
        words = self._mended(lambda: self._bus.read(requests))
        return [int.from_bytes(word, "little") for word in words]

    async def read(self, address: int, count: int) -> bytes:
        """Read memory; each region is compared with the board's checksum of it."""
        first = address - address % WORD_BYTES
        end, parts = address + count, []
        while first < end:
            size = min(self._region, end - first)
            parts.append(self._watched(size, lambda at=first, n=size: self._read_region(at, n)))
            first += size
        return b"".join(parts)[address % WORD_BYTES :][:count]

    async def write(self, address: int, data: bytes) -> None:
        """Write memory; each region is compared with the board's checksum of it."""
        data += bytes(-len(data) % WORD_BYTES)
        first = 0
        while first < len(data):
            part, place = data[first : first + self._region], address + first
            self._watched(len(part), lambda at=place, part=part: self._write_region(at, part))
            first += len(part)

    def holds(self, address: int, data: bytes) -> bool:
        """Whether memory holds these whole words, by the board's checksums."""
        for place, count in _regions(address, len(data), _MOST_REGION):
            self._begin()
            checksum, _ = self._checksum(place, count)
            if checksum != memory_checksum(data[place - address :][:count]):
                return False
        return True

    def recover(self) -> None:
        """Find the board again."""
        self._checks = None
        self._bus.recover()

    def close(self) -> None:
        """Leave the board."""
        self._bus.close()

    def _watched(self, count: int, move: Callable[[], Result]) -> Result:
        """Move a region, with faults or without, and choose the length of the next one."""
        self._begin()
        before = len(self.traffic.faults)
        result = move()
        self.moved(count)
        self._good = self._good + 1 if len(self.traffic.faults) == before else 0
        self._region = _MOST_REGION if self._good >= _GOOD_REGIONS else _REGION_BYTES
        return result

    def _write_region(self, address: int, data: bytes, tries: int = _TRIES) -> None:
        """Write until the board has it; by halves, so that a bad line leaves some of them whole."""
        if tries == 0:
            raise self._unusable(f"memory at {address:#x} does not keep what is written")
        self._mended(lambda: self._bus.write(MEMORY_BASE + address, data))
        self.traffic.written += len(data)
        if self._checksum(address, len(data))[0] == memory_checksum(data):
            return
        self._note(f"memory at {address:#x} is not as written")
        for place, count in _regions(address, len(data), _halved(len(data))):
            self._write_region(place, data[place - address :][:count], tries - 1)

    def _read_region(self, address: int, count: int, tries: int = _TRIES) -> bytes:
        """Read until it is what the board has, as `_write_region` writes."""
        if tries == 0:
            raise self._unusable(f"memory at {address:#x} cannot be read")
        checksum, data = self._checksum(address, count, with_data=True)
        self.traffic.read += len(data)
        if memory_checksum(data) == checksum:
            return data
        self._note(f"memory at {address:#x} was not read as it is")
        regions = _regions(address, count, _halved(count))
        return b"".join(self._read_region(*region, tries - 1) for region in regions)

    def _checksum(self, address: int, count: int, *, with_data: bool = False) -> tuple[int, bytes]:
        """Checksum that the board finds of a region, whole words; and the region, if asked for.

        The region is read while the board computes, and may be wrong.
        """
        place, words = MEMORY_BASE + address, -(-count // WORD_BYTES)
        state = (board_address("address"), 5)
        requests: list[tuple[int, int]] = [(place, words), state] if with_data else [state]
        for _ in range(_TRIES):
            before = self._register("checks") if self._checks is None else self._checks
            self._checks = None  # until it is seen that this check was the next one
            answers = self._mended(lambda: self._check(place, words, requests))
            data = answers[0] if with_data else b""
            for look in range(_LOOKS):
                told = np.frombuffer(answers[-1], "<u4").tolist()
                told_place, told_words, busy, checks, checksum = told
                if (told_place, told_words) != (place, words) or busy not in (0, 1):
                    break  # a command, or its answer, was changed
                if not busy:
                    if checks != (before + 1) % 2**32:
                        break
                    self._checks = checks
                    return checksum, data
                again = [state] * min(look + 1, _AT_ONCE)
                answers = self._mended(lambda again=again: self._bus.read(again))
            self._note(f"the checksum of {address:#x} did not come")
        raise self._unusable(f"the checksum of {address:#x} does not come")

    def _check(self, place: int, words: int, requests: Sequence[tuple[int, int]]) -> list[bytes]:
        """Let the board begin with a checksum, and read something at once."""
        values = np.array([place, words], "<u4").tobytes()
        self._bus.write(board_address("address"), values)
        return self._bus.read(requests)

    def _register(self, name: str) -> int:
        return self._word(board_address(name))

    def _word(self, address: int) -> int:
        """Read a word, twice, around one that no board has told before: old answers do not fit."""
        for _ in range(_TRIES):
            new = self._rng.randbytes(WORD_BYTES)
            first, fence, second = self._mended(lambda new=new: self._fenced(address, new))
            if fence != new:
                self._note(f"the word at {address:#x} came out of step")
                self._bus.recover()
            elif first == second:
                return int.from_bytes(first, "little")
            # Otherwise it was changed on the way, or it is one that changes.
        raise self._unusable(f"the word at {address:#x} is another one each time")

    def _fenced(self, address: int, fence: bytes) -> list[bytes]:
        place = board_address("fence")
        self._bus.write(place, fence)
        return self._bus.read([(address, 1), (place, 1), (address, 1)])

    def _mended(self, action: Callable[[], Result]) -> Result:
        """Try something until the link does not break."""
        for _ in range(_TRIES):
            try:
                return action()
            except LinkFault as fault:
                self._note(str(fault))
                self._bus.recover()
        raise self._unusable("it breaks again and again")

    def _begin(self) -> None:
        """Begin with a word or a region."""
        self._until = time.monotonic() + _SECONDS

    def _note(self, fault: str) -> None:
        self.traffic.faults.append(fault)
        if time.monotonic() > self._until:
            raise ParoError(
                f"the link {self._bus.name} is unusable: after {_SECONDS:g} s still {fault}"
            )

    def _unusable(self, reason: str) -> ParoError:
        return ParoError(
            f"the link {self._bus.name} is unusable: {reason}, after {_TRIES} attempts"
        )


def _regions(address: int, count: int, most: int) -> Iterator[tuple[int, int]]:
    """Address and bytes of each region, of ``most`` bytes but for the last, of so many bytes."""
    for start in range(0, count, most):
        yield address + start, min(most, count - start)


def _halved(count: int) -> int:
    """Bytes of the larger half, whole words; all of a region that is small enough."""
    if count <= _LEAST_REGION:
        return count
    return -(-count // (2 * WORD_BYTES)) * WORD_BYTES
