"""A core in standard cells: what is read of a library, and the flow on a small one."""

import json
import shutil

import pytest

from fpga.liberty import read_library
from fpga.standard_cells import synth_cells
from paro.config import PRESETS, ParoError
from tests.fpga.cells import LIBERTY


def test_the_smallest_buffer_drives_and_loads(tmp_path) -> None:
    path = tmp_path / "few.lib"
    path.write_text(LIBERTY)
    library = read_library(path)
    assert (library.name, library.buffer) == ("few.lib", "BUF")
    assert library.constraints == "set_driving_cell BUF\nset_load 8\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot read .*few.lib: No such file"),
        ("", "few.lib has no buffer with an area and a delay; legal: a Liberty file"),
        (LIBERTY.replace("area", "size"), "few.lib has no buffer with an area"),
        (LIBERTY.replace("timing", "times"), "few.lib has no buffer with an area and a delay"),
        (LIBERTY.replace("area :", "area : e-+"), "few.lib has no buffer with an area and a delay"),
    ],
)
def test_what_is_no_library_is_refused(content, sentence, tmp_path) -> None:
    path = tmp_path / "few.lib"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ParoError, match=sentence):
        synth_cells(PRESETS["tiny"], path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_area_and_memories(tmp_path) -> None:
    """The tiny core: memories are counted in bits, all else in the library's areas."""
    path = tmp_path / "few.lib"
    path.write_text(LIBERTY)
    steps = []
    report = synth_cells(PRESETS["tiny"], path, tmp_path / "out", progress=steps.append)
    timed = shutil.which("sta") is not None
    assert steps == ["generate", "yosys", *["sta"] * timed]
    assert report == json.loads((tmp_path / "out/report.json").read_text())
    assert 100_000 < report["area"] < 1_000_000
    assert 0.2 < report["sequential_share"] < 0.8
    assert report["cells"] > 20_000
    assert report["memory_bits"] > 10_000
