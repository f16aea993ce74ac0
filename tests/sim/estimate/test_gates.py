"""Gates of multipliers: the recorded figures are those of the study, and what they are worth."""

import pytest

from fpga.pe.pe_candidates import CANDIDATES
from fpga.pe.pe_study import measure
from sim.estimate.gates import OWN, load_multipliers, worth
from sim.estimate.peers import BitFusion, DenseInt8, Sanger, ViTCoD, array_peers


def test_recorded_gates_are_those_of_the_study(tmp_path):
    known = load_multipliers()
    assert known.keys() <= CANDIDATES.keys()
    measured = measure(tmp_path, tuple(known), place=False)
    found = {row["name"]: (row["generic_cells"], row["ff"]) for row in measured}
    assert found == {name: (one.gates, one.flip_flops) for name, one in known.items()}


def test_worth_by_hand():
    own, wide = (load_multipliers()[name] for name in (OWN, "mac-16"))
    assert worth(OWN) == worth(OWN, 6) == 1
    assert worth("mac-16") == wide.gates / own.gates
    assert worth("mac-16", 6) == pytest.approx(
        (wide.gates + 5 * wide.flip_flops) / (own.gates + 5 * own.flip_flops)
    )


def test_peers_name_multipliers_that_were_measured():
    assert [peer.multiplier for peer in (DenseInt8(), BitFusion(), Sanger(), ViTCoD())] == [
        "mac",
        "fixed",
        "mac-16",
        "mac-16",
    ]
    assert Sanger(bits=8).multiplier == ViTCoD(bits=8).multiplier == "mac"
    assert {peer.multiplier for peer in array_peers(1.0)} <= load_multipliers().keys()
