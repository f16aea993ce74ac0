"""Studies of hardware, of `paro study`: processing elements, and the largest array on a board."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paro.cli.console import progress_bar, step_line
from paro.config.formats import PAPER_BITS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from firmware_model.capture import Capture
    from paro.cli.studies import Rows, Settings

__all__ = ["fit_closing", "fit_tables", "pe_chart", "pe_closing", "pe_tables", "run_fit", "run_pe"]


def run_pe(captures: Sequence["Capture"], settings: "Settings") -> dict[str, Any]:
    """Measure the candidates for a processing element, and the quality of their numbers."""
    from firmware_model.quality.study import rounding_study
    from fpga.pe import pe_study
    from fpga.pe.pe_candidates import CANDIDATES

    with progress_bar("area and speed" if settings.place else "area") as progress:
        measured = pe_study.measure(
            settings.folder / "build",
            place=settings.place,
            liberty=settings.liberty,
            progress=progress,
        )
    known = (CANDIDATES[row["name"]].number_format for row in measured)
    formats = list(dict.fromkeys(name for name in known if name is not None))
    widths, block = (PAPER_BITS, 3.0), settings.goal.block
    with progress_bar("quality") as progress:
        quality = rounding_study(captures, formats, widths, block, progress=progress)
    return pe_study.report(measured, quality, settings.liberty)


def pe_tables(result: dict[str, Any]) -> "list[tuple[str, Rows]]":
    """Two tables: areas and quality."""
    rows = result["rows"]
    placed = any(row["fmax_mhz"] is not None for row in rows)
    area = f"one PE, accumulator of {result['accumulator_bits']} bits, area = LUT4 + 2 CCU2C"
    if rows[0]["cell_area"] is not None:
        area += f", cells = area in {result['liberty']}"
    quality = "by width of a block (8/4/2 bit), and attention at two mean widths"
    return [
        (area, [_pe_area(row, placed) for row in rows]),
        (quality, [_pe_quality(row) for row in rows]),
    ]


def _pe_area(row: dict[str, Any], placed: bool) -> dict[str, Any]:
    fmax = row["fmax_mhz"]
    return {
        "PE": row["name"],
        "LUT4": row["lut4"],
        "CCU2C": row["carry"],
        "FF": row["ff"],
        "area": row["area"],
        "gates": row["generic_cells"],
        **({} if row["cell_area"] is None else {"cells": f"{row['cell_area']:,.0f}"}),
        **({"4x4 MHz": "-" if fmax is None else f"{fmax:.1f}"} if placed else {}),
    }


def _pe_quality(row: dict[str, Any]) -> dict[str, Any]:
    errors = row["logit_rmse"].values()
    return {
        "PE": row["name"],
        "MACs": "/".join(map(str, row["macs"].values())),
        "area a MAC": "/".join(
            dict.fromkeys(f"{area:.0f}" for area in row["area_per_mac"].values())
        ),
        "format": row["format"] or "-",
        "logit RMSE": "/".join("-" if error is None else f"{error:.3f}" for error in errors),
        **{
            f"dB at {width}": "-" if snr is None else snr
            for width, snr in row["mean_snr_db"].items()
        },
    }


def pe_chart(result: dict[str, Any]) -> "Figure":
    """Area against quality."""
    from paro.cli.drawing import pe_figure

    return pe_figure(result)


def pe_closing(result: dict[str, Any], folder: Path) -> Iterator[str]:
    """Where the report is."""
    yield f"report: {folder / 'pe.json'}, drawn: {folder / 'pe.png'}"


def run_fit(captures: Sequence["Capture"], settings: "Settings") -> dict[str, Any]:
    """Fill a board with arrays."""
    from fpga.fit import fit
    from paro.config import Config

    with step_line(settings.board) as progress:
        return fit(
            settings.board,
            Config(block=settings.goal.block),
            settings.folder / "build",
            min_mhz=settings.min_mhz,
            progress=progress,
        )


def fit_tables(result: dict[str, Any]) -> "list[tuple[str, Rows]]":
    """Two tables: what was tried, and what was built."""
    tried = [
        {
            "array": f"{row['rows']} x {row['cols']}",
            "superblock": row["query_rows"],
            **{name: f"{row[name]:,}" for name in ("logic", "bram", "dsp")},
            "fits": "; ".join(row["lacks"]) or "yes",
        }
        for row in result["tried"]
    ]
    machine, dense = result["machine"], result["dense"]
    config = machine["config"]
    name = f"{config['rows']} x {config['cols']}, S = {config['query_rows']}"
    same = {width: dense["products"] for width in machine["products"]}
    built = [
        _fit_row(name, machine, machine["products"]),
        _fit_row(f"dense INT8, {dense['macs']} MACs", dense, same),
    ]
    return [
        (f"machines by Yosys' counts, {result['fill']:.0%} of {result['device']}'s logic", tried),
        ("after place and route, shares of the device, 1e9 products a second", built),
    ]


def _fit_row(name: str, report: dict[str, Any], products: dict[float, float]) -> dict[str, Any]:
    return {
        "machine": name,
        **{kind: f"{share:.0%}" for kind, share in report["shares"].items()},
        "MHz": f"{report['fmax_mhz']:.1f}",
        **{f"{width:g} bit": rate for width, rate in products.items()},
    }


def fit_closing(result: dict[str, Any], folder: Path) -> Iterator[str]:
    """How the machine compares with the dense array."""
    ratios = ", ".join(f"{ratio} at {width:g} bit" for width, ratio in result["ratio"].items())
    yield f"The machine does {ratios} times the products of the dense array;"
    yield f"both do as many at a mean width of {result['equal_bits']} bit."
    yield f"report: {folder / 'fit.json'}"
