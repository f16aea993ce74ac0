"""Things that users call by their names."""

from collections.abc import Mapping
from typing import TypeVar

from paro.config.errors import ParoError

__all__ = ["find_named"]

T = TypeVar("T")


def find_named(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return what a table has of that name; `ParoError` with the legal names if it has none."""
    if name not in table:
        raise ParoError(f"no {kind} {name!r}; legal: {', '.join(table)}")
    return table[name]
