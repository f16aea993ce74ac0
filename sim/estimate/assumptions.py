"""The assumptions that speed-ups rest on, and speed-ups with one of them changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from sim.estimate.gates import Measure

__all__ = ["OF_TWO", "PRUNING", "Assumption", "Change", "Counting", "Rival"]


class Rival(StrEnum):
    """A machine that a speed-up is wanted over; the value is its name in tables and reports.

    Arrays have as many multipliers as we have, or as many as our gates make.
    """

    A100 = "A100"
    SANGER = "Sanger"
    VITCOD = "ViTCoD"
    SANGER_GATES = "Sanger, equal gates"
    VITCOD_GATES = "ViTCoD, equal gates"

    @property
    def equal_gates(self) -> bool:
        """Whether its multipliers have as many gates as ours, and are not as many."""
        return self in (Rival.SANGER_GATES, Rival.VITCOD_GATES)


class Assumption(Enum):
    """The assumption that is changed; the value is the change in words, with figures to fill in."""

    NONE = "as assumed"
    MEAN_WIDTH = "attention at {other:.2f} in place of {own:.2f} bit"
    LINEAR_WIDTH = "linear layers at {other:.2f} in place of {own:.2f} bit"
    FULL_LANES = "every lane works in every cycle"
    MODELLED_SHARE = "attention's share of FP16 time by the A100's model: {share:.1%}"
    COUNTED_SHARE = "attention's share of FP16 time by multiply-accumulates alone: {share:.1%}"
    OWN_EFFICIENCY = "the A100 at its own efficiency"
    NO_BUFFER = "no buffer at the A100's peak"
    SUPERBLOCKS = "no buffer, superblocks of {rows:.0f} block rows, at the A100's peak"
    SLOW_BUFFER = "the buffer at the A100's peak gives what its cache does, {gbs:,.0f} GB/s"
    HALF_BANDWIDTH = "half the bandwidth, of ours and of the other arrays"
    TWICE_BANDWIDTH = "twice the bandwidth, of ours and of the other arrays"
    PRUNED_TO_30 = "pruning keeps 30 % of the attention"
    UNPRUNED = "pruning keeps all of the attention"
    NARROWED = "the pruning machines narrowed to 8 bits"
    CELL_AREAS = "areas of standard cells (130 nm) in place of gates"
    ALONE = "attention alone, no linear layers"
    UNPRUNED_ALONE = "attention alone, pruning keeps all of it"
    UNPRUNED_LINEAR = "pruning keeps all of the attention, linear layers at {other:.2f} bit"


#: Those that change two assumptions.
OF_TWO = frozenset({Assumption.UNPRUNED_ALONE, Assumption.UNPRUNED_LINEAR})


@dataclass(frozen=True, kw_only=True)
class Counting:
    """How the work and the multipliers of a pruning peer are counted.

    Parameters
    ----------
    density : float, optional
        Share of the attention weights that pruning keeps; by default that of the comparison.
    bits : {16, 8}
        Of the peer's operands.
    measure : Measure
        What is equal where gates are.
    attention_alone : bool
        Whether linear layers are left out.
    """

    density: float | None = None
    bits: int = 16
    measure: Measure = Measure.GATES
    attention_alone: bool = False


#: Assumptions on pruning peers alone.
PRUNING = {
    Assumption.PRUNED_TO_30: Counting(density=0.3),
    Assumption.UNPRUNED: Counting(density=1.0),
    Assumption.NARROWED: Counting(bits=8),
    Assumption.CELL_AREAS: Counting(measure=Measure.CELL_AREA),
    Assumption.ALONE: Counting(attention_alone=True),
    Assumption.UNPRUNED_ALONE: Counting(density=1.0, attention_alone=True),
}


@dataclass(frozen=True)
class Change:
    """Speed-ups of the last plan with one assumption changed.

    Parameters
    ----------
    assumption : Assumption
        The one that is changed.
    speedups : mapping of Rival to float
        Over each machine that it touches.
    figures : mapping of str to float
        Figures that the assumption's words contain.
    """

    assumption: Assumption
    speedups: Mapping[Rival, float]
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The change, in words."""
        return self.assumption.value.format(**self.figures)

    def report(self) -> dict[str, Any]:
        """Entry of ``sensitivity`` in the report; null for machines that it does not touch."""
        return {"assumption": self.label} | {str(over): self.speedups.get(over) for over in Rival}
