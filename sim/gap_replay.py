"""The random gaps of a co-simulation once more, cycle by cycle: for the cycle model."""

import numpy as np
from numba import njit

from sim.gaps import STREAMS, gap_rates, gap_seed, salt

__all__ = ["transfer_cycles"]


def transfer_cycles(seed: int, cycles: int) -> np.ndarray:
    """For each stream and cycle, when the stream can next transfer a beat.

    Parameters
    ----------
    seed : int
        As `gap_rates`.
    cycles : int
        Cycles after reset to look at.

    Returns
    -------
    np.ndarray
        int64 [streams, cycles]: first cycle after this one in which there is no gap, if a gap may
        begin in this cycle (a source: behind a beat; a sink: always).
    """
    word, rates = gap_seed(seed), gap_rates(seed)
    return np.stack([_transfers((word ^ salt(name)) | 1, rates[name], cycles) for name in STREAMS])


@njit(cache=True)
def _transfers(state, rate, cycles):
    """`transfer_cycles` of one stream; the generator is that of `sim.harness`."""
    stalls = np.empty(cycles, np.bool_)
    for cycle in range(cycles):
        stalls[cycle] = (state >> 8) & 0xFF < rate
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
    following = np.empty(cycles, np.int64)
    free = cycles + 1
    for cycle in range(cycles - 1, -1, -1):
        if not stalls[cycle]:
            free = cycle + 1
        following[cycle] = free
    return following
