"""How the cycle model's functions are compiled, and the records that they work on.

A NamedTuple of integers defines a record: its fields and, as their defaults, the values that it
begins with. The compiled functions read and write the fields by name.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

__all__ = ["compiled", "inlined", "new_record", "new_records", "record_dtype"]

#: None of the functions makes an array. So they need not count references to arrays (`_nrt`), which
#: takes ten times as long as their work.
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}
compiled: Any = njit(**_OPTIONS)
#: Compiled into its caller: handing over many arguments takes ten times as long as the work.
inlined: Any = njit(**_OPTIONS, inline="always")


@functools.cache
def record_dtype(names: tuple[str, ...], part: Any = np.int64) -> np.dtype:
    """Dtype of a record with these fields: integers, or records of one dtype."""
    return np.dtype((np.record, np.dtype([(name, part) for name in names], align=True)))


def new_records(kind: Any, rows: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Records of a kind, which a NamedTuple class defines."""
    return np.array(rows, record_dtype(kind._fields))


def new_record(first: Any) -> Any:
    """Record that begins as a NamedTuple says."""
    return new_records(first, [first])[0]
