"""The vector unit's Verilog in both simulators, word for word as the golden reference."""

import json
import random
from functools import cache
from typing import Any

import pytest

from gen.verilog import convert
from paro.config import Config
from paro.config.formats import OUT_BITS
from rtl.vector.passes import command_layout
from rtl.vector.unit import VectorUnit
from sim.cosim.simulators import SIMULATORS, get_simulator
from tests.rtl.vector.rows import random_row, streams

STREAMS = ("commands", "words", "others", "addends", "results", "mantissas__0", "mantissas__1")
PORTS = [
    "clk",
    "rst",
    "idle",
    *(f"{stream}__{part}" for stream in STREAMS for part in ("payload", "valid", "ready")),
]
CHANNELS, HEAD = 128, 32


CONFIG = Config(rows=8, cols=8)


@cache
def verilog() -> str:
    return convert(VectorUnit(CONFIG, CHANNELS), "vector_unit")


def packed(beat: list[int]) -> int:
    mask = (1 << OUT_BITS) - 1
    return sum((word & mask) << OUT_BITS * lane for lane, word in enumerate(beat))


def scenario(seed: int, stall: float, rows: int) -> dict[str, Any]:
    rng = random.Random(seed)
    lanes = CONFIG.vector_lanes
    layout = command_layout(CHANNELS // lanes, CONFIG.vector_rows)
    made = [random_row(CHANNELS, HEAD, lanes, n % 2, rng) for n in range(rows)]
    play = streams(made)
    assert play.sent
    assert all(play.mantissas)
    return {
        "seed": seed,
        "stall": stall,
        "broken_off": 300,
        "inputs": {
            "commands": [layout.const(command).as_bits() for command in play.commands],
            **{name: [packed(beat) for beat in beats] for name, beats in play.inputs.items()},
        },
        "outputs": {
            "results": [packed(beat) for beat in play.sent],
            **{f"mantissas__{bank}": scales for bank, scales in enumerate(play.mantissas)},
        },
    }


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_rows(simulator, stall, build_dir, tmp_path, seed):
    tmp_path.joinpath("scenario.json").write_text(json.dumps(scenario(seed, stall, 16)))
    chosen = get_simulator(simulator)
    sources = {"vector_unit.v": verilog()}
    with chosen.build(sources, "vector_unit", build_dir, visible=PORTS) as build:
        chosen.run(build, "tests.sim.cosim.vector_bench", tmp_path)
    assert (tmp_path / "passed").exists(), (tmp_path / "sim.log").read_text()
