"""Delay lines: a value in later cycles."""

from typing import Any

from amaranth.hdl import Module, Signal

__all__ = ["delay_line", "delayed"]


def delay_line(m: Module, value: Any, cycles: int, name: str, *, first: int = 1) -> list[Any]:
    """Add a chain of registers to ``m``.

    Parameters
    ----------
    m : Module
        Module under elaboration.
    value : value-like
        Enters the chain in every cycle.
    cycles : int
        Registers in the chain, each of the value's shape.
    name : str
        The registers are ``name_first`` and following in the Verilog.
    first : int
        Number of the first register.

    Returns
    -------
    list
        The value and its registers: element i is the value of i cycles ago.
    """
    line = [value]
    for number in range(first, first + cycles):
        register = Signal.like(value, name=f"{name}_{number}")
        m.d.sync += register.eq(line[-1])
        line.append(register)
    return line


def delayed(m: Module, value: Any, cycles: int, name: str, *, first: int = 1) -> Any:
    """Return the value of ``cycles`` cycles ago, see `delay_line`."""
    return delay_line(m, value, cycles, name, first=first)[-1]
