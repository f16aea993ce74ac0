"""A board as the driver's transport, and queues on it that end right or with one sentence.

The line to a board loses, changes and repeats bytes, and UARTBone acknowledges nothing. So every
register is read twice around a word that is known, what is written is read again or compared by the
board's own checksum, and a queue counts as done only if, after it, all that it was computed from is
still there.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import numpy as np

from firmware_model.host.driver import AcceleratorError, Counters, Driver, run_sync
from firmware_model.host.image import Image
from firmware_model.host.link import Bus, LinkFault
from firmware_model.progress import Progress
from paro.config import Config
from paro.config.board_map import (
    BOARD_MAGIC,
    MEMORY_BASE,
    READY,
    REGISTERS_BASE,
    UNTRAINED,
    WORD_BYTES,
    board_address,
    memory_checksum,
)
from paro.config.errors import ParoError
from paro.config.registers import REGISTERS, Cause, find_register

__all__ = ["Board", "BoardRun", "BoardTransport", "run_on_board"]

Result = TypeVar("Result")

#: Bytes of memory that are checked at a time, and those below which a region is not halved.
_REGION_BYTES, _LEAST_REGION = 4096, 512
#: How often something is tried before the link counts as unusable.
_TRIES = 8
#: How often a whole queue is begun.
_QUEUES = 5
#: Looks at a checksum that is not ready; the board reads a region in a millisecond. Later ones ask
#: for it so many times at once, which lasts longer and saves waiting for the link.
_LOOKS, _AT_ONCE = 16, 8
#: Seconds that a memory may take to start: a millisecond, but on a simulated board.
_START_SECONDS = 120.0
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

    Members
    -------
    traffic
        Bytes of memory ``written`` and ``read``, and what was noticed and mended: ``faults``.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.traffic = _Traffic()

    def identify(self) -> Board:
        """Find the board; ParoError if there is none, or one of another version."""
        self._bus.recover()
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

    async def read32(self, address: int) -> int:
        """Read a register of the accelerator."""
        return self._word(REGISTERS_BASE + address)

    async def write32(self, address: int, value: int) -> None:
        """Write a register of the accelerator; one that keeps its value is read again."""
        place = REGISTERS_BASE + address
        for _ in range(_TRIES):
            self._mended(lambda: self._bus.write(place, value.to_bytes(WORD_BYTES, "little")))
            if address not in _KEPT or self._word(place) == value:
                return
            self._note(f"register {address:#x} does not read as written")
        raise ParoError(f"register {address:#x} of {self._bus.name} does not keep what is written")

    def glance(self, address: int) -> int:
        """Read a register that changes, unchecked."""
        (word,) = self._mended(lambda: self._bus.read([(REGISTERS_BASE + address, 1)]))
        return int.from_bytes(word, "little")

    async def read(self, address: int, count: int) -> bytes:
        """Read memory; each region is compared with the board's checksum of it."""
        first = address - address % WORD_BYTES
        regions = _regions(first, address + count - first)
        parts = [self._read_region(*region, _TRIES) for region in regions]
        return b"".join(parts)[address - first :][:count]

    async def write(self, address: int, data: bytes) -> None:
        """Write memory; each region is compared with the board's checksum of it."""
        data += bytes(-len(data) % WORD_BYTES)
        for place, count in _regions(address, len(data)):
            self._write_region(place, data[place - address :][:count], _TRIES)

    def holds(self, address: int, data: bytes) -> bool:
        """Whether memory holds these whole words, by the board's checksums."""
        return all(
            self._checksum(place, count) == memory_checksum(data[place - address :][:count])
            for place, count in _regions(address, len(data))
        )

    def recover(self) -> None:
        """Find the board again."""
        self._bus.recover()

    def _write_region(self, address: int, data: bytes, tries: int) -> None:
        """Write until the board has it; by halves, so that a bad line leaves some of them whole."""
        if tries == 0:
            raise self._unusable(f"memory at {address:#x} does not keep what is written")
        self._mended(lambda: self._bus.write(MEMORY_BASE + address, data))
        self.traffic.written += len(data)
        if self._checksum(address, len(data)) == memory_checksum(data):
            return
        self._note(f"memory at {address:#x} is not as written")
        for place, count in _regions(address, len(data), _halved(len(data))):
            self._write_region(place, data[place - address :][:count], tries - 1)

    def _read_region(self, address: int, count: int, tries: int) -> bytes:
        """Read until it is what the board has, as `_write_region` writes."""
        if tries == 0:
            raise self._unusable(f"memory at {address:#x} cannot be read")
        words = -(-count // WORD_BYTES)
        (data,) = self._mended(lambda: self._bus.read([(MEMORY_BASE + address, words)]))
        self.traffic.read += len(data)
        if memory_checksum(data) == self._checksum(address, count):
            return data
        self._note(f"memory at {address:#x} was not read as it is")
        regions = _regions(address, count, _halved(count))
        return b"".join(self._read_region(*region, tries - 1) for region in regions)

    def _checksum(self, address: int, count: int) -> int:
        """Checksum that the board finds of a region, whole words."""
        place, words = MEMORY_BASE + address, -(-count // WORD_BYTES)
        for _ in range(_TRIES):
            before = self._register("checks")
            self._mended(lambda: self._begin_check(place, words))
            for look in range(_LOOKS):
                requests = [(board_address("address"), 5)] * min(look + 1, _AT_ONCE)
                told = self._mended(lambda requests=requests: self._bus.read(requests))[-1]
                told_place, told_words, busy, checks, checksum = np.frombuffer(told, "<u4").tolist()
                if (told_place, told_words) != (place, words) or busy not in (0, 1):
                    break  # a command, or its answer, was changed
                if not busy:
                    if checks == (before + 1) % 2**32:
                        return checksum
                    break
            self._note(f"the checksum of {address:#x} did not come")
        raise self._unusable(f"the checksum of {address:#x} does not come")

    def _begin_check(self, place: int, words: int) -> None:
        values = np.array([place, words], "<u4").tobytes()
        self._bus.write(board_address("address"), values)

    def _register(self, name: str) -> int:
        return self._word(board_address(name))

    def _word(self, address: int) -> int:
        """Read a word, twice, around one that is known."""
        magic = BOARD_MAGIC.to_bytes(WORD_BYTES, "little")
        requests = [(address, 1), (board_address("magic"), 1), (address, 1)]
        for _ in range(_TRIES):
            first, fence, second = self._mended(lambda: self._bus.read(requests))
            if fence != magic:
                self._note(f"the word at {address:#x} came out of step")
                self._bus.recover()
            elif first == second:
                return int.from_bytes(first, "little")
            # Otherwise it was changed on the way, or it is one that changes.
        raise self._unusable(f"the word at {address:#x} is another one each time")

    def _mended(self, action: Callable[[], Result]) -> Result:
        """Try something until the link does not break."""
        for _ in range(_TRIES):
            try:
                return action()
            except LinkFault as fault:
                self._note(str(fault))
                self._bus.recover()
        raise self._unusable("it breaks again and again")

    def _note(self, fault: str) -> None:
        self.traffic.faults.append(fault)

    def _unusable(self, reason: str) -> ParoError:
        return ParoError(
            f"the link {self._bus.name} is unusable: {reason}, after {_TRIES} attempts"
        )


@dataclass(frozen=True)
class BoardRun:
    """A queue that a board has computed.

    Parameters
    ----------
    outputs : list of np.ndarray
        See `Driver.outputs`.
    counters : Counters
        Of the accelerator.
    seconds : dict of str to float
        Wall-clock time of ``load``, ``work`` and ``read``.
    written, read : int
        Bytes of memory that went over the link.
    faults : list of str
        What was noticed and mended on the way.
    """

    outputs: list[np.ndarray]
    counters: Counters
    seconds: dict[str, float]
    written: int
    read: int
    faults: list[str]


class _Lost(ParoError):
    """The queue is not, or not surely, what was asked for: it must begin again."""


def run_on_board(
    transport: BoardTransport,
    config: Config,
    image: Image,
    *,
    stillness: float,
    progress: Progress | None = None,
) -> BoardRun:
    """Work on a queue until it is done, whatever the link loses on the way.

    Parameters
    ----------
    transport : BoardTransport
        The board, already identified.
    config : Config
        Its accelerator.
    image : Image
        The queue; addresses are those of the accelerator.
    stillness : float
        Seconds without progress after which the accelerator counts as hung.
    progress : Progress, optional
        Called with (jobs done, jobs).

    Raises
    ------
    ParoError
        If the accelerator reports an error that comes again, hangs, or the link is unusable.
    """
    driver = Driver(transport)
    before: Cause | None = None
    for attempt in range(_QUEUES):
        try:
            return _attempt(driver, transport, image, stillness, progress)
        except _Lost as reason:
            transport.traffic.faults.append(str(reason))
        except AcceleratorError as error:
            # A byte that was changed on the way can have made it; the same one again is its own.
            if error.cause == before or attempt == _QUEUES - 1:
                raise
            before = error.cause
            transport.traffic.faults.append(str(error))
        transport.recover()
        if run_sync(driver.identify()) != config:
            raise ParoError("the board has another accelerator than before")
    raise ParoError(
        f"the queue was lost {_QUEUES} times, last: {transport.traffic.faults[-1]}; the link is "
        "unusable"
    )


def _attempt(
    driver: Driver,
    transport: BoardTransport,
    image: Image,
    stillness: float,
    progress: Progress | None,
) -> BoardRun:
    """Load, work, check and read once."""
    times = [time.perf_counter()]
    _come_to_rest(driver)
    run_sync(driver.load(image))
    times.append(time.perf_counter())
    _start(driver, image)
    _wait(driver, transport, stillness, lambda done: _tell(progress, done, len(image.outputs)))
    times.append(time.perf_counter())
    counters = run_sync(driver.counters())
    if counters.heads_done != len(image.outputs):
        raise _Lost(f"{counters.heads_done} of {len(image.outputs)} jobs were counted as done")
    outputs = run_sync(driver.outputs(image))
    _check_unchanged(transport, image)
    times.append(time.perf_counter())
    load, work, read = (round(end - start, 3) for start, end in pairwise(times))
    traffic = transport.traffic
    return BoardRun(
        outputs=outputs,
        counters=counters,
        seconds={"load": load, "work": work, "read": read},
        written=traffic.written,
        read=traffic.read,
        faults=list(traffic.faults),
    )


def _tell(progress: Progress | None, done: int, jobs: int) -> None:
    if progress is not None:
        progress(min(done, jobs), jobs)


def _come_to_rest(driver: Driver) -> None:
    """Give up what the accelerator works on, and leave nothing that it reports."""
    for _ in range(_TRIES):
        run_sync(driver.reset())
        if run_sync(driver.look()) == "rest":
            return
    raise _Lost("the accelerator does not forget what it reported")


def _start(driver: Driver, image: Image) -> None:
    """Start, and see that it has begun: a start may be lost on the way."""
    for _ in range(_TRIES):
        run_sync(driver.start(image))
        if run_sync(driver.has_begun()):
            return
    raise _Lost("the start does not reach the accelerator")


def _wait(
    driver: Driver, transport: BoardTransport, stillness: float, tell: Callable[[int], None]
) -> None:
    """Wait until the queue is done, as long as it moves."""
    last, moved = -1, time.monotonic()
    while (state := run_sync(driver.look())) == "busy":
        beats = transport.glance(find_register("READ_BEATS").offset)
        if beats != last:
            last, moved = beats, time.monotonic()
        elif time.monotonic() - moved > stillness:
            raise ParoError(f"the accelerator has not read its memory for {stillness:g} s")
        tell(transport.glance(find_register("HEADS_DONE").offset))
    if state == "rest":
        raise _Lost("the accelerator rests, and has not done the queue: it was reset")


def _check_unchanged(transport: BoardTransport, image: Image) -> None:
    """See that the queue was computed from what was loaded, and nothing was written over it."""
    for start, end in _unwritten(image):
        if not transport.holds(start, image.data[start - image.base :][: end - start]):
            raise _Lost(f"memory from {start:#x} to {end:#x} has changed during the work")


def _unwritten(image: Image) -> Iterator[tuple[int, int]]:
    """Stretches of an image, in whole words, that no job writes to."""
    place = image.base
    whole = image.base + len(image.data) - len(image.data) % WORD_BYTES
    for span in sorted((placed.bytes() for placed in image.outputs), key=lambda span: span.start):
        if span.start > place:
            yield place, span.start
        place = max(place, -(-span.stop // WORD_BYTES) * WORD_BYTES)
    if place < whole:
        yield place, whole


def _regions(address: int, count: int, most: int = _REGION_BYTES) -> Iterator[tuple[int, int]]:
    """Address and bytes of each region, of ``most`` bytes but for the last, of so many bytes."""
    for start in range(0, count, most):
        yield address + start, min(most, count - start)


def _halved(count: int) -> int:
    """Bytes of the larger half, whole words; all of a region that is small enough."""
    if count <= _LEAST_REGION:
        return count
    return -(-count // (2 * WORD_BYTES)) * WORD_BYTES
