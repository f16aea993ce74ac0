"""Time of a whole model on our accelerator.

Attention goes layer by layer: the block rows of its heads are dealt out to the cores, a row to a
core, counted as equally long; a cluster takes as many rows as it has cores. Reading, multiplying
and writing overlap: the slowest of these counts, head by head:

* the array (cycles of the model, which hide softmax and reorder),
* the read ports of the cores or clusters (K and V of every live block, once for a wave),
* the buffer, if its bandwidth is given (the same),
* the memory (the same, or Q, K and V once if the buffer holds K and V; and O).

Cross attention is one more head of each, of all tokens' queries and the text's keys, dense at 8
bits.

A buffer holds K and V of all heads that have a row in work; where it has room for fewer, these
heads are finished before the next ones begin, and cores without a row wait.

Linear layers run on the same arrays (`sim.estimate.linear_layers`), under the traffic rule of
`sim.estimate.traffic`; a weight is a byte in memory, whatever its width. What lies between layers
is the vector unit's (`sim.estimate.vector_steps`), if the configuration has one: the time in which
cores wait for it is added, and its bytes take their share of the memory. Not counted: text encoder,
image decoder, and what a cross attention does with the text's rows before it reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from paro.config import Config
from paro.config.config import blocks_of
from paro.config.errors import ParoError
from paro.config.formats import EIGHT_BITS
from sim.cycles.attention_time import (
    attention_cycles,
    ideal_cycles,
    read_bytes,
    written_bytes,
)
from sim.estimate.head_plans import HeadPlans
from sim.estimate.linear_layers import LinearCycles
from sim.estimate.machine import Machine
from sim.estimate.traffic import heads_held, linear_bytes, linear_reads, linear_tile
from sim.estimate.vector_steps import vector_time
from sim.estimate.workloads import Workload, check_fits

__all__ = ["Estimate", "HeadCycles", "estimate", "head_cycles"]

#: Possible bounds of a head or a linear layer.
BOUNDS = ("array", "port", "buffer", "memory")


@dataclass(frozen=True, eq=False)
class HeadCycles:
    """Cycles of each map of some plans, of all cores together; their computation is slow.

    Parameters
    ----------
    measured, ideal : np.ndarray
        float64 [maps]. The cores of a cluster count until the last one ends. Behind the maps of
        the plans stands that of a cross attention, if the model has one.
    """

    measured: np.ndarray
    ideal: np.ndarray


def head_cycles(workload: Workload, machine: Machine, plans: HeadPlans) -> HeadCycles:
    """Run the cycle model over the heads of a model.

    Raises
    ------
    ParoError
        If model, plans and configuration do not fit each other.
    """
    config = machine.config
    check_fits(workload, config)
    if config.block != plans.block:
        raise ParoError(f"block = {config.block} does not fit the plan, which has {plans.block}")
    heads = _head_kinds(workload, config, plans)
    return HeadCycles(
        measured=np.concatenate([kind.measured(config, machine.latency) for kind in heads]),
        ideal=np.concatenate([kind.ideal(config) for kind in heads]),
    )


@dataclass(frozen=True, eq=False)
class _Heads:
    """Heads of one kind: their maps, how many of each a pass has, tokens of queries and keys."""

    codes: np.ndarray
    counts: np.ndarray
    queries: range
    keys: int

    def measured(self, config: Config, latency: int) -> np.ndarray:
        """Cycles of each map, by the cycle model."""
        found = attention_cycles(config, self.codes, self.keys, self.queries, latency=latency)
        return found.astype(np.float64)

    def ideal(self, config: Config) -> np.ndarray:
        """Cycles of each map if every lane worked in every cycle."""
        return ideal_cycles(config, self.codes, self.keys, self.queries)

    def moved(self, config: Config, *, held: bool) -> tuple[np.ndarray, np.ndarray]:
        """Bytes of each map: read through the port, and moved by the memory."""
        through_port, at_least = read_bytes(config, self.codes, self.keys, self.queries)
        from_memory = at_least if held else through_port
        return through_port, from_memory + written_bytes(config, len(self.queries))


def _head_kinds(workload: Workload, config: Config, plans: HeadPlans) -> list[_Heads]:
    """Heads of self-attention, and of a cross attention behind each."""
    queries, text = range(workload.tokens), workload.cross_tokens
    kinds = [_Heads(plans.codes, plans.counts, queries, len(queries))]
    if text:
        shape = (1, config.blocks_of(len(queries)), config.blocks_of(text))
        count = np.array([float(workload.layers * workload.heads)])
        kinds.append(_Heads(np.full(shape, EIGHT_BITS, np.uint8), count, queries, text))
    return kinds


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Time of one pass through a model.

    Parameters
    ----------
    attention_seconds, linear_seconds : float
        Of all layers; attention is cross attention too.
    exposed_seconds : float
        In which the cores wait for vector steps, or for the memory because of these.
    vector_seconds : float
        In which the vector unit works; all but the exposed ones while the cores do.
    utilisation : float
        Share of the lanes that work on valid tokens while the array alone bounds attention.
    linear_utilisation : float
        The same of linear layers.
    mean_bits, density : float
        Of the plans, which a cross attention is no part of.
    linear_bits : float
        Mean width of the weights of linear layers.
    attention_bounds : dict of str to float
        Share of the attention's seconds that each of `BOUNDS` takes.
    linear_bound : str
        The bound of linear layers.
    moved_bytes : float
        Between memory and chip.
    core_reads, linear_core_reads : float
        Bytes that all cores read in a second of attention, and of linear layers.
    plans : str
        Where the plans come from.
    assumed : bool
        Whether nothing of them was measured.
    """

    attention_seconds: float
    linear_seconds: float
    exposed_seconds: float
    vector_seconds: float
    utilisation: float
    linear_utilisation: float
    mean_bits: float
    density: float
    linear_bits: float
    attention_bounds: Mapping[str, float]
    linear_bound: str
    moved_bytes: float
    core_reads: float
    linear_core_reads: float
    plans: str
    assumed: bool

    @property
    def pass_seconds(self) -> float:
        """Seconds of a pass."""
        return self.attention_seconds + self.other_seconds

    @property
    def other_seconds(self) -> float:
        """Seconds of a pass beside attention."""
        return self.linear_seconds + self.exposed_seconds

    @property
    def pass_utilisation(self) -> float:
        """Share of the lanes that work over a whole pass, where the array bounds its layers."""
        working = self.utilisation * self.attention_seconds
        working += self.linear_utilisation * self.linear_seconds
        return working / self.pass_seconds

    def report(self, workload: Workload) -> dict[str, Any]:
        """Figures for tables and JSON."""
        return {
            "mean_bits": round(self.mean_bits, 4),
            "density": round(self.density, 4),
            "linear_bits": round(self.linear_bits, 4),
            "plans": self.plans,
            "assumed": self.assumed,
            "utilisation": round(self.utilisation, 4),
            "linear_utilisation": round(self.linear_utilisation, 4),
            "attention_seconds": self.attention_seconds * workload.guidance_passes,
            "linear_seconds": self.linear_seconds * workload.guidance_passes,
            "exposed_seconds": self.exposed_seconds * workload.guidance_passes,
            "vector_seconds": self.vector_seconds * workload.guidance_passes,
            "pass_utilisation": round(self.pass_utilisation, 4),
            "step_seconds": self.pass_seconds * workload.guidance_passes,
            "sample_seconds": self.pass_seconds * workload.passes,
            "attention_bounds": {
                key: round(part, 4) for key, part in self.attention_bounds.items()
            },
            "linear_bound": self.linear_bound,
            "gigabytes_per_step": self.moved_bytes * workload.guidance_passes / 1e9,
            "core_reads_gbs": self.core_reads / 1e9,
            "linear_core_reads_gbs": self.linear_core_reads / 1e9,
        }


