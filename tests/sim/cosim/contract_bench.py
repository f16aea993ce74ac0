"""Gives a counter the steps of a file, and leaves a file when it has taken them all."""

import json
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles


@cocotb.test()
async def play(dut):
    dut.rst.value, dut.step.value, dut.offer.value, dut.scale.value = 1, 9, 0, 0
    Clock(dut.clk, 10, "ns").start()
    await ClockCycles(dut.clk, 3)
    dut.rst.value = 0
    for step in json.loads(Path("steps.json").read_text()):
        dut.step.value = step
        await ClockCycles(dut.clk, 1)
    await ClockCycles(dut.clk, 1)
    Path("ended").touch()
