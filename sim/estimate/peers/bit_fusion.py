"""Both operands variable, after Bit Fusion (ISCA 2018).

Source: abstract and artifact page: a fusion unit of 16 bricks makes 1 product of 8 x 8 bits, 2 of
8 x 4, 4 of 8 x 2, 16 of 2 x 2; 16 x 32 units at 500 MHz; 3.9x over Eyeriss at the same area.

Assumptions: a unit counts as one multiply-accumulate unit. PV takes our plan's widths of P (its
narrowest is 2 bits, so skipped blocks are computed at 2). QK runs at the width of its inputs, 8 by
8 bits: before the product the width of the block's weights means nothing to it. Dense, every brick
works in every cycle. Linear layers are W8A8: integers of 4 bits err about three times as much as
our two digits (docs/pe.md), so they are no equal. In gates a unit counts as four 8 x 2 lanes
(`fixed` in `paro study pe`); with both sides variable, which nothing here uses, it would be larger.

Check: its speed-up over Eyeriss (168 units of 16 bits, same clock and area) is of networks whose
widths the abstract does not give. At 8 bits the units alone make 512 / 168 = 3.05x, 22 % below.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from paro.config.formats import CODE_BITS
from sim.estimate.machine import Resources
from sim.estimate.peers.ita import DenseInt8
from sim.estimate.peers.peer import Check, LayerWork, Peer, attention_speedup
from sim.estimate.traffic import attention_bytes

__all__ = ["BitFusion"]

_UNITS, _EYERISS_UNITS = 512, 168
#: Bits of a brick's operand.
_BRICK_BITS = 2


@dataclass(frozen=True, kw_only=True)
class BitFusion(Peer):
    """A dense machine whose PV follows the width of P."""

    name: str = "Bit Fusion-like"

    @property
    def multiplier(self) -> str:
        """Its lanes, in the study of processing elements."""
        return "fixed"

    def attention_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of attention."""
        width = sum(
            share * max(bits, _BRICK_BITS)
            for share, bits in zip(work.shares, CODE_BITS, strict=True)
        )
        product = work.workload.attention_macs / 2
        moved = attention_bytes(work.workload, 1, resources.buffer)
        return resources.seconds(product + product * width / 8, moved)

    def linear_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of the linear layers."""
        return DenseInt8().linear_seconds(work, resources)

    def checks(self) -> Sequence[Check]:
        """Its speed-up over Eyeriss."""
        return (
            Check(
                peer="Bit Fusion",
                figure="speed-up over Eyeriss, all at 8 bits",
                published=3.9,
                modelled=attention_speedup(self, DenseInt8(bits=16), _UNITS, _EYERISS_UNITS),
                tolerance=0.25,
            ),
        )
