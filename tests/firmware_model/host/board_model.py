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
from firmware_model.host.link import LinkFault
from paro.config import Config
from paro.config.board_map import (
    BOARD_BASE,
    BOARD_MAGIC,
    BOARD_REGISTERS,
    BOARD_VERSION,
    MEMORY_BASE,
    REGISTERS_BASE,
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
        elif BOARD_BASE <= address < BOARD_BASE + 4 * len(NAMES):
            name = NAMES[(address - BOARD_BASE) // 4]
            if name in ("address", "words"):
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
            for i in range(min(words, 2048))
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


class ModelLine:
    """`firmware_model.host.link.Line` to a `BoardModel`.

    Parameters
    ----------
    board : BoardModel
    seed : int
        Of the faults.
    rates : dict of str to float
        Chance of ``drop``, ``flip`` and ``double`` of each byte, in either direction.
    events : dict of int to str
        What happens when so many bytes have passed: ``reset`` of the board, or ``unplug``: the line
        is broken for the next opens.
    """

    name = "model"

    def __init__(
        self,
        board: BoardModel,
        seed: int = 0,
        rates: dict[str, float] | None = None,
        events: dict[int, str] | None = None,
    ):
        self.board, self.rng = board, random.Random(seed)
        self.rates, self.events = rates or {}, dict(events or {})
        self.passed = 0
        self.happened: deque[str] = deque()
        self.broken = 0  # opens that fail yet
        self.is_open = False

    def open(self) -> None:
        if self.broken:
            self.broken -= 1
            raise LinkFault("model cannot be opened: unplugged")
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def send(self, data: bytes) -> None:
        self._usable()
        for byte in data:
            for changed in self._disturbed(byte):
                self.board.take(changed)

    def receive(self, most: int, seconds: float) -> bytes:
        self._usable()
        if not self.board.answers:
            self.board.now += seconds
            return b""
        got = bytearray()
        while self.board.answers and len(got) < most:
            byte = self.board.answers.pop(0)
            got += self._disturbed(byte)
            if not self.is_open:
                break
        if len(got) > most:  # doubled
            self.board.answers[:0] = got[most:]
        return bytes(got[:most]) or self.receive(most, seconds)

    def _usable(self) -> None:
        if not self.is_open:
            raise LinkFault("model is broken: unplugged")

    def _disturbed(self, byte: int) -> bytes:
        self.passed += 1
        event = self.events.pop(self.passed, None)
        if event == "reset":
            self.board.restart()
        elif event == "unplug":
            self.is_open, self.broken = False, 3
        if event:
            self.happened.append(event)
        kinds = ("drop", "flip", "double")
        draws = [self.rng.random() < self.rates.get(kind, 0.0) for kind in kinds]
        if any(draws):
            self.happened.append(kinds[draws.index(True)])
        if draws[0]:
            return b""
        if draws[1]:
            byte ^= 1 << self.rng.randrange(8)
        return bytes([byte, byte] if draws[2] else [byte])
