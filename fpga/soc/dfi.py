"""Commands to a memory through LiteDRAM's DFI, before its controller takes over.

In Migen, as all of LiteX.
"""

# Migen's `comb` is no attribute that a type checker sees.
# pyright: reportOperatorIssue=false

from typing import Any

from litex.gen import LiteXModule
from migen import Cat, Signal

__all__ = ["DfiCommands"]


class DfiCommands(LiteXModule):
    """One command at a time, in the phase in which the memory's controller would send it.

    Parameters
    ----------
    sdram : LiteDRAMCore
    phy : module
        Its PHY, with ``settings``.

    Members
    -------
    active
        1: the memory obeys this and not its controller.
    cke, odt, reset_n
        Levels of these pins.
    issue
        Send a command in this cycle: ``ras``, ``cas``, ``we`` (1: asserted), ``address``, ``bank``.
    write, read
        The command brings ``write_data`` to the memory, or asks for ``read_data``.
    write_data
        Data of a burst, all phases, the first in the lowest bits; stable until it is written.
    valid, read_data
        Whether data comes in this cycle, and the data, laid out as ``write_data``.
    """

    def __init__(self, sdram: Any, phy: Any):
        dfi = sdram.dfii.ext_dfi
        phases = dfi.phases
        settings = phy.settings
        self.active = Signal()
        self.cke, self.odt, self.reset_n = Signal(), Signal(), Signal()
        self.issue, self.ras, self.cas, self.we = Signal(), Signal(), Signal(), Signal()
        self.address = Signal(len(phases[0].address))
        self.bank = Signal(len(phases[0].bank))
        self.write, self.read = Signal(), Signal()
        self.write_data = Signal(len(phases) * len(phases[0].wrdata))
        self.valid = Signal()
        self.read_data = Signal(len(self.write_data))

        # # #

        at_write, at_read = (_phase(phase) for phase in (settings.wrphase, settings.rdphase))
        self.comb += [
            sdram.dfii.ext_dfi_sel.eq(self.active),
            Cat(*(phase.wrdata for phase in phases)).eq(self.write_data),
            self.read_data.eq(Cat(*(phase.rddata for phase in phases))),
            self.valid.eq(phases[0].rddata_valid),
        ]
        for number, phase in enumerate(phases):
            here = Signal()
            self.comb += [
                here.eq(
                    self.issue
                    & (
                        (self.write & (number == at_write))
                        | (self.read & (number == at_read))
                        | (~self.write & ~self.read & (number == 0))
                    )
                ),
                phase.cs_n.eq(2 ** len(phase.cs_n) - 1),
                phase.cs_n[0].eq(~here),
                phase.address.eq(self.address),
                phase.bank.eq(self.bank),
                phase.wrdata_en.eq(here & self.write),
                phase.rddata_en.eq(here & self.read),
                *(
                    getattr(phase, f"{name}_n").eq(~(here & getattr(self, name)))
                    for name in ("ras", "cas", "we")
                ),
                *(
                    getattr(phase, name).eq(
                        (2 ** len(getattr(phase, name)) - 1) * getattr(self, name)
                    )
                    for name in ("cke", "odt", "reset_n")
                    if hasattr(phase, name)
                ),
            ]


def _phase(phase: Any) -> int:
    """Phase of PHY settings: a number, or a register that nobody writes here."""
    return phase if isinstance(phase, int) else phase.reset.value
