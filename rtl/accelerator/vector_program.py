"""The program of a vector step as the RTL sees it."""

from collections.abc import Sequence

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from paro.config.descriptor import DescriptorField
from paro.config.vector_program import HEADER, PASS, SLOT_BYTES

__all__ = ["header_layout", "pass_layout"]


def _layout(fields: Sequence[DescriptorField]) -> data.FlexibleLayout:
    def shape(field: DescriptorField):
        return (signed if field.legal[0] < 0 else unsigned)(field.width)

    return data.FlexibleLayout(
        8 * SLOT_BYTES,
        {field.name: data.Field(shape(field), field.offset) for field in fields},
    )


def header_layout() -> data.FlexibleLayout:
    """Fields of `paro.config.vector_program.HEADER` in the bits of a slot."""
    return _layout(HEADER)


def pass_layout() -> data.FlexibleLayout:
    """Fields of `paro.config.vector_program.PASS` in the bits of a slot."""
    return _layout(PASS)
