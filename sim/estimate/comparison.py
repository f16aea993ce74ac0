"""Our accelerator beside its peers on one model, the targets, and the assumptions they rest on.

Two comparisons. *Equal resources*: array machines get our multipliers (one for one, whatever their
width), clock, bandwidth and buffer. *A100's peak*: as many of our cores as reach the A100's INT8
peak at our clock, with its bandwidth and a buffer of its cache's size that gives what they read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import Any

from sim.estimate.head_plans import HeadPlans
from sim.estimate.machine import A100_BUFFER_GBS, Machine, Resources
from sim.estimate.paper_figures import peak_speedup
from sim.estimate.peers import A100, LayerWork, Peer, Sanger, ViTCoD, array_peers, gpu_peers
from sim.estimate.performance import Estimate, HeadCycles, estimate, head_cycles
from sim.estimate.workloads import Workload

__all__ = ["Assumption", "Change", "Comparison", "Rival", "Target", "compare"]

#: Multipliers of 8 x 8 bits that one of 16 x 16 is made of.
_WIDE = 4


class Rival(StrEnum):
    """A machine that a speed-up is wanted over; the value is its name in tables and reports."""

    A100 = "A100"
    SANGER = "Sanger"
    VITCOD = "ViTCoD"


class Assumption(Enum):
    """The assumption that is changed; the value is the change in words, with figures to fill in."""

    NONE = "as assumed"
    MEAN_WIDTH = "mean width {other:.2f} in place of {own:.2f} bit"
    FULL_LANES = "every lane works in every cycle"
    MODELLED_SHARE = "attention's share of FP16 time by the A100's model: {share:.1%}"
    COUNTED_SHARE = "attention's share of FP16 time by multiply-accumulates alone: {share:.1%}"
    OWN_EFFICIENCY = "the A100 at its own efficiency"
    NO_BUFFER = "no buffer at the A100's peak"
    SLOW_BUFFER = "the buffer at the A100's peak gives what its cache does, {gbs:,.0f} GB/s"
    HALF_BANDWIDTH = "half the bandwidth, of ours and of the other arrays"
    TWICE_BANDWIDTH = "twice the bandwidth, of ours and of the other arrays"
    PRUNED_TO_30 = "pruning keeps 30 % of the weights"
    UNPRUNED = "pruning keeps all weights"
    WIDE = "a multiplier of 16 bits counts as four of 8"
    ALONE = "attention alone, no linear layers"
    ALONE_WIDE = "attention alone, and 16 bits count as four of 8"
    UNPRUNED_WIDE = "all weights kept, and 16 bits count as four of 8"
    UNPRUNED_ALONE_WIDE = "attention alone, all weights kept, 16 bits count as four of 8"


@dataclass(frozen=True, kw_only=True)
class _Counting:
    """How the work of a pruning peer is counted.

    Parameters
    ----------
    density : float, optional
        Share of the weights that pruning keeps; by default that of the comparison.
    wide : bool
        Whether a multiplier of 16 bits counts as the four of 8 bits that it is made of.
    attention_alone : bool
        Whether linear layers are left out.
    """

    density: float | None = None
    wide: bool = False
    attention_alone: bool = False


#: Assumptions on pruning peers alone.
_PRUNING = {
    Assumption.PRUNED_TO_30: _Counting(density=0.3),
    Assumption.UNPRUNED: _Counting(density=1.0),
    Assumption.WIDE: _Counting(wide=True),
    Assumption.ALONE: _Counting(attention_alone=True),
    Assumption.ALONE_WIDE: _Counting(wide=True, attention_alone=True),
    Assumption.UNPRUNED_WIDE: _Counting(density=1.0, wide=True),
    Assumption.UNPRUNED_ALONE_WIDE: _Counting(density=1.0, wide=True, attention_alone=True),
}


@dataclass(frozen=True)
class Change:
    """Speed-ups of the last plan with one assumption changed.

    Parameters
    ----------
    assumption : Assumption
        The one that is changed.
    speedups : mapping of Rival to float
        Over each machine that it touches.
    figures : mapping of str to float
        Figures that the assumption's words contain.
    """

    assumption: Assumption
    speedups: Mapping[Rival, float]
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The change, in words."""
        return self.assumption.value.format(**self.figures)

    def report(self) -> dict[str, Any]:
        """Entry of ``sensitivity`` in the report; null for machines that it does not touch."""
        return {"assumption": self.label} | {str(over): self.speedups.get(over) for over in Rival}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A speed-up that is wanted.

    Parameters
    ----------
    over : Rival
        The machine.
    bits : float
        Our mean width.
    wanted, found : float
        The speed-up wanted, and that of the estimate.
    decided_by : tuple of str
        If it fails: changes of one assumption that would let it hold, as in the sensitivity table.
    """

    over: Rival
    bits: float
    wanted: float
    found: float
    decided_by: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the speed-up is reached."""
        return self.found >= self.wanted


