"""The core in simulation: its input beats, its output beats, the cycles of each stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from firmware_model.host.jobs import Job
from gen.names import CORE
from paro.config import Config, ParoError
from paro.config.formats import Operand, Stage
from rtl import interfaces
from sim.cosim.core_harness import (
    BENCH_TOP,
    COUNTER_BITS,
    harness_verilog,
    status_bits,
    visible_ports,
)
from sim.cosim.core_scenario import (
    PROGRESS_FILE,
    RESULT_FILE,
    SCENARIO_FILE,
    CommandResult,
    Result,
    Scenario,
)
from sim.cosim.core_stimulus import Stimulus, make_stimulus, unpack_words
from sim.cosim.exchange import load_dataclass, save_dataclass
from sim.cosim.session import Harness, Session
from sim.cosim.target import Simulation
from sim.cosim.work import job_work
from sim.cycles.cycle_model import Prediction, predict
from sim.trace.trace import Trace, build_trace

__all__ = ["CoreTarget"]

#: Cycles without a transfer on any stream after which the core counts as hung. The longest a
#: working core is silent is a few blocks.
IDLE_LIMIT = 200_000
#: Fewest beats of a player's memory; a power of two, so that most captures share a build.
DEPTH_MIN = 2**16


@dataclass(frozen=True)
class CoreTarget:
    """The core alone, on streams; a `sim.cosim.target.Target`.

    Parameters
    ----------
    memory_latency : int
        Cycles from a fetch (for codes: from the job before) to its first beat.
    stall_seed : int, optional
        Random stalls on both sides of every stream; ``None`` for none.
    reset_at : int, optional
        Cycle at which the core is reset; everything is then done again from the first job.
    """

    name: ClassVar[str] = CORE

    memory_latency: int = 0
    stall_seed: int | None = None
    reset_at: int | None = None

    def check(self, config: Config) -> None:
        """See `Target`: one core is no cluster."""
        if config.cores > 1:
            raise ParoError(
                f"cores = {config.cores} is of the accelerator; legal: --top accelerator"
            )

    def simulate(self, config: Config, jobs: Sequence[Job], session: Session) -> Simulation:
        """See `Target`; progress counts block rows begun."""
        stimulus = make_stimulus(config, jobs)
        depth = max(DEPTH_MIN, 1 << (stimulus.depth - 1).bit_length())
        harness = Harness(
            sources={
                f"{CORE}.v": session.verilog(config, CORE),
                f"{BENCH_TOP}.v": harness_verilog(config, depth, trace=session.trace),
            },
            top=BENCH_TOP,
            ports=visible_ports(config),
            bench=f"{__package__}.core_bench",
        )

        def prepare() -> None:
            stimulus.write_beats(session.run_dir)
            save_dataclass(self._scenario(config, stimulus), session.run_dir / SCENARIO_FILE)

        rows = session.run_dir / PROGRESS_FILE
        seconds = session.play(
            harness,
            prepare,
            lambda: rows.stat().st_size if rows.exists() else 0,
            sum(job.query_loads(config) for job in jobs),
        )
        return _simulation(config, jobs, stimulus, session, seconds)

    @property
    def is_predicted(self) -> bool:
        """Always."""
        return True

    def predict(self, config: Config, jobs: Sequence[Job]) -> Prediction:
        """See `Target`."""
        return predict(
            config,
            [job_work(config, job) for job in jobs],
            memory_latency=self.memory_latency,
            stall_seed=self.stall_seed,
        )

    def is_as_predicted(self, prediction: Prediction, simulation: Simulation) -> bool:
        """Whether every job took just the cycles of the model."""
        return simulation.cycles == prediction.cycles

    def memory_report(self, config: Config, jobs: Sequence[Job], simulation: Simulation) -> None:
        """Nothing: the core has no memory port."""

    def _scenario(self, config: Config, stimulus: Stimulus) -> Scenario:
        request: Any = interfaces.fetch_signature(config).members["payload"].shape
        return Scenario(
            commands=stimulus.commands,
            memory_latency=self.memory_latency,
            stall_seed=self.stall_seed,
            reset_at=self.reset_at,
            idle_limit=IDLE_LIMIT,
            status_bits=status_bits(config),
            operands=[operand.name for operand in Operand],
            fetch_block=(request["block"].offset, request["block"].width),
            fetch_chunk=(request["chunk"].offset, request["chunk"].width),
            counter_bits=COUNTER_BITS,
        )


def _simulation(
    config: Config, jobs: Sequence[Job], stimulus: Stimulus, session: Session, seconds: float
) -> Simulation:
    """Read the files of bench and harness."""
    result_file, output_file = session.run_dir / RESULT_FILE, session.run_dir / "o.hex"
    result = (
        load_dataclass(Result, result_file) if result_file.exists() else Result(session.stopped)
    )
    lines = output_file.read_text().split() if output_file.exists() else []
    lines = lines[result.outputs_discarded :]
    words, first = [], 0
    for job, command in zip(jobs, stimulus.commands, strict=True):
        streamed = unpack_words(lines[first : first + command.output_beats])
        words.append(_job_words(config, job, streamed))
        first += command.output_beats
    cycles = [_cycles(command, command) for command in result.commands]
    ended = [command for command in result.commands if command.end is not None]
    return Simulation(
        words=words,
        cycles=cycles,
        total_cycles=_cycles(result.commands[0], ended[-1]) if ended else None,
        stages=_stages(result.commands[0], ended[-1]) if ended else {},
        failure=result.failure,
        simulated_cycles=result.cycles,
        seconds=seconds,
        waves=session.waves_path,
        trace=_trace(config, jobs, session, result),
    )


def _trace(config: Config, jobs: Sequence[Job], session: Session, result: Result) -> Trace | None:
    """Trace from the first command to the last output; after a failure to all that was recorded."""
    recording = session.recording()
    if recording is None or not result.commands or result.commands[0].start is None:
        return None
    return build_trace(recording, config, jobs, (result.commands[0].start, result.commands[-1].end))


def _job_words(config: Config, job: Job, streamed: np.ndarray) -> np.ndarray:
    """Outputs of a job, [tokens, channels] flattened, as many as came."""
    places = job.stream_order(config)[: len(streamed)]
    words = np.zeros(places.max(initial=-1) + 1, np.int16)
    words[places[places >= 0]] = streamed[: len(places)][places >= 0]
    return words


def _cycles(first: CommandResult, last: CommandResult) -> int | None:
    """Cycles from one command to the last output of another, if it ended."""
    return None if first.start is None or last.end is None else last.end - first.start


def _stages(first: CommandResult, last: CommandResult) -> dict[str, dict[str, int]]:
    """Cycles that the stages spent from one command to the last output of another."""
    spent = np.array(last.activity_end) - np.array(first.activity_start)
    flags = list(interfaces.Activity.as_shape().members)  # in the order of their bits
    return {
        stage.name.lower(): dict(zip(flags, map(int, counts), strict=True))
        for stage, counts in zip(Stage, spent.reshape(-1, len(flags)), strict=True)
    }
