"""Delay lines."""

from typing import Any

from amaranth.hdl import Module, Signal

__all__ = ["delayed"]


def delayed(m: Module, value: Any, cycles: int, name: str) -> Any:
    """A value as it was some cycles before.

    Parameters
    ----------
    m : Module
        Receives the registers.
    value : Value or View
        Any shape.
    cycles : int
        Registers on the way, 0 or more.
    name : str
        The registers are ``name_1``, ``name_2``, ...

    Returns
    -------
    Value or View
        Of the same shape.
    """
    for cycle in range(1, cycles + 1):
        following = Signal.like(value, name=f"{name}_{cycle}")
        m.d.sync += following.eq(value)
        value = following
    return value
