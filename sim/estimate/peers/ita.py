"""Dense INT8 with an integer softmax, after ITA (ISLPED 2023).

Source: ITA's abstract and architecture: 16 x 64 multiply-accumulate units of 8 bits, softmax on the
stream, 16.9 TOPS/W and 5.93 TOPS/mm2.

Assumptions: every unit works in every cycle, in attention and in linear layers; softmax is free.
That is the best that a dense INT8 machine can do.

Check: ITA publishes efficiencies, neither seconds nor speed-ups; there is no figure that this model
could give.
"""

from dataclasses import dataclass

from sim.estimate.machine import Resources
from sim.estimate.peers.peer import LayerWork, Peer
from sim.estimate.traffic import TILE, attention_bytes, linear_bytes, linear_tile

__all__ = ["DenseInt8"]


@dataclass(frozen=True, kw_only=True)
class DenseInt8(Peer):
    """A dense machine of full utilisation.

    Parameters
    ----------
    bits : int
        Of its operands; others than 8 are for peers that build on this one.
    """

    name: str = "ITA-like, dense INT8"
    bits: int = 8

    def attention_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of attention."""
        moved = attention_bytes(work.workload, self.bits / 8, resources.buffer)
        return resources.seconds(work.workload.attention_macs, moved)

    def linear_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of the linear layers."""
        tile = linear_tile(TILE, resources.buffer)
        return resources.seconds(
            work.workload.linear_macs, linear_bytes(work.workload, self.bits / 8, tile)
        )
