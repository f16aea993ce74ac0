"""Figures of what was generated."""

import numpy as np
import pytest

from gen.generate import generate
from gen.names import ACCELERATOR
from gen.summary import memory_bits, summarise
from paro.config import Config
from sim.cycles.attention_time import ideal_cycles, read_bytes

TEXT = """\
module top(clk);
  top__a one (
    .clk(clk)
  );
  top__a \\one$2  (
    .clk(clk)
  );
  top__b last (
  );
  reg [7:0] word;
endmodule

module top__a(clk);
  reg [3:0] memory [9:0];
  reg \\flags$1  [4:0];
endmodule

module top__b(clk);
  top__a inner (
  );
  reg [15:0] storage [0:0];
endmodule

module topping__a(clk);
  reg [63:0] memory [9:0];
endmodule
"""


def test_memories_count_once_an_instance() -> None:
    assert memory_bits(TEXT, "top") == 3 * (4 * 10 + 5) + 16


@pytest.mark.parametrize("cores", [1, 4])
def test_figures(cores) -> None:
    config = Config(rows=8, cols=8, query_rows=2, cores=cores)
    summary = summarise(config, TEXT.replace("top", "x"), "x", cores)
    assert summary.multipliers == 64 * cores
    assert summary.products_per_cycle == {2: 256 * cores, 4: 128 * cores, 8: 64 * cores}
    # A map of live blocks of one width, by the formulas of the reports.
    code = {2: 1, 4: 2, 8: 3}
    rows, blocks = 2 * cores, 64
    for bits, wanted in summary.bytes_per_cycle.items():
        codes = np.full((1, rows, blocks), code[bits], np.uint8)
        cycles = ideal_cycles(config, codes, 64 * blocks, range(64 * rows))[0] / cores
        loaded = read_bytes(config, codes, 64 * blocks, range(64 * rows))[0][0]
        queries = read_bytes(config, np.zeros_like(codes), 64 * blocks, range(64 * rows))[0][0]
        assert (loaded - queries) / cycles == pytest.approx(wanted)


def test_memory_of_an_accelerator(tmp_path) -> None:
    """It has its operand buffers, and two cores twice those of one."""
    bits = []
    for cores in (1, 2):
        config = Config(rows=4, cols=4, block=16, head_dim=32, cores=cores)
        bits.append(generate(config, tmp_path, ACCELERATOR)["summary"].memory_bits)
    operands = 3 * 2 * 16 * 32 * 8
    assert bits[0] > operands
    assert 1.5 * bits[0] < bits[1] < 2 * bits[0]
