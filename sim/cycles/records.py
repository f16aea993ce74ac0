"""How the cycle model's functions are compiled, and the records that they work on.

A NamedTuple of integers defines a record: its fields and, as their defaults, the values that it
begins with. The compiled functions read and write the fields by name.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numba import njit

__all__ = ["compiled", "inlined", "new_record", "new_records", "record_dtype"]

compiled: Any = njit(nogil=True, error_model="numpy")
#: Compiled into its caller: to hand over many arguments would take as long as the work.
inlined: Any = njit(nogil=True, error_model="numpy", inline="always")


def record_dtype(names: Iterable[str], part: Any = np.int64) -> np.dtype:
    """Dtype of a record with these fields: integers, or records of one dtype."""
    return np.dtype((np.record, np.dtype([(name, part) for name in names], align=True)))


def new_records(kind: Any, rows: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Records of a kind, which a NamedTuple class defines."""
    return np.array(rows, record_dtype(kind._fields))


def new_record(first: Any) -> Any:
    """Record that begins as a NamedTuple says."""
    return new_records(first, [first])[0]
