"""The descriptor of a head as the RTL sees it."""

from amaranth.hdl import unsigned
from amaranth.lib import data

from paro.config.descriptor import DESCRIPTOR, DESCRIPTOR_BYTES

__all__ = ["descriptor_layout"]


def descriptor_layout() -> data.FlexibleLayout:
    """Fields of `paro.config.descriptor.DESCRIPTOR` in the bits of a descriptor."""
    return data.FlexibleLayout(
        8 * DESCRIPTOR_BYTES,
        {field.name: data.Field(unsigned(field.width), field.offset) for field in DESCRIPTOR},
    )
