"""Surroundings of a design on a board: clock, reset, button and LEDs."""

from typing import Any

from amaranth.hdl import (
    ClockDomain,
    ClockSignal,
    Const,
    Elaboratable,
    Instance,
    Module,
    ResetSignal,
    Signal,
)
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from fpga.boards import Board
from fpga.pll import Ecp5Pll, PllSettings

__all__ = ["LEDS", "BoardTop"]

#: LEDs that a design has.
LEDS = 8


class BoardTop(Elaboratable):
    """Top of a bitstream.

    The design is held in reset until the PLL has locked, and while the restart button is pressed.

    Parameters
    ----------
    design : Component
        Runs in the domain ``sync`` and has a member ``leds``: Out, 8.
    board : Board
        Where the pins are.
    clock : PllSettings
        Clock of ``sync``.
    """

    def __init__(self, design: Any, board: Board, clock: PllSettings):
        self.design = design
        self.board = board
        self.clock = clock

    def elaborate(self, platform):
        m = Module()
        m.submodules.design = self.design
        m.submodules.pll = pll = Ecp5Pll(self.clock)
        clock_pin = platform.request(platform.default_clk, dir="-")
        m.submodules.clock_buffer = clock_buffer = io.Buffer(io.Direction.Input, clock_pin)
        button_pin = platform.request(*self.board.restart, dir="-")
        m.submodules.button_buffer = button_buffer = io.Buffer(io.Direction.Input, button_pin)

        m.domains.sync = ClockDomain()
        m.domains.start = ClockDomain()
        restart = Signal()
        m.submodules.reset = ResetSynchronizer(restart, domain="start")
        # Thousands of registers hear of the reset: it goes by the wires of a clock.
        m.submodules.reset_buffer = Instance(
            "DCCA", i_CLKI=ResetSignal("start"), i_CE=Const(1), o_CLKO=ResetSignal("sync")
        )
        m.d.comb += [
            pll.clk_in.eq(clock_buffer.i),
            ClockSignal("start").eq(pll.clk_out),
            ClockSignal("sync").eq(pll.clk_out),
            restart.eq(~pll.locked | button_buffer.i),
        ]
        for index in range(LEDS):
            led_pin = platform.request("led", index, dir="-")
            m.submodules[f"led_{index}"] = led_buffer = io.Buffer(io.Direction.Output, led_pin)
            m.d.comb += led_buffer.o.eq(self.design.leds[index])
        return m
