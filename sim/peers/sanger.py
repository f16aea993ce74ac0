"""Sanger (MICRO 2021): a mask predicted at run time, live weights at full width.

Source: abstract: a quantised prediction of the attention map gives the mask, which is packed into
structured blocks for a reconfigurable array; density 0.08 to 0.27 on BERT, 4.64x over a V100.
Configuration: 16 units in each of 64 rows (1024), 1 GHz, 16-bit data, 128 GB/s.

Assumptions: QK and PV of live weights at 16 bits, perfect packing and balance, no cost for softmax
and mask. The prediction is a dense QK of 4 by 4 bits and takes its share of the multipliers' bits,
1/16 of a product of 16 by 16. It predicts perfectly, so its density is that which keeping the
largest weights needs (`paro study pruning`). Keys are read for every tile of queries; pruning
single weights spares none of them. Linear layers are dense at 16 bits.

Check: its speed-up over the V100 cannot be made from the abstract, which gives no rate of the V100.
See `sim.peers.vitcod` for the ratio of the two.
"""

from dataclasses import dataclass

from sim.machine import Resources
from sim.peers.ita import DenseInt8
from sim.peers.peer import Peer, Work
from sim.traffic import attention_bytes

__all__ = ["Sanger"]

_BITS, _PREDICTION_BITS = 16, 4


@dataclass(frozen=True, kw_only=True)
class Sanger(Peer):
    """A machine that prunes single weights at run time.

    Parameters
    ----------
    density : float
        Share of the weights that live.
    """

    name: str = "Sanger"
    bits: int = _BITS
    density: float = 1.0

    def attention_seconds(self, work: Work, resources: Resources) -> float:
        """Seconds of attention, prediction included."""
        workload = work.workload
        prediction = workload.attention_macs / 2 * (_PREDICTION_BITS / _BITS) ** 2
        moved = attention_bytes(workload, self.bits / 8, resources.buffer)
        return resources.seconds(workload.attention_macs * self.density + prediction, moved)

    def linear_seconds(self, work: Work, resources: Resources) -> float:
        """Seconds of the linear layers."""
        return DenseInt8(bits=self.bits).linear_seconds(work, resources)
