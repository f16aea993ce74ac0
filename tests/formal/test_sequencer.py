"""The array sequencer, proven: it never stands still, whatever the length of its operations.

Around it is what the core does, as late as it likes but not for ever: blocks come in a legal order,
and their operands with them; an operation ends, P of a block follows the end of its QK, and an
output slot is freed after its row's last operation.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from amaranth.asserts import AnySeq
from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data

from paro.config import PRESETS, Config
from paro.config.formats import Operation
from rtl.core.blocks import SLOTS, block_layout
from rtl.core.sequencer import ArraySequencer
from rtl.core.tile_walk import TileWalk
from tests.formal.prove import Proof, variant

ATTENTION = PRESETS["tiny"]
SUPERBLOCKS = ATTENTION.changed(query_rows=2)

#: Most cycles of an operation, and from P, or an output, that may come until it does.
OPERATION, ANSWER = 3, 2
#: Most cycles between the beginnings of two operations, while there is work.
PAUSE = 8


class AnyWalk(TileWalk):
    """A walk that may be at its end in any cycle."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.at_last_step: Any = Signal(name="any_last_step")
        self.at_last_tile: Any = Signal(name="any_last_tile")

    def advance(self, m: Module) -> None:
        pass

    def place_in_reduction(self, m: Module) -> None:
        m.d.comb += [self.at_last_step.eq(AnySeq(1)), self.at_last_tile.eq(AnySeq(1))]


def sequencer(config: Config, old: str = "", new: str = "") -> ArraySequencer:
    return variant(ArraySequencer, old, new, TileWalk=AnyWalk)(config)


class Started(NamedTuple):
    """Operations that start in this cycle."""

    qk: Value
    pv: Value
    layer: Value  # a block of one
    block: Any


def properties(proof: Proof, sequencer: ArraySequencer) -> None:
    config, scheduled, weighted = sequencer._config, sequencer.scheduled, sequencer.weighted
    qk = scheduled.valid & scheduled.ready
    pv = weighted.valid & weighted.ready
    block = data.View(
        block_layout(config), Mux(pv, weighted.payload.as_value(), scheduled.payload.as_value())
    )
    started = Started(qk, pv, qk & scheduled.payload.linear, block)
    keep_operations_short(proof)
    for load in (sequencer.query_load, sequencer.key_load, sequencer.value_load):
        proof.assume(load.full.all())
    order = schedule(proof, sequencer, started)
    lead = answer_scores(proof, sequencer, started, order)
    free_outputs(proof, sequencer, started, order)

    proof.holds(~started.layer | (lead == 0))
    pause = Signal(range(PAUSE + 1))
    proof.m.d.sync += pause.eq(Mux((scheduled.valid | lead.any()) & ~qk & ~pv, pause + 1, 0))
    proof.holds(pause < PAUSE)
    # Operations that go before a block's own, once that could be the next.
    before_qk, before_pv = Signal(range(SLOTS + 2)), Signal(range(SLOTS + 2))
    proof.m.d.sync += [
        before_qk.eq(Mux(scheduled.valid & ~qk, before_qk + pv, 0)),
        before_pv.eq(Mux(weighted.valid & ~pv, before_pv + qk, 0)),
    ]
    proof.holds(before_qk + lead <= SLOTS)
    proof.holds(before_pv <= Mux(lead.any(), lead - 1, 0))
    proof.reach(pv & block.last & proof.past(lead == SLOTS))
    proof.reach(started.layer & ~block.first)
    proof.reach(proof.past(started.layer & block.last) & ~sequencer.scheduled.payload.linear & qk)


def keep_operations_short(proof: Proof) -> None:
    active = proof.inside("active")
    cycles = Signal(range(OPERATION + 1))
    ends = proof.inside("any_last_step") & proof.inside("any_last_tile")
    proof.m.d.sync += cycles.eq(Mux(active & ~ends, cycles + 1, 0))
    proof.assume((cycles < OPERATION - 1) | ~active | ends)
    proof.holds(cycles < OPERATION)


class Order(NamedTuple):
    """Rows that have begun and not ended, of their superblock."""

    scheduled: Signal  # by QK of their blocks
    joined: Signal  # by operations that write their output


def schedule(proof: Proof, sequencer: ArraySequencer, started: Started) -> Order:
    """Blocks come in order: the first one of a row, others, its last one."""
    scheduled, block = sequencer.scheduled, sequencer.scheduled.payload
    rows = sequencer._config.query_rows
    proof.assume(proof.kept(scheduled.valid, scheduled.ready, block))
    proof.assume(block.query_slot < sequencer._config.row_slots)
    order = Order(Signal(rows, name="rows_scheduled"), Signal(rows, name="rows_joined"))
    proof.assume(~scheduled.valid | (block.first == ~bit(order.scheduled, block.row)))
    with proof.m.If(started.qk):
        proof.m.d.sync += bit(order.scheduled, block.row).eq(~block.last)
    with proof.m.If(started.pv | started.layer):
        proof.m.d.sync += bit(order.joined, started.block.row).eq(~started.block.last)
    return order


def bit(bits: Signal, index: Value) -> Any:
    return bits.bit_select(index, 1) if len(bits) > 1 else bits


