"""What starts a memory: LiteDRAM's own sequence, and for DDR memories read leveling.

In Migen, as all of LiteX.
"""

# Migen's `comb` and `sync` are no attributes that a type checker sees.
# pyright: reportOperatorIssue=false

from typing import Any

from litedram.init import get_sdram_phy_init_sequence
from litex.gen import LiteXModule
from migen import Case, If, Signal

from fpga.soc.dfi import DfiCommands
from fpga.soc.leveling import ReadLeveling
from paro.config import ParoError
from paro.config.board_map import READY, UNTRAINED

__all__ = ["MemoryStarter"]

#: Cycles before the first step, and after each, at the least, by the kind of memory. A DDR memory
#: is held in reset for 200 us, and locks its DLL in 512 of its own cycles.
_WAITS = {"SDR": (1, 16), "DDR2": (20_000, 1024), "DDR3": (20_000, 1024)}
#: What LiteDRAM's software does for some PHYs and is not done here.
_NOT_DONE = ("write_leveling", "write_latency_calibration", "write_dq_dqs_training")


class MemoryStarter(LiteXModule):
    """Starts a memory, and then leaves it to its controller.

    Parameters
    ----------
    sdram : LiteDRAMCore
    phy : module
        Its PHY, with ``settings``. The registers of one with read leveling leave the bus.

    Members
    -------
    state
        Value of the register ``ready``.
    windows
        Value of the register ``windows``.

    Raises
    ------
    ParoError
        If the memory needs more than is done here.
    """

    def __init__(self, sdram: Any, phy: Any):
        settings = phy.settings
        _check(settings)
        self.state = Signal(2)
        self.windows = Signal(32)

        # # #

        power_up, least = _WAITS[settings.memtype]
        sequence, _ = get_sdram_phy_init_sequence(settings, sdram.controller.settings.timing)
        self.commands = commands = DfiCommands(sdram, phy)
        step = Signal(max=len(sequence) + 1)
        longest = max(power_up, *(cycles for *_, cycles in sequence))
        left = Signal(max=longest + 1, reset=power_up)
        initialised, now = Signal(), Signal()
        self.comb += [
            initialised.eq(step == len(sequence)),
            now.eq((left == 0) & ~initialised),
            commands.active.eq(self.state != READY),
        ]
        sends, waits = {}, {}
        for number, (_, address, bank, command, cycles) in enumerate(sequence):
            waits[number] = [left.eq(max(cycles, least))]
            if "CONTROL" in command:
                waits[number] += [
                    getattr(commands, name).eq(f"CONTROL_{name.upper()}" in command)
                    for name in ("cke", "odt", "reset_n")
                ]
                continue
            sends[number] = [
                commands.issue.eq(1),
                commands.address.eq(address),
                commands.bank.eq(bank),
                *(
                    getattr(commands, name).eq(f"COMMAND_{name.upper()}" in command)
                    for name in ("ras", "cas", "we")
                ),
            ]
        self.comb += If(now, Case(step, sends))
        ended = Signal()
        self.sync += [
            If(now, step.eq(step + 1), Case(step, waits)).Elif(left != 0, left.eq(left - 1)),
            ended.eq(initialised & (left == 0)),
        ]
        if not getattr(settings, "read_leveling", False):
            self.comb += [self.state.eq(ended * READY), self.windows.eq(0)]
            return
        # The state machine alone turns them.
        phy.get_csrs = lambda: []
        self.leveling = leveling = ReadLeveling(commands, phy)
        self.comb += [
            leveling.start.eq(ended),
            self.windows.eq(leveling.windows),
            If(leveling.done, self.state.eq(READY), If(leveling.failed, self.state.eq(UNTRAINED))),
        ]


def _check(settings: Any) -> None:
    kind = settings.memtype
    if kind not in _WAITS:
        raise ParoError(
            f"the memory of this board is {kind}, which is not started here; legal: boards with "
            f"{', '.join(_WAITS)}"
        )
    missing = [name.replace("_", " ") for name in _NOT_DONE if getattr(settings, name, False)]
    if missing or settings.nranks > 1:
        needs = missing or [f"{settings.nranks} ranks"]
        raise ParoError(
            f"the {kind} memory of this board needs {' and '.join(needs)}, which is not built "
            "here; legal: boards whose memory needs read leveling alone"
        )
