"""Delay lines."""

from typing import Any

from amaranth.hdl import Module, Signal

__all__ = ["delay_line", "delayed", "delayed_together"]


def delayed(m: Module, value: Any, cycles: int, name: str, *, start: int = 1) -> Any:
    """A value as it was some cycles before: the end of a `delay_line`."""
    return delay_line(m, value, cycles, name, start=start)[-1]


def delay_line(m: Module, value: Any, cycles: int, name: str, *, start: int = 1) -> list[Any]:
    """A value as it is now, as it was one cycle before, and so on.

    Parameters
    ----------
    m : Module
        Receives the registers.
    value : Value or View
        Any shape.
    cycles : int
        Registers, 0 or more.
    name : str
    start : int
        The registers are named ``name_start`` and so on.

    Returns
    -------
    list of Value or View
        ``cycles`` + 1 of the same shape.
    """
    line = [value]
    for number in range(start, start + cycles):
        (value,) = delayed_together(m, 1, start=number, **{name: value})
        line.append(value)
    return line


def delayed_together(m: Module, cycles: int, *, start: int = 1, **values: Any) -> tuple[Any, ...]:
    """Values that travel side by side, as they were some cycles before.

    Parameters
    ----------
    m : Module
        Receives the registers.
    cycles : int
        Registers of each, 0 or more.
    start : int
        The registers are named ``name_start`` and so on.
    **values : Value or View
        By name.

    Returns
    -------
    tuple of Value or View
        In the order of ``values``.
    """
    for number in range(start, start + cycles):
        following = {
            name: Signal.like(value, name=f"{name}_{number}") for name, value in values.items()
        }
        m.d.sync += [following[name].eq(value) for name, value in values.items()]
        values = following
    return tuple(values.values())
