"""Queues on a board that end right, or with one sentence that says what did not work.

A queue counts as done only if, after it, all that it was computed from is still there, its outputs
are no longer what they were before, and nobody has reset the board or written to its memory.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median_low, mode

import numpy as np

from firmware_model.host.board import BoardTransport, Visit
from firmware_model.host.driver import AcceleratorError, Counters, Driver, run_sync
from firmware_model.host.image import Image
from firmware_model.progress import Progress, Steps
from paro.config.board_map import WORD_BYTES
from paro.config.config import Config
from paro.config.errors import ParoError
from paro.config.registers import Cause, find_register

__all__ = ["BoardRun", "run_on_board"]

#: How often a whole queue is begun.
_QUEUES = 5
#: How often a start, or coming to rest, is tried.
_TRIES = 8
#: Bytes of noise that no output has by chance.
_SURE_BYTES = 16


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
        Called with (bytes done, bytes): those to load, then outputs as they are written, then
        outputs as they are read; from 0 on if the queue must begin again.

    Raises
    ------
    ParoError
        If the accelerator reports an error that comes again, hangs, or the link is unusable.
    """
    driver = Driver(transport)
    before: Cause | None = None
    for attempt in range(_QUEUES):
        try:
            return _attempt(driver, transport, config, image, stillness, progress)
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
    config: Config,
    image: Image,
    stillness: float,
    progress: Progress | None,
) -> BoardRun:
    """Load, work, check and read once."""
    times = [time.perf_counter()]
    image = _with_noise(image, transport.noise)
    moved = sum(len(placed.bytes()) for placed in image.outputs)
    steps = Steps(progress, len(image.data) + 2 * moved)
    transport.moved = steps.advance
    _come_to_rest(driver)
    run_sync(driver.load(image))
    _come_to_rest(driver)  # a command that was changed on the way can have started it
    visit = transport.visit()
    times.append(time.perf_counter())
    _start(driver, image)
    _wait(driver, transport, stillness, _Shown(steps, moved, config.axi_bits // 8))
    times.append(time.perf_counter())
    counters = run_sync(driver.counters())
    if counters.heads_done != len(image.outputs):
        raise _Lost(f"{counters.heads_done} of {len(image.outputs)} jobs were counted as done")
    outputs = run_sync(driver.outputs(image))
    _check_written(image, outputs)
    _check_unchanged(transport, image)
    if run_sync(driver.counters()) != counters:
        raise _Lost("the accelerator counts on, and should be at rest: it was started again")
    _check_visit(transport, visit)
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


class _Shown:
    """Shows how many bytes of outputs are written.

    Parameters
    ----------
    steps : Steps
    total, beat_bytes : int
        Bytes of all outputs, and of a beat.
    """

    def __init__(self, steps: Steps, total: int, beat_bytes: int) -> None:
        self._steps, self._total, self._beat_bytes = steps, total, beat_bytes
        self._done = 0

    def beats(self, count: int) -> None:
        """Show that so many beats are written."""
        done = min(count * self._beat_bytes, self._total)
        if done > self._done:
            self._steps.advance(done - self._done)
            self._done = done

    def end(self) -> None:
        """Show that all are."""
        self.beats(self._total)


def _with_noise(image: Image, noise: Callable[[int], bytes]) -> Image:
    """The image with noise where outputs will be: words from before are not taken for new ones."""
    data = bytearray(image.data)
    for span in (placed.bytes() for placed in image.outputs):
        data[span.start - image.base : span.stop - image.base] = noise(len(span))
    return replace(image, data=bytes(data))


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


def _wait(driver: Driver, transport: BoardTransport, stillness: float, shown: _Shown) -> None:
    """Wait until the queue is done, as long as it moves."""
    last, moved = -1, time.monotonic()
    while (state := run_sync(driver.look())) == "busy":
        beats = transport.glance(find_register("READ_BEATS").offset)
        # Some of them the link may have changed.
        if beats.count(last) < len(beats) / 2:
            last, moved = mode(beats), time.monotonic()
        elif time.monotonic() - moved > stillness:
            raise ParoError(f"the accelerator has not read its memory for {stillness:g} s")
        shown.beats(median_low(transport.glance(find_register("WRITE_BEATS").offset)))
    if state == "rest":
        raise _Lost("the accelerator rests, and has not done the queue: it was reset")
    shown.end()


def _check_written(image: Image, outputs: Sequence[np.ndarray]) -> None:
    """See that the outputs are new: no row is the noise that was there before."""
    for number, (placed, words) in enumerate(zip(image.outputs, outputs, strict=True)):
        span = placed.bytes()
        before = placed.words_in(image.data[span.start - image.base :][: len(span)])
        kept = (words == before).all(axis=1)
        is_sure = placed.words * placed.word_bytes >= _SURE_BYTES
        if kept.any() if is_sure else kept.all():
            raise _Lost(f"outputs of job {number} were not written")


def _check_visit(transport: BoardTransport, visit: Visit) -> None:
    if not transport.is_visited(visit):
        raise _Lost("the board was reset, or its memory written to, before all outputs were read")


def _check_unchanged(transport: BoardTransport, image: Image) -> None:
    """See that the queue was computed from what was loaded, and nothing was written over it."""
    for start, end in _unwritten(image):
        if not transport.holds(start, image.data[start - image.base :][: end - start]):
            raise _Lost(f"memory from {start:#x} to {end:#x} has changed during the work")


def _unwritten(image: Image) -> Iterator[tuple[int, int]]:
    """Stretches of an image, in whole words, that no job writes to."""
    place = image.base
    whole = image.base + len(image.data) - len(image.data) % WORD_BYTES
    written = [span for placed in image.outputs for span in (placed.bytes(), placed.mantissas)]
    for span in sorted(filter(None, written), key=lambda span: span.start):
        if span.start > place:
            yield place, span.start
        place = max(place, -(-span.stop // WORD_BYTES) * WORD_BYTES)
    if place < whole:
        yield place, whole
