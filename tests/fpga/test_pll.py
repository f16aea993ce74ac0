import re

import pytest

from fpga.pll import pll_settings
from fpga.tools import require_tools, run_tool
from paro.config import ParoError


@pytest.mark.parametrize("mhz", [25, 40, 50, 62.5, 66, 75, 80, 100, 125, 200])
def test_dividers_lie_in_the_ranges_of_the_device(mhz):
    settings = pll_settings(25, mhz)
    phase_detector = 25 / settings.input_divider
    assert 3.125 <= phase_detector <= 400
    assert settings.output_mhz == pytest.approx(phase_detector * settings.feedback_divider)
    assert 400 <= settings.output_mhz * settings.output_divider <= 800
    assert mhz * (1 - 1e-9) <= settings.output_mhz <= mhz * 1.02


@pytest.mark.parametrize("mhz", [0, -5, 1, 9, 401, 1000])
def test_what_the_pll_cannot_make_is_refused(mhz):
    with pytest.raises(
        ParoError, match=rf"clock = {mhz} MHz cannot be made from 25 MHz; legal: 10"
    ):
        pll_settings(25, mhz)


@pytest.mark.parametrize("mhz", [25, 50, 75, 100])
def test_dividers_agree_with_project_trellis(mhz, tmp_path):
    """The frequency that ecppll, an independent calculator, makes of our dividers' ratio."""
    (program,) = require_tools(["yowasp-ecppll"])
    run_tool(program, ["-i", "25", "-o", str(mhz), "-f", "pll.v"], tmp_path, "log")
    text = (tmp_path / "pll.v").read_text()
    dividers = {name: int(value) for name, value in re.findall(r"\.(CLK\w+_DIV)\((\d+)\)", text)}
    settings = pll_settings(25, mhz)
    assert dividers == {
        "CLKI_DIV": settings.input_divider,
        "CLKFB_DIV": settings.feedback_divider,
        "CLKOP_DIV": settings.output_divider,
    }
