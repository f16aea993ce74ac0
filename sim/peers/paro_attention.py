"""PAROAttention (NeurIPS 2025): reorder, block sparse INT8 attention on an A100.

Source: its abstract: 20 to 30 % block density, INT8 or INT4, 1.9x to 2.7x end to end.

Assumptions: linear layers stay FP16, as only attention is changed; attention keeps the A100's own
efficiency and cost falls with the density; the reorder takes 1 % of the time that is left.

Check: attention at 67.93 % of the FP16 time (CogVideoX). INT8 at 20 % density gives 2.55x, at 30 %
2.34x: within 1.9x to 2.7x, 6 % below its upper end, which may be of INT4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sim.machine import Resources
from sim.peers.a100 import A100
from sim.peers.peer import Check, Peer, Work
from sim.workloads import load_workload

__all__ = ["ParoAttention"]


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
        """What tables call it."""
        return f"PAROAttention, {self.density:.0%}"

    def attention_seconds(self, work: Work, resources: Resources) -> float:
        """Seconds of attention, reorder included."""
        dense = A100(bits=8).attention_seconds(work, resources)
        attention = dense * self.density
        return attention + self.reorder * (attention + self.linear_seconds(work, resources))

    def linear_seconds(self, work: Work, resources: Resources) -> float:
        """Seconds of the linear layers, in FP16."""
        return A100().linear_seconds(work, resources)

    def checks(self) -> Sequence[Check]:
        """Its speed-up at 20 % density."""
        share = load_workload("cogvideox-5b").fp16_attention_share or 0
        time = (1 - share + share * 0.2 / 2) * (1 + self.reorder)
        return (
            Check(
                peer="PAROAttention",
                figure="speed-up end to end at 20 % density",
                published=2.7,
                modelled=1 / time,
                tolerance=0.10,
            ),
        )
