"""Choices by an `Operation` of the array, in hardware.

A linear layer is no operation of its own: the array does QK of its blocks, which say `linear` (see
`rtl.core.blocks`) where they wait otherwise (`rtl.core.sequencer`) or go elsewhere
(`rtl.core.drain`).
"""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Mux, Shape, Value

from paro.config.formats import Operation

__all__ = ["by_operation", "encode_operation", "is_operation"]


def is_operation(value: Value, operation: Operation) -> Value:
    """Whether ``value``, of shape `Operation`, is ``operation``."""
    if len(value) == 1:  # of two operations: the bit or its inverse, without a comparator
        return value if operation else ~value
    return value == operation


def by_operation(value: Value, choices: Mapping[Operation, Any]) -> Any:
    """Choose by ``value``, of shape `Operation`; those without a choice get the first one."""
    chosen, *others = choices.values()
    for operation, other in zip(list(choices)[1:], others, strict=True):
        chosen = Mux(is_operation(value, operation), other, chosen)
    return chosen


def encode_operation(chosen: Mapping[Operation, Value]) -> Value:
    """Return the operation whose bit is 1, in shape `Operation`; exactly one bit must be."""
    return Cat(
        reduce(or_, (bit for operation, bit in chosen.items() if operation >> place & 1))
        for place in range(Shape.cast(Operation).width)
    )
