import itertools

import pytest

from firmware_model.reference.digits import (
    key_table,
    key_value,
    nearest_power,
    probability_table,
    probability_value,
    radix4_digits,
)

POWERS = [0] + [sign << position for position in range(11) for sign in (1,)]
SIGNED = sorted({0} | {sign * power for power in POWERS for sign in (1, -1)})
PAIRS = sorted({a + b for a in SIGNED for b in SIGNED})


def distance(value, candidates):
    return min(abs(value - candidate) for candidate in candidates)


@pytest.mark.parametrize(("bits", "candidates"), [(2, SIGNED), (4, PAIRS)])
def test_keys_take_the_nearest_value(bits, candidates):
    for value in range(-127, 128):
        assert key_value(value, bits) in candidates
        assert abs(key_value(value, bits) - value) == distance(value, candidates)
        assert key_value(-value, bits) == -key_value(value, bits)


def test_wide_keys_are_exact():
    assert key_table(8).tolist() == list(range(-128, 128))


def test_probabilities_take_the_nearest_value():
    for value in range(513):
        assert abs(probability_value(value, 4) - value) == distance(value, PAIRS)
        if value >= 6:
            assert abs(probability_value(value, 2) - value) == distance(value, SIGNED)
    assert probability_table(2)[:7].tolist() == [0, 0, 4, 4, 4, 4, 8]


def test_wide_probabilities_lose_at_most_the_lowest_digit():
    table = probability_table(8).tolist()
    for value, result in enumerate(table):
        digits = radix4_digits(result)
        assert sum(digit != 0 for digit in digits) <= 4
        assert abs(result - value) <= 2
    exact = sum(value == result for value, result in enumerate(table))
    assert 0.85 < exact / len(table) < 1


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_no_probability_exceeds_one_and_none_above_a_half_falls_below_it(bits):
    table = probability_table(bits)
    assert table.max() == 512
    assert table[256:].min() >= 256


def test_radix4_digits_are_the_non_adjacent_form():
    for value in range(-600, 601):
        digits = radix4_digits(value)
        assert sum(digit * 4**position for position, digit in enumerate(digits)) == value
        assert set(digits) <= {-2, -1, 0, 1, 2}
        bits = [bit for digit in digits for bit in (digit % 2, abs(digit) // 2)]
        assert not any(a and b for a, b in itertools.pairwise(bits))


@pytest.mark.parametrize(("value", "power"), [(0, 0), (1, 1), (3, 4), (5, 4), (6, 8), (-6, -8)])
def test_nearest_power_ties_go_up(value, power):
    assert nearest_power(value) == power
