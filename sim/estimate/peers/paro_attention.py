"""PAROAttention (NeurIPS 2025): reorder, block sparse INT8 attention on an A100.

Source: its abstract: 20 to 30 % block density, INT8 or INT4, 1.9x to 2.7x end to end.

Assumptions: linear layers stay FP16, as only attention is changed; attention keeps the A100's own
efficiency and cost falls with the density; the reorder takes 1 % of the time that is left.

Check: on CogVideoX-5B, with the A100's model as baseline, INT8 at 30 % density gives 1.97x, 3 %
above the lower end of the published range; at 20 % it gives 2.09x, 23 % below its upper end, which
may be of INT4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sim.estimate.machine import Resources
from sim.estimate.peers.a100 import A100
from sim.estimate.peers.peer import Check, LayerWork, Peer
from sim.estimate.workloads import load_workload

__all__ = ["ParoAttention"]

#: Published speed-ups by density.
_PUBLISHED = {0.3: 1.9, 0.2: 2.7}


@dataclass(frozen=True, kw_only=True)
class ParoAttention(Peer):
    """Sparse INT8 attention on an A100.

    Parameters
    ----------
    density : float
        Share of live blocks.
    reorder : float
        Time of the reorder, relative to all else.
    """

    density: float = 0.3
    reorder: float = 0.01

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name in tables."""
        return f"PAROAttention, {self.density:.0%}"

    def attention_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of attention, reorder included."""
        dense = A100(bits=8).attention_seconds(work, resources)
        attention = dense * self.density
        return attention + self.reorder * (attention + self.linear_seconds(work, resources))

    def linear_seconds(self, work: LayerWork, resources: Resources) -> float:
        """Seconds of the linear layers, in FP16."""
        return A100().linear_seconds(work, resources)

    def checks(self) -> Sequence[Check]:
        """Its speed-up at both ends of the published range."""
        video = load_workload("cogvideox-5b")
        work, gpu = LayerWork(workload=video, shares=(0, 0, 0, 1)), A100.resources()
        dense = A100().layer_seconds(work, gpu)
        return tuple(
            Check(
                peer="PAROAttention",
                figure=f"speed-up end to end at {density:.0%} density",
                published=published,
                modelled=dense / ParoAttention(density=density).layer_seconds(work, gpu),
                tolerance=0.25,
            )
            for density, published in _PUBLISHED.items()
        )