def answer_scores(
    proof: Proof, sequencer: ArraySequencer, started: Started, order: Order
) -> Signal:
    """P of a block comes after its QK; returns how many blocks have none, or wait with it."""
    m, weighted = proof.m, sequencer.weighted
    layout = block_layout(sequencer._config)
    blocks = [Signal(layout, name=f"weighed_{place}") for place in range(SLOTS)]
    lead = Signal(range(SLOTS + 1))
    begins = started.qk & ~started.layer
    m.d.sync += lead.eq(lead + begins - started.pv)
    with m.If(started.pv):
        m.d.sync += blocks[0].eq(blocks[1])
    for place, block in enumerate(blocks):
        with m.If(begins & (lead - started.pv == place)):
            m.d.sync += block.eq(sequencer.scheduled.payload)
    linear = proof.inside("block", layout).linear
    multiplies = proof.inside("active") & (proof.inside("operation") == Operation.QK) & ~linear
    there = lead > multiplies
    waits = Signal(range(ANSWER + 1))
    m.d.sync += waits.eq(Mux(there & ~weighted.valid, waits + 1, 0))
    proof.assume(there | ~weighted.valid)
    proof.assume(~weighted.valid | (weighted.payload == blocks[0]))
    proof.assume(proof.kept(weighted.valid, weighted.ready))
    proof.assume((waits < ANSWER) | ~there | weighted.valid)

    # What only the induction needs.
    proof.holds(lead == proof.inside("lead"))
    proof.holds(~multiplies | lead.any())
    proof.holds(waits <= ANSWER)
    rows: Any = order.joined
    for place, block in enumerate(blocks):
        valid = place < lead
        own = Value.cast(1) << block.row if len(rows) > 1 else Value.cast(1)
        proof.holds(~valid | (block.first == ((rows & own) == 0)))
        proof.holds(~valid | ~block.linear)
        rows = Mux(valid, Mux(block.last, rows & ~own, rows | own), rows)[: len(order.joined)]
    proof.holds(rows == order.scheduled)
    return lead


def free_outputs(proof: Proof, sequencer: ArraySequencer, started: Started, order: Order) -> None:
    """Output slots are freed in the order in which their rows ended; each has one use at a time."""
    m, config, ending = proof.m, sequencer._config, sequencer.ending_rows
    slots = config.row_slots
    ended = [Signal(range(slots), name=f"ended_{place}") for place in range(slots)]
    count = Signal(range(slots + 1))
    freed = sequencer.output_free
    m.d.sync += count.eq(count + ending.valid - freed)
    with m.If(freed):
        m.d.sync += [one.eq(other) for one, other in pairwise(ended)]
    for place, slot in enumerate(ended):
        with m.If(ending.valid & (count - freed == place)):
            m.d.sync += slot.eq(ending.payload.slot)
    own = proof.inside("block", block_layout(config))
    joins = (proof.inside("operation") == Operation.PV) | own.linear
    writes = proof.inside("active") & joins & own.last
    there = count > writes
    waits = Signal(range(ANSWER + 1))
    m.d.sync += waits.eq(Mux(there & ~freed, waits + 1, 0))
    proof.assume(~freed | (there & (sequencer.output_free_slot == ended[0])))
    proof.assume((waits < ANSWER) | ~there | freed)

    free = proof.inside("free_outputs")
    given = [proof.inside(f"output_of_{row}") for row in range(config.query_rows)]
    for slot in range(slots):
        uses = [order.joined[row] & (given[row] == slot) for row in range(config.query_rows)]
        uses += [(place < count) & (ended[place] == slot) for place in range(slots)]
        proof.holds(sum(uses, free[slot]) == 1)
    for row, slot in enumerate(given):
        proof.holds(~order.joined[row] | (slot < slots))
    for place, slot in enumerate(ended):
        proof.holds((place >= count) | (slot < slots))
    joined = started.pv | started.layer
    slot = Mux(started.block.first, ending.payload.slot, Array(given)[started.block.row])
    proof.holds(ending.valid == (joined & started.block.last))
    proof.holds(~ending.valid | (ending.payload.slot == slot))
    proof.holds(~writes | count.any())
    proof.holds(waits <= ANSWER)
    proof.reach((Cat(free) == 0) & freed)


@pytest.mark.proof(of=ArraySequencer, mode="prove", depth=12)
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(ATTENTION, id="rows"),
        pytest.param(SUPERBLOCKS, id="superblocks", marks=pytest.mark.slow),
    ],
)
def test_proven(config: Config, judge) -> None:
    """No deadlock: while there is work an operation begins within 8 cycles, if it takes 3 and those
    around it 2; at most two go before a block's QK, one before its PV. At most two blocks lie
    between QK and PV, so that the logit ring holds them; an output slot has one row, until it is
    freed; a layer's block waits for all PV.
    """
    verdict = judge(sequencer(config), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.proof(of=ArraySequencer, mode="cover", depth=24)
def test_reached(judge) -> None:
    """PV of a row's last block begins after two blocks waited; a layer's row goes on and ends; all
    output slots are taken.
    """
    verdict = judge(sequencer(ATTENTION), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=ArraySequencer, mode="bmc", depth=24, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lead != SLOTS,", "1,"),
        ("~lead.any() & (~block.first | output_free)", "(~block.first | output_free)"),
        ("~lead.any() & (~block.first | output_free)", "lead.any() & (~block.first | output_free)"),
        ("pv_room.eq(~block.first | output_free)", "pv_room.eq(1)"),
        ("can_start & ~start_qk & pv.loaded", "can_start & ~qk.loaded & pv.loaded"),
        ("lead + self.started.valid - start_pv", "lead + start_qk - start_pv"),
        ("bit_select(released_slot, 1).eq(1)", "bit_select(released_slot, 1).eq(taken)"),
        ("joins & block.first, self.output_free", "joins & block.last, self.output_free"),
        ("self.ending_rows.valid.eq(joins & block.last)", "self.ending_rows.valid.eq(joins)"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken sequencers stand still, run too far ahead, or give a slot twice."""
    verdict = judge(sequencer(ATTENTION, old, new), properties)
    assert verdict.status == "FAIL", verdict
