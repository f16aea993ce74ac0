"""Co-simulation: the generated Verilog against the integer model, word for word."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.calibration.plan import Plan
from firmware_model.capture import Capture
from firmware_model.codes import checked_query_blocks
from firmware_model.host.jobs import HeadJob
from firmware_model.layer import Layer
from firmware_model.quality.evaluate import (
    HeadResult,
    check_plan_config,
    common_report,
    score_words,
    write_outputs,
)
from firmware_model.quality.layers import layer_report, score_layer, write_layer_outputs
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.jobs import head_job, layer_job
from firmware_model.reference.linear import integer_linear
from firmware_model.reference.quantize import QuantizedHead, quantize_head
from paro.config import Config
from sim.cosim.core import CoreTarget
from sim.cosim.export import Work
from sim.cosim.report import HeadsReport, LayerReport, Mismatch
from sim.cosim.run import Run, Setup, run_jobs, utilisation
from sim.cosim.target import Target
from sim.cosim.work import ideal_cycles

__all__ = [
    "Heads",
    "LinearLayer",
    "Timing",
    "benchmark",
    "cosim",
    "cosim_layer",
    "heads_work",
    "layer_work",
]


@dataclass(frozen=True, eq=False)
class Heads:
    """Heads to compute.

    Parameters
    ----------
    capture : Capture
        Source of the heads.
    plan : Plan
        Orders and codes.
    heads : sequence of int
        Heads to compute.
    config : Config
        The core.
    query_blocks : range, optional
        Block rows to compute; all by default.
    """

    capture: Capture
    plan: Plan
    heads: Sequence[int]
    config: Config
    query_blocks: range | None = None

    def rows(self) -> range:
        """Block rows to compute; ParoError if there are none or the plan has no such."""
        return checked_query_blocks(self.query_blocks, self.plan.blocks)


@dataclass(frozen=True, eq=False)
class _Task:
    """One of the heads, for the integer model and for the target."""

    head: int
    quantized: QuantizedHead
    codes: torch.Tensor
    job: HeadJob


def cosim(heads: Heads, target: Target, setup: Setup) -> HeadsReport:
    """Simulate some heads, compare every output word with the integer model, write the results.

    Parameters
    ----------
    heads : Heads
        Heads to compute.
    target : Target
        The core alone, or the whole accelerator.
    setup : Setup
        Where and how to simulate.

    Returns
    -------
    HeadsReport
        As written. The check holds if it has ``passed``.

    Raises
    ------
    ParoError
        If inputs do not fit each other, the simulator is missing or the folders cannot be written.
    """
    setup.session()  # refuses what cannot be simulated before anything is computed
    check_plan_config(heads.plan, heads.config)
    tasks = _tasks(heads)

    work = _heads_work(heads, tasks)
    run = run_jobs(work.config, work.jobs, work.model, target, setup)
    scored = [_score(heads, task, run.filled(number)) for number, task in enumerate(tasks)]
    report = _report(heads, tasks, run, scored)
    write_outputs(setup.out_dir, scored, report.to_dict())
    run.finish(setup.out_dir, report, [f"head {task.head}" for task in tasks])
    return report


def heads_work(heads: Heads) -> Work:
    """Jobs of some heads, and their words; ParoError if plan and configuration do not fit."""
    check_plan_config(heads.plan, heads.config)
    return _heads_work(heads, _tasks(heads))


def _heads_work(heads: Heads, tasks: Sequence[_Task]) -> Work:
    def model() -> list[np.ndarray]:
        return [
            integer_attention(task.quantized, task.codes, heads.config, heads.rows()).numpy()
            for task in tasks
        ]

    return Work(heads.config, [task.job for task in tasks], model)


def _tasks(heads: Heads) -> list[_Task]:
    rows, tasks = heads.rows(), []
    for head in heads.heads:
        order, transform = heads.plan.head_order(head), heads.plan.head_transform(head)
        quantized = quantize_head(heads.capture, head, order, heads.config, transform)
        codes = heads.plan.head_codes(head)
        tasks.append(_Task(head, quantized, codes, head_job(heads.capture, quantized, codes, rows)))
    return tasks


def _score(heads: Heads, task: _Task, words: np.ndarray) -> HeadResult:
    return score_words(
        heads.capture,
        task.head,
        task.quantized,
        task.codes,
        torch.from_numpy(words),
        heads.config,
        heads.rows(),
    )


def _report(
    heads: Heads, tasks: Sequence[_Task], run: Run, scored: list[HeadResult]
) -> HeadsReport:
    config, rows = heads.config, heads.rows()
    common = common_report(heads.capture, config, heads.plan.avg_bits, scored)
    for entry, job, cycles in zip(common["heads"], run.jobs, run.simulation.cycles, strict=False):
        best = ideal_cycles(config, job)
        entry |= {
            "cycles": cycles,
            "ideal_cycles": best,
            "utilisation": utilisation(best, cycles),
        }
    return HeadsReport(
        **run.report(),
        first_mismatch=_first_mismatch(tasks, run),
        query_blocks=[rows.start, rows.stop],
        **common,
    )


def _first_mismatch(tasks: Sequence[_Task], run: Run) -> Mismatch | None:
    found = run.first_mismatch()
    if found is None:
        return None
    number, at = found
    task, expected = tasks[number], run.expected[number]
    row, channel = divmod(at, run.config.head_dim)
    position = task.job.queries(run.config)[row]
    return Mismatch(
        token=int(task.job.head.permutation[position]),
        channel=channel,
        got=int(run.simulation.words[number][at]),
        expected=int(expected[row, channel]),
        head=task.head,
        position=position,
    )


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A linear layer to compute.

    Parameters
    ----------
    layer : Layer
        Weights, and the inputs that it was captured with.
    plan : LayerPlan
        Its plan.
    config : Config
        The core.
    """

    layer: Layer
    plan: LayerPlan
    config: Config


