"""The accelerator in simulation: heads in memory, one start, the outputs back out of memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from safetensors.numpy import load_file

from firmware_model.host.image import Image, place_jobs, save_image
from firmware_model.host.jobs import Job
from gen.names import ACCELERATOR
from paro.config import Config
from sim.cosim.accelerator_harness import BENCH_TOP, harness_verilog, visible_ports
from sim.cosim.accelerator_scenario import (
    PROGRESS_FILE,
    RESULT_FILE,
    SCENARIO_FILE,
    Result,
    Scenario,
    Step,
    StepResult,
    memory_file,
    memory_start,
    outputs_file,
)
from sim.cosim.axi_memory import capacity
from sim.cosim.exchange import load_dataclass, save_dataclass
from sim.cosim.report import MemoryReport, Traffic
from sim.cosim.session import Harness, Session
from sim.cosim.target import Simulation
from sim.cosim.work import job_work, wanted_bytes
from sim.cycles.cycle_model import Prediction, predict_accelerator
from sim.cycles.memory import Memory
from sim.trace.trace import build_trace

__all__ = ["ACCELERATOR_TOLERANCE", "AcceleratorRun", "AcceleratorTarget", "play_steps"]

#: Difference from the cycle model that still counts as predicted, as a part of the cycles taken.
ACCELERATOR_TOLERANCE = 0.01
#: Cycles without a beat on the memory port after which the accelerator counts as hung.
IDLE_LIMIT = 200_000


@dataclass(frozen=True)
class AcceleratorRun:
    """Outcome of a simulation of the accelerator.

    Parameters
    ----------
    failure : str or None
        Objection of the bench.
    steps : list of StepResult
        What happened in each step; none after a failure.
    outputs : list of list of np.ndarray
        For each step int16 [queries, head_dim] of each head; empty if it did not end.
    seconds : float
        Wall-clock time of the simulation, without builds.
    memories : list of bytes
        For each step its image's bytes in the end, if it ended and keeps them.
    """

    failure: str | None
    steps: list[StepResult]
    outputs: list[list[np.ndarray]]
    seconds: float
    memories: list[bytes] = field(default_factory=list)


def play_steps(
    config: Config,
    images: Sequence[Image],
    steps: Sequence[Step],
    session: Session,
    memory: Memory | None = None,
    *,
    keeps_bursts: bool = False,
) -> AcceleratorRun:
    """Simulate the accelerator working on images, one step after the other.

    Parameters
    ----------
    config : Config
        The accelerator.
    images : sequence of Image
        Heads in memory, see `firmware_model.host.image.place_jobs`.
    steps : sequence of Step
        Steps to play, in order.
    session : Session
        Where and how; progress counts heads done.
    memory : Memory, optional
        By default without latency and stalls.
    keeps_bursts : bool
        Return every burst; a run of minutes has hundreds of thousands.

    Raises
    ------
    ParoError
        If the Verilog does not compile or the folders cannot be written.
    """
    scenario = _scenario(config, images, steps, memory or Memory(), keeps_bursts)
    harness = Harness(
        sources={
            f"{ACCELERATOR}.v": session.verilog(config, ACCELERATOR),
            f"{BENCH_TOP}.v": harness_verilog(
                config, capacity(scenario.memory_bytes), trace=session.trace
            ),
        },
        top=BENCH_TOP,
        ports=visible_ports(config),
        bench=f"{__package__}.accelerator_bench",
    )

    def prepare() -> None:
        save_dataclass(scenario, session.run_dir / SCENARIO_FILE)
        for image, name in zip(images, scenario.images, strict=True):
            save_image(image, session.run_dir / name)

    def heads_done() -> int:
        path = session.run_dir / PROGRESS_FILE
        return int(path.read_text() or 0) if path.exists() else 0

    heads = sum(len(image.outputs) for image in images)
    seconds = session.play(harness, prepare, heads_done, heads)
    return _read_run(session, seconds)


def _scenario(
    config: Config,
    images: Sequence[Image],
    steps: Sequence[Step],
    memory: Memory,
    keeps_bursts: bool,
) -> Scenario:
    end = max(image.base + len(image.data) - memory_start(image.base) for image in images)
    return Scenario(
        configuration=config.model_dump(),
        images=[f"image_{i}.safetensors" for i in range(len(images))],
        memory_bytes=1 << (end - 1).bit_length(),
        latency_low=memory.latency[0],
        latency_span=memory.latency[1] - memory.latency[0],
        stall_seed=memory.stall_seed,
        stall_rates=memory.stall_rates(config),
        idle_limit=IDLE_LIMIT,
        keeps_bursts=keeps_bursts,
        steps=list(steps),
    )


def _read_run(session: Session, seconds: float) -> AcceleratorRun:
    """Read the files of the bench."""
    result_file = session.run_dir / RESULT_FILE
    if not result_file.exists():
        return AcceleratorRun(session.stopped, [], [], seconds)
    result = load_dataclass(Result, result_file)
    outputs, memories = [], []
    for number in range(len(result.steps)):
        path = session.run_dir / outputs_file(number)
        words = load_file(path) if path.exists() else {}
        outputs.append([words[f"head_{i}"] for i in range(len(words))])
        kept = session.run_dir / memory_file(number)
        memories.append(kept.read_bytes() if kept.exists() else b"")
    return AcceleratorRun(result.failure, result.steps, outputs, seconds, memories)


@dataclass(frozen=True)
class AcceleratorTarget:
    """The whole accelerator on a memory; a `sim.cosim.target.Target`.

    Parameters
    ----------
    memory : Memory
        How the memory behaves, and where the heads lie in it.
    """

    name: ClassVar[str] = ACCELERATOR

    memory: Memory

    @property
    def stall_seed(self) -> int | None:
        """See `Target`."""
        return self.memory.stall_seed

    def check(self, config: Config) -> None:
        """See `Target`: the memory's bandwidth must be one of the port."""
        self.memory.stall_rates(config)

    def simulate(self, config: Config, jobs: Sequence[Job], session: Session) -> Simulation:
        """See `Target`: all jobs are one queue; progress counts heads done."""
        image = self._place(config, jobs)
        run = play_steps(config, [image], [Step()], session, self.memory)
        step = run.steps[0] if run.steps else StepResult()
        counters, recording = step.counters, session.recording()
        words = [head.flatten() for outputs in run.outputs for head in outputs]
        return Simulation(
            words=words or [np.zeros(0, np.int16) for _ in jobs],
            cycles=[None] * len(jobs),
            total_cycles=counters.cycles if counters else None,
            stages=counters.stages if counters else {},
            failure=run.failure or (step.error.sentence if step.error else None),
            simulated_cycles=counters.cycles if counters else 0,
            seconds=run.seconds,
            waves=session.waves_path,
            counters=counters,
            trace=recording and build_trace(recording, config, jobs),
        )

    @property
    def is_predicted(self) -> bool:
        """Always."""
        return True

    def predict(self, config: Config, jobs: Sequence[Job]) -> Prediction:
        """See `Target`."""
        works = [job_work(config, job) for job in jobs]
        return predict_accelerator(config, works, self._place(config, jobs), self.memory)

    def is_as_predicted(self, prediction: Prediction, simulation: Simulation) -> bool:
        """Whether the queue took the cycles of the model within `ACCELERATOR_TOLERANCE`."""
        taken = simulation.total_cycles or 0
        return abs(prediction.total_cycles - taken) <= ACCELERATOR_TOLERANCE * taken

    def memory_report(
        self, config: Config, jobs: Sequence[Job], simulation: Simulation
    ) -> MemoryReport | None:
        """See `Target`."""
        counters = simulation.counters
        if counters is None:
            return None
        beat_bytes, wanted = config.axi_bits // 8, wanted_bytes(config, jobs)

        def traffic(wanted: int, bursts: int, beats: int) -> Traffic:
            return Traffic(
                bytes_wanted=wanted,
                bursts=bursts,
                beats=beats,
                beats_per_burst=round(beats / bursts, 2),
                bytes_wanted_per_beat_byte=round(wanted / (beats * beat_bytes), 4),
            )

        return MemoryReport(
            latency=list(self.memory.latency),
            bandwidth=self.memory.bandwidth,
            interleaved=self.memory.interleaved,
            read=traffic(wanted["read"], counters.read_bursts, counters.read_beats),
            write=traffic(wanted["write"], counters.write_bursts, counters.write_beats),
        )

    def _place(self, config: Config, jobs: Sequence[Job]) -> Image:
        return place_jobs(config, jobs, self.memory.base, interleaved=self.memory.interleaved)
