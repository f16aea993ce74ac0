"""What is done to an accelerator in simulation, step by step, and what it must answer.

A script is lines for `templates/mutation_bench.cpp`, which plays it without Python and compares
what it observes from one device to another. Every line is one of

* ``set SETTING VALUE``: a setting of the harness;
* ``load ADDRESS OFFSET COUNT``: bytes of the script's data into memory;
* ``write OFFSET VALUE LANES LATER``: a register; the address is so many clocks later than the data;
* ``read OFFSET MASK WEIGHT``: observe a register's bits;
* ``pin WEIGHT``: observe the interrupt;
* ``clocks COUNT``, ``reset CLOCKS``;
* ``interrupt LIMIT``: until it comes; observe the cycles;
* ``rest OFFSET MASK VALUE``: read a register until it has a value; observe how often;
* ``bursts WEIGHT``: observe the bursts since the last look;
* ``check ADDRESS COUNT WEIGHT``: observe memory;
* ``mark NAME``: what begins here.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import numpy as np

from firmware_model.host.image import Image
from paro.config import ParoError
from paro.config.registers import REGISTER_BITS, find_register
from rtl.bus.axi_lite import Response

__all__ = ["MEMORY_BYTES", "Script", "Weight", "check_reference", "expected_bytes"]

#: Bytes of the memory.
MEMORY_BYTES = 1 << 19

_ALL = 2**REGISTER_BITS - 1


class Weight(IntEnum):
    """What an observation depends on."""

    FIRM = 0  # on what happens alone
    TIMED = 1  # on when things happen, too
    TIED = 2  # as TIMED, but it is firm as long as nothing has come at another time


@dataclass
class Script:
    """A script that grows.

    Parameters
    ----------
    lines : list of str
        Its lines.
    data : bytearray
        Bytes that it loads.
    wanted : dict of int to list of int
        Values that lines observe, by their number, where they are known beforehand.
    memory : dict of int to (np.ndarray, np.ndarray)
        Bytes that lines find in memory, and which of them are known beforehand.
    """

    lines: list[str] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    wanted: dict[int, list[int]] = field(default_factory=dict)
    memory: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        """Say what begins here."""
        self.lines.append(f"mark {name.replace(' ', '_')}")

    def set(self, **settings: int) -> None:
        """Change settings of the harness."""
        self.lines += [f"set {name} {value}" for name, value in settings.items()]

    def load(self, address: int, data: bytes) -> None:
        """Write memory; an address of the harness's memory."""
        start = self.data.find(data)
        if start < 0:
            start = len(self.data)
            self.data += data
        self.lines.append(f"load {address} {start} {len(data)}")

    def write(
        self, name: str | int, value: int, *, lanes: int = 15, later: int = 0, refused: bool = False
    ) -> None:
        """Write a register, by its name or its offset."""
        self.lines.append(f"write {_offset(name)} {value} {lanes} {later}")
        self._expect(Response.SLVERR if refused else Response.OKAY)

    def read(
        self,
        name: str | int,
        value: int | None = None,
        *,
        mask: int = _ALL,
        weight: Weight = Weight.FIRM,
        refused: bool = False,
    ) -> None:
        """Read a register; ``value`` is what it must be."""
        self.lines.append(f"read {_offset(name)} {mask} {int(weight)}")
        if value is not None:
            self._expect(value & mask, Response.SLVERR if refused else Response.OKAY)

    def pin(self, value: int | None = None, *, weight: Weight = Weight.FIRM) -> None:
        """Look at the interrupt."""
        self.lines.append(f"pin {int(weight)}")
        if value is not None:
            self._expect(value)

    def clocks(self, count: int) -> None:
        """Let time pass."""
        self.lines.append(f"clocks {count}")

    def reset(self, clocks: int = 4) -> None:
        """Reset device and harness; memory stays."""
        self.lines.append(f"reset {clocks}")

    def interrupt(self, limit: int = 1_000_000) -> None:
        """Wait for the interrupt."""
        self.lines.append(f"interrupt {limit}")

    def rest(self, name: str, mask: int, value: int) -> None:
        """Read a register until it has a value."""
        self.lines.append(f"rest {_offset(name)} {mask} {value}")

    def bursts(self, *, weight: Weight = Weight.FIRM) -> None:
        """Look at the bursts since the last look."""
        self.lines.append(f"bursts {int(weight)}")

    def check(
        self,
        address: int,
        count: int,
        *,
        weight: Weight = Weight.FIRM,
        wanted: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        """Look at memory; ``wanted`` has the bytes and which of them are known."""
        self.lines.append(f"check {address} {count} {int(weight)}")
        if wanted is not None:
            self.memory[len(self.lines) - 1] = wanted

    def save(self, script: Path, data: Path) -> None:
        """Write the files that the bench reads."""
        script.write_text("\n".join(self.lines) + "\n")
        data.write_bytes(self.data)

    def digest(self) -> str:
        """Short name of all of it."""
        content = "\n".join(self.lines).encode() + self.data
        return hashlib.sha256(content).hexdigest()[:16]

    def place(self, number: int) -> str:
        """What a line belongs to, and the line."""
        marks = (line for line in self.lines[number::-1] if line.startswith("mark "))
        mark = next(marks, "mark -").removeprefix("mark ").replace("_", " ")
        return f"{mark}: {self.lines[number]}" if number < len(self.lines) else mark

    def _expect(self, *values: int) -> None:
        self.wanted[len(self.lines) - 1] = [int(value) for value in values]


def _offset(name: str | int) -> int:
    return name if isinstance(name, int) else find_register(name).offset


def expected_bytes(
    image: Image, words: Sequence[np.ndarray], mantissas: Mapping[int, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of an image after its queue is done.

    Parameters
    ----------
    image : Image
        The queue in memory.
    words : sequence of np.ndarray
        Outputs of each job, as `firmware_model.host.driver.Driver.outputs` gives them.
    mantissas : mapping of int to np.ndarray
        Mantissas that a job finds, in the order of its outputs.

    Returns
    -------
    data, known : np.ndarray
        uint8 and bool [bytes].
    """
    data = np.frombuffer(image.data, np.uint8).copy()
    known = np.ones(len(data), bool)
    for index, (placed, made) in enumerate(zip(image.outputs, words, strict=True)):
        starts = placed.o_address - image.base + placed.tokens * placed.o_row_stride
        width = placed.word_bytes * placed.row_words
        known[starts[:, None] + np.arange(width)] = False
        rows = made.astype(f"<i{placed.word_bytes}").view(np.uint8)
        places = starts[:, None] + np.arange(placed.word_bytes * placed.words)
        data[places], known[places] = rows.reshape(places.shape), True
        if placed.mantissas:
            first, room = placed.mantissas.start - image.base, len(placed.mantissas)
            found = np.zeros(room, np.uint8)
            values = mantissas[index].astype("<u4").view(np.uint8)
            found[: len(values)] = values
            data[first : first + room], known[first : first + room] = found, True
    return data, known


def check_reference(script: Script, path: Path) -> None:
    """Hold what was observed without a mutant against what was known beforehand.

    Raises
    ------
    ParoError
        If it differs.
    """
    text, _, contents = path.read_bytes().partition(b"contents ")
    size, _, contents = contents.partition(b"\n")
    observed: dict[int, list[int]] = {}
    for line in text.decode().splitlines():
        step, _, value, _ = line.split(maxsplit=3)
        observed.setdefault(int(step), []).append(int(value))
    for number, wanted in script.wanted.items():
        if observed.get(number) != wanted:
            raise ParoError(
                f"the device answers {observed.get(number)} to {script.place(number)}; "
                f"expected: {wanted}"
            )
    if int(size) != len(contents):
        raise ParoError(f"{path} is not whole")
    start = 0
    for number, line in enumerate(script.lines):
        if not line.startswith("check "):
            continue
        count = int(line.split()[2])
        found = np.frombuffer(contents, np.uint8, count, start)
        start += count
        if number in script.memory:
            data, known = script.memory[number]
            wrong = np.flatnonzero(known & (found != data))
            if len(wrong):
                raise ParoError(
                    f"{len(wrong)} bytes differ from the model's, from {wrong[0]} on, in "
                    f"{script.place(number)}"
                )
