"""Descriptors that travel with a block through the core."""

from amaranth.hdl import unsigned
from amaranth.lib import data

from paro.config import Config
from paro.config.config import bits_unsigned

__all__ = ["SLOTS", "block_layout", "load_layout", "weighted_chunk_layout"]

#: Slots of each operand buffer: one is filled while the other is used.
SLOTS = 2


def block_layout(config: Config) -> data.StructLayout:
    """A live block of the map, as it goes from the scheduler through QK, softmax and PV.

    ``code`` 1 .. 3; ``first`` and ``last`` live block of its row; ``keys`` and ``queries`` valid
    tokens, 1 .. block.
    """
    count = unsigned(bits_unsigned(config.block))
    return data.StructLayout({"code": 2, "first": 1, "last": 1, "keys": count, "queries": count})


def load_layout(config: Config) -> data.StructLayout:
    """Load of a block: its number of tokens."""
    return data.StructLayout({"tokens": unsigned(bits_unsigned(config.block))})


def weighted_chunk_layout(config: Config) -> data.StructLayout:
    """Queries of a row whose last block has its weights: their denominators are final.

    ``queries`` of the row are valid; ``chunk`` is a group of ``softmax_lanes`` queries.
    """
    return data.StructLayout(
        {
            "queries": unsigned(bits_unsigned(config.block)),
            "chunk": range(config.block // config.softmax_lanes),
            "denominators": data.ArrayLayout(
                unsigned(config.denominator_bits), config.softmax_lanes
            ),
        }
    )