#: Speed-ups that are wanted.
_WANTED = {Rival.A100: 3.2, Rival.SANGER: 7.05, Rival.VITCOD: 7.05}


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
        Share of weights that pruning peers must keep.
    """

    def __init__(
        self,
        workload: Workload,
        machine: Machine,
        plans: Sequence[HeadPlans],
        density: float,
    ) -> None:
        self.workload, self.machine, self.plans = workload, machine, tuple(plans)
        self.density = density
        gpu = A100.resources()
        at_clock = replace(
            gpu,
            macs=gpu.macs_per_second / (machine.clock_mhz * 1e6),
            clock_hz=machine.clock_mhz * 1e6,
        )
        self.gpu_machine = machine.with_resources(at_clock)
        self._cycles = [head_cycles(workload, machine, plan) for plan in self.plans]
        self.ours = self._estimates(machine)
        self.ours_at_peak = self._estimates(self.gpu_machine)

    def _estimates(self, machine: Machine) -> list[Estimate]:
        pairs = zip(self.plans, self._cycles, strict=True)
        return [estimate(self.workload, machine, plan, cycles) for plan, cycles in pairs]

    # -- rows of the tables ---------------------------------------------------------------------

    def _row(self, name: str, attention: float, linear: float) -> dict[str, Any]:
        """Seconds of a step from those of a pass."""
        passes = self.workload.guidance_passes
        total = attention + linear
        return {
            "machine": name,
            "attention_seconds": attention * passes,
            "linear_seconds": linear * passes,
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
        label = f"PARO at {found.mean_bits:.2f} bit" + (", assumed" if found.assumed else "")
        return self._row(label, found.attention_seconds, found.linear_seconds)

    def _work(self) -> LayerWork:
        return LayerWork(workload=self.workload, shares=self.plans[-1].shares)

    def equal_rows(self) -> list[dict[str, Any]]:
        """Ours and array machines at equal multipliers, clock, bandwidth and buffer."""
        rows = [self._our_row(found) for found in self.ours]
        rows += [self._peer_row(peer, self.machine.resources) for peer in array_peers(self.density)]
        return _with_speedups(rows, len(self.ours))

    def peak_rows(self) -> list[dict[str, Any]]:
        """Ours and GPUs at the A100's peak and bandwidth; GPUs at their stated efficiency."""
        rows = [self._our_row(found) for found in self.ours_at_peak]
        rows += [self._peer_row(peer, A100.resources()) for peer in gpu_peers()]
        return _with_speedups(rows, len(self.ours))

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
        linear = found.linear_seconds * peak / (layers * self.workload.linear_macs)
        return peak_speedup(self.attention_share if share is None else share, attention, linear)

    def over_peer(
        self,
        peer: Peer,
        found: Estimate,
        resources: Resources,
        *,
        wide: bool = False,
        attention_alone: bool = False,
    ) -> float:
        """Speed-up over an array machine.

        Parameters
        ----------
        peer : Peer
        found : Estimate
            Ours, on the same resources.
        resources : Resources
        wide : bool
            Count a multiplier of 16 bits as the four of 8 bits that it is made of.
        attention_alone : bool
            Leave linear layers out.
        """
        if wide and peer.bits > 8:
            resources = replace(resources, macs=resources.macs / _WIDE)
        theirs = peer.attention_seconds(self._work(), resources)
        own = found.attention_seconds
        if not attention_alone:
            theirs += peer.linear_seconds(self._work(), resources)
            own += found.linear_seconds
        return theirs * self.workload.layers / own

    def _over_pruners(
        self, found: Estimate, resources: Resources, counting: _Counting
    ) -> dict[Rival, float]:
        density = self.density if counting.density is None else counting.density
        pruners = {Rival.SANGER: Sanger(density=density), Rival.VITCOD: ViTCoD(density=density)}
        return {
            over: self.over_peer(
                peer,
                found,
                resources,
                wide=counting.wide,
                attention_alone=counting.attention_alone,
            )
            for over, peer in pruners.items()
        }

    def _speedups(
        self, found: Estimate, at_peak: Estimate, resources: Resources
    ) -> dict[Rival, float]:
        return {
            Rival.A100: self.over_a100(at_peak),
            **self._over_pruners(found, resources, _Counting()),
        }

    def sensitivity(self) -> list[Change]:
        """Speed-ups of the last plan: as assumed, then with one assumption changed at a time."""
        return [Change(Assumption.NONE, self._plan_speedups(-1)), *self._changes()]

    def _plan_speedups(self, index: int) -> dict[Rival, float]:
        """Speed-ups of a plan."""
        return self._speedups(self.ours[index], self.ours_at_peak[index], self.machine.resources)

    def _changes(self) -> Iterator[Change]:
        yield from self._changes_of_plan()
        yield from self._changes_at_peak()
        yield from self._changes_of_bandwidth()
        for assumption, counting in _PRUNING.items():
            speedups = self._over_pruners(self.ours[-1], self.machine.resources, counting)
            yield Change(assumption, speedups)

    def _estimate_last(self, machine: Machine, cycles: HeadCycles | None = None) -> Estimate:
        """Estimate the last plan on another machine, or with other cycles."""
        known = self._cycles[-1] if cycles is None else cycles
        return estimate(self.workload, machine, self.plans[-1], known)

    def _changes_of_plan(self) -> Iterator[Change]:
        """Other mean widths, and cores without a lane that waits."""
        own = self.ours[-1].mean_bits
        for index, other in enumerate(self.ours[:-1]):
            widths = {"other": other.mean_bits, "own": own}
            yield Change(Assumption.MEAN_WIDTH, self._plan_speedups(index), widths)
        cycles = self._cycles[-1]
        ideal = HeadCycles(cycles.ideal, cycles.ideal, 1.0)
        speedups = self._speedups(
            self._estimate_last(self.machine, ideal),
            self._estimate_last(self.gpu_machine, ideal),
            self.machine.resources,
        )
        yield Change(Assumption.FULL_LANES, speedups)

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
        bare = self._estimate_last(replace(gpu, buffer_mib=0))
        yield Change(Assumption.NO_BUFFER, {Rival.A100: self.over_a100(bare)})
        cached = self._estimate_last(replace(gpu, buffer_gbs=A100_BUFFER_GBS))
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
                self._estimate_last(changed), self._estimate_last(peak_changed), changed.resources
            )
            yield Change(assumption, speedups)

    def targets(self, sensitivity: Sequence[Change]) -> list[Target]:
        """The speed-ups that are wanted, for every plan; ``sensitivity`` as of `sensitivity`."""
        last = self._plan_speedups(-1)
        found = []
        for index, ours in enumerate(self.ours):
            speedups = self._plan_speedups(index)
            for over, wanted in _WANTED.items():
                decided: tuple[str, ...] = ()
                if speedups[over] < wanted <= last[over]:
                    decided = (f"mean width {self.ours[-1].mean_bits:.2f} bit",)
                elif speedups[over] < wanted and ours is self.ours[-1]:
                    decided = tuple(
                        change.label
                        for change in sensitivity
                        if change.speedups.get(over, 0) >= wanted
                    )
                found.append(
                    Target(
                        over=over,
                        bits=ours.mean_bits,
                        wanted=wanted,
                        found=speedups[over],
                        decided_by=decided,
                    )
                )
        return found


