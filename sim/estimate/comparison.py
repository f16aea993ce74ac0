"""Our accelerator beside its peers on one model, the targets, and the assumptions they rest on.

Three comparisons. *Equal multipliers*: array machines get as many multipliers as we have, whatever
their width, our clock, bandwidth and buffer. *Equal gates*: the same with as many of their
multipliers as our PEs' gates make (`sim.estimate.gates`). *A100's peak*: as many of our cores as
reach the A100's INT8 peak at our clock, with its bandwidth and a buffer of its cache's size that
gives what they read.

What lies between layers is counted for ours alone, if its configuration has a vector unit; peers
have it for nothing. Ours has linear layers at several mean widths. All speed-ups are of the last
plan at the first of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from sim.estimate.assumptions import OF_TWO, PRUNING, Assumption, Change, Counting, Rival
from sim.estimate.gates import Measure, load_multipliers, worth
from sim.estimate.head_plans import HeadPlans
from sim.estimate.linear_layers import LINEAR_BITS, LinearCycles, linear_cycles
from sim.estimate.machine import A100_BUFFER_GBS, Machine, Resources
from sim.estimate.paper_figures import peak_speedup
from sim.estimate.peers import A100, LayerWork, Peer, Sanger, ViTCoD, array_peers, gpu_peers
from sim.estimate.performance import Estimate, HeadCycles, estimate, head_cycles
from sim.estimate.targets import WANTED, Target, Wanted, width_limit
from sim.estimate.workloads import Workload

__all__ = ["Comparison", "compare"]

#: Pruning machines, each at equal multipliers and at equal gates.
_PRUNERS = {
    Rival.SANGER: Sanger,
    Rival.VITCOD: ViTCoD,
    Rival.SANGER_GATES: Sanger,
    Rival.VITCOD_GATES: ViTCoD,
}

#: Block rows of a superblock for which the comparison at the A100's peak goes without a buffer.
SUPERBLOCKS = (4, 8, 16)


class Comparison:
    """One model on our machine and on others.

    Parameters
    ----------
    workload : Workload
        The model.
    machine : Machine
        Ours.
    plans : sequence of HeadPlans
        Plans to compare; the last is that of equal quality.
    density : float
        Share of attention weights that pruning peers must keep.
    linear_bits : sequence of float
        Mean widths of linear layers; the first is that of all plans, the last plan has the others
        too.

    Raises
    ------
    ParoError
        If a width is not legal, or model, plans and configuration do not fit each other.
    """

    def __init__(
        self,
        workload: Workload,
        machine: Machine,
        plans: Sequence[HeadPlans],
        density: float,
        linear_bits: Sequence[float] = LINEAR_BITS,
    ) -> None:
        self.workload, self.machine, self.plans = workload, machine, tuple(plans)
        self.density, self.linear_bits = density, tuple(linear_bits)
        self._layers: dict[float, LinearCycles] = {}
        gpu = A100.resources()
        at_clock = replace(
            gpu,
            macs=gpu.macs_per_second / (machine.clock_mhz * 1e6),
            clock_hz=machine.clock_mhz * 1e6,
        )
        self.gpu_machine = machine.with_resources(at_clock)
        self._cycles = [head_cycles(workload, machine, plan) for plan in self.plans]
        own, *others = self.linear_bits
        self.ours, self.ours_at_peak = (
            [self._estimate(at, own, index) for index in range(len(plans))]
            for at in (machine, self.gpu_machine)
        )
        #: The last plan with linear layers at other widths.
        self.others, self.others_at_peak = (
            [self._estimate(at, bits) for bits in others] for at in (machine, self.gpu_machine)
        )

    def _linear(self, bits: float) -> LinearCycles:
        """Cycles of linear layers at a mean width; computed once."""
        if bits not in self._layers:
            self._layers[bits] = linear_cycles(self.workload, self.machine.config, bits)
        return self._layers[bits]

    def _estimate(self, machine: Machine, bits: float | None = None, index: int = -1) -> Estimate:
        """Estimate a plan with linear layers at a mean width, by default that of comparisons."""
        linear = self._linear(self.linear_bits[0] if bits is None else bits)
        return estimate(self.workload, machine, self.plans[index], linear, self._cycles[index])

    # -- rows of the tables ---------------------------------------------------------------------

    def _row(
        self, name: str, attention: float, linear: float, exposed: float = 0.0
    ) -> dict[str, Any]:
        """Seconds of a step from those of a pass."""
        passes = self.workload.guidance_passes
        total = attention + linear + exposed
        return {
            "machine": name,
            "attention_seconds": attention * passes,
            "linear_seconds": linear * passes,
            "exposed_seconds": exposed * passes,
            "step_seconds": total * passes,
            "sample_seconds": total * self.workload.passes,
        }

    def _peer_row(self, peer: Peer, resources: Resources) -> dict[str, Any]:
        work, layers = self._work(), self.workload.layers
        return self._row(
            peer.name,
            layers * peer.attention_seconds(work, resources),
            layers * peer.linear_seconds(work, resources),
        )

    def _our_row(self, found: Estimate) -> dict[str, Any]:
        label = f"PARO at {found.mean_bits:.2f} / {found.linear_bits:.2f} bit"
        label += ", assumed" if found.assumed else ""
        return self._row(
            label, found.attention_seconds, found.linear_seconds, found.exposed_seconds
        )

    def _work(self) -> LayerWork:
        return LayerWork(workload=self.workload, shares=self.plans[-1].shares)

    def _rows(self, ours: Sequence[Estimate], peers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Ours and peers, with the speed-up of the last plan over each."""
        rows = [self._our_row(found) for found in ours] + peers
        best = rows[len(self.plans) - 1]
        return [
            row
            | {
                "speedup": row["step_seconds"] / best["step_seconds"],
                "attention_speedup": row["attention_seconds"] / best["attention_seconds"],
            }
            for row in rows
        ]

    def equal_rows(self) -> list[dict[str, Any]]:
        """Ours and array machines at equal multipliers, clock, bandwidth and buffer."""
        peers = array_peers(self.density)
        rows = [self._peer_row(peer, self.machine.resources) for peer in peers]
        return self._rows([*self.ours, *self.others], rows)

    def gate_rows(self) -> list[dict[str, Any]]:
        """The same at equal gates of the multipliers; each with its number of ``multipliers``."""
        own, rows = self.machine.resources, []
        for peer in array_peers(self.density):
            resources = _of_equal_gates(peer, own)
            rows.append(self._peer_row(peer, resources) | {"multipliers": resources.macs})
        ours = self._rows([*self.ours, *self.others], rows)
        return [{"multipliers": own.macs} | row for row in ours]

    def peak_rows(self) -> list[dict[str, Any]]:
        """Ours and GPUs at the A100's peak and bandwidth; GPUs at their stated efficiency."""
        rows = [self._peer_row(peer, A100.resources()) for peer in gpu_peers()]
        return self._rows([*self.ours_at_peak, *self.others_at_peak], rows)

    # -- speed-ups and what decides them ---------------------------------------------------------

    @property
    def attention_share(self) -> float:
        """Share of attention in the FP16 time on an A100: published, or by its model."""
        known = self.workload.fp16_attention_share
        return self._modelled_share() if known is None else known

    def _modelled_share(self) -> float:
        work, gpu = self._work(), A100.resources()
        return A100().attention_seconds(work, gpu) / A100().layer_seconds(work, gpu)

    def over_a100(self, found: Estimate, share: float | None = None) -> float:
        """Speed-up over FP16 on the A100 at its INT8 peak, the A100 granted our utilisation."""
        peak, layers = self.gpu_machine.resources.macs_per_second, self.workload.layers
        attention = found.attention_seconds * peak / (layers * self.workload.attention_macs)
        linear = found.other_seconds * peak / (layers * self.workload.linear_macs)
        return peak_speedup(self.attention_share if share is None else share, attention, linear)

    def over_peer(
        self,
        peer: Peer,
        found: Estimate,
        resources: Resources,
        *,
        attention_alone: bool = False,
    ) -> float:
        """Speed-up over an array machine.

        Parameters
        ----------
        peer : Peer
        found : Estimate
            Ours.
        resources : Resources
            The peer's.
        attention_alone : bool
            Leave linear layers out.
        """
        theirs = peer.attention_seconds(self._work(), resources)
        own = found.attention_seconds
        if not attention_alone:
            theirs += peer.linear_seconds(self._work(), resources)
            own += found.other_seconds
        return theirs * self.workload.layers / own

    def _over_pruner(
        self, over: Rival, found: Estimate, resources: Resources, counting: Counting
    ) -> float:
        density = self.density if counting.density is None else counting.density
        peer = _PRUNERS[over](density=density, bits=counting.bits)
        if over.equal_gates:
            resources = _of_equal_gates(peer, resources, counting.measure)
        alone = counting.attention_alone
        return self.over_peer(peer, found, resources, attention_alone=alone)

    def _over_pruners(
        self, found: Estimate, resources: Resources, counting: Counting
    ) -> dict[Rival, float]:
        return {over: self._over_pruner(over, found, resources, counting) for over in _PRUNERS}

    def _speedups(
        self, found: Estimate, at_peak: Estimate, resources: Resources
    ) -> dict[Rival, float]:
        return {
            Rival.A100: self.over_a100(at_peak),
            **self._over_pruners(found, resources, Counting()),
        }

    def sensitivity(self) -> list[Change]:
        """Speed-ups of the last plan: as assumed, then with one assumption changed at a time."""
        return [Change(Assumption.NONE, self._plan_speedups(-1)), *self._changes()]

    def _plan_speedups(self, index: int) -> dict[Rival, float]:
        """Speed-ups of a plan."""
        return self._speedups(self.ours[index], self.ours_at_peak[index], self.machine.resources)

    def _changes(self) -> Iterator[Change]:
        yield from self._changes_of_width()
        yield from self._changes_at_peak()
        yield from self._changes_of_bandwidth()
        yield from self._changes_of_pruning()

    def _changes_of_width(self) -> Iterator[Change]:
        """Other mean widths, and cores without a lane that waits."""
        own = self.ours[-1]
        for index, other in enumerate(self.ours[:-1]):
            widths = {"other": other.mean_bits, "own": own.mean_bits}
            yield Change(Assumption.MEAN_WIDTH, self._plan_speedups(index), widths)
        resources = self.machine.resources
        for other, at_peak in zip(self.others, self.others_at_peak, strict=True):
            widths = {"other": other.linear_bits, "own": own.linear_bits}
            speedups = self._speedups(other, at_peak, resources)
            yield Change(Assumption.LINEAR_WIDTH, speedups, widths)
        cycles, linear = self._cycles[-1], self._linear(self.linear_bits[0])
        ideal = HeadCycles(cycles.ideal, cycles.ideal)
        full, full_at_peak = (
            estimate(self.workload, machine, self.plans[-1], linear.full(), ideal)
            for machine in (self.machine, self.gpu_machine)
        )
        yield Change(Assumption.FULL_LANES, self._speedups(full, full_at_peak, resources))

    def _changes_at_peak(self) -> Iterator[Change]:
        """The comparison at the A100's peak: its share of attention, efficiency and cache."""
        at_peak, gpu = self.ours_at_peak[-1], self.gpu_machine
        for assumption, share in (
            (Assumption.MODELLED_SHARE, self._modelled_share()),
            (Assumption.COUNTED_SHARE, self.workload.attention_share),
        ):
            speedups = {Rival.A100: self.over_a100(at_peak, share)}
            yield Change(assumption, speedups, {"share": share})
        theirs = self._peer_row(A100(), A100.resources())["step_seconds"]
        own_efficiency = theirs / self._our_row(at_peak)["step_seconds"]
        yield Change(Assumption.OWN_EFFICIENCY, {Rival.A100: own_efficiency})
        bare = self._estimate(replace(gpu, buffer_mib=0))
        yield Change(Assumption.NO_BUFFER, {Rival.A100: self.over_a100(bare)})
        for rows in SUPERBLOCKS:
            sharing = gpu.config.changed(query_rows=rows)
            shared = self._estimate(replace(gpu, buffer_mib=0, config=sharing))
            speedups = {Rival.A100: self.over_a100(shared)}
            yield Change(Assumption.SUPERBLOCKS, speedups, {"rows": rows})
        cached = self._estimate(replace(gpu, buffer_gbs=A100_BUFFER_GBS))
        speedups = {Rival.A100: self.over_a100(cached)}
        yield Change(Assumption.SLOW_BUFFER, speedups, {"gbs": A100_BUFFER_GBS})

    def _changes_of_bandwidth(self) -> Iterator[Change]:
        machine, gpu = self.machine, self.gpu_machine
        for assumption, factor in (
            (Assumption.HALF_BANDWIDTH, 0.5),
            (Assumption.TWICE_BANDWIDTH, 2.0),
        ):
            changed = replace(machine, bandwidth_gbs=machine.bandwidth_gbs * factor)
            peak_changed = replace(gpu, bandwidth_gbs=gpu.bandwidth_gbs * factor)
            speedups = self._speedups(
                self._estimate(changed), self._estimate(peak_changed), changed.resources
            )
            yield Change(assumption, speedups)

    def _changes_of_pruning(self) -> Iterator[Change]:
        own, resources = self.ours[-1], self.machine.resources
        for assumption, counting in PRUNING.items():
            speedups = self._over_pruners(own, resources, counting)
            if assumption is Assumption.CELL_AREAS:
                speedups = {over: speedups[over] for over in speedups if over.equal_gates}
            yield Change(assumption, speedups)
        for other in self.others:
            speedups = self._over_pruners(other, resources, Counting(density=1.0))
            yield Change(Assumption.UNPRUNED_LINEAR, speedups, {"other": other.linear_bits})

    # -- targets ----------------------------------------------------------------------------------

    def _found(self, wanted: Wanted, index: int) -> tuple[float, float]:
        """Speed-up of a plan where one is wanted, and if our linear layers took no time."""
        at = self.gpu_machine if wanted.over is Rival.A100 else self.machine
        with_linear = self._estimate(at, wanted.linear_bits, index)
        counting = Counting(density=1.0 if wanted.keeps_all else None)

        def speedup(ours: Estimate) -> float:
            if wanted.over is Rival.A100:
                return self.over_a100(ours)
            return self._over_pruner(wanted.over, ours, self.machine.resources, counting)

        return speedup(with_linear), speedup(replace(with_linear, linear_seconds=0.0))

    def _assumed(self, wanted: Wanted) -> str:
        """What a target rests on, in words."""
        if wanted.over is Rival.A100:
            return (
                "papers' convention: equal INT8 peak and efficiency, attention "
                f"{self.attention_share:.1%} of the FP16 time"
            )
        kept = "all" if wanted.keeps_all else f"{self.density:.0%}"
        peer = _PRUNERS[wanted.over]()
        each = f"{worth(peer.multiplier):.2f} PEs" if wanted.over.equal_gates else "one PE"
        return f"a {peer.bits}-bit multiplier for {each}, pruning keeps {kept} of the attention"

    def targets(self, sensitivity: Sequence[Change]) -> list[Target]:
        """The speed-ups that are wanted, for every plan; ``sensitivity`` as of `sensitivity`."""
        targets, last = [], len(self.plans) - 1
        for index, plan in enumerate(self.plans):
            for wanted in WANTED:
                found, without_linear = self._found(wanted, index)
                decided: tuple[str, ...] = ()
                if found < wanted.speedup and index == last:
                    decided = _deciding(wanted, sensitivity)
                elif found < wanted.speedup <= self._found(wanted, last)[0]:
                    decided = (f"attention at {self.plans[last].mean_bits:.2f} bit",)
                targets.append(
                    Target(
                        wanted=wanted,
                        bits=plan.mean_bits,
                        found=found,
                        assumption=self._assumed(wanted),
                        linear_bits_limit=width_limit(wanted, found, without_linear),
                        decided_by=decided,
                    )
                )
        return targets


