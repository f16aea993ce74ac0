"""Random gaps and latencies of a co-simulation, from one seed: for benches and for the model.

Every stream has a generator of its own, a step a cycle. The harnesses have them in Verilog
(`RANDOM_MODULE`), the cycle model in `sim.cycles.cycle_kernel`.
"""

import random
from collections.abc import Sequence

import numpy as np

__all__ = [
    "CHANNELS",
    "DELAYS",
    "RANDOM_MODULE",
    "STREAMS",
    "gap_rates",
    "gap_seed",
    "generators",
    "salt",
]

#: Streams of the core, in the order in which their rates are drawn.
STREAMS = ("command", "codes", "fetch", "q", "k", "v", "o")
#: Channels of the memory port; their rates are drawn after those.
CHANNELS = ("ar", "r", "aw", "w", "b")
#: What has a random latency there: a read's address, a write's answer.
DELAYS = ("read_delay", "write_delay")
_NAMES = (*STREAMS, *CHANNELS, *DELAYS)
#: Chances, of 256, that a stream may have of beginning or going on with a gap.
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
    return word, {name: generator.choice(_RATES) for name in (*STREAMS, *CHANNELS)}


def gap_seed(seed: int | None) -> int:
    """Word that the harness's generators begin with."""
    return _draw(seed or 0)[0]


def gap_rates(seed: int | None) -> dict[str, int]:
    """Chance of each stream and channel, of 256, to begin or go on with a gap; 0 without a seed."""
    return dict.fromkeys((*STREAMS, *CHANNELS), 0) if seed is None else _draw(seed)[1]


def salt(name: str) -> int:
    """Word that makes a stream's generator one of its own."""
    return 0x9E3779B9 * (_NAMES.index(name) + 1) & 0xFFFFFFFF


def generators(seed: int | None, names: Sequence[str], begun: int = 0) -> np.ndarray:
    """Generators as the cycle model takes them.

    Parameters
    ----------
    seed : int or None
        As `gap_rates`.
    names : sequence of str
        Whose.
    begun : int
        Cycle of their first step, 0 or before.

    Returns
    -------
    np.ndarray
        int64 [names, 4]: state, the cycle it is of, rate, first cycle in which a gap may begin.
    """
    word, rates = gap_seed(seed), gap_rates(seed)
    return np.array([[(word ^ salt(name)) | 1, begun, rates.get(name, 0), 0] for name in names])
