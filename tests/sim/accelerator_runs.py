"""Queues of heads played on the generated accelerator, and the check of their outputs."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from firmware_model.host.image import HeadJob, Image
from firmware_model.reference.integer import integer_attention
from paro.config import Config
from sim.cosim.accelerator import DeviceRun, Step, run_device
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
) -> DeviceRun:
    done = run_device(
        config, images, steps, get_simulator(simulator), build_dir, run_dir, memory=memory
    )
    assert done.failure is None
    assert len(done.steps) == len(done.outputs) == len(steps)
    return done


def expected_outputs(config: Config, jobs: list[HeadJob]) -> list[torch.Tensor]:
    return [integer_attention(job.head, job.codes, config, job.query_blocks) for job in jobs]


def assert_exact(done: DeviceRun, number: int, expected: list[torch.Tensor]) -> dict[str, Any]:
    """Check the outputs of a step; returns what the bench says of it."""
    step = done.steps[number]
    assert "error" not in step, f"step {number}: {step['error']['sentence']}"
    assert len(done.outputs[number]) == len(expected) > 0
    for head, (got, want) in enumerate(zip(done.outputs[number], expected, strict=True)):
        assert got.shape == want.shape
        wrong = np.argwhere((got != want).numpy())
        assert len(wrong) == 0, f"step {number}, head {head}: {len(wrong)} from {wrong[0]} on"
    return step
