"""Boards with memory and link: the table, what is refused, and the checksum of the gateware."""

import json

import pytest

from fpga.devices import find_device
from fpga.soc.boards import SOC_BOARDS, find_soc_board
from fpga.soc.build import build_board
from paro.config import PRESETS, ParoError

TINY = PRESETS["tiny"]


def test_boards_are_what_litex_has() -> None:
    """Targets, FPGAs and memory chips exist by these names, and have these sizes."""
    from litedram import modules

    for board in SOC_BOARDS.values():
        assert board.base_soc().__name__ == "BaseSoC"
        assert find_device(board.device)
        chip = getattr(modules, board.memory_module)(board.clock_mhz * 1e6, "1:1")
        geometry = chip.geom_settings
        words = 1 << geometry.bankbits + geometry.rowbits + geometry.colbits
        assert words * board.memory_bits // 8 == board.memory_bytes
        assert board.preset in PRESETS or not board.preset


def test_boards_that_are_refused(tmp_path) -> None:
    with pytest.raises(ParoError, match="no board 'de10'; legal: ulx3s-12f, "):
        find_soc_board("de10")
    for clock in (0.0, 3.0, 400.0):
        with pytest.raises(ParoError, match=r"MHz cannot be made for ulx3s-85f; legal: 25 to 100"):
            build_board(TINY, "ulx3s-85f", tmp_path / "out", clock_mhz=clock)
    assert not list(tmp_path.iterdir())


def test_without_litex(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("fpga.soc.boards.find_spec", lambda name: None)
    with pytest.raises(ParoError, match="boards need litex, which is not installed; get it with"):
        build_board(TINY, "ulx3s-85f", tmp_path / "out")


def test_a_design_that_does_not_fit_is_not_placed(tmp_path, monkeypatch) -> None:
    """After Yosys and before nextpnr, with what is missing and what would fit."""
    counts = {"lut4": 30_000, "carry": 10, "ff": 1, "dsp": 40, "bram": 1, "lutram": 0}
    steps = []

    def run(program, arguments, folder) -> None:
        (folder / "paro_board.stat.json").write_text(json.dumps({}))

    monkeypatch.setattr("fpga.soc.build._generate", lambda *arguments: None)
    monkeypatch.setattr("fpga.soc.build._run", run)
    monkeypatch.setattr("fpga.soc.build.cell_counts", lambda statistics: counts)
    sentence = (
        "the design does not fit LFE5U-25F: 30,020 logic cells of 23,073, 40 multipliers of 28; "
        "it was not placed; legal: smaller ones"
    )
    with pytest.raises(ParoError, match=sentence):
        build_board(TINY, "ulx3s-25f", tmp_path / "out", progress=steps.append)
    assert steps == ["generate", "yosys"]
