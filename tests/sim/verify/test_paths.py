"""No combinational path leads to a handshake, in the netlist."""

import pytest

from gen.names import ACCELERATOR, CORE
from paro.config import PRESETS, Config
from sim.verify.paths import PortPath, combinational_paths, handshake_paths

TINY = PRESETS["tiny"]
SUPERBLOCKS = TINY.changed(query_rows=4, key_slots=4)
CLUSTER = TINY.changed(query_rows=2, key_slots=4, cores=2, vector_channels=128, axi_bits=64)

#: Two streams: one passes through, to an output that waits for its ready, the other is registered.
LEAKS = """\
module leaks(clk, a__valid, a__ready, b__valid, b__ready, c__valid, c__ready, word, sum, read);
  input clk, a__valid, b__ready, c__ready;
  output a__ready, b__valid, c__valid, read;
  input [1:0] word;
  output [1:0] sum;
  reg held = 1'h0;
  reg memory [1:0];
  assign b__valid = a__valid & b__ready;
  assign a__ready = b__ready ? 1'h1 : held;
  assign c__valid = held;
  assign sum = { word[0], ~word[1] };
  assign read = memory[word[1]];
  always @(posedge clk) begin
    held <= c__ready;
    memory[word[0]] <= a__valid;
  end
endmodule
"""


def test_paths_of_a_small_design():
    assert combinational_paths(LEAKS, "leaks") == {
        PortPath("a__valid", "b__valid"),
        PortPath("b__ready", "b__valid"),
        PortPath("b__ready", "a__ready"),
        PortPath("word", "sum"),
        PortPath("word", "read"),
    }


@pytest.mark.parametrize(
    ("config", "top"),
    [
        (TINY, CORE),
        pytest.param(SUPERBLOCKS, CORE, marks=pytest.mark.slow),
        pytest.param(TINY, ACCELERATOR, marks=pytest.mark.slow),
        pytest.param(CLUSTER, ACCELERATOR, marks=pytest.mark.slow),
        pytest.param(PRESETS["video"], CORE, marks=pytest.mark.slow),
        pytest.param(Config(rows=8, cols=16, block=32), ACCELERATOR, marks=pytest.mark.slow),
    ],
    ids=["core", "superblocks", "accelerator", "cluster", "video", "wide"],
)
def test_none_leads_to_a_handshake(config, top):
    assert handshake_paths(config, top) == []
