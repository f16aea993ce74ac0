"""What a pass of the vector unit does: its command, and the scalars of a group of channels.

A pass is the formula of section 8 of `docs/numerics.md`, a product, a shift, a sum and a clamp,
over a row of words; what its operands are is chosen here.
"""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum

from paro.config import Config, formats, vector_formats
from paro.config.config import bits_unsigned

__all__ = [
    "GROUPS",
    "SCALAR_SHIFT",
    "Added",
    "Left",
    "Partner",
    "Reduce",
    "Right",
    "command_layout",
    "mantissa_shape",
    "total_layout",
    "vector_lanes",
]

#: Groups of channels (heads) that a row may have.
GROUPS = 64
#: Fewest and most lanes.
_LANES = (2, 32)
#: A shift of a product.
SCALAR_SHIFT = unsigned(bits_unsigned(vector_formats.PRODUCT_SHIFT_MAX))


class Left(enum.Enum, shape=2):
    """A, the left factor."""

    WORD = 0  # the word itself
    DOUBLED = 1  # 2 x
    CENTRED = 2  # 2 x - M of its group
    TABLE = 3  # the distance within a segment of the activation's table


class Right(enum.Enum, shape=2):
    """B, the right factor."""

    STREAM = 0  # a word of `others`
    ITSELF = 1  # the left factor again
    FACTOR = 2  # R of its group, whose shift takes the place of the command's
    TABLE = 3  # the slope of the activation's table


class Added(enum.Enum, shape=2):
    """D, what is added."""

    NOTHING = 0
    STREAM = 1  # a word of `addends`
    ROW = 2  # a word of the memory that is not read for A
    TABLE = 3  # max(x, 0), and the base of the activation's table


class Partner(enum.Enum, shape=2):
    """Whose word is read for A."""

    OWN = 0
    HALVES = 1  # channel c +- half of the group
    NEIGHBOURS = 2  # channel c +- 1


class Reduce(enum.Enum, shape=2):
    """What is found of each group."""

    NOTHING = 0
    SUM = 1  # of the pass's words; becomes M
    SQUARES = 2  # of the left factors, plus epsilon; becomes R of a norm
    LARGEST = 3  # magnitude of the pass's words; becomes R and mantissa of INT8


def vector_lanes(config: Config) -> int:
    """Channels of a beat: a sixteenth of the PEs, 2 to 32, see docs/architecture.md."""
    return max(_LANES[0], min(config.rows * config.cols // 16, _LANES[1]))


def command_layout(depth: int) -> data.StructLayout:
    """A pass over a row.

    Fields: ``bank``, which of the two rows in progress; ``beats`` of the row and of a ``group``,
    each less 1; ``loads``, A's words come from `words` and not from memory ``row``; ``left``,
    ``right``, ``added``, ``partner`` and ``shift``; ``reduce`` with ``epsilon``, ``places`` (p of a
    norm, j of INT8) and ``short`` (mantissas of 8 bits); ``silu`` or GELU, with ``fraction`` bits;
    whether the pass ``keeps`` its words, in memory ``kept``, and ``sends`` them, clamped to
    ``bytes`` or not.
    """
    return data.StructLayout(
        {
            "bank": 1,
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


def total_layout(depth: int) -> data.StructLayout:
    """What a pass found of a group: ``value``, signed for a sum; the rest as in the command."""
    return data.StructLayout(
        {
            "reduce": Reduce,
            "bank": 1,
            "index": range(GROUPS),
            "beats": range(depth),
            "places": signed(6),
            "short": 1,
            "value": unsigned(vector_formats.SQUARES_BITS),
        }
    )


def mantissa_shape():
    """Shape of a mantissa of INT8."""
    return unsigned(formats.QUERY_SCALE_BITS)
