"""Makes the SoC's Verilog, in a process of its own: LiteX prints much and keeps what it has named.

``python -m fpga.soc.elaborate REQUEST.json``; the request is a `Request`.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fpga.soc.boards import find_soc_board, require_litex
from paro.config import Config, ParoError
from paro.config.programs import run_program

__all__ = ["Request", "elaborate"]

_LOG, _FACTS = "litex.log", "facts.json"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to make.

    Parameters
    ----------
    kind : str
        ``simulated``: Verilog ``paro_board.v`` in ``folder``. ``real``: a project of the board's
        tools in ``folder``, which makes the bitstream.
    config : dict
        Fields of the accelerator's `Config`.
    board : str
        Name in `fpga.soc.boards.SOC_BOARDS`.
    verilog : str
        File with the accelerator.
    folder : str
        Where the result goes.
    clock_mhz : float, optional
        Another clock than the board's own.
    ip_address : str
        Of a real board with Ethernet.
    """

    kind: Literal["simulated", "real"]
    config: dict[str, int]
    board: str
    verilog: str
    folder: str
    clock_mhz: float | None = None
    ip_address: str = ""


def elaborate(request: Request) -> dict[str, Any]:
    """Make what is asked for.

    Returns
    -------
    dict
        Of a real board: ``toolchain`` as LiteX names it, ``device``, ``clock_mhz``, ``script``
        which runs the tools, in ``gateware``.

    Raises
    ------
    ParoError
        If LiteX is missing or fails; the sentence names its log.
    """
    require_litex()
    folder = Path(request.folder)
    path, log = folder / "request.json", folder / _LOG
    path.write_text(json.dumps(asdict(request)))
    with log.open("w") as output:
        run = run_program(
            [sys.executable, "-m", __name__, path],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if run.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no message"]
        raise ParoError(f"LiteX does not make the SoC: {lines[-1].strip()} (log: {log})")
    return json.loads((folder / _FACTS).read_text()) if request.kind == "real" else {}


def _script(top: str) -> str:
    """Script that LiteX has made for the tools of a toolchain, in the folder ``gateware``."""
    # Gowin's own is for gw_sh.
    names = (f"build_{top}.sh", "run.tcl")
    return next(name for name in names if Path("gateware", name).exists())


def _main() -> None:
    from litex.soc.integration.builder import Builder

    from fpga.soc.soc import TOP, real_soc, simulated_soc

    request = Request(**json.loads(Path(sys.argv[1]).read_text()))
    config, board = Config(**request.config), find_soc_board(request.board)
    if request.clock_mhz is not None:
        board = replace(board, clock_mhz=request.clock_mhz)
    if request.kind == "simulated":
        soc = simulated_soc(config, board, Path(request.verilog))
        soc.finalize()
        soc.platform.get_verilog(soc, name=TOP).write(f"{TOP}.v")
        return
    soc = real_soc(config, board, Path(request.verilog), request.ip_address)
    builder = Builder(soc, output_dir=".", compile_software=False, csr_json="csr.json")
    builder.build(build_name=TOP, run=False)
    platform = soc.platform
    facts = {
        "toolchain": type(platform.toolchain).__module__.rpartition(".")[2],
        "device": platform.device,
        "clock_mhz": soc.sys_clk_freq / 1e6,
        "script": _script(TOP),
    }
    Path(_FACTS).write_text(json.dumps(facts))


if __name__ == "__main__":
    try:
        _main()
    except ParoError as error:
        sys.exit(str(error))
