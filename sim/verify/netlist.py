"""What a netlist of Yosys says of its bits: which of them reach an output, and what they are of."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Netlist", "readable"]

#: Cells of which bit i of the output depends on bit i of the operands alone.
_BITWISE = {"$and", "$or", "$xor", "$xnor", "$not", "$mux", "$dff", "$dffe", "$pos"}
#: Cells of which it depends on bits 0 to i.
_ARITHMETIC = {"$add", "$sub", "$mul", "$neg", "$alu"}
_OPERANDS = ("A", "B", "D")
#: A place: a module, a cell, a port and a bit.
Place = tuple[str, str, str, int]


class Netlist:
    """Modules of a design as Yosys' ``write_json`` has them.

    Parameters
    ----------
    path : Path
        The file.
    top : str
        The top module.
    """

    def __init__(self, path: Path, top: str) -> None:
        self.modules: dict[str, Any] = json.loads(path.read_text())["modules"]
        self._live = self._find_live(top)

    def cell(self, module: str, name: str) -> dict[str, Any]:
        """Return a cell."""
        return self.modules[module]["cells"][name]

    def reaches_output(self, module: str, cell: str, port: str, bit: int) -> bool:
        """Whether there is a way from a bit of a cell's port to an output of the design."""
        return (module, cell, port, bit) in self._live

    def _find_live(self, top: str) -> set[Place]:  # noqa: C901 - one walk over all kinds of nets
        """All bits of ports of cells from which a way leads to an output."""
        drivers, instances = self._drivers(), self._instances()
        live: set[Place] = set()
        nets: set[tuple[str, int]] = set()
        pending: list[tuple[str, int]] = []

        def add(module: str, bit: int | str) -> None:
            if isinstance(bit, int) and (module, bit) not in nets:
                nets.add((module, bit))
                pending.append((module, bit))

        for port in self.modules[top]["ports"].values():
            if port["direction"] == "output":
                for bit in port["bits"]:
                    add(top, bit)
        while pending:
            module, net = pending.pop()
            for cell, port, index in drivers[module].get(net, ()):
                live.add((module, cell, port, index))
                own = self.cell(module, cell)
                if own["type"] in self.modules:
                    add(own["type"], self.modules[own["type"]]["ports"][port]["bits"][index])
                    continue
                for needed, place in _needed(own, index):
                    live.add((module, cell, needed, place))
                    add(module, own["connections"][needed][place])
            for port, index in self._inputs(module).get(net, ()):
                for parent, cell in instances[module]:
                    live.add((parent, cell, port, index))
                    add(parent, self.cell(parent, cell)["connections"][port][index])
        return live

    def _drivers(self) -> dict[str, dict[int, list[tuple[str, str, int]]]]:
        """Of each module, what drives its nets."""
        found: dict[str, dict[int, list[tuple[str, str, int]]]] = {}
        for name, module in self.modules.items():
            drivers = found[name] = defaultdict(list)
            for cell, own in module["cells"].items():
                for port, bits in own["connections"].items():
                    if own["port_directions"][port] == "output":
                        for index, bit in enumerate(bits):
                            drivers[bit].append((cell, port, index))
        return found

    def _instances(self) -> dict[str, list[tuple[str, str]]]:
        """Of each module, cells that are instances of it."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for name, module in self.modules.items():
            for cell, own in module["cells"].items():
                found[own["type"]].append((name, cell))
        return found

    def _inputs(self, module: str) -> dict[int, list[tuple[str, int]]]:
        """Ports of a module by the nets that they are, inputs alone."""
        own = self.modules[module]
        if "inputs" not in own:
            own["inputs"] = found = defaultdict(list)
            for port, about in own["ports"].items():
                if about["direction"] == "input":
                    for index, bit in enumerate(about["bits"]):
                        found[bit].append((port, index))
        return own["inputs"]


def _needed(cell: dict[str, Any], index: int) -> Iterator[tuple[str, int]]:
    """Bits of inputs that bit ``index`` of a cell's output may depend on."""
    kind = cell["type"]
    for port, bits in cell["connections"].items():
        if cell["port_directions"][port] == "output":
            continue
        places: Sequence[int] = range(len(bits))
        if port in _OPERANDS and kind in _BITWISE:
            places = [min(index, len(bits) - 1)] if _reaches(cell, port, index) else []
        elif port in _OPERANDS and kind in _ARITHMETIC:
            places = range(min(index + 1, len(bits)))
        for place in places:
            yield port, place


def _reaches(cell: dict[str, Any], port: str, index: int) -> bool:
    """Whether an operand is as wide, or extended by its sign."""
    signed = cell["parameters"].get(f"{port}_SIGNED", "0")
    return index < len(cell["connections"][port]) or int(signed, 2) == 1


_INNER = re.compile(r"\b_\d+_\b(\[[\d:]+\])?")
_ASSIGN = re.compile(r"^  assign (_\d+_) = (.+);$")
_LONGEST = 240


def readable(lines: Sequence[str], first: int, last: int) -> str:
    """Lines of Verilog, with expressions in the places of names that Yosys made up.

    What it gives does not change with what stands elsewhere in the module.

    Parameters
    ----------
    lines : sequence of str
        The whole text.
    first, last : int
        Of the lines wanted, from 1.
    """
    start = first - 1
    while start and not lines[start].startswith("module "):
        start -= 1
    inner: dict[str, str] = {}
    for line in lines[start:]:
        if line.startswith("endmodule"):
            break
        if found := _ASSIGN.match(line):
            inner[found[1]] = found[2]
    text = " ".join(line.strip() for line in lines[first - 1 : last])
    if found := _ASSIGN.match(f"  {text}"):
        text = found[2]
    while len(text) < _LONGEST:
        wider = _INNER.sub(lambda match: f"({_definition(inner, match[0])})", text)
        if wider == text:
            break
        text = wider
    return _INNER.sub("_", text)[:_LONGEST]


def _definition(inner: dict[str, str], name: str) -> str:
    base, bracket, rest = name.partition("[")
    return inner.get(base, "_") + bracket + rest
