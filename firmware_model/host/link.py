"""The bus of a board, over a line of bytes by LiteX's UARTBone, or through a `litex_server`.

What is lost or changed on the way is not noticed here: `firmware_model.host.board` does that.
"""

import importlib
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from firmware_model.host.lines import Line, LinkFault, SerialLine, TcpLine, reason
from firmware_model.progress import announce
from paro.config.board_map import BOARD_MAGIC, BOARD_VERSION, WORD_BYTES, board_address
from paro.config.errors import ParoError

__all__ = ["BoardWait", "Bus", "RemoteBus", "UartBone", "open_bus"]

_WRITE, _READ = 0x01, 0x02
#: Words of a burst; UARTBone allows 255.
_BURST_WORDS = 64
#: Commands that are sent ahead of their answers; the board keeps 128 bytes of them.
_AHEAD = 16
#: Seconds without a byte after which an answer is given up.
_SILENCE = {"serial": 2.0, "tcp": 10.0, "litex": 10.0, "udp": 1.0}
#: Seconds for which a board that does not answer is waited for, and those after which it is told.
PATIENCE, _TOLD = 30.0, 2.0
#: Seconds of silence before the first and the last attempts to find the board's attention again:
#: a simulated board beside much other work may need the last one to forget half a command.
_PAUSES = (0.01, 16.0)
#: Seconds for which an answer to them is waited for, at the least.
_ANSWER = 0.25
#: Seconds between two attempts to reach a server.
_RETRY = 1.0
#: Attempts after which a line is opened anew: its other end may have forgotten it.
_REOPEN = 6
#: Answers in a row that tell of another version of the board until they are believed.
_VERSIONS = 3


