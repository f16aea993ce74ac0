"""ViTCoD (HPCA 2023): a fixed mask, sorted into dense and sparse parts, live work at full width.

Source: abstract: fixed masks of up to 90 % sparsity in image classifiers after fine-tuning; 6.8x
over Sanger there. Configuration: 64 x 8 = 512 units, 500 MHz, 320 KB, 76.8 GB/s.

Assumptions: QK and PV of live weights at 16 bits; dense and sparse engine always balanced; the
auto-encoder halves the bytes of Q and K and costs nothing. No fine-tuning, so the mask keeps the
largest weights as measured (`paro study pruning`); that one fixed mask would do so for all inputs
is granted. Linear layers are dense at 16 bits.

Check: at its 90 % sparsity against Sanger at 50 %, which the same abstract names as decent for
masks predicted at run time, the two models are 5.3x apart, 22 % below the published "up to 6.8x".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sim.estimate.machine import Resources
from sim.estimate.peers.ita import DenseInt8
from sim.estimate.peers.peer import Check, LayerWork, Peer, attention_speedup
from sim.estimate.peers.sanger import Sanger
from sim.estimate.traffic import attention_bytes

__all__ = ["ViTCoD"]

_UNITS = 512
#: Bytes of Q and K after the auto-encoder, relative to before.
_ENCODED = 0.5


@dataclass(frozen=True, kw_only=True)
class ViTCoD(Peer):
    """A machine that prunes single weights by a fixed mask.

    Parameters
    ----------
    bits : {16, 8}
        Of its operands; 8 is a ViTCoD that was never built.
    density : float
        Share of the weights that live.
    """

    name: str = "ViTCoD"
    bits: int = 16
    density: float = 1.0

    def attention_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of attention."""
        workload = work.workload
        # K is half of the reads and V half; Q and O hardly count.
        moved = attention_bytes(workload, self.bits / 8, resources.buffer) * (1 + _ENCODED) / 2
        return resources.seconds(workload.attention_macs * self.density, moved)

    def linear_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of the linear layers."""
        return DenseInt8(bits=self.bits).linear_seconds(work, resources)

    def checks(self) -> Sequence[Check]:
        """Its speed-up over Sanger, on multipliers alone."""
        own, sanger = ViTCoD(density=0.1), Sanger(density=0.5)
        return (
            Check(
                peer=self.name,
                figure="speed-up over Sanger at 90 % sparsity",
                published=6.8,
                modelled=attention_speedup(own, sanger, _UNITS, _UNITS),
                tolerance=0.25,
            ),
        )
