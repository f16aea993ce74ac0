"""Number formats of the vector unit: section 8 of `docs/numerics.md`."""

import math
from collections.abc import Callable
from typing import Literal, get_args

from paro.config.formats import OPERAND_MAX, OUT_BITS

#: Largest magnitude of a word of a row; -2**15 is never produced.
WORD_MAX = 2 ** (OUT_BITS - 1) - 1
#: Bits of both signed operands of a lane's multiplier.
FACTOR_BITS = 18
#: Largest right shift of a product: nothing is left of one beyond.
PRODUCT_SHIFT_MAX = 2 * FACTOR_BITS - 1
#: Bits of a signed constant, a channel's factor or offset.
CONSTANT_BITS = 16
#: Largest right shift that the host chooses for factors.
CONSTANT_SHIFT_MAX = 30

#: Most channels that are normalised together.
NORM_CHANNELS_MAX = 2**13
#: Most groups of channels (heads) that a row may have.
GROUPS_MAX = 64
#: Bits of the sum of their squares, twice the distance from the mean each, and of epsilon.
SQUARES_BITS = 48
#: Bits of the root of such a sum, its leading one included, and of its reciprocal.
ROOT_BITS = 17
#: Most fractional bits of a normalised word, in units of the root of the sum of squares.
NORM_PLACES_MAX = 17

#: Fractional bits, beyond its exponent, of 127 over a token's largest word.
QUANTIZE_FRAC = 10
#: Most and least places between a token's largest word and its mantissa.
MANTISSA_PLACES = (-15, 2)

#: Fractional bits of a rotation's cosines and sines; 1.0 is exact.
ROTATION_FRAC = 14

#: Fractional bits of the distance from 0 at which an activation's table is read.
ACTIVATION_FRAC = 12
#: Where the table ends.
ACTIVATION_END = 8
#: Segments of the table.
ACTIVATION_SEGMENTS = 128
#: Bits of the distance within a segment.
ACTIVATION_REST_BITS = ACTIVATION_FRAC - (ACTIVATION_SEGMENTS // ACTIVATION_END).bit_length() + 1
#: Fractional bits of the table.
ACTIVATION_TABLE_FRAC = 16
#: Least and most fractional bits of an activation's words.
ACTIVATION_PLACES = (4, ACTIVATION_FRAC)

#: Activations: GELU by its tanh formula, and SiLU.
Activation = Literal["gelu", "silu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
#: How channels pair up in a rotation: i with i + d / 2, or 2 i with 2 i + 1.
Pairing = Literal["halves", "neighbours"]
PAIRINGS: tuple[Pairing, ...] = get_args(Pairing)

assert OPERAND_MAX << QUANTIZE_FRAC < 2 ** (FACTOR_BITS - 1)


def gelu(x: float) -> float:
    """GELU by its tanh formula."""
    return x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: float) -> float:
    """SiLU: x over 1 + exp(-x)."""
    return x / (1 + math.exp(-x))


_FUNCTIONS: dict[str, Callable[[float], float]] = {"gelu": gelu, "silu": silu}


def activation_table(kind: Activation) -> list[tuple[int, int]]:
    """Piecewise-linear table of ``f(-t)`` for t in 0 .. `ACTIVATION_END`.

    Parameters
    ----------
    kind : Activation
        The activation f.

    Returns
    -------
    list of (base, slope)
        Segment ``s`` starts at ``t = s * ACTIVATION_END / ACTIVATION_SEGMENTS``. With ``r`` the
        remaining `ACTIVATION_REST_BITS` bits of t, ``f(-t) * 2**16`` is about
        ``base + slope * r / 256``: the chord, moved by half of its largest error, except at t = 0,
        which stays exact. Both are signed; bases are below 2**15, slopes below 2**11.
    """
    function = _FUNCTIONS[kind]
    width = ACTIVATION_END / ACTIVATION_SEGMENTS
    one = 2**ACTIVATION_TABLE_FRAC
    table = []
    for segment in range(ACTIVATION_SEGMENTS):
        start = segment * width
        first, last = function(-start), function(-start - width)
        inside = [width * part / 64 for part in range(65)]
        errors = [function(-start - t) - first - (last - first) * t / width for t in inside]
        moved = (max(errors) + min(errors)) / 2 if segment else 0.0
        table.append((round((first + moved) * one), round((last - first) * one)))
    return table
