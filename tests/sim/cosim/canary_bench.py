"""cocotb side of `test_simulators`: runs inside the simulator on `tests.gen.standin.StandIn`."""

import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer

ROWS = COLS = 4


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


@cocotb.test()
async def canary(dut: Any) -> None:
    dut.rst.value = 0
    dut.clk.value = 0
    dut.i__valid.value = 0
    dut.o__ready.value = 0
    dut.i__payload.value = 0
    await Timer(1, "ns")
    # Logic that only registers drive: no input has moved since its value was computed.
    assert str(dut.status.value) == "0101"
    assert str(dut.i__ready.value) == "1"

    Clock(dut.clk, 10, "ns").start()
    dut.o__ready.value = 1
    dut.i__valid.value = 1
    generator = random.Random(1)
    sums = [0] * COLS
    for _ in range(20):
        a = generator.randrange(-128, 128)
        b = [generator.randrange(-128, 128) for _ in range(COLS)]
        dut.i__payload.value = sum(
            (value & 255) << 8 * place for place, value in enumerate([a, *b])
        )
        while True:
            await RisingEdge(dut.clk)
            if dut.i__ready.value == 1:
                break
        sums = [
            signed(total + a * value & 0xFFFF, 16) for total, value in zip(sums, b, strict=True)
        ]
        # The chain of choosers: each its sum minus, then plus, what came before.
        chain = 0
        for column, total in enumerate(sums):
            chain = signed((total - chain if column % 2 else total + chain) & 0xFFFF, 16)
        while True:
            await RisingEdge(dut.clk)
            if dut.o__valid.value == 1:
                break
        assert signed(int(dut.o__payload.value), 16) == chain
    Path("passed").touch()
