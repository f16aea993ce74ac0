"""Many machines on one model, on all cores or on a cluster, resumable.

A job is one array under one plan: the cycle model runs once for all its clock rates and
bandwidths. Jobs go through joblib, so that ``joblib.parallel_config(backend="dask")`` around
`sweep` takes them to a cluster unchanged. Each point is a file of its own, written whole; a point
that lies there is not computed again. Its name is a digest of all that the point depends on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import joblib

from firmware_model.capture import Capture
from firmware_model.choices import INTEGER
from firmware_model.progress import Progress, Steps
from firmware_model.quality.study import format_study
from paro.config.errors import ParoError
from paro.config.files import write_json
from paro.config.programs import deaf_processes
from sim.cycles.cycle_model import compile_model
from sim.estimate.area import load_area_model
from sim.estimate.grid import Grid, check_sweep
from sim.estimate.head_plans import HeadPlans
from sim.estimate.linear_layers import LINEAR_BITS, check_linear_bits, linear_cycles
from sim.estimate.machine import Machine
from sim.estimate.pareto import mark_best
from sim.estimate.performance import estimate, head_cycles
from sim.estimate.workloads import Workload
from sim.sources import kept_path, read_kept

__all__ = ["captured_quality", "sweep", "sweep_report"]

#: Fields of a point beside those of its estimate's report.
_POINT = ("rows", "cols", "cores", "clock_mhz", "bandwidth_gbs", "avg_bits", "luts")


def _path(folder: Path, workload: Workload, machine: Machine, digest: str, bits: float) -> Path:
    fields = asdict(machine) | {"config": machine.config.model_dump()}
    return kept_path(folder, workload.model_dump(), fields, digest, bits)


def _job(
    workload: Workload, machines: list[tuple[Machine, Path]], plans: HeadPlans, bits: float
) -> int:
    """Compute and write the points of one array under one plan; their number."""
    area = load_area_model()
    cycles = head_cycles(workload, machines[0][0], plans)
    linear = linear_cycles(workload, machines[0][0].config, bits)
    for machine, path in machines:
        config = machine.config
        found = estimate(workload, machine, plans, linear, cycles)
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
    linear_bits: float = LINEAR_BITS[0],
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
    linear_bits : float
        Mean width of linear layers.
    jobs : int
        Processes; all cores by default.
    progress : Progress, optional
        Called after each job, in points.

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
    check_linear_bits(linear_bits)
    paths, missing = [], []
    for plan, config in product(plans, grid.configs):
        digest = plan.digest()
        points = [
            (machine, _path(folder, workload, machine, digest, linear_bits))
            for machine in grid.machines(config)
        ]
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
        results: Any = run(
            joblib.delayed(_job)(workload, absent, plan, linear_bits) for absent, plan in missing
        )
    for done in results:
        steps.advance(done)
    return [read_kept(path, {*_POINT, "sample_seconds"}) for path in paths]


def captured_quality(
    captures: Sequence[Capture],
    widths: Sequence[float],
    block: int,
    folder: Path,
    progress: Progress | None = None,
) -> dict[float, float | None]:
    """Quality of captured heads at some mean widths, as the integer model computes them.

    Parameters
    ----------
    captures : sequence of Capture
        Whose heads share the budget.
    widths : sequence of float
        Mean bits.
    block : int
        16, 32 or 64.
    folder : Path
        Keeps the results; those that it holds are not measured again.
    progress : Progress, optional
        Called after each head scored.

    Returns
    -------
    dict of float to float or None
        Mean signal-to-noise ratio of the heads in dB at each of ``widths``; None if not finite.

    Raises
    ------
    ParoError
        As `format_study`, or if a kept result cannot be read.
    """
    digests = [capture.digest for capture in captures]
    paths = {width: kept_path(folder, digests, width, block) for width in widths}
    missing = [width for width, path in paths.items() if not path.exists()]
    if missing:
        study = format_study(captures, missing, block, progress=progress)
        # The study adds the papers' mean width.
        for row in study["rows"]:
            if row["format"] == INTEGER and row["avg_bits"] in paths:
                write_json(paths[row["avg_bits"]], {"mean_snr_db": row["mean_snr_db"]})
    elif progress is not None:
        progress(len(paths), len(paths))
    return {width: read_kept(path, {"mean_snr_db"})["mean_snr_db"] for width, path in paths.items()}


def sweep_report(
    workload: Workload,
    plans: Sequence[HeadPlans],
    points: list[dict[str, Any]],
    quality: Mapping[float, float | None],
) -> dict[str, Any]:
    """Report of `paro sweep`: the points with their quality, and which of them are best.

    Parameters
    ----------
    workload : Workload
        The model.
    plans : sequence of HeadPlans
        Those that the points were computed under.
    points : list of dict
        Result of `sweep`; fields are added to them.
    quality : mapping of float to float or None
        Mean signal-to-noise ratio in dB by the ``avg_bits`` of a point; none if not measured.
    """
    for point in points:
        point["mean_snr_db"] = quality.get(point["avg_bits"])
    mark_best(points)
    return {"title": workload.title, "plans": plans[0].source, "points": points}