def cosim_layer(work: LinearLayer, target: Target, setup: Setup) -> LayerReport:
    """Simulate a linear layer, and compare and write as `cosim` does.

    Parameters
    ----------
    work : LinearLayer
        The layer.
    target, setup
        As of `cosim`.

    Returns
    -------
    LayerReport
        As written. The check holds if it has ``passed``.

    Raises
    ------
    ParoError
        If inputs do not fit each other, the simulator is missing or the folders cannot be written.
    """
    layer, plan, config = work.layer, work.plan, work.config
    setup.session()
    jobs = layer_work(work)
    run = run_jobs(config, jobs.jobs, jobs.model, target, setup)
    result = score_layer(layer, plan, torch.from_numpy(run.filled(0)))
    mismatch, found = None, run.first_mismatch()
    if found is not None:
        token, channel = divmod(found[1], layer.outputs)
        got, expected = run.simulation.words[0][found[1]], run.expected[0][token, channel]
        mismatch = Mismatch(token=token, channel=channel, got=int(got), expected=int(expected))
    common = layer_report(layer, plan, config, result)
    report = LayerReport(**run.report(), first_mismatch=mismatch, **common)
    write_layer_outputs(setup.out_dir, result, report.to_dict())
    run.finish(setup.out_dir, report, [layer.name])
    return report


def layer_work(work: LinearLayer) -> Work:
    """Job of a layer, and its words; ParoError if layer, plan and configuration do not fit."""
    layer, plan, config = work.layer, work.plan, work.config
    plan.check(layer)
    plan.check_config(config)
    inputs = plan.quantized(layer.x)

    def model() -> list[np.ndarray]:
        return [integer_linear(inputs, plan.weights, plan.output, config).numpy()]

    return Work(config, [layer_job(inputs, plan.weights, plan.output)], model)


@dataclass(frozen=True)
class Timing:
    """Speed of a co-simulation.

    Parameters
    ----------
    simulator : str
        Name and version.
    cycles : int or None
        Cycles of the head.
    cycles_per_second : int
        Cycles simulated in a second.
    simulation_seconds, other_seconds : float
        Wall-clock time of the simulation, and of all else; that holds the build, unless it is
        kept from an earlier run.
    bit_exact : bool
        Whether every word is right.
    """

    simulator: str
    cycles: int | None
    cycles_per_second: int
    simulation_seconds: float
    other_seconds: float
    bit_exact: bool


def benchmark(heads: Heads, setup: Setup) -> Timing:
    """Measure co-simulation of the core; parameters as of `cosim`."""
    started = time.perf_counter()
    report = cosim(heads, CoreTarget(), setup)
    seconds = time.perf_counter() - started
    return Timing(
        simulator=report.simulator,
        cycles=report.cycles,
        cycles_per_second=report.cycles_per_second,
        simulation_seconds=report.simulation_seconds,
        other_seconds=round(seconds - report.simulation_seconds, 2),
        bit_exact=report.bit_exact,
    )
