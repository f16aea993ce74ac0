"""Descriptors that travel with a block through the core."""

from amaranth.hdl import unsigned
from amaranth.lib import data

from paro_config import Config
from paro_config.config import bits_unsigned

__all__ = ["block_layout", "finished_row_layout", "load_layout", "log2"]


def log2(value: int) -> int:
    """Exponent of a power of two; every dimension of the core is one."""
    exponent = value.bit_length() - 1
    assert value == 1 << exponent, value
    return exponent


def block_layout(config: Config) -> data.StructLayout:
    """A live block of the map, as it goes from the scheduler through QK, softmax and PV.

    ``code`` 1 .. 3; ``first`` and ``last`` live block of its row; ``keys`` and ``queries`` valid
    tokens, 1 .. block.
    """
    count = unsigned(bits_unsigned(config.block))
    return data.StructLayout({"code": 2, "first": 1, "last": 1, "keys": count, "queries": count})


def load_layout(config: Config) -> data.StructLayout:
    """A block of tokens to be loaded: how many tokens, and the code that K is encoded for."""
    return data.StructLayout({"tokens": unsigned(bits_unsigned(config.block)), "code": 2})


def finished_row_layout(config: Config) -> data.StructLayout:
    """A block row whose sums are complete: valid queries, and the slot that holds them."""
    return data.StructLayout({"queries": unsigned(bits_unsigned(config.block)), "slot": 1})
