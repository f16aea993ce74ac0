"""Model of a DDR3 memory behind the PHY of an ECP5, which reads wrong until it is leveled.

In Migen, as all of LiteX.
"""

# Migen's `comb` and `sync` are no attributes that a type checker sees.
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from typing import Any

from litedram.phy.ecp5ddrphy import ECP5DDRPHY
from litedram.phy.model import SDRAMPHYModel
from litex.gen import LiteXModule
from migen import Case, Cat, If, Record, Signal
from migen.genlib.record import DIR_M_TO_S

__all__ = ["SKEWS", "SkewedMemory"]

#: First and last delay, and bit of the burst, at which lanes read right; the last repeats.
SKEWS = ((3, 6, 2), (1, 2, 1))


class SkewedMemory(LiteXModule):
    """LiteDRAM's model of a memory, with settings and registers of its `ECP5DDRPHY`.

    A byte lane whose delay is not its own comes back inverted, and no burst of it is seen; one
    whose bitslip is not its own comes back too early or too late.

    Parameters
    ----------
    module : SDRAMModule
        The memory chips.
    data_width : int
        Bits of its data.
    clk_freq : int
        Clock of the controller, Hz.
    skews : sequence of (int, int, int)
        As `SKEWS`.

    Members
    -------
    delays, bitslips
        Where each byte lane stands.
    """

    def __init__(self, module: Any, data_width: int, clk_freq: int, skews: Any = SKEWS):
        lanes = data_width // 8
        pads = {"a": module.geom_settings.addressbits, "ba": module.geom_settings.bankbits}
        pads |= {"dq": data_width, "dm": lanes, "dqs_p": lanes}
        ones = ("clk_p", "ras_n", "cas_n", "we_n", "cs_n", "cke", "odt", "reset_n")
        # Its cells are in no design: only what it says of itself and its registers.
        phy: Any = ECP5DDRPHY(Record([*pads.items(), *((n, 1) for n in ones)]), clk_freq)
        self.settings = phy.settings
        for name in vars(phy).copy():
            if name.startswith(("_dly", "_rdly", "_burstdet")):
                # LiteXModule would make a submodule of them.
                object.__setattr__(self, name, getattr(phy, name))
        self.model = model = SDRAMPHYModel(module, self.settings, clk_freq=clk_freq, verbosity=0)
        self.dfi = phy.dfi
        self.delays = [Signal(max=self.settings.delays) for _ in range(lanes)]
        self.bitslips = [Signal(max=self.settings.bitslips) for _ in range(lanes)]

        # # #

        selected = self._dly_sel.storage
        outer, inner = self.dfi.phases, model.dfi.phases
        for near, far in zip(outer, inner, strict=True):
            for name, _, direction in near.layout:
                if direction == DIR_M_TO_S:
                    self.comb += getattr(far, name).eq(getattr(near, name))
            self.comb += near.rddata_valid.eq(far.rddata_valid)
        stored = Cat(*(phase.rddata for phase in inner))
        answer = Signal(len(stored))
        self.comb += Cat(*(phase.rddata for phase in outer)).eq(answer)
        for lane, (delay, bitslip) in enumerate(zip(self.delays, self.bitslips, strict=True)):
            low, high, own = skews[min(lane, len(skews) - 1)]
            self.sync += If(
                selected[lane],
                If(self._rdly_dq_rst.re, delay.eq(0)).Elif(
                    self._rdly_dq_inc.re, delay.eq(delay + 1)
                ),
                If(self._rdly_dq_bitslip_rst.re, bitslip.eq(0)).Elif(
                    self._rdly_dq_bitslip.re, bitslip.eq(bitslip + 1)
                ),
            )
            starts = range(8 * lane, len(stored), data_width)
            places = [slice(start, start + 8) for start in starts]
            right = (delay >= low) & (delay <= high)
            turned = {
                value: [
                    answer[place].eq(stored[places[(beat + value - own) % len(places)]])
                    for beat, place in enumerate(places)
                ]
                for value in range(self.settings.bitslips)
            }
            self.comb += If(right, Case(bitslip, turned)).Else(
                *(answer[place].eq(~stored[place]) for place in places)
            )
            self.sync += [
                If(self._burstdet_clr.re, self._burstdet_seen.status[lane].eq(0)),
                If(inner[0].rddata_valid & right, self._burstdet_seen.status[lane].eq(1)),
            ]
