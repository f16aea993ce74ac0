"""The speed-ups that are wanted of a whole model, and what became of them."""

from dataclasses import dataclass
from typing import Any

from paro.config.formats import CODE_BITS
from sim.estimate.assumptions import Rival

__all__ = ["WANTED", "Target", "Wanted", "width_limit"]

#: Mean widths of linear layers: W8A8; two digits for every weight; the least whose videos stay
#: above 36 dB.
_EIGHT, _TWO_DIGITS, _LEAST = 8.0, 4.0, 3.5


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A speed-up that is wanted.

    Parameters
    ----------
    over : Rival
        The machine.
    speedup : float
    linear_bits : float
        Mean width of our linear layers' weights.
    keeps_all : bool
        Whether a pruning machine finds nothing to prune.
    """

    over: Rival
    speedup: float
    linear_bits: float
    keeps_all: bool = False


#: Speed-ups that are wanted.
WANTED = (
    Wanted(over=Rival.A100, speedup=3.2, linear_bits=_EIGHT),
    Wanted(over=Rival.A100, speedup=5.0, linear_bits=_TWO_DIGITS),
    Wanted(over=Rival.SANGER, speedup=1.8, linear_bits=_TWO_DIGITS),
    Wanted(over=Rival.VITCOD, speedup=1.8, linear_bits=_TWO_DIGITS),
    Wanted(over=Rival.SANGER_GATES, speedup=5.1, linear_bits=_TWO_DIGITS),
    Wanted(over=Rival.VITCOD_GATES, speedup=5.1, linear_bits=_TWO_DIGITS),
    Wanted(over=Rival.SANGER_GATES, speedup=7.05, linear_bits=_LEAST, keeps_all=True),
    Wanted(over=Rival.VITCOD_GATES, speedup=7.05, linear_bits=_LEAST, keeps_all=True),
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What became of a speed-up that is wanted.

    Parameters
    ----------
    wanted : Wanted
    bits : float
        Mean width of our attention.
    found : float
        The speed-up of the estimate.
    assumption : str
        What it rests on, in words.
    linear_bits_limit : float or None
        Mean width of linear layers up to which it is reached if the array bounds them, at most 8;
        none if at 2 bits it is not.
    decided_by : tuple of str
        If it fails: changes of assumptions that would let it hold, as in the sensitivity table.
    """

    wanted: Wanted
    bits: float
    found: float
    assumption: str
    linear_bits_limit: float | None
    decided_by: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the speed-up is reached."""
        return self.found >= self.wanted.speedup

    def report(self) -> dict[str, Any]:
        """Entry of ``targets`` in the report."""
        return {
            "over": str(self.wanted.over),
            "mean_bits": round(self.bits, 4),
            "linear_bits": self.wanted.linear_bits,
            "assumption": self.assumption,
            "wanted": self.wanted.speedup,
            "found": self.found,
            "holds": self.holds,
            "linear_bits_limit": self.linear_bits_limit,
            "decided_by": list(self.decided_by),
        }


def width_limit(wanted: Wanted, found: float, without_linear: float) -> float | None:
    """Mean width of linear layers at which a speed-up is just reached.

    The time of linear layers grows with their width, and that of all else does not change.

    Parameters
    ----------
    wanted : Wanted
    found, without_linear : float
        Speed-ups with linear layers at the width of ``wanted``, and if ours took no time.

    Returns
    -------
    float or None
        At most 8; none if it would be less than 2.
    """
    fixed = 1 / without_linear
    limit = wanted.linear_bits * (1 / wanted.speedup - fixed) / (1 / found - fixed)
    return None if limit < CODE_BITS[1] else min(limit, float(CODE_BITS[-1]))
