"""The way to a board over Ethernet: LiteX's Etherbone in UDP packets.

Answers that are lost, late or come twice are mended here. Writes that are lost, and what a packet
says, are not looked at here: `firmware_model.host.board` does that.
"""

import random
import socket
import struct
import time
from collections.abc import Sequence

import numpy as np

from firmware_model.host.lines import LinkFault, reason
from firmware_model.host.link import PATIENCE, BoardWait
from paro.config.board_map import BOARD_MAGIC, BOARD_VERSION, WORD_BYTES, board_address

__all__ = ["ETHERBONE_PORT", "Etherbone"]

#: Port of LiteEth's Etherbone; it answers to the same port of the host.
ETHERBONE_PORT = 1234

#: Magic number, version 1, addresses and data of 32 bits; then the padding to 64 bits.
_HEADER = struct.pack(">HBBI", 0x4E6F, 0x10, 0x44, 0)
#: Of a record: nothing special, all bytes of a word, how many words are written, how many read.
_RECORD = struct.Struct(">BBBB")
_ALL_BYTES = 0x0F
#: Words of a packet. LiteEth holds one packet of up to 256, so the next one waits for its answer.
_WORDS = 128
#: Seconds after which an answer is asked for again the first time; then twice as many, and so on.
_AGAIN = 0.05
#: Seconds before the first and the last attempts to find the board again.
_PAUSES = (0.01, 1.0)


class Etherbone:
    """`firmware_model.host.link.Bus` over Etherbone, a packet at a time.

    Parameters
    ----------
    host : str
        Address of the board.
    port : int
        UDP port there, and here: LiteEth answers to its own port's number.
    silence : float
        Seconds after which an answer is given up.
    """

    def __init__(self, host: str, port: int, silence: float) -> None:
        self.name = f"udp:{host}" + (f":{port}" if port != ETHERBONE_PORT else "")
        self._address, self._silence = (host, port), silence
        self._socket: socket.socket | None = None
        # Answers to a run before this one must not be taken for answers to this one.
        self._number = random.SystemRandom().getrandbits(32)

    def read(self, requests: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Bus`."""
        places = [
            address + WORD_BYTES * index for address, words in requests for index in range(words)
        ]
        words = b"".join(
            self._ask(places[first : first + _WORDS]) for first in range(0, len(places), _WORDS)
        )
        data = np.frombuffer(words, ">u4").astype("<u4").tobytes()
        results, start = [], 0
        for _, count in requests:
            results.append(data[start : start + WORD_BYTES * count])
            start += WORD_BYTES * count
        return results

    def write(self, address: int, data: bytes) -> None:
        """See `Bus`; each packet has been worked on when the one after it, a read, is answered.

        LiteEth takes writes and reads in one packet, but then reads at a wrong address.
        """
        words = np.frombuffer(data, "<u4").astype(">u4")
        for first in range(0, len(words), _WORDS):
            part = words[first : first + _WORDS]
            place = (address + WORD_BYTES * first).to_bytes(4, "big")
            record = _RECORD.pack(0, _ALL_BYTES, len(part), 0)
            self._send(_HEADER + record + place + part.tobytes())
            self._ask([board_address("magic")])

    def recover(self, patience: float | None = None) -> None:
        """See `Bus`."""
        wait = BoardWait(self.name, patience or max(PATIENCE, self._silence))
        pause = _PAUSES[0]
        names = ("magic", "version")
        expected = [BOARD_MAGIC, BOARD_VERSION]
        self.close()
        while True:
            try:
                self._open()
                words = self._ask([board_address(name) for name in names])
                if np.frombuffer(words, ">u4").tolist() == expected:
                    return
                why = "what answers is no board of this project's version"
            except LinkFault as fault:
                why = str(fault)
            self.close()
            wait.goes_on(why)
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])

    def close(self) -> None:
        """See `Bus`."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> None:
        opened = None
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
                way.connect(self._address)  # sends nothing, but says by which interface it goes
                here = way.getsockname()[0]
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.bind((here, self._address[1]))
            # From now on packets of others do not arrive.
            opened.connect(self._address)
        except OSError as error:
            if opened is not None:
                opened.close()
            raise LinkFault(f"{self.name} cannot be opened: {reason(error)}") from None
        self._socket = opened

    def _send(self, packet: bytes) -> socket.socket:
        if self._socket is None:
            raise LinkFault(f"{self.name} is not open")
        try:
            self._socket.send(packet)
        except OSError as error:
            raise self._broken(error) from None
        return self._socket

    def _ask(self, places: Sequence[int]) -> bytes:
        """Words at some places, as they lie in the answer; asked for again while none comes."""
        self._number = (self._number + 1) % 2**32
        number = self._number.to_bytes(4, "big")
        request = _HEADER + _RECORD.pack(0, _ALL_BYTES, 0, len(places)) + number
        request += np.array(places, ">u4").tobytes()
        answer = _HEADER + _RECORD.pack(0, _ALL_BYTES, len(places), 0) + number
        size = len(answer) + WORD_BYTES * len(places)
        now = time.monotonic()
        until, again, pause = now + self._silence, now, _AGAIN
        while now < until:
            if now >= again:
                way = self._send(request)
                again, pause = now + pause, 2 * pause
            try:
                way.settimeout(max(min(again, until) - now, 1e-3))
                packet = way.recv(2048)
            except TimeoutError:
                packet = b""
            except OSError as error:
                raise self._broken(error) from None
            # Anything else is late, or comes twice.
            if len(packet) == size and _is_answer(packet, answer):
                return packet[len(answer) :]
            now = time.monotonic()
        raise LinkFault(f"{self.name} did not answer within {self._silence:g} s")

    def _broken(self, error: OSError) -> LinkFault:
        return LinkFault(f"{self.name} is broken: {reason(error)}")


def _is_answer(packet: bytes, answer: bytes) -> bool:
    """Whether a packet begins as the answer does; nobody says what its padding is."""
    begin, end = 4, len(_HEADER)
    return packet[:begin] == answer[:begin] and packet[end : len(answer)] == answer[end:]
