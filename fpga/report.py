"""Figures from the reports of the FPGA tools."""

from typing import Any

__all__ = ["cell_counts", "critical_path", "fmax_mhz", "placed", "placed_clocks", "utilisation"]

#: Name of each figure and the ECP5 cell that it counts.
_CELLS = {
    "lut4": "LUT4",
    "carry": "CCU2C",
    "ff": "TRELLIS_FF",
    "dsp": "MULT18X18D",
    "bram": "DP16KD",
    "lutram": "TRELLIS_DPR16X4",
}


def cell_counts(statistics: dict[str, Any]) -> dict[str, Any]:
    """Figures and all cells, modules as often as they are used, out of Yosys' ``stat -json``."""
    cells = statistics["design"]["num_cells_by_type"]
    counts: dict[str, Any] = {name: cells.get(cell, 0) for name, cell in _CELLS.items()}
    return counts | {"cells": dict(sorted(cells.items()))}


def fmax_mhz(timing: dict[str, Any]) -> float:
    """Frequency that the slowest clock of nextpnr's report reaches."""
    return min(clock["achieved"] for clock in timing["fmax"].values())


def utilisation(timing: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Cells used and available, of the kinds that the design uses."""
    return {
        name: {"used": count["used"], "available": count["available"]}
        for name, count in timing["utilization"].items()
        if count["used"]
    }


def critical_path(timing: dict[str, Any]) -> dict[str, Any] | None:
    """Slowest path within one clock: its delay, the routing's part, where it starts and ends."""
    paths = [path for path in timing["critical_paths"] if path["from"] == path["to"]]
    if not paths:
        return None
    slowest = max(paths, key=lambda path: sum(element["delay"] for element in path["path"]))
    elements = slowest["path"]
    routing = sum(element["delay"] for element in elements if element["type"] == "routing")
    logic = [element for element in elements if element["type"] == "logic"]
    return {
        "delay_ns": round(sum(element["delay"] for element in elements), 2),
        "routing_ns": round(routing, 2),
        "logic_levels": len(logic),
        "from": elements[0]["from"]["cell"],
        "to": elements[-1]["to"]["cell"],
    }


def placed_clocks(timing: dict[str, Any], clock_mhz: float) -> dict[str, Any]:
    """Figures of a design of several clocks, out of nextpnr's report.

    Parameters
    ----------
    timing : dict
        The report; each clock in it has what LiteX or nextpnr wants of it.
    clock_mhz : float
        Of the system's clock.

    Returns
    -------
    dict
        As `placed`, of the clocks that want ``clock_mhz``, and ``clocks``: by name, MHz that are
        ``achieved`` and ``wanted``. Timing is met if all meet theirs.
    """
    clocks = {
        name.split("$")[-1]: {
            "achieved": round(clock["achieved"], 2),
            "wanted": round(clock["constraint"], 2),
        }
        for name, clock in timing["fmax"].items()
    }
    system = [c["achieved"] for c in clocks.values() if abs(c["wanted"] / clock_mhz - 1) < 0.01]
    figures = placed(timing, clock_mhz)
    return figures | {
        "fmax_mhz": min(system) if system else figures["fmax_mhz"],
        "timing_met": all(clock["achieved"] >= clock["wanted"] for clock in clocks.values()),
        "clocks": clocks,
    }


def placed(timing: dict[str, Any], clock_mhz: float) -> dict[str, Any]:
    """Figures of a design that is to run at ``clock_mhz``, out of nextpnr's report."""
    fmax = fmax_mhz(timing)
    return {
        "fmax_mhz": round(fmax, 2),
        "clock_mhz": clock_mhz,
        "timing_met": fmax >= clock_mhz,
        "utilisation": utilisation(timing),
        "critical_path": critical_path(timing),
    }
