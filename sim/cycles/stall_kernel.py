"""Random stalls and latencies in the cycle model: the generators of `sim.cycles.stalls`, compiled.

A generator is asked for cycles in ascending order and makes only the steps that lead there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sim.cycles.records import compiled, inlined, record_dtype
from sim.cycles.stalls import generator_seed, salt, stall_rates

__all__ = ["Generator", "advance", "generators", "unstalled"]


class Generator(NamedTuple):
    """Record of a stream's generator."""

    value: int
    cycle: int  # that the value is of
    rate: int  # chance, of 256, that a stall begins or goes on
    start: int  # first cycle in which a stall may begin


def generators(
    seed: int | None,
    names: Sequence[str],
    begun: int = 0,
    rates: Mapping[str, int] | None = None,
) -> Any:
    """Generators of some streams, channels or latencies.

    Parameters
    ----------
    seed : int or None
        As `stall_rates`.
    names : sequence of str
        Of the streams, channels or latencies.
    begun : int
        Cycle of their first step, 0 or before.
    rates : mapping of str to int, optional
        By default those of the seed.

    Returns
    -------
    np.record
        A `Generator` for each name.
    """
    word = generator_seed(seed)
    rates = stall_rates(seed) if rates is None else rates
    parts = [tuple(Generator((word ^ salt(n)) | 1, begun, rates.get(n, 0), 0)) for n in names]
    return np.array([tuple(parts)], record_dtype(tuple(names), record_dtype(Generator._fields)))[0]


@compiled
def _step(generator):
    """Advance a generator by one cycle."""
    value = generator.value
    value ^= (value << 13) & 0xFFFFFFFF
    value ^= value >> 17
    value ^= (value << 5) & 0xFFFFFFFF
    generator.value = value
    generator.cycle += 1


@compiled
def advance(generator, cycle):
    """Advance a generator to a cycle, if it is not there yet."""
    while generator.cycle < cycle:
        _step(generator)


@inlined
def unstalled(generator, cycle):
    """First cycle after this one in which a stream does not stall, if a stall may begin now.

    At a source, one may begin after a beat; at a sink, in any cycle.
    """
    if generator.rate == 0 or cycle < generator.start:
        return cycle + 1
    advance(generator, cycle)
    while generator.value >> 8 & 0xFF < generator.rate:
        _step(generator)
    return generator.cycle + 1
