"""Amaranth's simulator for one component: a clock, testbenches, a fixed end."""

from collections.abc import Callable, Coroutine
from typing import Any

from amaranth.lib import wiring
from amaranth.sim import Simulator

Testbench = Callable[[Any], Coroutine[Any, Any, None]]


def simulate(component: wiring.Component, testbench: Testbench, *background: Testbench) -> None:
    """Run ``testbench`` to its end on a clocked component, others beside it."""
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    for other in background:
        simulator.add_testbench(other, background=True)
    simulator.run()
