"""The accelerator in simulation: heads in memory, one start, the outputs back out of memory."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from firmware_model.capture import Capture
from firmware_model.host.image import HeadJob, Image, place_heads, save_image
from firmware_model.parallel import thread_pool
from gen.names import ACCELERATOR
from paro.config import Config, files
from rtl.bus.axi_lite import Response
from sim.cosim.accelerator_harness import AXI_BENCH_TOP, axi_harness_verilog, axi_visible_ports
from sim.cosim.core import Simulation, follow
from sim.cosim.core_stimulus import Run
from sim.cosim.simulators import Simulator
from sim.cosim.verilog import kept_verilog
from sim.cycles.memory import Memory

__all__ = ["DeviceRun", "Step", "place_runs", "run_device", "simulate_device"]

#: Clocks without a beat on the memory port after which the accelerator counts as hung.
IDLE_LIMIT = 200_000


@dataclass(frozen=True)
class Step:
    """One queue of heads.

    Parameters
    ----------
    image : int
        Index of the image.
    disturb : str, optional
        ``control_reset``, ``hard_reset``, ``start_again`` (in clock ``after`` of the work), or
        ``read_error``, ``write_error`` (of beat, of response number ``after``, from 1).
    after : int
        When.
    response : int
        AXI's code of the error.
    """

    image: int = 0
    disturb: str | None = None
    after: int = 0
    response: int = Response.SLVERR


@dataclass(frozen=True)
class DeviceRun:
    """What a simulation of the accelerator did.

    Parameters
    ----------
    failure : str or None
        What the bench objected to.
    steps : list of dict
        For each step ``disturbed``; ``error`` (``cause``, ``head``, ``address``, ``sentence``,
        ``heads_done``) if one was reported; if it ended, ``counters`` and ``bursts``, for ``read``
        and ``write`` address and beats of all that the memory saw; ``disturbed_burst``, address of
        the burst that an error was given to.
    outputs : list of list of torch.Tensor
        For each step int16 [queries, head_dim] of each head; empty if it did not end.
    seconds : float
        Wall-clock time of the simulation, without builds.
    """

    failure: str | None
    steps: list[dict[str, Any]]
    outputs: list[list[torch.Tensor]] = field(default_factory=list)
    seconds: float = 0.0


def run_device(
    config: Config,
    images: Sequence[Image],
    steps: Sequence[Step],
    simulator: Simulator,
    build_dir: Path,
    run_dir: Path,
    *,
    memory: Memory | None = None,
    waves: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DeviceRun:
    """Simulate the accelerator working on images, one step after the other.

    Parameters
    ----------
    config : Config
        The accelerator.
    images : sequence of Image
        Heads in memory, see `firmware_model.host.driver.place_heads`.
    steps : sequence of Step
        What to do.
    simulator : Simulator
        Runs the Verilog.
    build_dir : Path
        Where Verilog and compiled simulators are kept, see `sim.cache`.
    run_dir : Path
        Receives all files of this simulation; emptied first.
    memory : Memory, optional
        By default without latency and pauses.
    waves : bool
        Record waveforms.
    progress : callable, optional
        Called with (heads done, heads).

    Raises
    ------
    ParoError
        If the Verilog does not compile or the folders cannot be written.
    """
    memory = memory or Memory()
    sources = {
        f"{ACCELERATOR}.v": kept_verilog(config, ACCELERATOR, build_dir),
        f"{AXI_BENCH_TOP}.v": axi_harness_verilog(config),
    }
    ports = axi_visible_ports(config)
    with simulator.build(sources, AXI_BENCH_TOP, build_dir, visible=ports, waves=waves) as build:
        shutil.rmtree(run_dir, ignore_errors=True)
        names = [f"image_{i}.safetensors" for i in range(len(images))]
        end = max(image.base + len(image.data) for image in images)
        files.write_json(
            run_dir / "scenario.json",
            {
                "configuration": config.model_dump(),
                "images": names,
                "memory_bytes": 1 << (end - 1).bit_length(),
                "latency_low": memory.latency[0],
                "latency_span": memory.latency[1] - memory.latency[0],
                "stall_seed": memory.stall_seed,
                "idle_limit": IDLE_LIMIT,
                "steps": [asdict(step) for step in steps],
            },
        )
        for image, name in zip(images, names, strict=True):
            save_image(image, run_dir / name)
        started = time.perf_counter()
        with thread_pool(1) as pool:
            future = pool.submit(simulator.run, build, f"{__package__}.accelerator_bench", run_dir)
            follow(
                future, lambda: _heads_done(run_dir), sum(len(i.heads) for i in images), progress
            )
            future.result()
        seconds = time.perf_counter() - started
    result_file = run_dir / "result.json"
    if not result_file.exists():
        return DeviceRun(f"the simulator stopped; see {run_dir / 'sim.log'}", [], [], seconds)
    result = json.loads(result_file.read_text())
    outputs = []
    for number in range(len(result["steps"])):
        path = run_dir / f"outputs_{number}.safetensors"
        words = load_file(path) if path.exists() else {}
        outputs.append([words[f"head_{i}"] for i in range(len(words))])
    return DeviceRun(result["failure"], result["steps"], outputs, seconds)


def _heads_done(run_dir: Path) -> int:
    path = run_dir / "progress"
    return int(path.read_text() or 0) if path.exists() else 0


def place_runs(config: Config, runs: Sequence[Run], capture: Capture, memory: Memory) -> Image:
    """Lay out runs whose heads are from a capture: it knows the token grid."""
    jobs = [
        HeadJob(
            run.head,
            run.codes,
            capture.grid,
            capture.prefix_tokens,
            capture.suffix_tokens,
            run.query_blocks,
        )
        for run in runs
    ]
    return place_heads(config, jobs, memory.base, interleaved=memory.interleaved)


def simulate_device(
    config: Config,
    runs: Sequence[Run],
    image: Image,
    simulator: Simulator,
    build_dir: Path,
    run_dir: Path,
    *,
    memory: Memory,
    waves: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Simulate the accelerator on all runs in one start; parameters as of `core.simulate`.

    Parameters
    ----------
    image : Image
        The runs in memory, see `place_runs`.
    memory : Memory
        How the memory behaves.
    """
    done = run_device(
        config,
        [image],
        [Step()],
        simulator,
        build_dir,
        run_dir,
        memory=memory,
        waves=waves,
        progress=progress,
    )
    step = done.steps[0] if done.steps else {}
    counters = step.get("counters", {})
    outputs = done.outputs[0] if done.outputs else []
    words = [head.numpy().flatten() for head in outputs]
    waves_path = run_dir / simulator.waves_file
    return Simulation(
        words=words or [np.zeros(0, np.int16) for _ in runs],
        cycles=[None] * len(runs),
        total_cycles=counters.get("cycles"),
        stages=counters.get("stages", {}),
        failure=done.failure or step.get("error", {}).get("sentence"),
        simulated_cycles=counters.get("cycles", 0),
        seconds=done.seconds,
        waves=waves_path if waves and waves_path.exists() else None,
        memory={
            name: value for name, value in counters.items() if name.endswith(("bursts", "beats"))
        },
    )
