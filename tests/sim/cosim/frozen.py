"""A small function that numba compiles, for `test_cache`."""

from numba import njit

from rtl.core.blocks import SLOTS

NUMBER = SLOTS + 1


@njit
def add(value):
    return value + NUMBER
