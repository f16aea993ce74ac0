"""Gates of multipliers, from the study of processing elements (`paro study pe`, docs/pe.md).

Peers are compared at equal multipliers, and at equal gates of their multipliers with accumulator
and drain register: what a peer's multiplier is worth is what the same synthesis makes of it and of
our PE. Nothing else of a machine is counted.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["FLIP_FLOP_GATES", "OWN", "Multiplier", "load_multipliers", "worth"]

_FIGURES = Path(__file__).parent / "data" / "gates.toml"
#: Our PE's name in the study.
OWN = "paro"
#: Gates that a flip-flop takes on silicon; synthesis counts it as one cell.
FLIP_FLOP_GATES = 6


@dataclass(frozen=True, kw_only=True)
class Multiplier:
    """A multiplier as synthesis finds it.

    Parameters
    ----------
    gates : int
        All its cells: AND, XOR, MUX, NOT and flip-flops, each counted as one.
    flip_flops : int
        Those of them that are flip-flops.
    """

    gates: int
    flip_flops: int

    def weighted(self, flip_flop_gates: float) -> float:
        """Gates, if a flip-flop is as large as ``flip_flop_gates`` of them."""
        return self.gates + (flip_flop_gates - 1) * self.flip_flops


@cache
def load_multipliers() -> dict[str, Multiplier]:
    """Read the recorded figures, by the candidates' names in the study."""
    figures = tomllib.loads(_FIGURES.read_text())
    return {name: Multiplier(**fields) for name, fields in figures.items()}


def worth(name: str, flip_flop_gates: float = 1.0) -> float:
    """How many of our PEs have as many gates as one multiplier.

    Parameters
    ----------
    name : str
        Of `load_multipliers`.
    flip_flop_gates : float
        Gates that a flip-flop counts as.
    """
    known = load_multipliers()
    return known[name].weighted(flip_flop_gates) / known[OWN].weighted(flip_flop_gates)
