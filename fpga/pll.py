"""Clock of a design: a PLL of the ECP5 fed by the board's oscillator."""

from dataclasses import dataclass

from amaranth.hdl import Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from paro.config import ParoError

__all__ = ["Ecp5Pll", "PllSettings", "pll_settings"]

_VCO_MHZ = (400.0, 800.0)
_PHASE_DETECTOR_MHZ = (3.125, 400.0)
_OUTPUT_MHZ = (10.0, 400.0)
_DIVIDER_MAX = 128
_FEEDBACK_MAX = 80
#: Largest deviation from the frequency asked for.
_TOLERANCE = 0.02


@dataclass(frozen=True)
class PllSettings:
    """Dividers of the PLL and the frequency that they give.

    Parameters
    ----------
    input_mhz, output_mhz : float
        Clock into and out of the PLL.
    input_divider, feedback_divider, output_divider : int
        output = input / input_divider * feedback_divider; VCO = output * output_divider.
    """

    input_mhz: float
    output_mhz: float
    input_divider: int
    feedback_divider: int
    output_divider: int


def pll_settings(input_mhz: float, output_mhz: float) -> PllSettings:
    """Settings for the lowest legal frequency from ``output_mhz`` up.

    Raises
    ------
    ParoError
        If there is none within 2 %.
    """
    low, high = _OUTPUT_MHZ
    best: PllSettings | None = None
    for input_divider in range(1, _DIVIDER_MAX + 1):
        phase_detector = input_mhz / input_divider
        if not _PHASE_DETECTOR_MHZ[0] <= phase_detector <= _PHASE_DETECTOR_MHZ[1]:
            continue
        for feedback_divider in range(1, _FEEDBACK_MAX + 1):
            output = phase_detector * feedback_divider
            # The middle of the VCO's range, as far as the divider allows.
            output_divider = min(max(round(sum(_VCO_MHZ) / 2 / output), 1), _DIVIDER_MAX)
            fits = _VCO_MHZ[0] <= output * output_divider <= _VCO_MHZ[1] and low <= output <= high
            if not fits or output < output_mhz * (1 - 1e-9):
                continue
            # Of equal ones the first, which has the fastest phase detector.
            if best is None or output < best.output_mhz * (1 - 1e-9):
                best = PllSettings(
                    input_mhz, output, input_divider, feedback_divider, output_divider
                )
    if best is None or best.output_mhz > output_mhz * (1 + _TOLERANCE):
        raise ParoError(
            f"clock = {output_mhz:g} MHz cannot be made from {input_mhz:g} MHz; "
            f"legal: {low:g} to {high:g} MHz, such as 40, 50, 62.5, 75"
        )
    return best


class Ecp5Pll(wiring.Component):
    """EHXPLLL with one output and feedback from it.

    Parameters
    ----------
    settings : PllSettings
        Its dividers.

    Members
    -------
    clk_in : In, 1
        Clock of the board.
    clk_out : Out, 1
        Clock of the design.
    locked : Out, 1
        Whether ``clk_out`` is stable; asynchronous.
    """

    clk_in: In(1)
    clk_out: Out(1)
    locked: Out(1)

    def __init__(self, settings: PllSettings):
        self.settings = settings
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        settings = self.settings
        m.submodules.pll = Instance(
            "EHXPLLL",
            a_FREQUENCY_PIN_CLKI=f"{settings.input_mhz:g}",
            a_FREQUENCY_PIN_CLKOP=f"{settings.output_mhz:g}",
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED",
            p_INTFB_WAKE="DISABLED",
            p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA",
            p_OUTDIVIDER_MUXB="DIVB",
            p_OUTDIVIDER_MUXC="DIVC",
            p_OUTDIVIDER_MUXD="DIVD",
            p_CLKI_DIV=settings.input_divider,
            p_CLKFB_DIV=settings.feedback_divider,
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_DIV=settings.output_divider,
            p_CLKOP_CPHASE=settings.output_divider - 1,
            p_CLKOP_FPHASE=0,
            p_FEEDBK_PATH="CLKOP",
            i_CLKI=self.clk_in,
            i_CLKFB=self.clk_out,
            i_RST=0,
            i_STDBY=0,
            i_PHASESEL0=0,
            i_PHASESEL1=0,
            i_PHASEDIR=1,
            i_PHASESTEP=1,
            i_PHASELOADREG=1,
            i_PLLWAKESYNC=0,
            i_ENCLKOP=0,
            o_CLKOP=self.clk_out,
            o_LOCK=self.locked,
        )
        return m
