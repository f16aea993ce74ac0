"""What multipliers cost, from the study of processing elements (`paro study pe`, docs/pe.md).

Peers are compared at equal multipliers, and at equal gates of their multipliers with accumulator
and drain register: what a peer's multiplier is worth is what the same synthesis makes of it and of
our PE. Nothing else of a machine is counted. Gates count a flip-flop as one; areas of standard
cells say what that hides.
"""

import tomllib
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

__all__ = ["OWN", "Measure", "Multiplier", "load_multipliers", "worth"]

_FIGURES = Path(__file__).parent / "data" / "gates.toml"
#: Our PE's name in the study.
OWN = "paro"


class Measure(Enum):
    """What multipliers are compared by; the value is the field of `Multiplier`."""

    GATES = "gates"
    CELL_AREA = "cell_area"


@dataclass(frozen=True, kw_only=True)
class Multiplier:
    """A multiplier as synthesis finds it.

    Parameters
    ----------
    gates : int
        All its cells: AND, XOR, MUX, NOT and flip-flops, each counted as one.
    cell_area : float
        Its area in standard cells of IHP's sg13g2 (130 nm, typical corner), um2.
    """

    gates: int
    cell_area: float


@cache
def load_multipliers() -> dict[str, Multiplier]:
    """Read the recorded figures, by the candidates' names in the study."""
    figures = tomllib.loads(_FIGURES.read_text())
    return {name: Multiplier(**fields) for name, fields in figures.items()}


def worth(name: str, measure: Measure = Measure.GATES) -> float:
    """How many of our PEs are as large as one multiplier.

    Parameters
    ----------
    name : str
        Of `load_multipliers`.
    measure : Measure
    """
    known = load_multipliers()
    return getattr(known[name], measure.value) / getattr(known[OWN], measure.value)
