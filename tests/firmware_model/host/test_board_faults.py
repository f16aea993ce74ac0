"""Faults at chosen places of a run on a board: in each command, between done and read, for good."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from firmware_model.host.board import BoardTransport
from firmware_model.host.board_run import BoardRun, run_on_board
from firmware_model.host.driver import run_sync
from firmware_model.host.image import Image, place_jobs
from firmware_model.host.lines import LinkFault, SerialLine
from firmware_model.host.link import RemoteBus, UartBone, open_bus
from firmware_model.reference.outputs import model_outputs
from paro.config import ParoError
from paro.config.board_map import BOARD_VERSION, MEMORY_BASE, board_address
from paro.config.registers import find_register
from tests.firmware_model.host.board_model import FAULTS, BoardModel, ModelLine
from tests.firmware_model.host.jobs import make_job
from tests.firmware_model.host.runs import MEMORY, SILENCE, TINY, run


@dataclass(frozen=True)
class Work:
    """A head, its words, and how many bytes of a run without faults have passed when."""

    image: Image
    expected: np.ndarray
    #: Before the first operand; at the start; when the accelerator is done; in all.
    loading: int
    started: int
    done: int
    end: int

    def run(self, line: ModelLine) -> BoardRun:
        result = run(line, self.image)
        (got,) = result.outputs
        assert np.array_equal(got, self.expected)
        return result


@pytest.fixture(scope="module")
def work() -> Work:
    job = make_job(TINY, 2, 5)
    image = place_jobs(TINY, [job], 0)
    line = ModelLine(BoardModel(TINY, MEMORY))
    marks = []
    write_word, finish = line.board.write_word, line.board.accelerator.finish

    def note_write(address: int, value: int) -> None:
        if address in (MEMORY_BASE, board_address("token")):
            marks.append(line.passed)
        write_word(address, value)

    def note_finish() -> None:
        marks.append(line.passed)
        finish()

    line.board.write_word = note_write  # type: ignore[method-assign]
    line.board.accelerator.finish = note_finish  # type: ignore[method-assign]
    run(line, image)
    loading, started, done = marks
    return Work(image, model_outputs(TINY, job), loading, started, done, line.passed)


def spread(first: int, last: int, count: int) -> list[int]:
    """So many places from the first to the last."""
    return [int(place) for place in np.linspace(first, last, count)]


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_fault_in_any_command(kind: str, many: bool, work: Work, seed: int) -> None:
    """One fault, in what is asked, told or commanded before and after the load: it is mended."""
    count = 60 if many else 4
    places = [
        *spread(1, work.loading, count),
        *spread(work.started, work.end - 1, 2 * count),
    ]
    for place in places:
        line = ModelLine(BoardModel(TINY, MEMORY), seed + place, events={place: kind})
        work.run(line)
        assert list(line.happened) == [kind]


@pytest.mark.parametrize("part", range(6))
def test_answers_that_come_late(part: int, work: Work, seed: int) -> None:
    """After they were given up: they are not taken for answers to what is asked then."""
    place = spread(work.loading, work.end - 30, 6)[part]
    line = ModelLine(BoardModel(TINY, MEMORY), seed, events={place: "late"})
    assert work.run(line).faults
    assert list(line.happened) == ["late"]


class RepeatingBus(UartBone):
    """Tells once, for a question, the whole answer to the one before it."""

    before: list[bytes] | None = None
    is_late = False

    def read(self, requests: Sequence[tuple[int, int]]) -> list[bytes]:
        answers, before = super().read(requests), self.before
        self.before = answers
        if self.is_late and before is not None:
            self.is_late = False
            return before
        return answers


def test_answers_to_an_older_question() -> None:
    """A packet that comes twice is answered twice: the second answer fits no other question."""
    bus = RepeatingBus(ModelLine(BoardModel(TINY, MEMORY)), SILENCE)
    transport = BoardTransport(bus)
    transport.identify()
    for name, value in (("ROWS", TINY.rows), ("BLOCK", TINY.block), ("COLS", TINY.cols)):
        bus.is_late = True
        assert run_sync(transport.read32(find_register(name).offset)) == value
        assert not bus.is_late
    assert len(transport.traffic.faults) == 3


@pytest.mark.parametrize("part", range(6))
def test_outputs_that_a_reset_changes(part: int, work: Work, seed: int) -> None:
    """Memory without refresh forgets bits, and the operands may be whole: the reset is seen."""
    place = spread(work.done + 1, work.end - 300, 6)[part]
    line = ModelLine(BoardModel(TINY, MEMORY), seed, events={place: "decay"})
    line.decays = work.image.outputs[0].bytes()
    assert work.run(line).faults
    assert list(line.happened) == ["decay"]


@pytest.mark.parametrize("part", range(6))
@pytest.mark.parametrize("what", ["outputs", "token"])
def test_a_write_that_nobody_sent(what: str, part: int, work: Work, seed: int) -> None:
    """Of a legal command, by faults or from another host, when the accelerator is done."""
    address = MEMORY_BASE + work.image.outputs[0].bytes()[64]
    if what == "token":
        address = board_address("token")
    command = bytes([1, 1]) + (address // 4).to_bytes(4, "big") + b"\x12\x34\x56\x78"
    for place in range(spread(work.done + 10, work.end - 300, 6)[part], work.end):
        line = ModelLine(BoardModel(TINY, MEMORY), seed, events={place: command})
        taken = []
        befall = line._befall

        def note(event: str | bytes, line=line, taken=taken, befall=befall) -> None:
            taken.append(not line.board.command)
            befall(event)

        line._befall = note  # type: ignore[method-assign]
        result = work.run(line)
        if taken[0]:  # otherwise it was part of another command
            assert any("its memory written to" in fault for fault in result.faults)
            return
    pytest.fail("no place is between two commands")


def test_a_hung_accelerator_on_a_bad_line(work: Work, seed: int) -> None:
    """Words that the line changes are no progress."""
    board = BoardModel(TINY, MEMORY)
    board.accelerator.looks_to_done = 1 << 30
    line = ModelLine(board, seed)
    transport = BoardTransport(UartBone(line, SILENCE))
    transport.identify()
    line.rates = {"flip": 2e-3}
    start = time.monotonic()
    with pytest.raises(ParoError, match=r"has not read its memory for 0.5 s|is unusable"):
        run_on_board(transport, TINY, work.image, stillness=0.5)
    assert time.monotonic() - start < 120


def test_a_board_of_another_version(work: Work) -> None:
    line = ModelLine(BoardModel(TINY, MEMORY))
    line.board.registers["version"] = BOARD_VERSION - 1
    with pytest.raises(ParoError, match=r"the board at model has version 1 of the link; legal: 2"):
        work.run(line)


def test_another_design_is_not_written_to(work: Work) -> None:
    """Before a board has told what it is."""
    line = ModelLine(BoardModel(TINY, MEMORY))
    line.board.registers["magic"] = 0
    written = []
    line.board.write_word = lambda *arguments: written.append(arguments)  # type: ignore[method-assign]
    with pytest.raises(ParoError, match=r"no board answers at model for 0.2 s"):
        UartBone(line, SILENCE).recover(0.2)
    assert not written


def test_a_line_whose_other_end_forgot_it(work: Work) -> None:
    """It is opened anew, though nothing says that it is broken."""
    line = ModelLine(BoardModel(TINY, MEMORY))
    take = line.board.take

    def forgetful(byte: int) -> None:
        if line.opens > 1:
            take(byte)

    line.board.take = forgetful  # type: ignore[method-assign]
    work.run(line)
    assert line.opens == 2


def test_attention_does_not_wait_for_the_silence() -> None:
    """However slow a board may be: there are many attempts to find it within the patience."""
    line = ModelLine(BoardModel(TINY, MEMORY))
    line.board.take = lambda byte: None  # type: ignore[method-assign]
    waits = []
    receive = line.receive

    def receive_noting(most: int, seconds: float) -> bytes:
        waits.append(seconds)
        return receive(most, seconds)

    line.receive = receive_noting  # type: ignore[method-assign]
    with pytest.raises(ParoError, match="no board answers at model"):
        UartBone(line, 120.0).recover(0.05)
    assert sum(waits[:14]) < 10
    assert max(waits) <= 32


def test_a_line_that_is_not_there(work: Work) -> None:
    """Told at once, not after the patience for one that was unplugged."""
    line = ModelLine(BoardModel(TINY, MEMORY))
    line.broken = 1
    with pytest.raises(ParoError, match="model cannot be opened: unplugged; is that its name, and"):
        work.run(line)
    start = time.monotonic()
    for device, why in (
        ("serial:/dev/nothing", "No such file or directory"),
        ("tcp:127.0.0.1:9", "Connection refused"),
    ):
        with pytest.raises(ParoError, match=f"{device} cannot be opened: {why}; is that its name"):
            open_bus(device).recover()
    assert time.monotonic() - start < 5


def test_a_serial_port_is_for_one_program() -> None:
    main, other = os.openpty()
    path = os.ttyname(other)
    first, second = SerialLine(path, 0.2), SerialLine(path, 0.2)
    first.open()
    with pytest.raises(LinkFault, match=f"serial:{path} cannot be opened: another program uses"):
        second.open()
    first.send(b"abc")
    assert os.read(main, 10) == b"abc"
    os.write(main, b"xyz")
    assert first.receive(10, 1.0) == b"xyz"
    assert first.receive(10, 0.05) == b""
    first.close()
    second.open()
    second.close()
    os.close(main)
    os.close(other)


def test_a_server_that_is_gone_tells_no_zeros(monkeypatch) -> None:
    """LiteX's client returns zeros without an answer; this is a fault of the link here."""
    bus = RemoteBus("127.0.0.1", 9, 0.2)
    client = bus._client
    monkeypatch.setattr(client, "send_packet", lambda *arguments: None)

    class Silent:
        def recv(self, count: int) -> bytes:
            return b""

    client.socket = Silent()
    with pytest.raises(LinkFault, match=r"litex:127.0.0.1:9 is broken: the server does not answer"):
        bus.read([(0x1000, 2)])
