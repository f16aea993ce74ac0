"""Sanger (MICRO 2021): a mask predicted at run time, live weights at full width.

Source: abstract: a quantised prediction of the attention map gives the mask, which is packed into
structured blocks for a reconfigurable array; density 0.08 to 0.27 on BERT, 4.64x over a V100.
Configuration: 16 units in each of 64 rows (1024), 1 GHz, 16-bit data, 128 GB/s.

Assumptions: QK and PV of live weights at 16 bits, perfect packing and balance, no cost for softmax
and mask. The prediction is a dense QK of 4 by 4 bits and takes its share of the multipliers' bits,
1/16 of a product of 16 by 16. It predicts perfectly, so its density is that which keeping the
largest weights needs (`paro study pruning`). Keys are read for every tile of queries; pruning
single weights spares none of them. Linear layers are dense at 16 bits.

Check: its comparison with other accelerators (the abstract's 2.39x over A3, 1.47x over SpAtten)
scales all to 128 multipliers at 1 GHz and counts the products of a dense machine: 529 G/s, 4.13
times what 128 multipliers make. That table is not public; the figure is as public notes on the
paper quote it, and fits SpAtten's published 360. In the middle of the abstract's densities the
model gives 4.85, 17 % above: its packing is perfect. The speed-up over the V100 cannot be made, as
no time of the V100 is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sim.estimate.machine import Resources
from sim.estimate.peers.ita import DenseInt8
from sim.estimate.peers.peer import Check, LayerWork, Peer, attention_speedup
from sim.estimate.traffic import attention_bytes

__all__ = ["Sanger"]

_BITS, _PREDICTION_BITS = 16, 4
#: Published: products a second, a dense machine's counted, and the multipliers that made them.
_EFFECTIVE, _MULTIPLIERS, _CLOCK_HZ = 529e9, 128, 1e9
#: Published: the densities of BERT.
_DENSITIES = 0.08, 0.27


@dataclass(frozen=True, kw_only=True)
class Sanger(Peer):
    """A machine that prunes single weights at run time.

    Parameters
    ----------
    bits : {16, 8}
        Of its operands; 8 is a Sanger that was never built.
    density : float
        Share of the weights that live.
    """

    name: str = "Sanger"
    bits: int = _BITS
    density: float = 1.0

    def attention_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of attention, prediction included."""
        workload = work.workload
        prediction = workload.attention_macs / 2 * (_PREDICTION_BITS / self.bits) ** 2
        moved = attention_bytes(workload, self.bits / 8, resources.buffer)
        return resources.seconds(workload.attention_macs * self.density + prediction, moved)

    def linear_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of the linear layers."""
        return DenseInt8(bits=self.bits).linear_seconds(work, resources)

    def checks(self) -> Sequence[Check]:
        """Its rate on BERT's attention, beside a dense machine of as many multipliers."""
        own = Sanger(density=sum(_DENSITIES) / 2)
        dense = DenseInt8(bits=self.bits)
        return (
            Check(
                peer=self.name,
                figure="speed-up over a dense array, BERT's attention",
                published=_EFFECTIVE / (_MULTIPLIERS * _CLOCK_HZ),
                modelled=attention_speedup(own, dense, _MULTIPLIERS, _MULTIPLIERS),
                tolerance=0.25,
            ),
        )
