"""Our accelerator beside its peers on one model, the targets, and what decides them.

Two comparisons. *Equal resources*: array machines get our multipliers (one for one, whatever their
width), clock, bandwidth and buffer. *A100's peak*: as many of our cores as reach the A100's INT8
peak at our clock, with its bandwidth and a buffer of its cache's size that gives what they read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sim.estimate.equal_quality import PRUNED_DENSITY
from sim.estimate.head_plans import HeadPlans
from sim.estimate.machine import A100_BUFFER_GBS, Machine, Resources
from sim.estimate.paper_figures import peak_speedup
from sim.estimate.peers import A100, Peer, Sanger, ViTCoD, Work, array_peers, gpu_peers
from sim.estimate.performance import Estimate, HeadCycles, estimate, head_cycles
from sim.estimate.workloads import Workload

__all__ = ["Comparison", "Target", "compare"]

#: Multipliers of 8 x 8 bits that one of 16 x 16 is made of.
_WIDE = 4


@dataclass(frozen=True, kw_only=True)
class Target:
    """A speed-up that is wanted.

    Parameters
    ----------
    over : str
        Which machine.
    bits : float
        Our mean width.
    wanted, found : float
    decided_by : tuple of str
        If it fails: changes of one assumption that would let it hold, as in the sensitivity table.
    """

    over: str
    bits: float
    wanted: float
    found: float
    decided_by: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the speed-up is reached."""
        return self.found >= self.wanted


#: Speed-ups that are wanted, over each machine.
_WANTED = {"A100": 3.2, "Sanger": 7.05, "ViTCoD": 7.05}


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
        density: float = PRUNED_DENSITY,
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

    def _work(self) -> Work:
        return Work(workload=self.workload, shares=self.plans[-1].shares)

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

    def _pruners(self, density: float) -> tuple[Peer, Peer]:
        return Sanger(density=density), ViTCoD(density=density)

    def _speedups(
        self, found: Estimate, at_peak: Estimate, resources: Resources, **counting: bool
    ) -> dict[str, float]:
        pruners = self._pruners(self.density)
        return {"A100": self.over_a100(at_peak)} | {
            peer.name: self.over_peer(peer, found, resources, **counting) for peer in pruners
        }

    def sensitivity(self) -> list[dict[str, Any]]:
        """Speed-ups of the last plan with one assumption changed at a time; null if not touched."""
        plan, cycles = self.plans[-1], self._cycles[-1]
        machine, gpu = self.machine, self.gpu_machine
        found, at_peak = self.ours[-1], self.ours_at_peak[-1]
        resources = machine.resources
        base = self._speedups(found, at_peak, resources)
        rows: list[dict[str, Any]] = [{"assumption": "as assumed"} | base]

        def add(assumption: str, **speedups: float) -> None:
            rows.append({"assumption": assumption} | dict.fromkeys(base) | speedups)

        def pruned(density: float, **counting: bool) -> dict[str, float]:
            return {
                peer.name: self.over_peer(peer, found, resources, **counting)
                for peer in self._pruners(density)
            }

        for other, other_at_peak in zip(self.ours[:-1], self.ours_at_peak[:-1], strict=True):
            speedups = self._speedups(other, other_at_peak, resources)
            add(
                f"mean width {other.mean_bits:.2f} in place of {found.mean_bits:.2f} bit",
                **speedups,
            )
        ideal = HeadCycles(cycles.ideal, cycles.ideal, 1.0)
        add(
            "every lane works in every cycle",
            **self._speedups(
                estimate(self.workload, machine, plan, ideal),
                estimate(self.workload, gpu, plan, ideal),
                resources,
            ),
        )
        for label, share in (
            ("the A100's model", self._modelled_share()),
            ("multiply-accumulates alone", self.workload.attention_share),
        ):
            add(
                f"attention's share of FP16 time by {label}: {share:.1%}",
                A100=self.over_a100(at_peak, share),
            )
        peak = self.peak_rows()
        ours, fp16 = peak[len(self.ours) - 1], peak[len(self.ours)]
        add("the A100 at its own efficiency", A100=fp16["step_seconds"] / ours["step_seconds"])
        bare = replace(gpu, buffer_mib=0)
        add(
            "no buffer at the A100's peak",
            A100=self.over_a100(estimate(self.workload, bare, plan, cycles)),
        )
        cached = replace(gpu, buffer_gbs=A100_BUFFER_GBS)
        add(
            f"the buffer at the A100's peak gives what its cache does, {A100_BUFFER_GBS:,.0f} GB/s",
            A100=self.over_a100(estimate(self.workload, cached, plan, cycles)),
        )
        for factor, label in ((0.5, "half"), (2.0, "twice")):
            changed = replace(machine, bandwidth_gbs=machine.bandwidth_gbs * factor)
            peak_changed = replace(gpu, bandwidth_gbs=gpu.bandwidth_gbs * factor)
            add(
                f"{label} the bandwidth, of ours and of the other arrays",
                **self._speedups(
                    estimate(self.workload, changed, plan, cycles),
                    estimate(self.workload, peak_changed, plan, cycles),
                    changed.resources,
                ),
            )
        add("pruning keeps 30 % of the weights", **pruned(0.3))
        add("pruning keeps all weights", **pruned(1.0))
        add("a multiplier of 16 bits counts as four of 8", **pruned(self.density, wide=True))
        add("attention alone, no linear layers", **pruned(self.density, attention_alone=True))
        add(
            "attention alone, and 16 bits count as four of 8",
            **pruned(self.density, wide=True, attention_alone=True),
        )
        add("all weights kept, and 16 bits count as four of 8", **pruned(1.0, wide=True))
        add(
            "attention alone, all weights kept, 16 bits count as four of 8",
            **pruned(1.0, wide=True, attention_alone=True),
        )
        return rows

    def targets(self) -> list[Target]:
        """The speed-ups that are wanted, for every plan."""
        changes = self.sensitivity()[1:]
        resources = self.machine.resources
        last = self._speedups(self.ours[-1], self.ours_at_peak[-1], resources)
        found = []
        for ours, at_peak in zip(self.ours, self.ours_at_peak, strict=True):
            speedups = self._speedups(ours, at_peak, resources)
            for over, wanted in _WANTED.items():
                fails = speedups[over] < wanted and ours is self.ours[-1]
                decided = tuple(
                    row["assumption"] for row in changes if fails and (row[over] or 0) >= wanted
                )
                if speedups[over] < wanted <= last[over]:
                    decided = (f"mean width {self.ours[-1].mean_bits:.2f} bit",)
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
    density: float = PRUNED_DENSITY,
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
                "over": target.over,
                "mean_bits": round(target.bits, 4),
                "wanted": target.wanted,
                "found": target.found,
                "holds": target.holds,
                "decided_by": list(target.decided_by),
            }
            for target in found.targets()
        ],
        "sensitivity": found.sensitivity(),
    }
