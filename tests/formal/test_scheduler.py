"""The block scheduler, proven."""

import pytest
from amaranth.hdl import Array, Cat, Signal

from paro.config import PRESETS, Config
from paro.config.formats import Kind, Operand
from rtl.core.blocks import SLOTS
from rtl.core.scheduler import BlockScheduler
from rtl.interfaces import CODES_PER_BEAT
from rtl.lib.arithmetic import log2
from tests.formal.prove import Proof, mutant

#: Four blocks on a side: a row's codes are one beat.
SHORT = Config(rows=4, cols=4, block=16, head_dim=32, max_tokens=64)


def count_held(proof: Proof, scheduler: BlockScheduler) -> list[Signal]:
    """How many slots of each operand are not free."""
    held = [Signal(range(2 * SLOTS), name=f"held_{operand.name}") for operand in Operand]
    for operand in Operand:
        released = scheduler.release[operand]
        proof.m.d.sync += held[operand].eq(held[operand] + scheduler.load_valid[operand] - released)
    return held


def credits(proof: Proof, scheduler: BlockScheduler) -> None:
    """What is said of fetches and the slots that they are for."""
    m = proof.m
    held = count_held(proof, scheduler)
    fetch, blocks = scheduler.fetch, scheduler.blocks
    operand, block = fetch.payload.operand, fetch.payload.block
    taken = fetch.valid & fetch.ready
    key_taken, key_block = Signal(), Signal.like(block)
    with m.If(taken):
        m.d.sync += [
            key_taken.eq((operand == Operand.K) & ~proof.inside("linear")),
            key_block.eq(block),
        ]

    proof.holds(~fetch.valid | (Array(held)[operand] < SLOTS))
    of_values = operand == Operand.V
    proof.holds(key_taken == of_values)
    proof.holds(~of_values | (block == key_block))
    for each in Operand:
        proof.holds(held[each] <= SLOTS)
        proof.holds(scheduler.load_valid[each] == (taken & (operand == each)))
        # What only the induction needs.
        free = proof.inside("free_queries" if each == Operand.Q else f"room_{each.name}")
        proof.holds((free[0] + free[1] if each == Operand.Q else free) + held[each] == SLOTS)
    proof.holds(blocks.valid == (taken & (operand == Operand.K)))
    proof.holds(scheduler.activity.as_value() & (scheduler.activity.as_value() - 1) == 0)

    full = Cat(count == SLOTS for count in held)
    proof.reach(full.all() & scheduler.activity.blocked)
    proof.reach(taken & (operand == Operand.V) & full[Operand.K])


