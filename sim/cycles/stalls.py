"""Random stalls and latencies of a co-simulation, from one seed.

Every stream has a generator of its own, which makes a step in each cycle. The harnesses have the
generators in Verilog (`RANDOM_MODULE`), the cycle model in `sim.cycles.stall_kernel`.
"""

import random

__all__ = [
    "CHANNELS",
    "DELAYS",
    "RANDOM_MODULE",
    "REGISTER_CHANNELS",
    "ROWS",
    "STREAMS",
    "generator_seed",
    "salt",
    "stall_rates",
]

#: Streams of the core, in the order in which their rates are drawn.
STREAMS = ("command", "codes", "fetch", "q", "k", "v", "o")
#: Stream of the core with superblocks; its stalls change nothing else.
ROWS = "rows"
#: Channels of the memory port; their rates are drawn after those of the streams.
CHANNELS = ("ar", "r", "aw", "w", "b")
#: Random latencies of the memory: of a read's address, of a write's answer.
DELAYS = ("read_delay", "write_delay")
#: Channels of the registers.
REGISTER_CHANNELS = ("s_ar", "s_r", "s_aw", "s_w", "s_b")
_NAMES = (*STREAMS, *CHANNELS, *DELAYS, ROWS, *REGISTER_CHANNELS)
#: Rates that a stream may have: its chance, of 256, that a stall begins or goes on in a cycle.
_RATES = (0, 16, 64, 128, 192)

RANDOM_MODULE = """\
// Marsaglia's xorshift generator: ``seed`` until it runs, then a step a cycle.
module paro_random (
  input clk,
  input run,
  input [31:0] seed,
  output [31:0] value
);
  function [31:0] following(input [31:0] x);
    begin
      following = x ^ (x << 13);
      following = following ^ (following >> 17);
      following = following ^ (following << 5);
    end
  endfunction

  reg [31:0] state = 1;
  assign value = state;
  always @(posedge clk) state <= run ? following(state) : seed | 1;
endmodule
"""


def _draw(seed: int) -> tuple[int, dict[str, int]]:
    generator = random.Random(seed)
    word = generator.getrandbits(32)
    return word, {name: generator.choice(_RATES) for name in (*STREAMS, *CHANNELS, ROWS)}


def generator_seed(seed: int | None) -> int:
    """Word that the generators of a co-simulation begin with, each with its `salt`."""
    return _draw(seed or 0)[0]


def stall_rates(seed: int | None) -> dict[str, int]:
    """Chance, of 256, that a stall begins or goes on, by stream and channel; 0 without a seed."""
    return dict.fromkeys((*STREAMS, *CHANNELS, ROWS), 0) if seed is None else _draw(seed)[1]


def salt(name: str) -> int:
    """Word that makes a stream's generator differ from all others."""
    return 0x9E3779B9 * (_NAMES.index(name) + 1) & 0xFFFFFFFF
