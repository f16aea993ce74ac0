"""NVIDIA A100, dense attention: the baseline of both papers.

Source: NVIDIA's data sheet (312 TFLOP/s FP16, 624 TOP/s INT8, 2039 GB/s, 40 MB cache).

Assumptions: a roofline with two efficiencies, 0.55 of the peak in attention and 0.80 in linear
layers. FlashAttention-2 states 50 to 73 % of the A100's peak for its kernels; 64 channels a head
lie low in that range. Large matrix products commonly reach 80 %. INT8 is granted the same
efficiencies at twice the peak, in both products of attention too. All other work (norms,
activations) is free.

Check: 50 steps of CogVideoX-5B with guidance take about 180 s, text encoder and video decoder
included. The model counts the transformer alone and gives 163 s, 10 % less.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sim.estimate.machine import A100_BUFFER, Resources
from sim.estimate.peers.peer import Check, LayerWork, Peer
from sim.estimate.traffic import TILE, attention_bytes, linear_bytes, linear_tile
from sim.estimate.workloads import load_workload

__all__ = ["A100"]


@dataclass(frozen=True, kw_only=True)
class A100(Peer):
    """An A100 with dense attention.

    Parameters
    ----------
    bits : {16, 8}
        Of all products.
    attention_efficiency, linear_efficiency : float
        Share of the peak that is reached.
    """

    bits: int = 16
    attention_efficiency: float = 0.55
    linear_efficiency: float = 0.80

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name in tables."""
        return "A100, FP16" if self.bits == 16 else "A100, dense INT8"

    @staticmethod
    def resources() -> Resources:
        """Its INT8 peak, memory and cache."""
        return Resources(
            macs=624e12 / 2 / 1.41e9, clock_hz=1.41e9, bandwidth=2039e9, buffer=A100_BUFFER
        )

    def attention_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of attention; ``resources`` hold the INT8 peak."""
        macs = work.workload.attention_macs * self.bits / 8 / self.attention_efficiency
        moved = attention_bytes(work.workload, self.bits / 8, resources.buffer)
        return resources.seconds(macs, moved)

    def linear_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of the linear layers; ``resources`` hold the INT8 peak."""
        macs = work.workload.linear_macs * self.bits / 8 / self.linear_efficiency
        tile = linear_tile(TILE, resources.buffer)
        return resources.seconds(macs, linear_bytes(work.workload, self.bits / 8, tile))

    def checks(self) -> Sequence[Check]:
        """Seconds of a video."""
        if self.bits != 16:
            return ()
        video = load_workload("cogvideox-5b")
        layer = self.layer_seconds(LayerWork(workload=video, shares=(0, 0, 0, 1)), self.resources())
        return (
            Check(
                peer=self.name,
                figure="seconds of 50 steps of CogVideoX-5B",
                published=180.0,
                modelled=layer * video.layers * video.passes,
                tolerance=0.15,
            ),
        )
