"""A board behind UDP packets that get lost, come twice or late; the packets are read by LiteX."""

import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from litex.tools.remote.etherbone import (
    EtherbonePacket,
    EtherboneReads,
    EtherboneRecord,
    EtherboneWrites,
)

from tests.firmware_model.host.board_model import BoardModel

#: Where the board is: this machine's other address, since both ends use the same port.
ADDRESS = "127.0.0.2"


@dataclass
class EtherboneServer:
    """Answers as LiteEth's Etherbone does: to its own port's number, one record a packet."""

    board: BoardModel
    rng: random.Random
    rates: dict[str, float]
    socket: socket.socket
    happened: Counter[str] = field(default_factory=Counter)
    packets: int = 0
    #: Packets after which the board is reset, one after the other.
    resets: list[int] = field(default_factory=list)
    late: list[bytes] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return self.socket.getsockname()[1]

    def answer(self, packet: bytes) -> bytes | None:
        """What the board does with a packet, and says."""
        request = EtherbonePacket(32, packet)
        request.decode()
        assert (request.magic, request.version, request.port_size) == (0x4E6F, 1, 4)
        (record,) = request.records
        assert record.byte_enable == 0xF
        if record.wcount:
            # LiteEth holds 256 words of a packet, an address among them.
            assert 1 + record.wcount <= 256
            assert not record.rcount  # which LiteEth gets wrong
            for index, value in enumerate(record.writes.get_datas()):
                self.board.write_word(record.writes.base_addr + 4 * index, value)
        if not record.rcount:
            return None
        words = [self.board.read_word(place) % 2**32 for place in record.reads.get_addrs()]
        told = EtherboneRecord()
        # LiteX's decoder does not keep the address of the answer.
        place = int.from_bytes(record.reads.bytes[:4], "big")
        told.writes = EtherboneWrites(base_addr=place, datas=words)
        told.reads = EtherboneReads(addrs=[])
        answer = EtherbonePacket(32)
        answer.records = [told]
        answer.encode()
        return bytes(answer.bytes)

    def disturbed(self, packet: bytes) -> list[bytes]:
        """What of a packet arrives, in which order, and with what before it."""
        for kind, rate in self.rates.items():
            if self.rng.random() < rate:
                self.happened[kind] += 1
                if kind == "late":
                    self.late.append(packet)
                return {"drop": [], "double": [packet, packet], "late": []}[kind]
        arrived, self.late = [packet, *self.late], []
        return arrived

    def serve(self) -> None:
        while not self.stopped.is_set():
            try:
                packet, host = self.socket.recvfrom(2048)
            except TimeoutError:
                continue
            self.packets += 1
            if self.resets and self.packets > self.resets[0]:
                self.resets.pop(0)
                self.board.restart()
            for arrived in self.disturbed(packet):
                if answer := self.answer(arrived):
                    for sent in self.disturbed(answer):
                        self.socket.sendto(sent, (host[0], self.port))


@contextmanager
def etherbone_server(
    board: BoardModel, seed: int = 0, rates: dict[str, float] | None = None
) -> Iterator[EtherboneServer]:
    """Let a board be reached by ``udp:ADDRESS:PORT`` during the body."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((ADDRESS, 0))
        listener.settimeout(0.1)
        server = EtherboneServer(board, random.Random(seed), rates or {}, listener)
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            thread.join()
