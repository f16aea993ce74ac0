"""Values that a narrow operand takes at each width: section 2 of `docs/numerics.md`."""

from functools import cache

import torch

from paro.config.formats import LANES, OPERAND_MAX, P_FRAC, P_POSITIONS

#: Largest P, the value 1.0.
P_ONE = 1 << P_FRAC


def nearest_power(value: int) -> int:
    """Return the power of two nearest to ``|value|`` with the sign of ``value``.

    A tie goes to the larger power; 0 stays 0.
    """
    if value == 0:
        return 0
    size = abs(value)
    power = 1 << (size.bit_length() - 1)
    if 2 * size >= 3 * power:
        power *= 2
    return power if value > 0 else -power


def radix4_digits(value: int) -> list[int]:
    """Non-adjacent form of ``value`` grouped in radix-4 positions.

    Returns
    -------
    list of int
        Digits from {-2, -1, 0, 1, 2}, lowest position first, ``sum(digit * 4**i)`` = ``value``;
        no two neighbouring bits of the underlying binary form are non-zero.
    """
    bits = []
    while value:
        # An odd value takes the sign that makes the next bit 0.
        bit = (2 - value % 4) if value % 2 else 0
        bits.append(bit)
        value = (value - bit) // 2
    bits += [0] * (len(bits) % 2)
    return [low + 2 * high for low, high in zip(bits[::2], bits[1::2], strict=True)]


def key_value(value: int, bits: int) -> int:
    """Value that key operand ``value`` (-127 .. 127) takes in a block of ``bits`` bits."""
    first = nearest_power(value)
    if bits == 2:
        return first
    if bits == 4:
        return first + nearest_power(value - first)
    return value


def probability_value(value: int, bits: int) -> int:
    """Value that probability ``value`` (0 .. 512) takes in a block of ``bits`` bits."""
    first = nearest_power(value)
    if bits == 2:
        if value < 2:
            return 0
        return 4 if value < 6 else first
    if bits == 4:
        return first + nearest_power(value - first)
    digits = radix4_digits(value)
    if len(digits) == P_POSITIONS and all(digits):
        return value - digits[0]
    return value


@cache
def key_table(bits: int) -> torch.Tensor:
    """`key_value` of -128 .. 127 at index value + 128: int32 [256]."""
    return torch.tensor(
        [key_value(value, bits) for value in range(-OPERAND_MAX - 1, OPERAND_MAX + 1)],
        dtype=torch.int32,
    )


@cache
def probability_table(bits: int) -> torch.Tensor:
    """`probability_value` of 0 .. 512: int32 [513]."""
    return torch.tensor(
        [probability_value(value, bits) for value in range(P_ONE + 1)], dtype=torch.int32
    )


@cache
def short_probability_table(bits: int) -> torch.Tensor:
    """Values of P if it had as many positions as a PE has lanes: of 0 .. 128 = 1.0, int32 [129]."""
    largest = 1 << (2 * LANES - 1)
    return torch.tensor([key_value(value, bits) for value in range(largest + 1)], dtype=torch.int32)
