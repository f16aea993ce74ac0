"""LiteEth's Etherbone in Migen's simulator, spoken to by the packets of our driver."""

from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from liteeth.common import eth_udp_user_description
from liteeth.frontend.etherbone import LiteEthEtherbone
from litex.soc.interconnect import stream
from migen import passive, run_simulation

from firmware_model.host.etherbone import ETHERBONE_PORT, Etherbone
from firmware_model.host.link import LinkFault
from fpga.soc.soc import ETHERBONE_WORDS
from paro.config.board_map import BOARD_MAGIC, MEMORY_BASE, board_address

#: Words of the packets that are simulated, and of the longest ones.
WORDS, MOST_WORDS = 12, 128
#: Cycles within which a packet must be answered.
LIMIT = 2000


class Wire:
    """A socket that keeps what is sent, and has answers or none."""

    def __init__(self, answers: list[bytes]):
        self.sent: list[bytes] = []
        self.answers = deque(answers)

    def settimeout(self, seconds: float) -> None:
        pass

    def send(self, packet: bytes) -> None:
        self.sent.append(packet)

    def recv(self, most: int) -> bytes:
        if not self.answers:
            raise TimeoutError
        return self.answers.popleft()


def talk(answers: list[bytes], data: bytes) -> tuple[list[bytes], list[object]]:
    """Packets of the driver that write data and read it again, and what it makes of answers."""
    bone = Etherbone("board", ETHERBONE_PORT, 0.001)
    bone._number = 2**32 - 2
    wire = Wire(answers)
    bone._socket = wire  # type: ignore[assignment]
    results: list[object] = []
    for ask in (
        lambda: bone.write(MEMORY_BASE + 64, data),
        lambda: bone.read([(MEMORY_BASE + 64, len(data) // 4)]),
        lambda: bone.read([(board_address("magic"), 1), (MEMORY_BASE + 68, 2)]),
    ):
        try:
            results.append(ask())
        except LinkFault as fault:
            results.append(fault)
    return wire.sent, results


def send(port, packets: list[bytes], answers: list[bytes]):
    """Bring packets to the gateware, each when the one before was answered, if it asks."""
    wanted = 0
    for number, packet in enumerate(packets):
        words = np.frombuffer(packet, "<u4").tolist()
        for index, word in enumerate(words):
            last = index == len(words) - 1
            values = {"valid": 1, "data": word, "length": len(packet), "last": last}
            for name, value in (values | {"last_be": 8 * last}).items():
                yield getattr(port, name).eq(value)
            yield
            while not (yield port.ready):
                yield
        yield port.valid.eq(0)
        wanted += packet[11] > 0
        for _ in range(LIMIT):
            if len(answers) == wanted:
                break
            yield
        assert len(answers) == wanted, f"packet {number} is not answered"


@passive
def receive(port, answers: list[bytes]):
    """Take packets from the gateware."""
    yield port.ready.eq(1)
    words = []
    while True:
        yield
        if (yield port.valid):
            words.append((yield port.data))
            if (yield port.last):
                assert (yield port.dst_port) == ETHERBONE_PORT
                assert (yield port.length) == 4 * len(words)
                answers.append(np.array(words, "<u4").tobytes())
                words = []


@passive
def remember(bus, memory: dict[int, int]):
    """A memory by word addresses behind a bus."""
    while True:
        if (yield bus.stb) and not (yield bus.ack):
            address = yield bus.adr
            if (yield bus.we):
                memory[address] = yield bus.dat_w
            yield bus.dat_r.eq(memory.get(address, 0))
            yield bus.ack.eq(1)
        else:
            yield bus.ack.eq(0)
        yield


def gateware_answers(packets: list[bytes], memory: dict[int, int]) -> list[bytes]:
    """What LiteEth's Etherbone answers, on a bus with a memory."""
    port = SimpleNamespace(
        sink=stream.Endpoint(eth_udp_user_description(32)),
        source=stream.Endpoint(eth_udp_user_description(32)),
    )
    crossbar = SimpleNamespace(dw=32, get_port=lambda number, dw, cd: port)
    udp = SimpleNamespace(crossbar=crossbar)
    bone = LiteEthEtherbone(udp, ETHERBONE_PORT, buffer_depth=ETHERBONE_WORDS)
    answers: list[bytes] = []
    parts = [
        send(port.source, packets, answers),
        receive(port.sink, answers),
        remember(bone.wishbone.bus, memory),
    ]
    run_simulation(bone, parts)
    return answers


def test_liteeth_takes_the_packets(seed: int) -> None:
    """What is written lies in memory, and what is read is that, in order."""
    data = np.random.default_rng(seed).bytes(4 * WORDS)
    packets, lost = talk([], data)
    # Written, and a word read; all; two requests at once.
    assert [(packet[10], packet[11]) for packet in packets] == [
        (WORDS, 0),
        (0, 1),
        (0, WORDS),
        (0, 3),
    ]
    assert all(isinstance(result, LinkFault) for result in lost)
    memory = {board_address("magic") // 4: BOARD_MAGIC}
    answers = gateware_answers(packets, memory)
    stored = [memory[(MEMORY_BASE + 64) // 4 + index] for index in range(WORDS)]
    assert np.array(stored, "<u4").tobytes() == data
    sent, results = talk(answers, data)
    assert sent == packets
    magic = BOARD_MAGIC.to_bytes(4, "little")
    assert results == [None, [data], [magic, data[4:12]]]


def test_a_packet_of_the_driver_fits_the_buffer() -> None:
    packets, _ = talk([], bytes(4 * MOST_WORDS))
    assert len(packets) == 4
    header = 8 + 4
    assert max(map(len, packets)) <= header + 4 * ETHERBONE_WORDS
    with pytest.raises(LinkFault, match="is not open"):
        Etherbone("board", ETHERBONE_PORT, 1.0).read([(0, 1)])
