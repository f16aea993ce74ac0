"""Where and how a simulation runs: the harness is compiled, then the bench plays on it."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path

from firmware_model.parallel import thread_pool
from firmware_model.progress import Progress
from gen.verilog import BROKEN_CONTRACT
from paro.config import Config
from sim.cosim.simulators import Build, Simulator
from sim.cosim.verilog import kept_verilog
from sim.trace.recorder import RECORDING_FILE
from sim.trace.recording import Recording, read_recording

__all__ = ["Harness", "Session"]

#: Seconds between two looks at how far the simulation is.
POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Harness:
    """A design that a simulator compiles, and the bench that plays on it.

    Parameters
    ----------
    sources : dict of str to str
        Text of each Verilog file.
    top : str
        Name of the top module.
    ports : sequence of str
        Its ports that the bench uses.
    bench : str
        Name of the cocotb module.
    """

    sources: Mapping[str, str]
    top: str
    ports: Sequence[str]
    bench: str


@dataclass(frozen=True)
class Session:
    """Where and how a simulation runs.

    Parameters
    ----------
    simulator : Simulator
        Runs the Verilog.
    build_dir : Path
        Where Verilog and compiled simulators are kept, see `sim.cache`.
    run_dir : Path
        Receives all files of the simulation; emptied first.
    waves : bool
        Record waveforms.
    trace : bool
        Record what a trace is made of, see `sim.trace`.
    progress : Progress, optional
        Called with (work done, work in all).
    make_verilog : callable
        Called with a configuration, the name of a top (`gen.verilog.TOPS`) and ``build_dir``;
        returns the Verilog to simulate.
    """

    simulator: Simulator
    build_dir: Path
    run_dir: Path
    waves: bool = False
    trace: bool = False
    progress: Progress | None = None
    make_verilog: Callable[[Config, str, Path], str] = kept_verilog

    @property
    def description(self) -> str:
        """What the work runs on."""
        return f"{self.simulator.name} ({self.simulator.version()})"

    @property
    def waves_path(self) -> Path | None:
        """File with the waveforms, if they were recorded."""
        path = self.run_dir / self.simulator.waves_file
        return path if self.waves and path.exists() else None

    def verilog(self, config: Config, top: str) -> str:
        """Verilog of a design to simulate."""
        return self.make_verilog(config, top, self.build_dir)

    def recording(self) -> Recording | None:
        """Return what was recorded for a trace, if it was asked for."""
        path = self.run_dir / RECORDING_FILE
        return read_recording(path) if self.trace and path.exists() else None

    @property
    def stopped(self) -> str:
        """Failure of a bench that has left no result: the contract that is broken, if one is."""
        log = self.run_dir / "sim.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        broken = (line for line in lines if line.startswith(BROKEN_CONTRACT))
        return next(broken, f"the simulator stopped; see {log}")

    def play(
        self, harness: Harness, prepare: Callable[[], None], done: Callable[[], int], total: int
    ) -> float:
        """Compile a harness, unless that is done, and let its bench play.

        Parameters
        ----------
        harness : Harness
            The design and its bench.
        prepare : callable
            Writes the files that the bench reads.
        done : callable
            Returns how much of ``total`` is done.
        total : int
            All of the work.

        Returns
        -------
        float
            Wall-clock seconds without builds.

        Raises
        ------
        ParoError
            If the Verilog does not compile or the folders cannot be written.
        """
        with self.simulator.build(
            harness.sources, harness.top, self.build_dir, visible=harness.ports, waves=self.waves
        ) as build:
            shutil.rmtree(self.run_dir, ignore_errors=True)
            prepare()
            started = time.perf_counter()
            self._follow(build, harness.bench, done, total)
            return time.perf_counter() - started

    def _follow(self, build: Build, bench: str, done: Callable[[], int], total: int) -> None:
        """Run a bench and report how far it is."""
        with thread_pool(1) as pool:
            future: Future[None] = pool.submit(self.simulator.run, build, bench, self.run_dir)
            while wait([future], timeout=POLL_SECONDS).not_done:
                if self.progress is not None:
                    # After a reset the bench begins again.
                    self.progress(min(done(), total), total)
            if self.progress is not None:
                self.progress(total, total)
            future.result()
