"""A board behind Ethernet: the right words, whatever packets get lost; or one sentence."""

import socket

import numpy as np
import pytest

from firmware_model.host.board import BoardTransport
from firmware_model.host.board_run import BoardRun, run_on_board
from firmware_model.host.driver import Driver, run_sync
from firmware_model.host.image import Image
from firmware_model.host.lines import LinkFault
from firmware_model.host.link import open_bus
from paro.config import ParoError
from paro.config.board_map import MEMORY_BASE, UNTRAINED
from tests.firmware_model.host.board_model import BoardModel
from tests.firmware_model.host.etherbone_server import (
    ADDRESS,
    EtherboneServer,
    etherbone_server,
)
from tests.firmware_model.host.runs import MEMORY, TINY


def run(server: EtherboneServer, image: Image, silence: float = 0.5) -> BoardRun:
    bus = open_bus(f"udp:{ADDRESS}:{server.port}", silence=silence)
    transport = BoardTransport(bus)
    try:
        assert transport.identify().memory_bytes == MEMORY
        assert run_sync(Driver(transport).identify()) == TINY
        return run_on_board(transport, TINY, image, stillness=600)
    finally:
        bus.close()


def assert_right(done: BoardRun, expected: list[np.ndarray]) -> None:
    assert len(done.outputs) == len(expected)
    for got, want in zip(done.outputs, expected, strict=True):
        assert np.array_equal(got, want)


def test_a_network_without_faults(work) -> None:
    image, expected = work
    with etherbone_server(BoardModel(TINY, MEMORY)) as server:
        done = run(server, image, silence=10.0)
    assert_right(done, expected)
    assert done.faults == []


@pytest.mark.parametrize("kind", ["drop", "double", "late"])
def test_packets_that_get_lost(kind: str, work, seed: int) -> None:
    """Either way, also those that come twice or after others: mended."""
    image, expected = work
    with etherbone_server(BoardModel(TINY, MEMORY), seed, {kind: 0.03}) as server:
        done = run(server, image)
    assert server.happened[kind]
    assert_right(done, expected)


def test_a_reset(work) -> None:
    image, expected = work
    with etherbone_server(BoardModel(TINY, MEMORY)) as server:
        server.resets = [60]
        assert_right(run(server, image, silence=10.0), expected)
        assert server.resets == []


def test_words_come_as_they_lie_in_memory() -> None:
    """Requests of any length, across packets."""
    with etherbone_server(BoardModel(TINY, MEMORY)) as server:
        bus = open_bus(f"udp:{ADDRESS}:{server.port}", silence=10.0)
        bus.recover()
        data = np.random.default_rng(0).bytes(4 * 300)
        bus.write(MEMORY_BASE + 64, data)
        assert server.board.accelerator.memory[64:][: len(data)].tobytes() == data
        requests = [(MEMORY_BASE + 64, 1), (MEMORY_BASE + 64, 300), (MEMORY_BASE + 72, 129)]
        assert bus.read(requests) == [data[:4], data, data[8 : 8 + 4 * 129]]
        bus.close()


def test_a_board_that_does_not_answer() -> None:
    bus = open_bus(f"udp:{ADDRESS}:9", silence=0.05)
    with pytest.raises(LinkFault, match="is not open"):
        bus.read([(0, 1)])
    with pytest.raises(ParoError, match=r"no board answers at udp:127.0.0.2:9 for 0.2 s \("):
        bus.recover(0.2)


def test_a_port_that_another_program_has() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        bus = open_bus(f"udp:{ADDRESS}:{other.getsockname()[1]}", silence=0.05)
        with pytest.raises(ParoError, match="cannot be opened: Address already in use"):
            bus.recover(0.1)


def test_a_memory_that_could_not_be_trained() -> None:
    board = BoardModel(TINY, MEMORY)
    board.registers |= {"ready": UNTRAINED, "windows": 3}
    with etherbone_server(board) as server:
        bus = open_bus(f"udp:{ADDRESS}:{server.port}", silence=10.0)
        with pytest.raises(ParoError, match="lanes read right at 3, 0, 0, 0 delays"):
            BoardTransport(bus).identify()
        bus.close()


@pytest.mark.parametrize("device", ["udp:", "udp::1", "udp:a:b", "udp:a:70000"])
def test_devices_that_are_refused(device: str) -> None:
    with pytest.raises(ParoError, match=r"is not legal; legal: serial:PATH such as .* udp:HOST of"):
        open_bus(device)
