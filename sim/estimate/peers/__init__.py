"""Other machines on the same work; one file each, its source and assumptions in the docstring."""

from sim.estimate.peers.a100 import A100
from sim.estimate.peers.bit_fusion import BitFusion
from sim.estimate.peers.ita import DenseInt8
from sim.estimate.peers.paro_attention import ParoAttention
from sim.estimate.peers.peer import Check, LayerWork, Peer
from sim.estimate.peers.sanger import Sanger
from sim.estimate.peers.vitcod import ViTCoD

__all__ = [
    "A100",
    "BitFusion",
    "Check",
    "DenseInt8",
    "LayerWork",
    "ParoAttention",
    "Peer",
    "Sanger",
    "ViTCoD",
    "array_peers",
    "checks",
    "gpu_peers",
]


def array_peers(density: float) -> list[Peer]:
    """Peers that are compared at our multipliers, clock, bandwidth and buffer.

    ``density`` is the share of weights that those that prune must keep.
    """
    return [DenseInt8(), BitFusion(), Sanger(density=density), ViTCoD(density=density)]


def gpu_peers() -> list[Peer]:
    """Peers that are compared at the A100's peak, bandwidth and cache."""
    return [A100(), A100(bits=8), ParoAttention()]


def checks() -> list[Check]:
    """Each peer's own published figure beside what its model makes of it."""
    return [check for peer in (*gpu_peers(), *array_peers(1.0)) for check in peer.checks()]
