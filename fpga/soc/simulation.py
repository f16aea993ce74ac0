"""The simulated board: the SoC with models of oscillator, memory and pins, as a program.

Its serial line is a TCP port of this machine, or a pseudo-terminal.
"""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Literal

from firmware_model.progress import announce
from fpga.soc.boards import SIMULATED_BIT, find_soc_board, require_litex
from fpga.soc.elaborate import Request, elaborate
from gen.names import ACCELERATOR
from paro.config import Config, ParoError
from sim.cache import entry_name, kept
from sim.cosim.simulators import Verilator
from sim.cosim.verilog import kept_verilog
from sim.sources import module_digest

__all__ = ["SIMULATED_BOARD", "SimulatedBoard", "simulated_board"]

#: Board that is simulated unless another is asked for.
SIMULATED_BOARD = "ulx3s-85f"
_PROGRAM = "board"
_MAIN = Path(__file__).with_name("templates") / "board_main.cpp"
#: Names of all that LiteX brings to the Verilog.
_PACKAGES = ("litex", "litedram", "migen")


@dataclass
class SimulatedBoard:
    """A simulated board that runs.

    Parameters
    ----------
    device : str
        Where it is reached, as ``paro run --device`` takes it.
    sessions : list of dict of str to int
        For each host that has left: ``clocks`` from its first byte to the last one on the line,
        bytes ``received`` from it and ``sent`` to it.
    """

    device: str
    process: "subprocess.Popen[str]" = field(repr=False)
    sessions: list[dict[str, int]] = field(default_factory=list)

    def press_reset(self) -> None:
        """Reset it; its memory keeps its content."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ")
        self.process.stdin.flush()


@contextmanager
def simulated_board(
    config: Config,
    cache: Path,
    *,
    board_name: str = SIMULATED_BOARD,
    port: int = 0,
    line: Literal["tcp", "pty"] = "tcp",
) -> Iterator[SimulatedBoard]:
    """Build a simulated board, unless that is done, and let it run during the body.

    Parameters
    ----------
    config : Config
        Its accelerator.
    cache : Path
        Folder that keeps the compiled board, see `sim.cache`.
    board_name : str
        Name in `fpga.soc.boards.SOC_BOARDS`.
    port : int
        TCP port on the loopback address; any free one by default.
    line : str
        What the serial line is.

    Raises
    ------
    ParoError
        If a tool is missing or fails, or the port is taken.
    """
    require_litex()
    find_soc_board(board_name)
    verilator = Verilator()
    name = entry_name(
        "board",
        module_digest(f"{__package__}.soc"),
        module_digest(kept_verilog.__module__),
        _MAIN.read_text(),
        [metadata.version(package) for package in _PACKAGES],
        [verilator.version(), sys.version],
        config.model_dump(),
        board_name,
    )

    def make(folder: Path) -> None:
        announce(f"compiling the simulated board {board_name}; it is kept in {cache}")
        verilog = folder / f"{ACCELERATOR}.v"
        verilog.write_text(kept_verilog(config, ACCELERATOR, cache))
        elaborate(
            Request(
                kind="simulated",
                config=config.model_dump(),
                board=board_name,
                verilog=str(verilog),
                folder=str(folder),
            )
        )
        sources = [verilog, *(folder / file for file in ("paro_board.v", "board_main.cpp"))]
        shutil.copy(_MAIN, folder)
        verilator.compile_program(sources, "paro_board", folder, _PROGRAM, cache)

    step = round(2**32 / SIMULATED_BIT)
    with kept(cache, name, make) as folder:
        process = subprocess.Popen(
            [folder / _PROGRAM, line, str(port), str(step)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            process_group=0,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        followed = None
        try:
            first = process.stdout.readline()
            if not first:
                raise ParoError(f"the simulated board cannot take port {port} of this machine")
            ((kind, place),) = json.loads(first).items()
            device = f"tcp:127.0.0.1:{place}" if kind == "tcp" else f"serial:{place}"
            running = SimulatedBoard(device, process)
            followed = _follow(process.stdout, running.sessions)
            yield running
        finally:
            process.kill()
            process.wait()
            if followed is not None:
                followed.join()
            process.stdin.close()
            process.stdout.close()


def _follow(output: IO[str], sessions: list[dict[str, int]]) -> threading.Thread:
    """Record what the board tells of its hosts, until it ends."""

    def read() -> None:
        for text in output:
            sessions.append(json.loads(text))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread
