"""Load control, proven."""

from pathlib import Path

import pytest
from amaranth.hdl import Signal

from paro_config import PRESETS
from rtl.load_control import LoadControl
from rtl.scheduler import SLOTS
from tests.formal.prove import Proof, check, mutant

pytestmark = pytest.mark.slow

CONFIG = PRESETS["tiny"]


def properties(proof: Proof, control: LoadControl) -> None:
    m = proof.m
    request, load = control.request, control.load
    asked = request.valid & request.ready
    done = load.valid & load.ready
    # Asked for and not released, not loaded, not taken; loaded and in use, both not released.
    held, coming, waiting, loaded, used = (
        Signal(range(2 * SLOTS), name=name)
        for name in ("held", "coming", "waiting", "loaded", "used")
    )
    load_slot, release_slot = Signal(), Signal()
    m.d.sync += [
        held.eq(held + asked - control.release),
        coming.eq(coming + asked - done),
        waiting.eq(waiting + asked - control.take),
        loaded.eq(loaded + done - control.release),
        used.eq(used + control.take - control.release),
        load_slot.eq(load_slot ^ done),
        release_slot.eq(release_slot ^ control.release),
    ]
    proof.assume(~request.valid | (held < SLOTS))
    proof.assume(~control.take | (control.available != 0))
    proof.assume(~control.release | ((used != 0) & (loaded != 0)))

    proof.holds(request.ready)
    proof.holds(proof.kept(load.valid, load.ready, load.payload))
    proof.holds(~proof.past(coming > done) | load.valid)
    proof.holds(~load.valid | (coming != 0))
    proof.holds((held == coming + loaded) & (held == waiting + used) & (held <= SLOTS))
    proof.holds(control.available == waiting)
    proof.holds(control.slot == load_slot)
    proof.holds(~load.valid | ~control.full.bit_select(control.slot, 1))
    proof.holds(control.full.bit_select(release_slot, 1) == (loaded >= 1))
    proof.holds(control.full.bit_select(~release_slot, 1) == (loaded == 2))

    # What only the induction needs.
    proof.holds(proof.inside("queue.level") == coming)
    proof.holds(proof.inside("released_slot") == release_slot)
    proof.holds(load_slot == release_slot ^ loaded[0])

    proof.reach(control.full.all() & control.release & (release_slot == 1))
    proof.reach(done & control.release & control.take)
    proof.reach(asked & control.release)


def test_proven(tmp_path: Path) -> None:
    """In all cycles, by induction, for a user who keeps the contract: a request is always
    accepted; ``available`` and ``full`` count what was asked for and loaded, 0 to ``SLOTS``; slots
    are filled in turn and never while they are full; a load is offered until it is done.
    """
    verdict = check(LoadControl(CONFIG), properties, tmp_path, mode="prove", depth=2)
    assert verdict.status == "PASS", verdict


def test_reached(tmp_path: Path) -> None:
    """Both slots are full; a load is done while one is taken and one released."""
    verdict = check(LoadControl(CONFIG), properties, tmp_path, mode="cover", depth=12)
    assert verdict.status == "PASS", verdict


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.available + asked - self.take", "self.available + (asked & ~self.take) - self.take"),
        ("released_slot.eq(~released_slot)", "released_slot.eq(1)"),
        ("self.slot.eq(~self.slot)", "self.slot.eq(~released_slot)"),
        ("depth=SLOTS + 1", "depth=SLOTS"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, tmp_path: Path) -> None:
    control = mutant(LoadControl, old, new)(CONFIG)
    verdict = check(control, properties, tmp_path, mode="bmc", depth=8)
    assert verdict.status == "FAIL", verdict
