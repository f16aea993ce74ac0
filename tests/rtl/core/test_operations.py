"""Choices by an operation of the array."""

from typing import Any

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring

from paro.config.formats import Operation
from rtl.core.operations import by_operation, encode_operation, is_operation
from tests.rtl.simulate import simulate


class Choices(wiring.Component):
    """Every choice by a value of so many bits, a cycle later."""

    def __init__(self, bits: int):
        self.operation = Signal(bits)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        found = {each: is_operation(self.operation, each) for each in Operation}
        self.found = Signal(len(Operation))
        self.chosen = Signal(8)
        self.encoded = Signal(8)
        for operation, bit in found.items():
            m.d.sync += self.found[operation].eq(bit)
        m.d.sync += [
            self.chosen.eq(by_operation(self.operation, {each: 40 + each for each in Operation})),
            self.encoded.eq(encode_operation(found)),
        ]
        return m


@pytest.mark.parametrize("bits", [1, 2])
def test_choices(bits: int) -> None:
    """One bit for two operations, and more bits, as for more of them."""
    choices = Choices(bits)

    async def testbench(ctx: Any) -> None:
        for operation in Operation:
            ctx.set(choices.operation, operation)
            await ctx.tick()
            assert ctx.get(choices.found) == 1 << operation
            assert ctx.get(choices.chosen) == 40 + operation
            assert ctx.get(choices.encoded) == operation

    simulate(choices, testbench)
