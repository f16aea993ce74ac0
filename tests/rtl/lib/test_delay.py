"""Delay lines against a plain list."""

import random
from typing import Any

from amaranth.hdl import Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from rtl.lib.delay import delay_line, delayed
from tests.rtl.simulate import simulate

PAIR = data.StructLayout({"number": signed(5), "flag": 1})
CYCLES = 3


class Line(wiring.Component):
    """A line of a structure, and one of no registers."""

    pair: In(PAIR)

    def elaborate(self, platform):
        m = Module()
        self.line = delay_line(m, self.pair, CYCLES, "pair", first=2)
        self.last = delayed(m, self.pair.number, CYCLES, "number")
        self.same = delayed(m, self.pair.flag, 0, "flag")
        return m


def test_values_of_earlier_cycles(seed: int) -> None:
    """Element i is the value of i cycles ago, 0 before the first; shapes and names are kept."""
    rng = random.Random(seed)
    line = Line()
    given = [{"number": rng.randint(-16, 15), "flag": rng.getrandbits(1)} for _ in range(40)]

    async def testbench(ctx: Any) -> None:
        earlier = [(0, 0)] * CYCLES
        for pair in given:
            ctx.set(line.pair, pair)
            earlier.append((pair["number"], pair["flag"]))
            got = [(ctx.get(stage.number), ctx.get(stage.flag)) for stage in line.line]
            assert got == earlier[::-1][: CYCLES + 1]
            assert ctx.get(line.last) == earlier[-1 - CYCLES][0]
            assert ctx.get(line.same) == pair["flag"]
            await ctx.tick()

    simulate(line, testbench)
    assert [stage.as_value().name for stage in line.line[1:]] == ["pair_2", "pair_3", "pair_4"]
