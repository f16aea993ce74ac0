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
    slot, done_slot = request.payload.slot[0], load.payload.slot[0]
    release_slot = control.release_slot
    # Slots that are asked for and not released; of these, those that are not loaded.
    held, coming = (Signal(SLOTS, name=name) for name in ("held", "coming"))
    with m.If(control.release):
        m.d.sync += held.bit_select(release_slot, 1).eq(0)
    with m.If(done):
        m.d.sync += coming.bit_select(done_slot, 1).eq(0)
    with m.If(asked):
        m.d.sync += [held.bit_select(slot, 1).eq(1), coming.bit_select(slot, 1).eq(1)]
    proof.assume(~request.valid | ~held.bit_select(slot, 1))
    proof.assume(~control.release | control.full.bit_select(release_slot, 1))

    proof.holds(request.ready)
    proof.holds(proof.kept(load.valid, load.ready, load.payload))
    proof.holds(~proof.past(coming.any() & ~done) | load.valid)
    proof.holds(~load.valid | coming.bit_select(done_slot, 1))
    proof.holds(control.full == held & ~coming)

    # What only the induction needs.
    proof.holds((coming & ~held) == 0)
    proof.holds(proof.inside("queue.level") == coming[0] + coming[1])

    proof.reach(control.full.all() & control.release & (release_slot == 1))
    proof.reach(done & control.release)
    proof.reach(asked & control.release & (slot == 1))


def test_proven(tmp_path: Path) -> None:
    """In the 12 cycles after reset, for a user who keeps the contract: every request is accepted;
    ``full`` marks the slots that were loaded and not released; a load is offered until it is done.
    """
    verdict = check(LoadControl(CONFIG, SLOTS), properties, tmp_path, mode="bmc", depth=12)
    assert verdict.status == "PASS", verdict


def test_reached(tmp_path: Path) -> None:
    """Both slots are full; a load is done while one is released."""
    verdict = check(LoadControl(CONFIG, SLOTS), properties, tmp_path, mode="cover", depth=12)
    assert verdict.status == "PASS", verdict


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bit_select(self.release_slot, 1)", "bit_select(~self.release_slot, 1)"),
        ("bit_select(self.load.payload.slot, 1)", "bit_select(0, 1)"),
        ("depth=self._slots + 1", "depth=self._slots"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, tmp_path: Path) -> None:
    control = mutant(LoadControl, old, new)(CONFIG, SLOTS)
    verdict = check(control, properties, tmp_path, mode="bmc", depth=8)
    assert verdict.status == "FAIL", verdict