class Bus(Protocol):
    """Words of a board's bus, by byte addresses; bytes in memory's order, lowest first."""

    #: Where the board is, as the user named it.
    name: str

    def read(self, requests: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read, for each address and number of words, these words; `LinkFault` if they are lost."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Write whole words; nobody says whether they arrive."""
        ...

    def recover(self, patience: float | None = None) -> None:
        """Find the board's attention again: what was asked before will not be answered any more.

        Raises
        ------
        ParoError
            If it does not answer for so many seconds (by default `PATIENCE`, and at least the
            silence after which an answer is given up), is of another version, or cannot be reached
            the first time.
        """
        ...

    def close(self) -> None:
        """Leave the board."""
        ...


class UartBone:
    """`Bus` over LiteX's UARTBone.

    Parameters
    ----------
    line : Line
        Not open yet; `recover` opens it.
    silence : float
        Seconds without a byte after which an answer is given up.
    rng : random.Random, optional
        Of the words that tell new answers from old ones.
    """

    def __init__(self, line: Line, silence: float, rng: random.Random | None = None) -> None:
        self.name = line.name
        self._line, self._silence = line, silence
        self._rng = rng or random.SystemRandom()
        self._is_open = self._was_open = False
        self._versions: list[int] = []

    def read(self, requests: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Bus`; commands are sent ahead of their answers."""
        bursts = [
            (address + WORD_BYTES * first, min(_BURST_WORDS, words - first))
            for address, words in requests
            for first in range(0, words, _BURST_WORDS)
        ]
        self._drain(0)
        answers, ahead = [], deque(bursts)
        for number, (_, words) in enumerate(bursts):
            while ahead and len(bursts) - len(ahead) < number + _AHEAD:
                self._line.send(_command(_READ, *ahead.popleft()))
            answers.append(self._receive(WORD_BYTES * words, self._silence))
            if len(answers[-1]) < WORD_BYTES * words:
                raise LinkFault(f"{self.name} was silent for {self._silence:g} s within an answer")
        swapped = np.frombuffer(b"".join(answers), ">u4").astype("<u4").tobytes()
        results, start = [], 0
        for _, words in requests:
            results.append(swapped[start : start + WORD_BYTES * words])
            start += WORD_BYTES * words
        return results

    def write(self, address: int, data: bytes) -> None:
        """See `Bus`."""
        words = np.frombuffer(data, "<u4").astype(">u4")
        commands = []
        for first in range(0, len(words), _BURST_WORDS):
            burst = words[first : first + _BURST_WORDS]
            commands.append(_command(_WRITE, address + WORD_BYTES * first, len(burst)))
            commands.append(burst.tobytes())
        self._line.send(b"".join(commands))

    def recover(self, patience: float | None = None) -> None:
        """See `Bus`.

        A command that was cut short makes the board wait for the rest; it forgets the command after
        some silence. How much is not known here, for a simulated board is slow: more each time.
        """
        wait = BoardWait(self.name, patience or max(PATIENCE, self._silence))
        pause, attempts = _PAUSES[0], 0
        while True:
            try:
                if not self._is_open:
                    self._line.open()
                    self._is_open = self._was_open = True
                if self._attentive(pause):
                    return
                why = "no answer"
                attempts += 1
                if attempts % _REOPEN == 0:
                    self.close()
            except LinkFault as fault:
                if not self._was_open:
                    raise ParoError(f"{fault}; is that its name, and is the board there?") from None
                self._is_open = False
                why = str(fault)
                time.sleep(pause)
            wait.goes_on(why)
            pause = min(2 * pause, _PAUSES[1])

    def close(self) -> None:
        """See `Bus`."""
        self._line.close()
        self._is_open = False

    def _attentive(self, pause: float) -> bool:
        """Whether, after some silence, the board answers what is asked now, and nothing else."""
        self._drain(pause)
        if self._ask("magic", pause) != BOARD_MAGIC:
            return False
        version = self._ask("version", pause)
        if version != BOARD_VERSION:
            self._versions = [*self._versions, version or 0][-_VERSIONS:]
            if self._versions == [version] * _VERSIONS:
                raise ParoError(
                    f"the board at {self.name} has version {version} of the link; legal: "
                    f"{BOARD_VERSION}, with a bitstream of this version of the project"
                )
            return False
        # A word that no board has told yet: what it answers is no answer to an older question.
        word = self._rng.getrandbits(8 * WORD_BYTES)
        self.write(board_address("fence"), word.to_bytes(WORD_BYTES, "little"))
        return self._ask("fence", pause) == word and not self._drain(_PAUSES[0])

    def _ask(self, name: str, pause: float) -> int | None:
        """Read a register of the board; ``None`` without an answer."""
        self._line.send(_command(_READ, board_address(name), 1))
        answer = self._receive(WORD_BYTES, max(_ANSWER, 2 * pause))
        return int.from_bytes(answer, "big") if len(answer) == WORD_BYTES else None

    def _drain(self, pause: float) -> bool:
        """Throw away what comes until nothing does for so many seconds; whether anything came."""
        came = False
        while self._line.receive(4096, pause):
            came = True
        return came

    def _receive(self, count: int, seconds: float) -> bytes:
        """So many bytes; fewer if none comes for so many seconds."""
        answer = bytearray()
        while len(answer) < count and (part := self._line.receive(count - len(answer), seconds)):
            answer += part
        return bytes(answer)


def _command(kind: int, address: int, words: int) -> bytes:
    return bytes([kind, words]) + (address // WORD_BYTES).to_bytes(4, "big")


class BoardWait:
    """Waiting for a board, told once and for so many seconds at most."""

    def __init__(self, name: str, patience: float) -> None:
        self._name, self._patience = name, patience
        self._start, self._is_told = time.monotonic(), False

    def goes_on(self, why: str) -> None:
        """Go on after a failure; ParoError if the time is over."""
        waited = time.monotonic() - self._start
        if waited > self._patience:
            raise ParoError(
                f"no board answers at {self._name} for {self._patience:g} s ({why}); is it "
                "powered, loaded with a bitstream of this project, and is the link free?"
            )
        if waited > _TOLD and not self._is_told:
            announce(f"no board answers at {self._name} ({why}); waiting {self._patience:g} s")
            self._is_told = True


class RemoteBus:
    """`Bus` through a ``litex_server``, by LiteX's own client.

    Parameters
    ----------
    host, port : str, int
        Where the server listens.
    silence : float
        Seconds after which an answer is given up.
    """

    def __init__(self, host: str, port: int, silence: float) -> None:
        self.name = f"litex:{host}:{port}"
        self._silence = silence
        self._client: Any = importlib.import_module("litex.tools.litex_client").RemoteClient(
            host, port
        )
        # It would return zeros without an answer.
        self._client.receive_packet = _answered(self._client.receive_packet)

    def read(self, requests: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Bus`."""
        results = []
        for address, words in requests:
            parts = []
            for first in range(0, words, _BURST_WORDS):
                count = min(_BURST_WORDS, words - first)
                parts += self._call("read", address + WORD_BYTES * first, count)
            results.append(np.array(parts, "<u4").tobytes())
        return results

    def write(self, address: int, data: bytes) -> None:
        """See `Bus`."""
        words = np.frombuffer(data, "<u4").tolist()
        for first in range(0, len(words), _BURST_WORDS):
            self._call("write", address + WORD_BYTES * first, words[first : first + _BURST_WORDS])

    def recover(self, patience: float | None = None) -> None:
        """See `Bus`."""
        wait = BoardWait(self.name, patience or max(PATIENCE, self._silence))
        while True:
            try:
                self.close()
                self._client.open()
                self._client.socket.settimeout(self._silence)
                if self._client.read(board_address("magic")) == BOARD_MAGIC:
                    return
                why = "no answer of a board of this project"
            except (OSError, TypeError) as error:
                why = reason(error)
            wait.goes_on(why)
            time.sleep(_RETRY)

    def close(self) -> None:
        """See `Bus`."""
        with suppress(OSError, AttributeError):
            self._client.close()

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._client, name)(*arguments)
        # Of a server that is gone the client says TypeError, AttributeError before it was reached.
        except (OSError, TypeError, AttributeError) as error:
            raise LinkFault(f"{self.name} is broken: {reason(error)}") from None


def _answered(receive: Callable[..., Any]) -> Callable[..., Any]:
    """LiteX's ``receive_packet``, which tells by a 0 that no answer came, with an error for it."""

    def received(*arguments: Any) -> Any:
        packet = receive(*arguments)
        if packet == 0:
            raise TimeoutError("the server does not answer")
        return packet

    return received


def open_bus(device: str, *, silence: float | None = None, others: str = "") -> Bus:
    """Way to a board, not tried yet.

    Parameters
    ----------
    device : str
        ``serial:PATH``, or ``serial:PATH@BAUD`` of a board whose line is not of 3 Mbit/s,
        ``udp:HOST`` or ``udp:HOST:PORT`` of a board with Ethernet, ``tcp:HOST:PORT``, or
        ``litex:HOST:PORT`` of a ``litex_server``.
    silence : float, optional
        Seconds without a byte after which an answer is given up.
    others : str
        End of the list of what is legal, where that is more.

    Raises
    ------
    ParoError
        If it is none of these.
    """
    kind, _, place = device.partition(":")
    host, _, port = place.rpartition(":")
    seconds = silence or _SILENCE.get(kind, 0.0)
    if kind == "serial" and place:
        path, at, baud = place.rpartition("@")
        if at and baud.isascii() and baud.isdigit() and int(baud) > 0:
            return UartBone(SerialLine(path, seconds, int(baud)), seconds)
        return UartBone(SerialLine(place, seconds), seconds)
    is_port = port.isascii() and port.isdigit() and int(port) < 1 << 16
    if kind == "udp" and place and ((host and is_port) or ":" not in place):
        # Imported here: it imports this module.
        from firmware_model.host.etherbone import ETHERBONE_PORT, Etherbone

        return Etherbone(host or place, int(port) if host else ETHERBONE_PORT, seconds)
    if kind == "litex" and host and is_port:
        return RemoteBus(host, int(port), seconds)
    if kind == "tcp" and host and is_port:
        return UartBone(TcpLine(host, int(port), seconds), seconds)
    raise ParoError(
        f"device = {device!r} is not legal; legal: serial:PATH such as serial:/dev/ttyUSB0, "
        "serial:PATH@BAUD, udp:HOST of a board with Ethernet, tcp:HOST:PORT, litex:HOST:PORT of a "
        f"litex_server{others}"
    )
