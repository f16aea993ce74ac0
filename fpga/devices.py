"""What the FPGAs of the boards hold."""

from dataclasses import dataclass
from typing import Any

from paro.config import ParoError

__all__ = ["Device", "find_device"]


@dataclass(frozen=True)
class Device:
    """One FPGA of the ECP5 family.

    Parameters
    ----------
    name : str
        As the tools call it.
    logic : int
        Logic cells: a LUT4 and a flip-flop each.
    bram : int
        Block RAMs of 18 Kbit.
    dsp : int
        Multipliers of 18 x 18 bits.
    """

    name: str
    logic: int
    bram: int
    dsp: int

    def lacks(self, counts: dict[str, Any], fill: float) -> list[str]:
        """What of a design is more than the device has, a clause each; empty if all fits.

        Parameters
        ----------
        counts : dict
            As `fpga.report.cell_counts` returns them.
        fill : float
            Share of the logic cells that may be used.
        """
        wanted = {
            "logic cells": (logic_cells(counts), int(fill * self.logic)),
            "block RAMs": (counts["bram"], self.bram),
            "multipliers": (counts["dsp"], self.dsp),
        }
        return [f"{used:,} {name} of {has:,}" for name, (used, has) in wanted.items() if used > has]


def logic_cells(counts: dict[str, Any]) -> int:
    """Logic cells that Yosys' counts take: a CCU2C two, a LUT RAM four.

    nextpnr adds some (carry chains begin and end in cells of their own): 3 % in the self test.
    """
    return counts["lut4"] + 2 * counts["carry"] + 4 * counts["lutram"]


#: The 12F is a 25F by another name, to the tools and in silicon.
_DEVICES = {
    device.name: device
    for device in (
        Device("LFE5U-12F", 24_288, 56, 28),
        Device("LFE5U-25F", 24_288, 56, 28),
        Device("LFE5U-45F", 43_848, 108, 72),
        Device("LFE5U-85F", 83_640, 208, 156),
        # As those of the same size, with transceivers.
        Device("LFE5UM5G-45F", 43_848, 108, 72),
        Device("LFE5UM5G-85F", 83_640, 208, 156),
    )
}


def find_device(name: str) -> Device:
    """Device of that name.

    Raises
    ------
    ParoError
        If its capacity is not known.
    """
    if name not in _DEVICES:
        raise ParoError(f"the capacity of {name} is not known; known: {', '.join(_DEVICES)}")
    return _DEVICES[name]
