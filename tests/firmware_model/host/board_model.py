"""A board in Python behind a line of bytes that can lose, change and repeat them.

UARTBone's states, the registers of `paro.config.board_map`, a memory, and `StandIn` as accelerator.
Time is the line's own: it passes while the host waits for bytes.
"""

import random
import zlib
from collections import deque
from collections.abc import Callable

import numpy as np

from firmware_model.host.driver import run_sync
from firmware_model.host.lines import LinkFault
from paro.config import Config
from paro.config.board_map import (
    BOARD_BASE,
    BOARD_MAGIC,
    BOARD_REGISTERS,
    BOARD_VERSION,
    MEMORY_BASE,
    REGISTERS_BASE,
    WRITTEN_REGISTERS,
)
from paro.config.registers import Cause
from tests.firmware_model.host.standin import StandIn

#: Seconds after which the board forgets a command that does not end.
FORGETS = 0.01
NAMES = list(BOARD_REGISTERS)


class BoardModel:
    """The far end of the line.

    Parameters
    ----------
    config : Config
        The accelerator.
    memory_bytes : int
        Its memory.
    """

    def __init__(self, config: Config, memory_bytes: int):
        self.config = config
        self.memory_bytes = memory_bytes
        self.accelerator = StandIn(config, 0, memory_bytes)
        self.answers = bytearray()
        self.command = bytearray()
        self.begun = 0.0  # time of the command's first byte
        self.now = 0.0
        self.restart()

    def restart(self) -> None:
        """As its reset button does; memory keeps its content."""
        memory = self.accelerator.memory
        self.accelerator = StandIn(self.config, 0, self.memory_bytes)
        self.accelerator.memory = memory
        self.command.clear()
        self.answers.clear()
        facts = {
            "magic": BOARD_MAGIC,
            "version": BOARD_VERSION,
            "memory_bytes": self.memory_bytes,
            "clock_hz": 50_000_000,
            "baud": 3_000_000,
            "ready": 1,
        }
        self.registers = {name: facts.get(name, 0) for name in NAMES}

    def take(self, byte: int) -> None:
        if self.command and self.now - self.begun > FORGETS:
            self.command.clear()
        if not self.command:
            self.begun = self.now
        self.command.append(byte)
        if len(self.command) < 6:
            return
        kind, words = self.command[0], self.command[1] or 256
        address = 4 * int.from_bytes(self.command[2:6], "big")
        step = 4 if kind in (1, 2) else 0
        if kind in (1, 3):
            done = len(self.command) - 6
            if not done % 4 and done:
                value = int.from_bytes(self.command[-4:], "big")
                self.write_word((address + step * (done // 4 - 1)) % 2**34, value)
            if done == 4 * words:
                self.command.clear()
            return
        if kind in (2, 4):
            for index in range(words):
                word = self.read_word((address + step * index) % 2**34)
                self.answers += (word % 2**32).to_bytes(4, "big")
        self.command.clear()

    def read_word(self, address: int) -> int:
        if MEMORY_BASE <= address < MEMORY_BASE + self.memory_bytes:
            place = address - MEMORY_BASE
            return int.from_bytes(self.accelerator.memory[place : place + 4].tobytes(), "little")
        if BOARD_BASE <= address < BOARD_BASE + 4 * len(NAMES):
            return self.registers[NAMES[(address - BOARD_BASE) // 4]]
        if REGISTERS_BASE <= address < REGISTERS_BASE + 4096:
            return self.of_accelerator(self.accelerator.read32, address - REGISTERS_BASE) or 0
        return 2**32 - 1

    def write_word(self, address: int, value: int) -> None:
        if MEMORY_BASE <= address < MEMORY_BASE + self.memory_bytes:
            place = address - MEMORY_BASE
            word = np.frombuffer(value.to_bytes(4, "little"), np.uint8)
            self.accelerator.memory[place : place + 4] = word
            self.registers["stored"] += 1
        elif BOARD_BASE <= address < BOARD_BASE + 4 * len(NAMES):
            name = NAMES[(address - BOARD_BASE) // 4]
            if name in WRITTEN_REGISTERS:
                self.registers[name] = value
            if name == "words":
                self.check()
        elif REGISTERS_BASE <= address < REGISTERS_BASE + 4096:
            self.of_accelerator(self.accelerator.write32, address - REGISTERS_BASE, value)

    def check(self) -> None:
        first, words = self.registers["address"], self.registers["words"]
        # Of a number of words that only a fault on the line gives, as many as it takes to see it.
        data = b"".join(
            (self.read_word(first + 4 * i) % 2**32).to_bytes(4, "little")
            for i in range(min(words, 4096))
        )
        self.registers["checksum"] = zlib.crc32(data)
        self.registers["checks"] += 1

    def of_accelerator(self, method: Callable, *arguments: int) -> int | None:
        """What a register does; what the stand-in does not know is an error of the device."""
        try:
            return run_sync(method(*arguments))
        except (AssertionError, ValueError, IndexError):
            self.accelerator.registers["STATUS"] = 0b100 | Cause.BAD_DESCRIPTOR << 4
            return 0


#: What happens to bytes.
FAULTS = ("drop", "flip", "double", "noise", "gap", "repeat")
#: Bytes of the longest gap and repetition: two packets of a USB bridge.
PACKET = 124


class ModelLine:
    """`firmware_model.host.lines.Line` to a `BoardModel`.

    Parameters
    ----------
    board : BoardModel
    seed : int
        Of the faults.
    rates : dict of str to float
        Chance of each of `FAULTS` at each byte, in either direction: the byte is lost, changed,
        comes twice, or follows one that nobody sent; it is lost with those after it; those before
        it come again.
    events : dict of int to str or bytes
        What happens when so many bytes have passed. ``reset``: of the board. ``decay``: a reset in
        which bits of the outputs change. ``unplug``: the line is broken for the next opens.
        ``late``: answers come after the host has given them up. One of `FAULTS`: at that byte.
        Bytes: they reach the board.
    """

    name = "model"

    def __init__(
        self,
        board: BoardModel,
        seed: int = 0,
        rates: dict[str, float] | None = None,
        events: dict[int, str | bytes] | None = None,
    ):
        self.board, self.seed, self.rng = board, seed, random.Random(seed)
        self.rates, self.events = rates or {}, dict(events or {})
        self.passed = 0
        self.happened: deque[str] = deque()
        self.broken = 0  # opens that fail yet
        self.is_open = False
        #: Bytes that come again, of either direction.
        self.before = {"to": deque(maxlen=PACKET), "from": deque(maxlen=PACKET)}
        self.gap = 0
        self.held_until = 0.0
        #: Bytes on their way to the host.
        self.coming: deque[int] = deque()
        #: Addresses of memory whose bits a decay changes.
        self.decays = range(0)
        self.opens = 0

    def open(self) -> None:
        self.opens += 1
        if self.broken:
            self.broken -= 1
            raise LinkFault("model cannot be opened: unplugged")
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def send(self, data: bytes) -> None:
        self._usable()
        for byte in data:
            for changed in self._disturbed(byte, "to"):
                self.board.take(changed)

    def receive(self, most: int, seconds: float) -> bytes:
        self._usable()
        while self.board.answers and self.is_open and len(self.coming) < most:
            self.coming += self._disturbed(self.board.answers.pop(0), "from")
        if self.board.now < self.held_until or not self.coming:
            self.board.now += seconds
            return b""
        return bytes(self.coming.popleft() for _ in range(min(most, len(self.coming))))

    def _usable(self) -> None:
        if not self.is_open:
            raise LinkFault("model is broken: unplugged")

    def _disturbed(self, byte: int, way: str) -> bytes:
        """What becomes of a byte."""
        self.passed += 1
        event = self.events.pop(self.passed, None)
        kinds = [kind for kind in FAULTS if self.rng.random() < self.rates.get(kind, 0.0)]
        if event is not None:
            self.happened.append(event if isinstance(event, str) else "forged")
            if event in FAULTS:
                kinds.insert(0, event)
            else:
                self._befall(event)
        elif kinds:
            self.happened.append(kinds[0])
        kind = kinds[0] if kinds else ""
        changed = self._changed(kind, byte, way)
        self.before[way].append(byte)
        if self.gap:
            self.gap -= 1
            return b""
        return changed

    def _befall(self, event: str | bytes) -> None:
        if isinstance(event, bytes):
            for byte in event:
                self.board.take(byte)
        elif event == "late":
            self.held_until = self.board.now + 0.1
        elif event == "unplug":
            self.is_open, self.broken = False, 3
            self.coming.clear()
        else:
            self.board.restart()
            self.coming.clear()
            for _ in range(3 if event == "decay" else 0):
                self.board.accelerator.memory[self.rng.choice(self.decays)] ^= 1

    def _changed(self, kind: str, byte: int, way: str) -> bytes:
        if kind == "drop":
            return b""
        if kind == "flip":
            return bytes([byte ^ 1 << self.rng.randrange(8)])
        if kind == "double":
            return bytes([byte, byte])
        if kind == "noise":
            return bytes([self.rng.randrange(256), byte])
        if kind == "gap":
            self.gap = self.rng.randrange(2, PACKET)
        if kind == "repeat" and self.before[way]:
            count = self.rng.randrange(1, len(self.before[way]) + 1)
            return bytes([*list(self.before[way])[-count:], byte])
        return bytes([byte])
