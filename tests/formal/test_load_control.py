"""Load control, proven."""

import pytest
from amaranth.hdl import Cat, Signal
from amaranth.lib import data

from paro.config import PRESETS
from rtl.core.blocks import SLOTS, load_layout
from rtl.core.load_control import LoadControl
from tests.formal.fifo import queued
from tests.formal.prove import Proof, mutant

CONFIG = PRESETS["tiny"]


def properties(proof: Proof, control: LoadControl) -> None:
    m = proof.m
    request, load = control.request, control.load
    asked = request.valid & request.ready
    done = load.valid & load.ready
    slot, done_slot = request.payload.slot[0], load.payload.slot[0]
    # Slots that are asked for and not released; of these, those that are not loaded.
    held, coming = (Signal(SLOTS, name=name) for name in ("held", "coming"))
    with m.If(control.release):
        m.d.sync += held.bit_select(control.release_slot, 1).eq(0)
    with m.If(done):
        m.d.sync += coming.bit_select(done_slot, 1).eq(0)
    with m.If(asked):
        m.d.sync += [held.bit_select(slot, 1).eq(1), coming.bit_select(slot, 1).eq(1)]
    proof.assume(~request.valid | ~held.bit_select(slot, 1))

    proof.holds(request.ready)
    proof.holds(proof.kept(load.valid, load.ready, load.payload))
    proof.holds(~proof.past(coming.any() & ~done) | load.valid)
    proof.holds(~load.valid | coming.bit_select(done_slot, 1))
    proof.holds(control.full == held & ~coming)

    # What only the induction needs.
    proof.holds((coming & ~held) == 0)
    level = proof.inside("queue.level")
    proof.holds(level == coming[0] + coming[1])
    loads = [
        data.View(load_layout(CONFIG), payload).slot[0]
        for payload in queued(proof, "queue", SLOTS + 1)[:SLOTS]
    ]
    for place, of in enumerate(loads):
        proof.holds((level <= place) | coming.bit_select(of, 1))
    proof.holds((level < SLOTS) | (Cat(loads) == 0b01) | (Cat(loads) == 0b10))

    proof.reach(control.full.all() & control.release & (control.release_slot == 1))
    proof.reach(done & control.release)
    proof.reach(asked & control.release & (slot == 1))


@pytest.mark.proof(of=LoadControl, mode="prove", depth=2)
def test_proven(judge) -> None:
    """For a user who keeps the contract every request is accepted; ``full`` marks the slots that
    were loaded and not released; a load is offered until it is done.
    """
    verdict = judge(LoadControl(CONFIG, SLOTS), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.proof(of=LoadControl, mode="cover", depth=12)
def test_reached(judge) -> None:
    """Both slots are full; a load is done while one is released."""
    verdict = judge(LoadControl(CONFIG, SLOTS), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=LoadControl, mode="bmc", depth=8, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "full.bit_select(self.release_slot, 1).eq(0)",
            "full.bit_select(~self.release_slot, 1).eq(0)",
        ),
        ("bit_select(self.load.payload.slot, 1)", "bit_select(0, 1)"),
        ("depth=self._slots + 1", "depth=self._slots"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken ones mark or free other slots, or do not accept a request."""
    verdict = judge(mutant(LoadControl, old, new)(CONFIG, SLOTS), properties)
    assert verdict.status == "FAIL", verdict
