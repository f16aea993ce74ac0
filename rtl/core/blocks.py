"""Descriptors that travel with a block through the core."""

from amaranth.hdl import unsigned
from amaranth.lib import data

from paro.config import Config
from paro.config.config import bits_unsigned
from rtl import interfaces

__all__ = [
    "SLOTS",
    "block_layout",
    "layer_row_layout",
    "load_layout",
    "weighted_chunk_layout",
]

#: Slots of weights, and blocks between QK and PV: one is filled while the other is used.
SLOTS = 2


def block_layout(config: Config) -> data.StructLayout:
    """A live block of the map, as it goes from the scheduler through QK, softmax and PV.

    ``code`` 1 .. 3; ``first`` and ``last`` live block of its row; ``keys`` and ``queries`` valid
    tokens, 1 .. block. A block of a linear layer (``linear``), whose keys are output channels and
    whose columns are chunks of inputs, goes through QK alone. ``row`` of its superblock;
    ``query_slot`` of its queries; ``keeps``: its K and V serve the next block too.
    """
    count = unsigned(bits_unsigned(config.block))
    return data.StructLayout(
        {
            "code": 2,
            "first": 1,
            "last": 1,
            "linear": 1,
            "keys": count,
            "queries": count,
            "row": range(config.query_rows),
            "query_slot": range(config.row_slots),
            "keeps": 1,
        }
    )


def load_layout(config: Config) -> data.StructLayout:
    """Load of a block: its number of tokens, and the slot that it fills."""
    return data.StructLayout(
        {
            "tokens": unsigned(bits_unsigned(config.block)),
            "slot": range(max(config.row_slots, config.key_slots)),
        }
    )


def layer_row_layout(config: Config) -> data.StructLayout:
    """A block row of a linear layer: ``tokens`` that are valid, and the layer's shifts."""
    return data.StructLayout(
        {"tokens": unsigned(bits_unsigned(config.layer_tokens)), **interfaces.layer_shifts()}
    )


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
