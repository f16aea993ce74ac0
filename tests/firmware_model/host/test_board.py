"""A board behind a line that loses, changes and repeats bytes: the right words, or one sentence."""

from collections import Counter

import numpy as np
import pytest

from firmware_model.host.board import BoardTransport
from firmware_model.host.board_run import BoardRun, run_on_board
from firmware_model.host.driver import AcceleratorError
from firmware_model.host.link import UartBone, open_bus
from paro.config import ParoError
from paro.config.registers import Cause, find_register
from tests.firmware_model.host.board_model import FAULTS, BoardModel, ModelLine
from tests.firmware_model.host.runs import MEMORY, SILENCE, TINY, run


def assert_right(done: BoardRun, expected: list[np.ndarray]) -> None:
    assert len(done.outputs) == len(expected)
    for got, want in zip(done.outputs, expected, strict=True):
        assert np.array_equal(got, want)


def test_a_line_without_faults(work) -> None:
    image, expected = work
    line = ModelLine(BoardModel(TINY, MEMORY))
    done = run(line, image)
    assert_right(done, expected)
    assert done.faults == []
    # Everything goes over the line once, and little besides.
    payload = done.written + done.read
    assert done.written == len(image.data) + -len(image.data) % 4
    assert payload <= line.passed <= 1.1 * payload + 5000


CASES = [pytest.param(case, marks=pytest.mark.slow if case >= 32 else ()) for case in range(200)]


@pytest.mark.parametrize("case", CASES)
def test_faults_on_the_line(case: int, work, seed: int) -> None:
    """Seeded faults of every kind, some of them dense: right, or refused, in bounded time."""
    image, expected = work
    rate = (1e-5, 1e-4, 3e-4, 3e-3)[case % 4]
    choice = case // 4 % (len(FAULTS) + 1)
    rates = {kind: rate / len(FAULTS) for kind in FAULTS}
    if choice < len(FAULTS):
        rates = {FAULTS[choice]: rate}
    line = ModelLine(BoardModel(TINY, MEMORY), seed, rates)
    refused = None
    try:
        assert_right(run(line, image), expected)
    except ParoError as error:
        refused = error
    assert refused is None or rate > 1e-4, f"it gives up too early: {refused}"
    # However bad the line, the attempts are counted.
    assert line.passed < 60 * len(image.data)


@pytest.mark.parametrize("event", ["reset", "unplug"])
@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.9])
def test_events(event: str, part: float, work, seed: int) -> None:
    """A reset of the board, a cable out: in any part of a run, it ends right."""
    image, expected = work
    whole = ModelLine(BoardModel(TINY, MEMORY))
    run(whole, image)
    line = ModelLine(BoardModel(TINY, MEMORY), seed, events={int(part * whole.passed): event})
    done = run(line, image)
    assert list(line.happened) == [event]
    assert_right(done, expected)
    # A reset that nothing was lost by is not seen: memory keeps its content.
    assert done.faults or event == "reset"


def test_results_of_another_run_are_not_taken(work, seed: int) -> None:
    """Outputs that lie in memory from before are gone before the queue starts."""
    image, expected = work
    board = BoardModel(TINY, MEMORY)
    run(ModelLine(board), image)
    board.accelerator.registers["STATUS"] = 0b010
    lost = ModelLine(board)
    start = find_register("CONTROL").offset
    write32 = board.accelerator.write32

    async def deaf(address: int, value: int) -> None:
        if address != start:
            await write32(address, value)

    board.accelerator.write32 = deaf  # type: ignore[method-assign]
    with pytest.raises(ParoError, match="the queue was lost 5 times, last: the start does not rea"):
        run(lost, image)
    board.accelerator.write32 = write32  # type: ignore[method-assign]
    assert_right(run(ModelLine(board), image), expected)


def test_a_real_error_is_told(work) -> None:
    """An error of the accelerator's own comes again, and is told as the driver tells it."""
    image, _ = work
    line = ModelLine(BoardModel(TINY, MEMORY))
    line.board.accelerator.error = (Cause.BAD_DESCRIPTOR, 1, 0)
    with pytest.raises(AcceleratorError, match="error BAD_DESCRIPTOR at head 1 of the queue"):
        run(line, image)


def test_memory_that_changes_during_the_work(work) -> None:
    """Words that were computed from something else are not taken."""
    image, _ = work
    board = BoardModel(TINY, MEMORY)
    finish = board.accelerator.finish

    def disturbed() -> None:
        finish()
        board.accelerator.memory[image.base + 8] ^= 1

    board.accelerator.finish = disturbed  # type: ignore[method-assign]
    with pytest.raises(ParoError, match=r"memory from 0x0 to 0x.* has changed during the work"):
        run(ModelLine(board), image)


def test_an_accelerator_that_hangs(work) -> None:
    image, _ = work
    board = BoardModel(TINY, MEMORY)
    board.accelerator.looks_to_done = 1 << 30
    transport = BoardTransport(UartBone(ModelLine(board), SILENCE))
    transport.identify()
    with pytest.raises(ParoError, match=r"the accelerator has not read its memory for 0.1 s"):
        run_on_board(transport, TINY, image, stillness=0.1)


def test_nobody_answers() -> None:
    class Deaf(BoardModel):
        def take(self, byte: int) -> None:
            del byte

    bus = UartBone(ModelLine(Deaf(TINY, MEMORY)), SILENCE)
    with pytest.raises(ParoError, match=r"no board answers at model for 0.2 s .*; is it powered, "):
        bus.recover(0.2)


@pytest.mark.parametrize(
    "device", ["", "usb", "serial:", "tcp:", "tcp:host", "tcp:host:x", "tcp:host:70000", "tcp::9"]
)
def test_devices_that_are_refused(device: str) -> None:
    with pytest.raises(ParoError, match=f"device = '{device}' is not legal; legal: serial:PATH"):
        open_bus(device)


def test_counts_of_faults(work, seed: int) -> None:
    """What was mended is told."""
    image, expected = work
    line = ModelLine(BoardModel(TINY, MEMORY), seed, {"flip": 2e-4})
    done = run(line, image)
    assert_right(done, expected)
    assert Counter(line.happened)["flip"] > 0
    assert done.faults