def _with_speedups(rows: list[dict[str, Any]], ours: int) -> list[dict[str, Any]]:
    """Add to each row the speed-up of our last plan over it."""
    best = rows[ours - 1]["step_seconds"]
    attention = rows[ours - 1]["attention_seconds"]
    return [
        row
        | {
            "speedup": row["step_seconds"] / best,
            "attention_speedup": row["attention_seconds"] / attention,
        }
        for row in rows
    ]


def compare(
    workload: Workload,
    machine: Machine,
    plans: Sequence[HeadPlans],
    density: float,
) -> dict[str, Any]:
    """Compare a model on our machine with its peers; parameters as `Comparison`.

    Returns
    -------
    dict
        The report of `paro estimate`.

    Raises
    ------
    ParoError
        If model, plans and configuration do not fit each other.
    """
    found = Comparison(workload, machine, plans, density)
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
        "ours": [one.report(workload) for one in found.ours],
        "ours_at_a100_peak": [one.report(workload) for one in found.ours_at_peak],
        "a100_peak_cores": found.gpu_machine.cores,
        "equal_resources": found.equal_rows(),
        "a100_peak": found.peak_rows(),
        "targets": [
            {
                "over": str(target.over),
                "mean_bits": round(target.bits, 4),
                "wanted": target.wanted,
                "found": target.found,
                "holds": target.holds,
                "decided_by": list(target.decided_by),
            }
            for target in found.targets(sensitivity)
        ],
        "sensitivity": [change.report() for change in sensitivity],
    }
