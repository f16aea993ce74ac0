"""The way to a board: a line of bytes, and LiteX's UARTBone on it.

What is lost or changed on the line is not noticed here: `firmware_model.host.board` does that.
"""

import importlib
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from paro.config.board_map import BOARD_MAGIC, BOARD_VERSION, WORD_BYTES, board_address
from paro.config.errors import ParoError

__all__ = ["Bus", "LinkFault", "RemoteBus", "TcpLine", "UartBone", "open_bus", "reason"]

#: Bits a second of the serial lines of all boards here.
BAUD = 3_000_000

_WRITE, _READ = 0x01, 0x02
#: Words of a burst; UARTBone allows 255.
_BURST_WORDS = 64
#: Commands that are sent ahead of their answers; the board keeps 128 bytes of them.
_AHEAD = 16
#: Seconds without a byte after which an answer is given up.
_SILENCE = {"serial": 2.0, "tcp": 10.0, "litex": 10.0, "udp": 1.0}
#: Seconds for which a board that does not answer is waited for.
PATIENCE = 30.0
#: Seconds of silence before the first and the last attempts to find the board's attention again.
_PAUSES = (0.01, 1.0)


class LinkFault(ParoError):
    """The link lost something: what was asked for may or may not have happened."""


class Line(Protocol):
    """Bytes to a board and back."""

    #: As the user named it.
    name: str

    def open(self) -> None:
        """Open it, anew if it was open; `LinkFault` if that fails."""
        ...

    def close(self) -> None:
        """Close it."""
        ...

    def send(self, data: bytes) -> None:
        """Send all; `LinkFault` if it is broken."""
        ...

    def receive(self, most: int, seconds: float) -> bytes:
        """Up to so many bytes; none after so many seconds; `LinkFault` if it is broken."""
        ...


