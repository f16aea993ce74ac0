"""Many machines on one model, on all cores or on a cluster, resumable.

A job is one array under one plan: the cycle model runs once for all its clocks and bandwidths. Jobs
go through joblib, so that ``joblib.parallel_config(backend="dask")`` around `sweep` takes them to a
cluster unchanged. Each point is a file of its own, written whole; what lies there is not computed
again. Its name is a digest of all that the point depends on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import joblib

from firmware_model.progress import Progress, Steps
from paro.config import Config
from paro.config.errors import ParoError
from paro.config.files import write_json
from paro.config.programs import deaf_processes
from sim.cycles.cycle_model import compile_model
from sim.estimate.area import load_area_model
from sim.estimate.head_plans import HeadPlans
from sim.estimate.machine import Machine
from sim.estimate.performance import check_fits, estimate, head_cycles
from sim.estimate.workloads import Workload
from sim.sources import kept_path, read_kept

__all__ = ["Grid", "check_sweep", "pareto", "sweep"]

#: What the point of a machine has beside its estimate's report.
_POINT = ("rows", "cols", "cores", "clock_mhz", "bandwidth_gbs", "avg_bits", "luts")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is varied; every combination is a point.

    Parameters
    ----------
    configs : tuple of Config
        Cores.
    clocks_mhz, bandwidths_gbs : tuple of float
    cores : float
        Cores side by side, the same in all points.
    buffer_mib, buffer_gbs : float
        The same in all points.
    """

    configs: tuple[Config, ...]
    clocks_mhz: tuple[float, ...]
    bandwidths_gbs: tuple[float, ...]
    cores: float = 1.0
    buffer_mib: float = 0.0
    buffer_gbs: float = 0.0

    def machines(self, config: Config) -> Iterator[Machine]:
        """Every machine with a core."""
        for clock, bandwidth in product(self.clocks_mhz, self.bandwidths_gbs):
            yield Machine(
                config=config,
                cores=self.cores,
                clock_mhz=clock,
                bandwidth_gbs=bandwidth,
                buffer_mib=self.buffer_mib,
                buffer_gbs=self.buffer_gbs,
            )


def _path(folder: Path, workload: Workload, machine: Machine, digest: str) -> Path:
    fields = asdict(machine) | {"config": machine.config.model_dump()}
    return kept_path(folder, workload.model_dump(), fields, digest)


def _job(workload: Workload, machines: list[tuple[Machine, Path]], plans: HeadPlans) -> int:
    """Compute and write the points of one array under one plan; their number."""
    area = load_area_model()
    cycles = head_cycles(workload, machines[0][0], plans)
    for machine, path in machines:
        config = machine.config
        found = estimate(workload, machine, plans, cycles)
        point = {
            "rows": config.rows,
            "cols": config.cols,
            "cores": machine.cores,
            "clock_mhz": machine.clock_mhz,
            "bandwidth_gbs": machine.bandwidth_gbs,
            "avg_bits": round(plans.mean_bits, 4),
            "luts": round(machine.cores * area.luts(config.rows, config.cols)),
            "luts_extrapolated": area.extrapolated(config.rows, config.cols),
        }
        write_json(path, point | found.report(workload))
    return len(machines)


def sweep(
    workload: Workload,
    grid: Grid,
    plans: Sequence[HeadPlans],
    folder: Path,
    *,
    jobs: int = -1,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Estimate every point of a grid under every plan.

    Parameters
    ----------
    workload : Workload
        The model.
    grid : Grid
        Machines.
    plans : sequence of HeadPlans
        One for each mean width.
    folder : Path
        Keeps the points.
    jobs : int
        Processes; all cores by default.
    progress : Progress, optional
        Told after each job, in points.

    Returns
    -------
    list of dict
        The points, in the sequence of plans, configs, clocks, bandwidths.

    Raises
    ------
    ParoError
        If the grid is empty or a machine of it not legal, model, plans and configurations do not
        fit each other, or ``jobs`` is 0.
    """
    if not (plans and grid.configs and grid.clocks_mhz and grid.bandwidths_gbs):
        raise ParoError("the sweep has no point; legal: one value or more of each")
    check_sweep(workload, grid, jobs)
    paths, missing = [], []
    for plan, config in product(plans, grid.configs):
        digest = plan.digest()
        points = [(m, _path(folder, workload, m, digest)) for m in grid.machines(config)]
        paths += [path for _, path in points]
        absent = [(machine, path) for machine, path in points if not path.exists()]
        if absent:
            missing.append((absent, plan))
    steps = Steps(progress, len(paths))
    steps.advance(len(paths) - sum(len(absent) for absent, _ in missing))
    run = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    if missing:
        compile_model()  # once, and not in each process without a word
    # `Parallel` of one job gives results as they are made, not as a list.
    with deaf_processes():
        results: Any = run(joblib.delayed(_job)(workload, absent, plan) for absent, plan in missing)
    for done in results:
        steps.advance(done)
    return [read_kept(path, {*_POINT, "sample_seconds"}) for path in paths]


def check_sweep(workload: Workload, grid: Grid, jobs: int) -> None:
    """Raise ParoError if a machine is not legal or does not take the model, or ``jobs`` is 0."""
    for config in grid.configs:
        check_fits(workload, config)
        list(grid.machines(config))
    if jobs == 0:
        raise ParoError("jobs = 0 is not legal; legal: a number of processes, or -1 for all cores")


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other beats: lower in one coordinate and not higher in the other."""
    best = [False] * len(points)
    lowest = float("inf")
    previous: tuple[float, float] | None = None
    for index in sorted(range(len(points)), key=lambda index: points[index]):
        if points[index][1] < lowest:
            lowest = points[index][1]
            previous = points[index]
            best[index] = True
        else:
            # Equal points beat each other not.
            best[index] = points[index] == previous
    return best