def _deciding(wanted: Wanted, sensitivity: Sequence[Change]) -> tuple[str, ...]:
    """Changes that reach a speed-up: of one assumption, or if none does, of two."""
    enough = [c for c in sensitivity if c.speedups.get(wanted.over, 0) >= wanted.speedup]
    of_one = [change for change in enough if change.assumption not in OF_TWO]
    return tuple(change.label for change in of_one or enough)


def _of_equal_gates(peer: Peer, own: Resources, measure: Measure = Measure.GATES) -> Resources:
    """As many of a peer's multipliers as have the gates of our PEs."""
    return replace(own, macs=own.macs / worth(peer.multiplier, measure))


def compare(
    workload: Workload,
    machine: Machine,
    plans: Sequence[HeadPlans],
    density: float,
    linear_bits: Sequence[float] = LINEAR_BITS,
) -> dict[str, Any]:
    """Compare a model on our machine with its peers; parameters as `Comparison`.

    Returns
    -------
    dict
        The report of `paro estimate`.

    Raises
    ------
    ParoError
        As `Comparison`.
    """
    found = Comparison(workload, machine, plans, density, linear_bits)
    sensitivity = found.sensitivity()
    return {
        "model": workload.model_dump(),
        "tokens": workload.tokens,
        "configuration": machine.config.model_dump(),
        "machine": {
            "cores": machine.cores,
            "macs": machine.resources.macs,
            "clock_mhz": machine.clock_mhz,
            "bandwidth_gbs": machine.bandwidth_gbs,
            "buffer_mib": machine.buffer_mib,
            "buffer_gbs": machine.buffer_gbs,
            "latency": machine.latency,
        },
        "pruned_density": density,
        "attention_share": found.attention_share,
        "linear_bits": list(found.linear_bits),
        "multipliers": {name: asdict(one) for name, one in load_multipliers().items()},
        "ours": [one.report(workload) for one in (*found.ours, *found.others)],
        "ours_at_a100_peak": [
            one.report(workload) for one in (*found.ours_at_peak, *found.others_at_peak)
        ],
        "a100_peak_cores": found.gpu_machine.cores,
        "equal_resources": found.equal_rows(),
        "equal_gates": found.gate_rows(),
        "a100_peak": found.peak_rows(),
        "targets": [target.report() for target in found.targets(sensitivity)],
        "sensitivity": [change.report() for change in sensitivity],
    }