class TcpLine:
    """A line behind a TCP port: a simulated board, or a serial port that a server gives away."""

    def __init__(self, host: str, port: int) -> None:
        self.name = f"tcp:{host}:{port}"
        self._address = (host, port)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """See `Line`."""
        self.close()
        try:
            self._socket = socket.create_connection(self._address, 2.0)
        except OSError as error:
            raise LinkFault(f"{self.name} cannot be opened: {reason(error)}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """See `Line`."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, data: bytes) -> None:
        """See `Line`."""
        try:
            self._connected().settimeout(_SILENCE["tcp"])
            self._connected().sendall(data)
        except OSError as error:
            raise self._broken(error) from None

    def receive(self, most: int, seconds: float) -> bytes:
        """See `Line`."""
        try:
            # 0 would mean: do not wait, and say so by another error.
            self._connected().settimeout(max(seconds, 1e-3))
            data = self._connected().recv(most)
        except TimeoutError:
            return b""
        except OSError as error:
            raise self._broken(error) from None
        if not data:
            raise self._broken(OSError("the other end has closed it"))
        return data

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise LinkFault(f"{self.name} is not open")
        return self._socket

    def _broken(self, error: OSError) -> LinkFault:
        self.close()
        return LinkFault(f"{self.name} is broken: {reason(error)}")


class SerialLine:
    """A serial port of this machine."""

    def __init__(self, path: str, baud: int = BAUD) -> None:
        self.name = f"serial:{path}"
        self._path, self._baud = path, baud
        # Loaded here: everything else goes without it.
        self._serial = importlib.import_module("serial")
        self._port: Any = None

    def open(self) -> None:
        """See `Line`."""
        self.close()
        try:
            self._port = self._serial.Serial(self._path, self._baud, write_timeout=2.0)
        except (OSError, ValueError) as error:
            raise LinkFault(f"{self.name} cannot be opened: {reason(error)}") from None

    def close(self) -> None:
        """See `Line`."""
        if self._port is not None:
            with suppress(OSError):
                self._port.close()
            self._port = None

    def send(self, data: bytes) -> None:
        """See `Line`."""
        try:
            self._opened().write(data)
        except OSError as error:
            raise self._broken(error) from None

    def receive(self, most: int, seconds: float) -> bytes:
        """See `Line`."""
        port = self._opened()
        try:
            port.timeout = seconds
            first = port.read(1)
            return first + port.read(min(most - 1, port.in_waiting)) if first else b""
        except (OSError, TypeError) as error:  # TypeError: pyserial, of a port that vanishes
            raise self._broken(error) from None

    def _opened(self) -> Any:
        if self._port is None:
            raise LinkFault(f"{self.name} is not open")
        return self._port

    def _broken(self, error: Exception) -> LinkFault:
        self.close()
        return LinkFault(f"{self.name} is broken: {reason(error)}")


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

    def recover(self, patience: float = PATIENCE) -> None:
        """Find the board's attention again.

        Raises
        ------
        ParoError
            If it does not answer for so many seconds.
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
    """

    def __init__(self, line: Line, silence: float) -> None:
        self.name = line.name
        self._line, self._silence = line, silence
        self._is_open = False

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

    def recover(self, patience: float = PATIENCE) -> None:
        """See `Bus`.

        A command that was cut short makes the board wait for the rest; it forgets the command after
        some silence. How much is not known here, for a simulated board is slow: more each time.
        """
        until, pause, reason = time.monotonic() + patience, _PAUSES[0], "no answer"
        while True:
            try:
                if not self._is_open:
                    self._line.open()
                    self._is_open = True
                if self._attentive(pause):
                    return
            except LinkFault as fault:
                self._is_open = False
                reason = str(fault)
                time.sleep(pause)
            if time.monotonic() > until:
                raise ParoError(
                    f"no board answers at {self.name} for {patience:g} s ({reason}); is it "
                    "powered, loaded with a bitstream of this project, and is the link free?"
                )
            pause = min(2 * pause, _PAUSES[1])

    def close(self) -> None:
        """See `Bus`."""
        self._line.close()
        self._is_open = False

    def _attentive(self, pause: float) -> bool:
        """Whether, after some silence, the board answers two different questions rightly."""
        self._drain(pause)
        for name, value in (("magic", BOARD_MAGIC), ("version", BOARD_VERSION)):
            self._line.send(_command(_READ, board_address(name), 1))
            answer = self._receive(WORD_BYTES, max(self._silence / 4, 4 * pause))
            if answer != value.to_bytes(WORD_BYTES, "big"):
                return False
        # Nothing may follow.
        return not self._drain(_PAUSES[0])

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

    def recover(self, patience: float = PATIENCE) -> None:
        """See `Bus`."""
        until = time.monotonic() + patience
        while True:
            try:
                self.close()
                self._client.open()
                self._client.socket.settimeout(self._silence)
                if self._client.read(board_address("magic")) == BOARD_MAGIC:
                    return
                cause = "no answer of a board of this project"
            except (OSError, TypeError, LinkFault) as error:
                cause = reason(error)
            if time.monotonic() > until:
                raise ParoError(f"no board answers at {self.name} for {patience:g} s ({cause})")
            time.sleep(_PAUSES[1])

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


def open_bus(device: str, *, silence: float | None = None) -> Bus:
    """Way to a board, not tried yet.

    Parameters
    ----------
    device : str
        ``serial:PATH``, or ``serial:PATH@BAUD`` of a board whose line is not of 3 Mbit/s,
        ``udp:HOST`` or ``udp:HOST:PORT`` of a board with Ethernet, ``tcp:HOST:PORT``, or
        ``litex:HOST:PORT`` of a ``litex_server``.
    silence : float, optional
        Seconds without a byte after which an answer is given up.

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
            return UartBone(SerialLine(path, int(baud)), seconds)
        return UartBone(SerialLine(place), seconds)
    is_port = port.isascii() and port.isdigit() and int(port) < 1 << 16
    if kind == "udp" and place and ((host and is_port) or ":" not in place):
        # Imported here: it imports this module.
        from firmware_model.host.etherbone import ETHERBONE_PORT, Etherbone

        return Etherbone(host or place, int(port) if host else ETHERBONE_PORT, seconds)
    if kind == "litex" and host and is_port:
        return RemoteBus(host, int(port), seconds)
    if kind == "tcp" and host and is_port:
        return UartBone(TcpLine(host, int(port)), seconds)
    raise ParoError(
        f"device = {device!r} is not legal; legal: serial:PATH such as serial:/dev/ttyUSB0, "
        "serial:PATH@BAUD, udp:HOST of a board with Ethernet, tcp:HOST:PORT, litex:HOST:PORT of a "
        "litex_server, or sim"
    )


def reason(error: BaseException) -> str:
    """What an error says, in few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
