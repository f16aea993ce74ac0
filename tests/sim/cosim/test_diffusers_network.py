"""A block of each transformer of diffusers that has rules, in the accelerator from one start.

Weights and widths are random. Text stands before the grid, or apart from it, as it does in these
models.
"""

import random
from collections.abc import Callable

import pytest

from firmware_model.models.compiler import compile_network
from sim.cycles.memory import Memory
from tests.firmware_model.models.small_transformers import (
    Example,
    cogvideox,
    dit,
    flux,
    narrow_flux,
    narrow_pixart,
    pixart,
    wan,
)
from tests.sim.cosim.network_runs import SHARED, run_exactly

#: Transformer and number of the block; Flux has blocks of two kinds.
BLOCKS = {
    "DiT": (dit, 0),
    "CogVideoX": (cogvideox, 0),
    "Flux, double": (flux, 0),
    "Flux, single": (flux, 1),
    "PixArt": (pixart, 0),
    "Wan": (wan, 0),
    "Flux, heads of 16 channels": (narrow_flux, 0),
    "PixArt, heads of 16 channels": (narrow_pixart, 1),
}
#: Those that have between them all kinds of steps: norms of heads and of rows, text beside the grid
#: and apart, heads filled up.
FAST = ("CogVideoX", "Wan", "PixArt, heads of 16 channels")


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in BLOCKS],
)
def test_a_block(name, build_dir, tmp_path, seed):
    """Both items of the batch in one queue, in a memory of random latency and stalls."""
    build: Callable
    build, index = BLOCKS[name]
    rng = random.Random(seed)
    least = rng.randrange(40)
    memory = Memory((least, least + rng.randrange(80)), rng.randrange(2**31))
    network, items, wanted = Example(build, seed).block(index)
    program = compile_network(network, items, SHARED)
    run_exactly(program, wanted, memory, build_dir, tmp_path)
