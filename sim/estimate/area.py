"""LUTs of a core, from measurements of some cores by synthesis.

A line through the measured points of `data/area.toml`: the base of every core, and the share of
each PE with its part of the drain, the buffers' edges and the softmax lanes. Area is LUT4 + 2
CCU2C, as in docs/pe.md. Between the points the line smooths measurements, beyond them it
extrapolates.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["AreaModel", "load_area_model"]

_POINTS = Path(__file__).parent / "data" / "area.toml"


@dataclass(frozen=True)
class AreaModel:
    """LUTs of a core: ``base + per_pe * rows * cols``.

    Parameters
    ----------
    base, per_pe : float
    pes_max : int
        PEs of the largest core that was measured.
    """

    base: float
    per_pe: float
    pes_max: int

    def luts(self, rows: int, cols: int) -> float:
        """LUTs of one core."""
        return self.base + self.per_pe * rows * cols

    def extrapolated(self, rows: int, cols: int) -> bool:
        """Whether the core is larger than any that was measured."""
        return rows * cols > self.pes_max


def load_area_model() -> AreaModel:
    """Fit the measured points, by least squares."""
    points = tomllib.loads(_POINTS.read_text())["point"]
    pes = np.array([point["rows"] * point["cols"] for point in points], float)
    luts = np.array([point["lut4"] + 2 * point["carry"] for point in points], float)
    (base, per_pe), *_ = np.linalg.lstsq(np.stack([np.ones_like(pes), pes], 1), luts, rcond=None)
    return AreaModel(float(base), float(per_pe), int(pes.max()))
