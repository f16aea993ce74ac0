"""Clock that a generated design is constrained to."""

from paro.config.errors import ParoError

__all__ = ["CLOCK_MHZ", "check_clock"]

#: Clock, where the user gives none.
CLOCK_MHZ = 100.0
#: Legal clocks.
_LEAST_MHZ, _MOST_MHZ = 1.0, 5000.0


def check_clock(mhz: float) -> float:
    """Return a frequency in MHz, or raise ParoError if it is not legal."""
    if not _LEAST_MHZ <= mhz <= _MOST_MHZ:
        raise ParoError(f"clock_mhz = {mhz:g} is not legal; legal: {_LEAST_MHZ:g} to {_MOST_MHZ:g}")
    return mhz
