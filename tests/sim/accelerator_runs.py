"""Queues of heads played on the generated accelerator, and the check of their outputs."""

from pathlib import Path

import numpy as np

from firmware_model.host.driver import Counters
from firmware_model.host.image import Image
from firmware_model.host.jobs import HeadJob
from firmware_model.reference.outputs import model_outputs
from paro.config import Config
from sim.cosim.accelerator import AcceleratorRun, play_steps
from sim.cosim.accelerator_scenario import Step, StepResult
from sim.cosim.session import Session
from sim.cosim.simulators import get_simulator
from sim.cycles.memory import Memory


def play(
    config: Config,
    images: list[Image],
    steps: list[Step],
    build_dir: Path,
    run_dir: Path,
    memory: Memory | None = None,
    simulator: str = "verilator",
) -> AcceleratorRun:
    session = Session(get_simulator(simulator), build_dir, run_dir)
    done = play_steps(config, images, steps, session, memory, keeps_bursts=True)
    assert done.failure is None
    assert len(done.steps) == len(done.outputs) == len(steps)
    return done


def expected_outputs(config: Config, jobs: list[HeadJob]) -> list[np.ndarray]:
    return [model_outputs(config, job) for job in jobs]


def assert_exact(done: AcceleratorRun, number: int, expected: list[np.ndarray]) -> StepResult:
    """Check the outputs of a step; returns what the bench says of it."""
    step = done.steps[number]
    assert step.error is None, f"step {number}: {step.error.sentence}"
    assert_outputs(done, number, expected)
    return step


def assert_outputs(done: AcceleratorRun, number: int, expected: list[np.ndarray]) -> None:
    """Check the outputs of a step, whether an error was reported or not."""
    assert len(done.outputs[number]) == len(expected) > 0
    for head, (got, want) in enumerate(zip(done.outputs[number], expected, strict=True)):
        assert got.shape == want.shape
        wrong = np.argwhere(got != want)
        assert len(wrong) == 0, f"step {number}, head {head}: {len(wrong)} from {wrong[0]} on"


def step_writes(step: StepResult) -> list[tuple[int, int]]:
    """Address and beats of each burst that a step wrote, in order."""
    return [(address, beats) for address, beats in step.bursts["write"]]


def counters_of(step: StepResult) -> Counters:
    """Counters of a step that ended."""
    assert step.counters is not None
    return step.counters
