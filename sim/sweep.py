"""Many machines on one model, on all cores or on a cluster, resumable.

A job is one array under one plan: the cycle model runs once for all its clocks and bandwidths. Jobs
go through joblib, so that ``joblib.parallel_config(backend="dask")`` around `sweep` takes them to a
cluster unchanged. Each point is a file of its own, written whole; what lies there is not computed
again. Its name is a digest of all that the point depends on.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import joblib

from firmware_model.progress import Progress, Steps
from paro_config import Config
from paro_config.errors import ParoError
from paro_config.files import write_json
from sim.area import load_area_model
from sim.head_plans import HeadPlans
from sim.machine import Machine
from sim.performance import estimate, head_cycles
from sim.workloads import Workload

__all__ = ["Grid", "pareto", "sweep"]

#: Changes when results of equal inputs do.
_VERSION = 1


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
    buffer_mib : float
        The same in all points.
    """

    configs: tuple[Config, ...]
    clocks_mhz: tuple[float, ...]
    bandwidths_gbs: tuple[float, ...]
    cores: float = 1.0
    buffer_mib: float = 0.0

    def machines(self, config: Config) -> Iterator[Machine]:
        """Every machine with a core."""
        for clock, bandwidth in product(self.clocks_mhz, self.bandwidths_gbs):
            yield Machine(
                config=config,
                cores=self.cores,
                clock_mhz=clock,
                bandwidth_gbs=bandwidth,
                buffer_mib=self.buffer_mib,
            )


def _path(folder: Path, workload: Workload, machine: Machine, digest: str) -> Path:
    fields = asdict(machine) | {"config": machine.config.model_dump()}
    content = json.dumps([_VERSION, workload.model_dump(), fields, digest], sort_keys=True)
    return folder / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"


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
        If the grid is empty, or model, plans and configurations do not fit each other.
    """
    if not (plans and grid.configs and grid.clocks_mhz and grid.bandwidths_gbs):
        raise ParoError("the sweep has no point; legal: one value or more of each")
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
    # `Parallel` of one job gives results as they are made, not as a list.
    results: Any = run(joblib.delayed(_job)(workload, absent, plan) for absent, plan in missing)
    for done in results:
        steps.advance(done)
    return [_load(path) for path in paths]


def _load(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ParoError(
            f"cannot read point {path}: {error}; delete it to compute it anew"
        ) from None


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
