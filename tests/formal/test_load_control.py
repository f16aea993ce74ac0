"""Load control, proven."""

from pathlib import Path

import pytest
from amaranth.hdl import Signal

from paro.config import PRESETS
from rtl.core.blocks import SLOTS
from rtl.core.load_control import LoadControl
from tests.formal.prove import Proof, check, mutant

pytestmark = pytest.mark.slow

CONFIG = PRESETS["tiny"]


def properties(proof: Proof, control: LoadControl) -> None:
    m = proof.m
    request, load = control.request, control.load
    asked = request.valid & request.ready
    done = load.valid & load.ready
    # Asked for and not released, not loaded; loaded and not released.
    held, coming, loaded = (
        Signal(range(2 * SLOTS), name=name) for name in ("held", "coming", "loaded")
    )
    load_slot, release_slot = Signal(), Signal()
    m.d.sync += [
        held.eq(held + asked - control.release),
        coming.eq(coming + asked - done),
        loaded.eq(loaded + done - control.release),
        load_slot.eq(load_slot ^ done),
        release_slot.eq(release_slot ^ control.release),
    ]
    proof.assume(~request.valid | (held < SLOTS))
    proof.assume(~control.release | (loaded != 0))

    proof.holds(request.ready)
    proof.holds(proof.kept(load.valid, load.ready, load.payload))
    proof.holds(~proof.past(coming > done) | load.valid)
    proof.holds(~load.valid | (coming != 0))
    proof.holds((held == coming + loaded) & (held <= SLOTS))
    proof.holds(control.slot == load_slot)
    proof.holds(~load.valid | ~control.full.bit_select(control.slot, 1))
    proof.holds(control.full.bit_select(release_slot, 1) == (loaded >= 1))
    proof.holds(control.full.bit_select(~release_slot, 1) == (loaded == 2))

    # What only the induction needs.
    proof.holds(proof.inside("queue.level") == coming)
    proof.holds(proof.inside("released_slot") == release_slot)
    proof.holds(load_slot == release_slot ^ loaded[0])

    proof.reach(control.full.all() & control.release & (release_slot == 1))
    proof.reach(done & control.release)
    proof.reach(asked & control.release)


def test_proven(tmp_path: Path) -> None:
    """In all cycles, by induction, for a user who keeps the contract: a request is always
    accepted; ``full`` marks what was loaded and not released, 0 to ``SLOTS``; slots are filled in
    turn and never while they are full; a load is offered until it is done.
    """
    verdict = check(LoadControl(CONFIG), properties, tmp_path, mode="prove", depth=2)
    assert verdict.status == "PASS", verdict


def test_reached(tmp_path: Path) -> None:
    """Both slots are full; a load is done while one is released."""
    verdict = check(LoadControl(CONFIG), properties, tmp_path, mode="cover", depth=12)
    assert verdict.status == "PASS", verdict


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("released_slot.eq(~released_slot)", "released_slot.eq(1)"),
        ("self.slot.eq(~self.slot)", "self.slot.eq(~released_slot)"),
        ("depth=SLOTS + 1", "depth=SLOTS"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, tmp_path: Path) -> None:
    control = mutant(LoadControl, old, new)(CONFIG)
    verdict = check(control, properties, tmp_path, mode="bmc", depth=8)
    assert verdict.status == "FAIL", verdict
