"""cocotb side of `test_vector`: plays the vector unit's streams and compares what it sends.

Runs inside the simulator, in a folder with ``scenario.json``; leaves ``passed`` with the cycles of
the whole run.
"""

import json
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

#: Cycles after which a run without its outputs is one that hangs.
LIMIT = 200_000


class Bench:
    """Offers beats, takes outputs, each after random pauses."""

    def __init__(self, dut: Any, scenario: dict[str, Any], rng: random.Random):
        self.dut, self.scenario, self.rng = dut, scenario, rng

    def begin(self) -> None:
        self.given = dict.fromkeys(self.scenario["inputs"], 0)
        self.offered = dict.fromkeys(self.scenario["inputs"], False)
        self.taken = dict.fromkeys(self.scenario["outputs"], 0)
        self.ready = dict.fromkeys(self.scenario["outputs"], False)
        self.refused: dict[str, int | None] = dict.fromkeys(self.scenario["outputs"])

    async def reset(self) -> None:
        self.dut.rst.value = 1
        for name in self.scenario["inputs"]:
            getattr(self.dut, f"{name}__valid").value = 0
        for name in self.scenario["outputs"]:
            getattr(self.dut, f"{name}__ready").value = 0
        for _ in range(3):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        self.begin()

    def _pause(self) -> bool:
        return self.rng.random() < self.scenario["stall"]

    def _give(self, name: str, beats: list[int]) -> None:
        valid = getattr(self.dut, f"{name}__valid")
        if self.offered[name] and int(getattr(self.dut, f"{name}__ready").value) == 1:
            self.given[name] += 1
            self.offered[name] = False
        if not self.offered[name]:
            self.offered[name] = self.given[name] < len(beats) and not self._pause()
            if self.offered[name]:
                getattr(self.dut, f"{name}__payload").value = beats[self.given[name]]
            valid.value = int(self.offered[name])

    def _take(self, name: str, wanted: list[int]) -> None:
        if int(getattr(self.dut, f"{name}__valid").value) == 1:
            payload = int(getattr(self.dut, f"{name}__payload").value)
            kept = self.refused[name]
            assert kept is None or kept == payload, f"{name}: an offered payload changed"
            self.refused[name] = payload
            if self.ready[name]:
                place = self.taken[name]
                assert place < len(wanted), f"{name}: more beats than are expected"
                assert payload == wanted[place], f"{name}, beat {place}"
                self.taken[name] += 1
                self.refused[name] = None
        else:
            assert self.refused[name] is None, f"{name}: an offer was withdrawn"
        self.ready[name] = not self._pause()
        getattr(self.dut, f"{name}__ready").value = int(self.ready[name])

    async def play(self, most: int) -> int:
        """Play until all is taken, or for so many cycles; returns the cycles."""
        outputs = self.scenario["outputs"]
        for cycle in range(most):
            if all(self.taken[name] == len(wanted) for name, wanted in outputs.items()):
                return cycle
            await RisingEdge(self.dut.clk)
            for name, beats in self.scenario["inputs"].items():
                self._give(name, beats)
            for name, wanted in outputs.items():
                self._take(name, wanted)
        return most


@cocotb.test()
async def vector(dut: Any) -> None:
    scenario = json.loads(Path("scenario.json").read_text())
    bench = Bench(dut, scenario, random.Random(scenario["seed"]))
    Clock(dut.clk, 10, "ns").start()
    await bench.reset()
    # A reset in mid-run leaves nothing behind that the next run sees.
    await bench.play(scenario["broken_off"])
    await bench.reset()
    cycles = await bench.play(LIMIT)
    assert cycles < LIMIT, "outputs are missing"
    bench.scenario["stall"] = 0.0
    for _ in range(100):
        await RisingEdge(dut.clk)
        for name, wanted in scenario["outputs"].items():
            bench._take(name, wanted)
    assert int(dut.idle.value) == 1
    Path("passed").write_text(str(cycles))
