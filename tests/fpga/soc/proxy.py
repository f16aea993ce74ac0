"""A TCP port in front of another that drops, flips and doubles bytes, seeded."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """Where it listens, and what it has done so far."""

    device: str
    rng: random.Random
    rates: dict[str, float]
    happened: Counter[str] = field(default_factory=Counter)
    #: Connections that are cut off, one after the other, when so many bytes have passed, and the
    #: seconds for which nothing passes then.
    cuts: list[int] = field(default_factory=list)
    seconds_out: float = 0.0
    #: Presses of the board's reset button, when so many bytes have passed.
    presses: list[int] = field(default_factory=list)
    press: Callable[[], None] = lambda: None
    passed: int = 0
    out_until: float = 0.0

    def disturbed(self, data: bytes) -> bytes:
        result = bytearray()
        for byte in data:
            changed = [byte]
            for kind, rate in self.rates.items():
                if self.rng.random() < rate:
                    self.happened[kind] += 1
                    flipped = [byte ^ 1 << self.rng.randrange(8)]
                    changed = {"drop": [], "flip": flipped, "double": [byte, byte]}[kind]
            result += bytes(changed)
        return bytes(result)

    def is_cut(self, count: int) -> bool:
        """Whether the cable is out when so many more bytes have passed."""
        self.passed += count
        if self.presses and self.passed > self.presses[0]:
            self.presses.pop(0)
            self.happened["reset"] += 1
            self.press()
        if not self.cuts or self.passed <= self.cuts[0]:
            return False
        self.cuts.pop(0)
        self.happened["cut"] += 1
        self.out_until = time.monotonic() + self.seconds_out
        return True

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        """Carry bytes one way until an end leaves."""
        with suppress(OSError):
            while (data := source.recv(4096)) and not self.is_cut(len(data)):
                sink.sendall(self.disturbed(data))
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def serve(self, listener: socket.socket, place: tuple[str, int]) -> None:
        """Carry each connection on to the other port."""
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                if time.monotonic() < self.out_until:
                    near.close()
                    continue
                far = socket.create_connection(place)
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self.carry, args=pair, daemon=True).start()


@contextmanager
def proxy(device: str, seed: int, rates: dict[str, float]) -> Iterator[Proxy]:
    """Stand in front of ``tcp:HOST:PORT`` during the body."""
    _, host, port = device.split(":")
    listener = socket.create_server(("127.0.0.1", 0))
    place = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
    state = Proxy(place, random.Random(seed), rates)
    arguments = (listener, (host, int(port)))
    threading.Thread(target=state.serve, args=arguments, daemon=True).start()
    try:
        yield state
    finally:
        listener.close()
