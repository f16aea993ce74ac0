"""What a pass of the vector unit does: its command, and the scalars of a group of channels.

A pass is the formula of section 8 of `docs/numerics.md`, a product, a shift, a sum and a clamp,
over a row of words; what its operands are is chosen here.
"""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from paro.config import formats, vector_formats
from paro.config.config import bits_unsigned
from paro.config.vector_program import Added, Left, Partner, Reduce, Right

__all__ = [
    "SCALAR_SHIFT",
    "command_layout",
    "mantissa_shape",
    "total_layout",
]

#: A shift of a product.
SCALAR_SHIFT = unsigned(bits_unsigned(vector_formats.PRODUCT_SHIFT_MAX))


def command_layout(depth: int, banks: int) -> data.StructLayout:
    """A pass over a row.

    Fields: ``bank``, which of the rows in progress; ``beats`` of the row and of a ``group``,
    each less 1; ``loads``, A's words come from `words` and not from memory ``row``; ``left``,
    ``right``, ``added``, ``partner`` and ``shift``; ``reduce`` with ``epsilon``, ``places`` (p of a
    norm, j of INT8) and ``short`` (mantissas of 8 bits); ``silu`` or GELU, with ``fraction`` bits;
    whether the pass ``keeps`` its words, in memory ``kept``, and ``sends`` them, clamped to
    ``bytes`` or not.
    """
    return data.StructLayout(
        {
            "bank": range(banks),
            "beats": range(depth),
            "group": range(depth),
            "loads": 1,
            "row": 1,
            "left": Left,
            "right": Right,
            "added": Added,
            "partner": Partner,
            "shift": SCALAR_SHIFT,
            "reduce": Reduce,
            "epsilon": unsigned(vector_formats.SQUARES_BITS - 1),
            "places": signed(6),
            "short": 1,
            "silu": 1,
            "fraction": range(vector_formats.ACTIVATION_FRAC + 1),
            "keeps": 1,
            "kept": 1,
            "sends": 1,
            "bytes": 1,
        }
    )


def total_layout(depth: int, banks: int) -> data.StructLayout:
    """What a pass found of a group: ``value``, signed for a sum; the rest as in the command."""
    return data.StructLayout(
        {
            "reduce": Reduce,
            "bank": range(banks),
            "index": range(vector_formats.GROUPS_MAX),
            "beats": range(depth),
            "places": signed(6),
            "short": 1,
            "value": unsigned(vector_formats.SQUARES_BITS),
        }
    )


def mantissa_shape():
    """Shape of a mantissa of INT8."""
    return unsigned(formats.QUERY_SCALE_BITS)
