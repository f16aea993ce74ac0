"""Signals of Verilog with coverage points, and where they are in the source.

What `gen.verilog.convert` writes with ``points`` names the place of each module and signal. Here it
is read line by line, as a simulator that counts tells of lines of the Verilog.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from gen.cover_points import split_name

__all__ = ["SourceSignal", "read_signals"]

#: Where modules come from that are not ours, and signals that are nobody's: clocks and ports.
_LIBRARY, _NOBODY = ("amaranth/", "gen/", "/"), "gen/"
_NAME = r"(\\\S+ |[A-Za-z_$][\w$]*)"
_MODULE = re.compile(r"module (\S+?)[(;]")
_PLACE = re.compile(r'\(\* src = "(.*):(\d+)" \*\)')
_DECLARED = re.compile(
    rf"  (?:input|output|wire|reg) (?:\[(\d+):0\] )?{_NAME}(?: (\[\d+:0\]))?(?: = .*)?;"
)
_ASSIGNED = re.compile(rf"  assign {_NAME}(?:\[(\d+)(?::(\d+))?\])? = (.*);", re.DOTALL)
_PIECE = re.compile(rf"(?:(\d+)\{{)?(?:(\d+)'\w+|{_NAME}(?:\[(\d+)(?::(\d+))?\])?)\}}?")
#: What is computed, and not just joined.
_OPERATOR = re.compile(r"(?:^| )[-+*/%&|^<>=!?:~]+|\(")
#: What Amaranth or Yosys add to a name that is not the only one.
_NUMBER = re.compile(r"(?:\$|__)\d+$")


@dataclass(frozen=True)
class SourceSignal:
    """A signal.

    Parameters
    ----------
    file : str
        Where it is in the source; of all but a point the module's file.
    line : int
        In the file; 0 if it is declared in another one.
    name : str
        As in the Verilog, without numbers.
    where : str
        Module, from the top, and name; of several with one name with a number.
    constant : frozenset of int
        Bits that Yosys has found constant.
    """

    file: str
    line: int
    name: str
    where: str
    constant: frozenset[int]


@lru_cache(maxsize=2)
def read_signals(path: Path) -> Mapping[int, SourceSignal]:
    """Signals by the lines that declare them, without memories, fields of signals and aliases.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    signals: dict[int, SourceSignal] = {}
    top = ""
    for module in _modules(path.read_text().splitlines()):
        top = top or module.name
        signals.update(module.signals(top))
    return signals


@dataclass
class _Declared:
    line: int
    width: int
    place: tuple[str, int] | None


@dataclass
class _Module:
    """What a module declares and joins."""

    name: str
    place: tuple[str, int] | None
    declared: dict[str, _Declared] = field(default_factory=dict)
    constant: dict[str, set[int]] = field(default_factory=dict)

    def signals(self, top: str) -> Iterator[tuple[int, SourceSignal]]:
        """Signals by line."""
        if self.place is None or self.place[0].startswith(_LIBRARY):
            return
        path = _NUMBER.sub("", self.name.removeprefix(top)).removeprefix("__")
        path = path.removeprefix("core__") or Path(self.place[0]).stem
        seen: dict[tuple[str, int], int] = {}
        for name, declared in sorted(self.declared.items(), key=lambda item: _order(item[0])):
            plain = name.partition("$")[0]
            place = declared.place
            if place is None or place[0].startswith(_NOBODY):
                continue
            constant = frozenset(self.constant.get(name, ()))
            if split_name(name) is not None:
                yield declared.line, SourceSignal(*place, name, name, constant)
                continue
            if re.search(r"[.\[]", name):
                continue  # a part of another one
            line = place[1] if place[0] == self.place[0] else 0
            copy = seen[plain, line] = seen.get((plain, line), -1) + 1
            where = f"{path}.{plain}" + f"({copy})" * bool(copy)
            yield declared.line, SourceSignal(self.place[0], line, plain, where, constant)

    def assign(self, target: str, high: str | None, low: str | None, value: str) -> None:
        """Note constant bits."""
        name = _plain(target)
        if name not in self.declared or _OPERATOR.search(value):
            return
        pieces = list(_PIECE.finditer(value))
        if any(piece[3] and _plain(piece[3]) not in self.declared for piece in pieces):
            return  # a word of a memory
        bit = int(low or high or 0)
        for piece in reversed(pieces):
            for _ in range(int(piece[1] or 1)):
                width = self._width(piece)
                if piece[2]:
                    self.constant.setdefault(name, set()).update(range(bit, bit + width))
                bit += width

    def _width(self, piece: re.Match[str]) -> int:
        if piece[2]:
            return int(piece[2])
        if piece[4]:
            return int(piece[4]) - int(piece[5] or piece[4]) + 1
        return self.declared[_plain(piece[3])].width


def _plain(name: str) -> str:
    """Name without what Verilog needs around an odd one."""
    return name.strip().removeprefix("\\")


def _order(name: str) -> tuple[str, int]:
    """By the numbers of signals with one name."""
    plain, _, number = name.partition("$")
    return plain, int(number) if number.isdigit() else -1


def _modules(lines: list[str]) -> Iterator[_Module]:
    module, place = _Module("", None), None
    for number, line in _statements(lines):
        attribute = line.strip()
        if found := _PLACE.fullmatch(attribute):
            place = (found[1], int(found[2]))
        if attribute.startswith("(*"):
            continue
        if found := _MODULE.match(line):
            module = _Module(found[1], place)
        elif found := _DECLARED.fullmatch(line):
            # The wire of a port follows it, without a place.
            if not found[3]:
                declared = _Declared(number, int(found[1] or 0) + 1, place)
                module.declared.setdefault(_plain(found[2]), declared)
        elif found := _ASSIGNED.fullmatch(line):
            module.assign(*found.groups())
        elif line == "endmodule":
            yield module
        place = None


def _statements(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; an assignment is one."""
    begun = ""
    for number, line in enumerate(lines, 1):
        if begun or line.startswith("  assign "):
            begun = f"{begun} {line.strip()}" if begun else line
            if line.endswith(";"):
                yield number, begun
                begun = ""
        else:
            yield number, line
