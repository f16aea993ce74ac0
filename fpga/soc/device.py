"""Work on a board: heads and layers through its link, compared and reported as by `sim.cosim`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from firmware_model.host.board import Board, BoardTransport
from firmware_model.host.board_run import run_on_board
from firmware_model.host.driver import Driver, run_sync
from firmware_model.host.image import place_jobs
from firmware_model.host.jobs import Job
from firmware_model.host.link import open_bus
from paro.config import Config, ParoError
from sim.cosim.report import LinkReport, MemoryReport
from sim.cosim.run import Setup
from sim.cosim.session import Session
from sim.cosim.target import Simulation
from sim.cycles.cycle_model import Prediction

__all__ = ["STILLNESS", "BoardSetup", "BoardTarget", "connect"]

#: Seconds without a read of memory after which an accelerator counts as hung.
STILLNESS = 60.0


@dataclass(frozen=True)
class _BoardSession(Session):
    """Where the work on a board runs: no simulator."""

    device: str = ""

    @property
    def description(self) -> str:
        """See `Session`."""
        return f"board ({self.device})"


@dataclass(frozen=True)
class BoardSetup(Setup):
    """Where to work: at a board.

    Parameters
    ----------
    device : str
        As the user named it.
    """

    device: str = ""

    def session(self) -> Session:
        """See `Setup`; nothing is compiled."""
        nothing: Path = self.out_dir / "simulation"
        return _BoardSession(
            simulator=None,  # pyright: ignore[reportArgumentType]
            build_dir=nothing,
            run_dir=nothing,
            progress=self.progress,
            device=self.device,
        )


@dataclass(frozen=True)
class BoardTarget:
    """An accelerator on a board; a `sim.cosim.target.Target`.

    Parameters
    ----------
    device : str
        As the user named it.
    transport : BoardTransport
        The way there.
    board : Board
        What it tells of itself.
    config : Config
        Its accelerator.
    """

    name: ClassVar[str] = "board"

    device: str
    transport: BoardTransport
    board: Board
    config: Config

    @property
    def stall_seed(self) -> int | None:
        """See `Target`."""
        return None

    def check(self, config: Config) -> None:
        """See `Target`."""
        if config != self.config:
            raise ParoError(
                f"the board at {self.device} has the accelerator {self.config}; legal: that one"
            )

    def simulate(self, config: Config, jobs: Sequence[Job], session: Session) -> Simulation:
        """See `Target`: all jobs are one queue; progress counts bytes."""
        image = place_jobs(config, jobs, 0)
        if len(image.data) > self.board.memory_bytes:
            raise ParoError(
                f"the queue takes {len(image.data):,} bytes; legal: the memory of the board, "
                f"{self.board.memory_bytes:,}"
            )
        run = run_on_board(
            self.transport, config, image, stillness=STILLNESS, progress=session.progress
        )
        counters, seconds = run.counters, run.seconds
        return Simulation(
            words=[output.flatten() for output in run.outputs],
            cycles=[None] * len(jobs),
            total_cycles=counters.cycles,
            stages=counters.stages,
            failure=None,
            simulated_cycles=counters.cycles,
            seconds=max(seconds["work"], 1e-3),
            waves=None,
            counters=counters,
            link=LinkReport(
                device=self.device,
                clock_mhz=self.board.clock_hz / 1e6,
                bytes_written=run.written,
                bytes_read=run.read,
                load_seconds=seconds["load"],
                work_seconds=seconds["work"],
                read_seconds=seconds["read"],
                load_mb_per_second=_rate(run.written, seconds["load"]),
                read_mb_per_second=_rate(run.read, seconds["read"]),
                faults=run.faults,
            ),
        )

    @property
    def is_predicted(self) -> bool:
        """No: the cycle model has another memory."""
        return False

    def predict(self, config: Config, jobs: Sequence[Job]) -> Prediction:
        """See `is_predicted`."""
        raise NotImplementedError("the cycle model does not follow the memories of boards")

    def is_as_predicted(self, prediction: Prediction, simulation: Simulation) -> bool:
        """See `is_predicted`."""
        raise NotImplementedError("the cycle model does not follow the memories of boards")

    def memory_report(
        self, config: Config, jobs: Sequence[Job], simulation: Simulation
    ) -> MemoryReport | None:
        """Of the link instead; see `Simulation.link`."""
        return None


@contextmanager
def connect(device: str, *, silence: float | None = None) -> Iterator[BoardTarget]:
    """Find a board, and leave it after the body.

    Parameters
    ----------
    device, silence
        See `firmware_model.host.link.open_bus`.

    Raises
    ------
    ParoError
        If none answers there, or one that this project does not know.
    """
    transport = BoardTransport(open_bus(device, silence=silence))
    try:
        board = transport.identify()
        yield BoardTarget(device, transport, board, run_sync(Driver(transport).identify()))
    finally:
        transport.close()


def _rate(count: int, seconds: float) -> float:
    """Megabytes a second."""
    return round(count / 1e6 / max(seconds, 1e-3), 4)
