"""What synthesis must know of a cell library beside its cells: a buffer and what a pin loads."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paro.config import ParoError

__all__ = ["Library", "cell_area", "read_liberty", "read_library"]

_CELL = re.compile(r'^\s*cell\s*\(\s*"?([\w.]+)"?\s*\)', re.M)
_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_AREA = re.compile(rf"^\s*area\s*:\s*{_NUMBER}", re.M)
_FUNCTION = re.compile(r'^\s*function\s*:\s*"([^"]*)"', re.M)
_CAPACITANCE = re.compile(rf"^\s*capacitance\s*:\s*{_NUMBER}", re.M)
_UNIT = re.compile(rf'capacitive_load_unit\s*\(\s*"?{_NUMBER}"?\s*,\s*"?(\w+)"?\s*\)')
_SEQUENTIAL = re.compile(r"^\s*(ff|latch|statetable)\b", re.M)
_TIMING = re.compile(r"^\s*timing\s*\(", re.M)
_NAME = re.compile(r"\(?\w+\)?")
_FEMTOFARADS = {"ff": 1.0, "pf": 1000.0}
#: Buffers that the driven output has to drive: a load as of a short wire.
_FANOUT = 4


@dataclass(frozen=True)
class Library:
    """A library of standard cells.

    Parameters
    ----------
    name : str
        Of its file.
    content : bytes
        The file.
    buffer : str
        Its smallest buffer, which drives each input.
    load : float
        What each output drives, fF.
    """

    name: str
    content: bytes
    buffer: str
    load: float

    @property
    def constraints(self) -> str:
        """What abc is told: without it, it drives and loads nothing, and no delay is right."""
        return f"set_driving_cell {self.buffer}\nset_load {self.load:g}\n"


def read_liberty(path: Path) -> bytes:
    """Content of a library's file; `ParoError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ParoError(f"cannot read {path}: {error.strerror or error}") from error


def cell_area(design: dict[str, Any], path: Path) -> float:
    """Area in Yosys' ``stat -json -liberty`` of a design; `ParoError` if the cells have none."""
    area = design.get("area", 0.0)
    if not area:
        raise ParoError(f"{path} has no areas of cells; legal: a Liberty file of standard cells")
    return round(area, 1)


def read_library(path: Path) -> Library:
    """Read a cell library in Liberty's format.

    Raises
    ------
    ParoError
        If it cannot be read, or has no buffer with an area and a delay: abc then ends without a
        word.
    """
    content = read_liberty(path)
    text = content.decode("utf-8", "replace")
    buffers = []
    cells = list(_CELL.finditer(text))
    ends = [cell.start() for cell in cells[1:]] + [len(text)]
    for cell, end in zip(cells, ends, strict=False):
        body = text[cell.end() : end]
        area, pin = _AREA.search(body), _CAPACITANCE.search(body)
        functions = _FUNCTION.findall(body)
        is_buffer = len(functions) == 1 and _NAME.fullmatch(functions[0].strip())
        timed = _TIMING.search(body)
        if area and pin and timed and is_buffer and not _SEQUENTIAL.search(body):
            buffers.append((float(area[1]), cell[1], float(pin[1])))
    if not buffers:
        raise ParoError(
            f"{path} has no buffer with an area and a delay; legal: a Liberty file of cells"
        )
    _, name, capacitance = min(buffers)
    unit = _UNIT.search(text)
    scale = 1.0 if unit is None else float(unit[1]) * _FEMTOFARADS.get(unit[2].lower(), 1.0)
    return Library(path.name, content, name, _FANOUT * capacitance * scale)
