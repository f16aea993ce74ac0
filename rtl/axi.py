"""Runs of memory units (stand-in until the shell's memory port is merged)."""

from enum import IntEnum

from amaranth.hdl import unsigned
from amaranth.lib import data

from paro_config import Config
from paro_config.config import bits_unsigned

__all__ = ["ADDRESS_BITS", "Destination", "run_layout"]

ADDRESS_BITS = 40


class Destination(IntEnum):
    """Where the units of a run go."""

    DESCRIPTOR = 0
    CODES = 1
    Q_SCALES = 2
    K_SCALES = 3
    Q = 4
    K = 5
    V = 6


def run_layout(config: Config) -> data.StructLayout:
    """``units`` consecutive units from ``address``."""
    return data.StructLayout(
        {
            "address": unsigned(ADDRESS_BITS),
            "units": unsigned(bits_unsigned(config.block * config.head_dim)),
            "destination": unsigned(3),
        }
    )
