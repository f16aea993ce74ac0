"""cocotb side of `test_coverage`: drives `tests.sim.verify.choices` as a file says."""

import json
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge


@cocotb.test()
async def drive(dut: Any) -> None:
    dut.rst.value = 1
    dut.a.value = dut.flags.value = 0
    Clock(dut.clk, 10, "ns").start()
    for reset, a, flags in json.loads(Path("inputs.json").read_text()):
        dut.rst.value, dut.a.value, dut.flags.value = reset, a, flags
        await RisingEdge(dut.clk)
    for _ in range(2):
        await RisingEdge(dut.clk)
