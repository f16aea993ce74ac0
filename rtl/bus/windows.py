"""Windows of memory: where bursts may lie, in whole pages."""

from typing import Any

from amaranth.hdl import Cat, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from paro.config.registers import PAGE_NUMBER_BITS

__all__ = ["inside", "windows_member"]

_WINDOW = data.StructLayout(
    {"first": unsigned(PAGE_NUMBER_BITS), "last": unsigned(PAGE_NUMBER_BITS)}
)


def windows_member(count: int) -> wiring.Member:
    """A port for ``count`` windows: first and last page of each, open where nothing drives it.

    A window whose last page is before its first one is closed.
    """
    opened = {"first": 0, "last": (1 << PAGE_NUMBER_BITS) - 1}
    return In(data.ArrayLayout(_WINDOW, count), init=[opened] * count)  # pyright: ignore[reportCallIssue]


def inside(windows: Any, page: Value) -> Value:
    """Whether a page lies in one of the windows."""
    return Cat(
        (windows[index].first <= page) & (page <= windows[index].last)
        for index in range(windows.shape().length)
    ).any()
