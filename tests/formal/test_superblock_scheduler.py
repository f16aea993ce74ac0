"""The superblock scheduler's fetches and slots, proven."""

from typing import Any

import pytest
from amaranth.hdl import Array, Signal

from paro.config import PRESETS
from paro.config.formats import Operand
from rtl.core.scheduler import SchedulerSlots
from rtl.core.superblock_scheduler import SuperblockScheduler
from tests.formal.prove import Proof, mutant, variant

CONFIG = PRESETS["tiny"].changed(query_rows=2, key_slots=4, max_tokens=64)


def properties(proof: Proof, scheduler: SuperblockScheduler) -> None:
    fetch, blocks, config = scheduler.fetch, scheduler.blocks, scheduler._config
    operand = fetch.payload.operand
    taken = fetch.valid & fetch.ready
    slots = {Operand.Q: config.row_slots, Operand.K: config.key_slots, Operand.V: config.key_slots}
    held = []
    for each, count in slots.items():
        own = Signal(range(count + 2), name=f"held_{each.name}")
        proof.m.d.sync += own.eq(own + scheduler.load_valid[each] - scheduler.release[each])
        proof.holds(own <= count)
        proof.holds(scheduler.load_valid[each] == (taken & (operand == each)))
        # What only the induction needs.
        free = proof.inside("free_queries" if each == Operand.Q else f"room_{each.name}")
        proof.holds(
            (sum(free[i] for i in range(count)) if each == Operand.Q else free) + own == count
        )
        held.append(own)
    full = Array(own == count for own, count in zip(held, slots.values(), strict=True))
    proof.holds(~fetch.valid | ~full[operand])
    # K of a column goes with its first block; V follows, unless it is a layer's.
    key_taken, column = Signal(), Signal.like(fetch.payload.block)
    of_keys = taken & (operand == Operand.K)
    with proof.m.If(taken):
        proof.m.d.sync += [
            key_taken.eq(of_keys & ~blocks.payload.linear),
            column.eq(fetch.payload.block),
        ]
    of_values = operand == Operand.V
    proof.holds(key_taken == of_values)
    proof.holds(~of_values | (fetch.payload.block == column))
    proof.holds(~of_keys | blocks.valid)
    proof.holds(~scheduler.ended_rows.valid | (blocks.valid & blocks.payload.last))
    states = scheduler.activity.as_value()
    proof.holds(states & (states - 1) == 0)
    proof.reach(full[0] & full[1] & full[2] & scheduler.activity.blocked)
    proof.reach(blocks.valid & ~taken & blocks.payload.last & ~blocks.payload.first)


@pytest.mark.proof(of=SuperblockScheduler, mode="prove", depth=2)
def test_proven(judge) -> None:
    """A fetch stays until it is taken and is only offered for a slot that is free; no more slots
    are taken than there are; K goes with the first block of its column, and V of it follows.
    """
    verdict = judge(SuperblockScheduler(CONFIG), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=SuperblockScheduler, mode="cover", depth=40)
def test_reached(judge) -> None:
    """All slots are full; a row's last block is issued with no fetch."""
    verdict = judge(SuperblockScheduler(CONFIG), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=SuperblockScheduler, mode="bmc", depth=40, mutant=True)
@pytest.mark.parametrize(
    ("of", "old", "new"),
    [
        (
            SuperblockScheduler,
            "slots.room[operand]",
            "slots.room[operand] | (operand == Operand.Q)",
        ),
        (SuperblockScheduler, "(Operand.V, codes.column)", "(Operand.V, run.row)"),
        (SuperblockScheduler, 'm.next = "FETCH_V"', "go_on()"),
        (SuperblockScheduler, "[self.blocks.valid.eq(1), ", "["),
        (SchedulerSlots, "counts[operand] + released - taken", "counts[operand] + released"),
        (SchedulerSlots, "bit_select(self.slots[Operand.Q], 1).eq(0)", "bit_select(0, 1).eq(0)"),
    ],
)
def test_mutants_are_refuted(of: type, old: str, new: str, judge) -> None:
    """Broken schedulers ask without a slot, or for other blocks."""
    if of is SuperblockScheduler:
        broken = mutant(SuperblockScheduler, old, new)
    else:
        part: Any = SchedulerSlots
        broken = variant(SuperblockScheduler, SchedulerSlots=mutant(part, old, new))
    verdict = judge(broken(CONFIG), properties)
    assert verdict.status == "FAIL", verdict
