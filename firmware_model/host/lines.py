"""Lines of bytes to a board: a serial port, a TCP port.

What is lost or changed on the line is not noticed here.
"""

import errno
import importlib
import os
import socket
from contextlib import suppress
from typing import Any, Protocol

from paro.config.errors import ParoError

__all__ = ["BAUD", "Line", "LinkFault", "SerialLine", "TcpLine", "reason"]

#: Bits a second of the serial lines of most boards here.
BAUD = 3_000_000
#: Seconds until a TCP port must have answered.
_CONNECT_SECONDS = 2.0


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
    """A line behind a TCP port: a simulated board, or a serial port that a server gives away.

    Parameters
    ----------
    host, port : str, int
        Where it is.
    silence : float
        Seconds after which bytes that nobody takes are given up.
    """

    def __init__(self, host: str, port: int, silence: float) -> None:
        self.name = f"tcp:{host}:{port}"
        self._address, self._silence = (host, port), silence
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """See `Line`."""
        self.close()
        try:
            self._socket = socket.create_connection(self._address, _CONNECT_SECONDS)
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
            self._connected().settimeout(self._silence)
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
    """A serial port of this machine, for this process alone.

    Parameters
    ----------
    path : str
        Its device.
    silence : float
        Seconds after which bytes that nobody takes are given up.
    baud : int
        Bits a second.
    """

    def __init__(self, path: str, silence: float, baud: int = BAUD) -> None:
        self.name = f"serial:{path}"
        self._path, self._silence, self._baud = path, silence, baud
        # Loaded here: everything else goes without it.
        self._serial = importlib.import_module("serial")
        self._port: Any = None

    def open(self) -> None:
        """See `Line`."""
        self.close()
        try:
            self._port = self._serial.Serial(
                self._path, self._baud, write_timeout=self._silence, exclusive=True
            )
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


def reason(error: BaseException) -> str:
    """What an error of the system says, in few words."""
    number = getattr(error, "errno", None)
    if number in (errno.EAGAIN, errno.EBUSY):
        return "another program uses it"
    return os.strerror(number) if number else str(error) or type(error).__name__
