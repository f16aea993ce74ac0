"""Gates of multipliers: the recorded figures are those of the study, and what they are worth."""

import pytest

from fpga.pe.pe_candidates import CANDIDATES
from fpga.pe.pe_study import measure
from sim.estimate.gates import OWN, Measure, load_multipliers, worth
from sim.estimate.peers import BitFusion, DenseInt8, Sanger, ViTCoD, array_peers
from tests.places import SHARED

#: The open library of the recorded areas, which does not come with the project.
LIBERTY = SHARED / "asic" / "sg13g2_stdcell_typ_1p20V_25C.lib"


def test_recorded_figures_are_those_of_the_study(tmp_path):
    known = load_multipliers()
    assert known.keys() <= CANDIDATES.keys()
    library = LIBERTY if LIBERTY.exists() else None
    measured = measure(tmp_path, tuple(known), place=False, liberty=library)
    for row in measured:
        recorded = known[row["name"]]
        assert row["generic_cells"] == recorded.gates
        if library is not None:
            assert row["cell_area"] == pytest.approx(recorded.cell_area, abs=1)


def test_worth_by_hand():
    own, wide = (load_multipliers()[name] for name in (OWN, "mac-16"))
    assert worth(OWN) == worth(OWN, Measure.CELL_AREA) == 1
    assert worth("mac-16") == wide.gates / own.gates
    assert worth("mac-16", Measure.CELL_AREA) == wide.cell_area / own.cell_area


def test_peers_name_multipliers_that_were_measured():
    assert [peer.multiplier for peer in (DenseInt8(), BitFusion(), Sanger(), ViTCoD())] == [
        "mac",
        "fixed",
        "mac-16",
        "mac-16",
    ]
    assert Sanger(bits=8).multiplier == ViTCoD(bits=8).multiplier == "mac"
    assert {peer.multiplier for peer in array_peers(1.0)} <= load_multipliers().keys()
