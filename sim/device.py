"""The accelerator in simulation: heads in memory, one start, the outputs back out of memory."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from firmware_model.driver import Image, PlacedHead
from gen.verilog import ACCELERATOR, generate_verilog
from paro_config import Config, files
from sim.axi_harness import AXI_BENCH_TOP, axi_harness_verilog, axi_visible_ports
from sim.simulators import Simulator

__all__ = ["DeviceRun", "Memory", "Step", "load_image", "run_device"]

#: Clocks without a beat on the memory port after which the accelerator counts as hung.
IDLE_LIMIT = 200_000
#: Seconds between two looks at how far the simulation is.
POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Memory:
    """How the memory behaves.

    Parameters
    ----------
    latency : (int, int)
        Least and most clocks from a read's address, and from a write's last beat, to the answer.
    stall_seed : int, optional
        Random pauses on every AXI channel; ``None`` for none.
    """

    latency: tuple[int, int] = (0, 0)
    stall_seed: int | None = None


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
    """

    image: int = 0
    disturb: str | None = None
    after: int = 0


@dataclass(frozen=True)
class DeviceRun:
    """What a simulation of the accelerator did.

    Parameters
    ----------
    failure : str or None
        What the bench objected to.
    steps : list of dict
        For each step ``disturbed``; ``error`` (``cause``, ``head``, ``address``, ``sentence``) if
        one was reported; ``counters`` if it ended.
    outputs : list of list of torch.Tensor
        For each step int16 [queries, head_dim] of each head; empty if it did not end.
    seconds : float
        Wall-clock time of the simulation, without builds.
    """

    failure: str | None
    steps: list[dict[str, Any]]
    outputs: list[list[torch.Tensor]] = field(default_factory=list)
    seconds: float = 0.0


def save_image(image: Image, path: Path) -> None:
    """Write an image for the bench."""
    tensors = {f"tokens_{i}": head.tokens.contiguous() for i, head in enumerate(image.heads)}
    tensors["data"] = torch.from_numpy(np.frombuffer(image.data, np.uint8).copy())
    places = [(head.o_address, head.o_row_stride) for head in image.heads]
    facts = {
        "base": image.base,
        "queue_base": image.queue_base,
        "head_dim": image.head_dim,
        "places": places,
    }
    save_file(tensors, path)
    files.write_json(path.with_suffix(".json"), facts)


def load_image(path: Path) -> Image:
    """Read what `save_image` wrote."""
    tensors, facts = load_file(path), json.loads(path.with_suffix(".json").read_text())
    heads = [
        PlacedHead(address, stride, tensors[f"tokens_{i}"])
        for i, (address, stride) in enumerate(facts.pop("places"))
    ]
    return Image(data=tensors["data"].numpy().tobytes(), heads=heads, **facts)


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
    progress: Callable[[int], None] | None = None,
) -> DeviceRun:
    """Simulate the accelerator working on images, one step after the other.

    Parameters
    ----------
    config : Config
        The accelerator.
    images : sequence of Image
        Heads in memory, see `firmware_model.driver.place_heads`.
    steps : sequence of Step
        What to do.
    simulator : Simulator
        Runs the Verilog.
    build_dir : Path
        Where compiled simulators are kept.
    run_dir : Path
        Receives all files of this simulation; emptied first.
    memory : Memory, optional
        By default without latency and pauses.
    waves : bool
        Record waveforms.
    progress : callable, optional
        Called with the number of heads that are done.

    Raises
    ------
    ParoError
        If the Verilog does not compile or the folders cannot be written.
    """
    memory = memory or Memory()
    build = simulator.build(
        {
            f"{ACCELERATOR}.v": generate_verilog(config, ACCELERATOR),
            f"{AXI_BENCH_TOP}.v": axi_harness_verilog(config),
        },
        AXI_BENCH_TOP,
        build_dir,
        visible=axi_visible_ports(config),
        waves=waves,
    )
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
            "latency_seed": memory.stall_seed or 1,
            "stall_seed": memory.stall_seed,
            "idle_limit": IDLE_LIMIT,
            "steps": [asdict(step) for step in steps],
        },
    )
    for image, name in zip(images, names, strict=True):
        save_image(image, run_dir / name)
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(simulator.run, build, "sim.axi_bench", run_dir)
        _follow(future, run_dir / "progress", progress)
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


def _follow(future: "Future[None]", path: Path, progress: Callable[[int], None] | None) -> None:
    """Report the bench's progress until the simulation ends."""
    while wait([future], timeout=POLL_SECONDS).not_done:
        if progress is not None and path.exists() and (text := path.read_text()):
            progress(int(text))
