"""The largest machine of a board: the search alone, and with the tools."""

import json

import pytest

from fpga.devices import find_device, logic_cells
from fpga.fit import fit, largest
from paro.config import Config, ParoError

COUNTS = {"lut4": 20_000, "carry": 1_000, "lutram": 10, "bram": 56, "dsp": 28}
MACHINES = [Config(query_rows=rows) for rows in (1, 2, 4, 8, 16)]


@pytest.mark.parametrize("begin", range(len(MACHINES)))
@pytest.mark.parametrize("fitting", range(len(MACHINES) + 1))
def test_the_search_finds_the_last_that_fits_from_anywhere(begin: int, fitting: int) -> None:
    tried = []

    def trial(config: Config) -> dict:
        place = MACHINES.index(config)
        return {"place": place, "lacks": [] if place < fitting else ["RAM"]}

    found = largest(MACHINES, begin, trial, tried)
    assert found == (MACHINES[fitting - 1] if fitting else None)
    places = [row["place"] for row in tried]
    assert len(set(places)) == len(places), "nothing is tried twice"


def test_what_a_device_lacks() -> None:
    device = find_device("LFE5U-25F")
    assert logic_cells(COUNTS) == 22_040
    assert device.lacks(COUNTS, 1.0) == []
    assert device.lacks(COUNTS, 0.9) == ["22,040 logic cells of 21,859"]
    assert device.lacks(COUNTS | {"bram": 57, "dsp": 29}, 1.0) == [
        "57 block RAMs of 56",
        "29 multipliers of 28",
    ]
    with pytest.raises(ParoError, match="capacity of X is not known; known: LFE5U-12F"):
        find_device("X")


@pytest.mark.slow
def test_the_smallest_board_is_filled(tmp_path) -> None:
    """Small blocks, so that the machine is soon built."""
    report = fit("ulx3s-12f", Config(block=16, head_dim=32), tmp_path, min_mhz=50)
    config = report["machine"]["config"]
    assert report["tried"][0]["rows"] * report["tried"][0]["cols"] == 32
    assert report["machine"]["pes"] == config["rows"] * config["cols"] >= 16
    assert report["dense"]["macs"] == 25
    for kind in ("logic", "dsp", "bram"):
        assert 0 < report["machine"]["shares"][kind] <= 1
    at = report["machine"]["fmax_mhz"] / 1000
    assert report["machine"]["products"][8.0] == pytest.approx(report["machine"]["pes"] * at, 0.01)
    assert report["ratio"][2.64] > report["ratio"][4.8] > report["ratio"][8.0] > 0
    assert json.loads((tmp_path / "machine/report.json").read_text())["bitstream"]