def rows(proof: Proof, scheduler: BlockScheduler) -> None:
    """What is said of the order of fetches and blocks; a row's codes are one beat."""
    m = proof.m
    fetch, block = scheduler.fetch.payload, scheduler.blocks.payload
    taken = scheduler.fetch.valid & scheduler.fetch.ready
    command, codes = scheduler.command, scheduler.codes
    block_bits = log2(SHORT.block)
    last_row, last_column = Signal.like(fetch.block), Signal.like(fetch.block)
    with m.If(command.valid & command.ready):
        m.d.sync += [
            last_row.eq((command.payload.query_tokens - 1) >> block_bits),
            last_column.eq((command.payload.key_tokens - 1) >> block_bits),
        ]
    proof.assume(~command.valid | (command.payload.kind == Kind.ATTENTION))
    proof.assume(~command.valid | (command.payload.query_tokens <= SHORT.max_tokens))
    proof.assume(~command.valid | (command.payload.key_tokens <= SHORT.max_tokens))
    for index in range(CODES_PER_BEAT):
        proof.assume((codes.payload[index] == 0) | (index <= last_column))

    # Codes of the row that are not issued yet; `begun` from its Q on, `scanned` from its codes on.
    columns = SHORT.blocks_max
    left = Array(Signal(2, name=f"left_{column}") for column in range(columns))
    begun, scanned, first, ended = Signal(), Signal(), Signal(), Signal()
    row = Signal(range(columns + 1))
    live = Signal(columns)
    m.d.comb += live.eq(Cat(code.any() for code in left))
    later = live & (live - 1)
    proof.holds(~codes.ready | (begun & ~scanned))
    with m.If(codes.valid & codes.ready):
        m.d.sync += scanned.eq(1)
        m.d.sync += [left[column].eq(codes.payload[column]) for column in range(columns)]
    with m.If(command.valid & command.ready):
        m.d.sync += row.eq(0)
        proof.holds(~begun | (scanned & ~live.any() & (row == last_row)))
        m.d.sync += [begun.eq(0), scanned.eq(0)]
    with m.If(taken & (fetch.operand == Operand.Q)):
        proof.holds(~begun | (scanned & ~live.any() & (row < last_row)))
        proof.holds(fetch.block == row + begun)
        m.d.sync += [row.eq(row + begun), begun.eq(1), scanned.eq(0), first.eq(1)]
    with m.If(taken & (fetch.operand == Operand.K)):
        lowest = live & ~later
        proof.holds(begun & scanned & live.any())
        proof.holds((1 << fetch.block) == lowest)
        proof.holds(block.code == left[fetch.block])
        proof.holds(block.first == first)
        proof.holds(block.last == (later == 0))
        m.d.sync += first.eq(0)
    with m.If(taken & (fetch.operand == Operand.V)):
        m.d.sync += [left[fetch.block].eq(0), ended.eq(later == 0)]
    with m.If(scheduler.empty_row):
        proof.holds(begun & scanned & first & ~live.any() & ~scheduler.fetch.valid)
    proof.reach(scheduler.idle & begun & (row == 1) & proof.past(ended))
    proof.reach(taken & (fetch.operand == Operand.V) & ~first & (later == 0) & (row == 1))
    proof.reach(scheduler.empty_row)


@pytest.mark.proof(of=BlockScheduler, mode="prove", depth=2)
@pytest.mark.parametrize("preset", ["tiny", "video-128"])
def test_credits_proven(preset: str, judge) -> None:
    """A fetch stays until it is taken and is only offered for a slot that is free, at most two of
    an operand are not released; K of a block is followed by V of the same, unless it is one of a
    layer, and goes with the block.
    """
    verdict = judge(BlockScheduler(PRESETS[preset]), credits)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=BlockScheduler, mode="bmc", depth=14)
def test_rows_hold(judge) -> None:
    """For heads of at most four blocks on a side: Q of each row, then K and V of its live blocks,
    in order, with their codes, the first and the last one marked.
    """
    verdict = judge(BlockScheduler(SHORT), rows)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=BlockScheduler, mode="cover", depth=24)
@pytest.mark.parametrize("properties", [credits, rows])
def test_reached(properties, judge) -> None:
    """All slots are full; two rows are gone through; a row without a live block is found."""
    verdict = judge(BlockScheduler(SHORT), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=BlockScheduler, mode="bmc", depth=16, mutant=True)
@pytest.mark.parametrize(
    ("properties", "old", "new"),
    [
        (credits, "slots.room[operand]", "slots.room[operand] | (operand == Operand.V)"),
        (credits, "slots.room[operand]", "slots.room[operand] | (operand == Operand.K)"),
        (credits, "slots.room[operand]", "slots.room[operand] | (operand == Operand.Q)"),
        (credits, "counts[operand] + released - taken", "counts[operand] - taken"),
        (credits, 'm.next = "FETCH_V"', 'm.next = "SCAN"'),
        (credits, "(Operand.V, pending.column)", "(Operand.V, run.row)"),
        (rows, "pending.last.eq(0)", "pending.last.eq(1)"),
        (rows, "self.superblock + last_output", "self.superblock"),
        (rows, "first_of(m, self.live, ", "first_of(m, self.live & (self.live - 1), "),
    ],
)
def test_mutants_are_refuted(properties, old: str, new: str, judge) -> None:
    """Broken schedulers ask without a slot, or for other blocks, or mark others."""
    verdict = judge(mutant(BlockScheduler, old, new)(SHORT), properties)
    assert verdict.status == "FAIL", verdict
