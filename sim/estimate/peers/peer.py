"""The interface of a peer's model: seconds of a layer, and published figures to check it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from sim.estimate.machine import Resources
from sim.estimate.workloads import Workload

__all__ = ["Check", "LayerWork", "Peer", "attention_speedup"]

#: Where the multipliers alone count, the shape does not: any dense product will do.
_PRODUCT = Workload(
    title="product",
    layers=1,
    heads=1,
    head_dim=64,
    ffn=0,
    grid=(1, 1, 512),
    steps=1,
    guidance_passes=1,
)


#: Multipliers by the bits of their operands, by their names in the study of processing elements.
_MACS = {8: "mac", 16: "mac-16"}


@dataclass(frozen=True, kw_only=True)
class LayerWork:
    """One layer of a model, as a peer sees it.

    Parameters
    ----------
    workload : Workload
        The model.
    shares : tuple of float
        Share of the blocks of the attention maps that our plan gives each code (0, 2, 4, 8 bit):
        for peers that take the widths of P.
    """

    workload: Workload
    shares: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Check:
    """A published figure of a peer, and the same by its model.

    Parameters
    ----------
    peer, figure : str
        Name of the peer, and of its figure.
    published, modelled : float
    tolerance : float
        Stated error, relative.
    """

    peer: str
    figure: str
    published: float
    modelled: float
    tolerance: float

    @property
    def error(self) -> float:
        """Relative error of the model."""
        return self.modelled / self.published - 1

    @property
    def holds(self) -> bool:
        """Whether the error is within the stated one."""
        return abs(self.error) <= self.tolerance


class Peer(ABC):
    """Times of one layer of a model on given resources; all of the layer's heads, one pass."""

    name: str
    #: Bits of its multipliers' operands.
    bits: int = 8

    @property
    def multiplier(self) -> str:
        """Its multiplier's name in the study of processing elements (`sim.estimate.gates`)."""
        return _MACS[self.bits]

    @abstractmethod
    def attention_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of attention."""

    @abstractmethod
    def linear_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of the linear layers."""

    def layer_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of a layer."""
        return self.attention_seconds(work, resources) + self.linear_seconds(work, resources)

    def checks(self) -> Sequence[Check]:
        """Published figures that the model can be held against."""
        return ()


def attention_speedup(peer: Peer, other: Peer, units: int, other_units: int) -> float:
    """Speed-up of one peer over another in attention, at one clock, if multipliers alone count.

    Parameters
    ----------
    peer, other : Peer
    units, other_units : int
        How many multipliers each has, of its own width; all blocks are at 8 bits.
    """
    work = LayerWork(workload=_PRODUCT, shares=(0, 0, 0, 1))
    own, theirs = (
        machine.attention_seconds(work, Resources(macs=macs, clock_hz=1e9, bandwidth=inf))
        for machine, macs in ((peer, units), (other, other_units))
    )
    return theirs / own