def estimate(
    workload: Workload,
    machine: Machine,
    plans: HeadPlans,
    linear: LinearCycles,
    cycles: HeadCycles | None = None,
) -> Estimate:
    """Estimate a pass through a model.

    Parameters
    ----------
    workload : Workload
        The model.
    machine : Machine
        Our accelerator.
    plans : HeadPlans
        Codes of its heads.
    linear : LinearCycles
        Of its linear layers, by `linear_layers.linear_cycles`.
    cycles : HeadCycles, optional
        If they are known from a machine of the same configuration and latency.

    Raises
    ------
    ParoError
        As `head_cycles`.
    """
    known = head_cycles(workload, machine, plans) if cycles is None else cycles
    config, resources = machine.config, machine.resources
    held = heads_held(workload, 1, resources.buffer)
    heads = _head_kinds(workload, config, plans)
    counts = np.concatenate([kind.counts for kind in heads])
    through_port, from_memory = np.concatenate(
        [kind.moved(config, held=held > 0) for kind in heads], axis=1
    )
    rows = blocks_of(plans.codes.shape[1], config.cores)
    waits = _waits(rows, workload.heads, machine.clusters, held)
    from_buffer = 1e9 * machine.buffer_gbs if held and machine.buffer_gbs else np.inf
    parts = np.stack(
        [
            known.measured * waits / (machine.cores * resources.clock_hz),
            through_port * waits / machine.port_bandwidth,
            through_port / from_buffer,
            from_memory / resources.bandwidth,
        ]
    )
    seconds = counts * parts.max(axis=0)
    bound = parts.argmax(axis=0)
    total = float(seconds.sum())
    crossed = float(seconds[len(plans.codes) :].sum())

    group = config.layer_tokens * config.wave_rows
    tiles = (linear_tile(side, resources.buffer) for side in (config.block, group))
    moved = linear_bytes(workload, 1, *tiles)
    read = linear_reads(workload, 1, config.block, group)
    layers = [
        linear.shared(machine.cores) / resources.clock_hz,
        read / machine.port_bandwidth,
        read / from_buffer,
        moved / resources.bandwidth,
    ]
    shares = linear.shares(machine.cores)
    cycles_of_layer = resources.clock_hz / workload.layers
    vector = vector_time(
        workload,
        machine,
        (total - crossed) * cycles_of_layer,
        [share * max(layers) * resources.clock_hz for share in shares],
        crossed * cycles_of_layer,
    )
    all_moved = float(counts @ from_memory) + workload.layers * (moved + vector.moved_bytes)
    computed = total + workload.layers * max(layers)
    exposed = workload.layers * vector.exposed_seconds
    if vector.moved_bytes:
        exposed = max(exposed, all_moved / resources.bandwidth - computed)
    return Estimate(
        attention_seconds=total,
        linear_seconds=workload.layers * max(layers),
        exposed_seconds=exposed,
        vector_seconds=workload.layers * vector.busy_seconds,
        utilisation=float(counts @ known.ideal / (counts @ known.measured)),
        linear_utilisation=linear.utilisation,
        mean_bits=plans.mean_bits,
        density=plans.density,
        linear_bits=linear.mean_bits,
        attention_bounds={
            name: float(seconds[bound == index].sum() / total) for index, name in enumerate(BOUNDS)
        },
        linear_bound=BOUNDS[int(np.argmax(layers))],
        moved_bytes=all_moved,
        core_reads=float(counts @ through_port) / total,
        linear_core_reads=read / max(layers),
        plans=plans.source,
        assumed=plans.assumed,
    )


def _waits(rows: int, heads: int, cores: float, held: int) -> float:
    """Time of a layer's attention over that of its rows spread evenly over the cores.

    Of clusters, ``rows`` are as many rows as one has cores, and ``cores`` are clusters.
    ``held`` heads have room in the buffer; 0 if none has, and every core reads for itself.
    """
    at_once = heads
    if 0 < held < min(heads, ceil(cores / rows) + 1):
        at_once = held
    even = at_once * rows / cores
    return ceil(even) / even
