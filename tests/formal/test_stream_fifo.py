"""The stream FIFO, proven."""

from pathlib import Path

import pytest
from amaranth.hdl import Signal

from rtl.lib.stream_fifo import StreamFIFO
from tests.formal.prove import Proof, check, mutant

pytestmark = pytest.mark.slow

DEPTH = 4
BITS = 2


def count(proof: Proof, queue: StreamFIFO) -> None:
    """What is said of how many payloads there are; the depth is a power of two."""
    put = queue.input.valid & queue.input.ready
    got = queue.output.valid & queue.output.ready
    held = Signal.like(queue.level)
    proof.m.d.sync += held.eq(held + put - got)
    proof.holds(queue.level == held)
    proof.holds(held <= DEPTH)
    proof.holds(~put | (held < DEPTH))
    proof.holds(~got | (held > 0))
    proof.holds(proof.kept(queue.output.valid, queue.output.ready, queue.output.payload))
    proof.holds(~proof.past(held > got) | queue.output.valid)
    proof.reach((held == DEPTH) & got & ~queue.input.ready)
    proof.reach(put & got & (held == DEPTH - 1))


def order(proof: Proof, queue: StreamFIFO) -> None:
    """What is said of any one payload: it comes out unchanged, behind those it found inside."""
    m = proof.m
    put = queue.input.valid & queue.input.ready
    got = queue.output.valid & queue.output.ready
    tracked = put & proof.free(1, "track")
    inside, payload = Signal(), Signal(BITS)
    ahead = Signal.like(queue.level)
    with m.If(tracked & ~inside):
        m.d.sync += [inside.eq(1), payload.eq(queue.input.payload)]
        m.d.sync += ahead.eq(queue.level - got)
    with m.Elif(inside & got):
        m.d.sync += ahead.eq(ahead - 1)
        with m.If(ahead == 0):
            m.d.sync += inside.eq(0)
            proof.holds(queue.output.payload == payload)
    proof.holds(~inside | (queue.level > ahead))
    proof.reach(inside & got & (ahead == 0) & (queue.level == DEPTH))
    proof.reach(inside & (ahead == DEPTH - 1))


def test_count_proven(tmp_path: Path) -> None:
    """In all cycles, by induction: it holds what was put in and not taken, never more than its
    depth; what is offered stays; what it holds is offered in the second cycle.
    """
    verdict = check(StreamFIFO(BITS, depth=DEPTH), count, tmp_path, mode="prove", depth=2)
    assert verdict.status == "PASS", verdict


def test_order_holds(tmp_path: Path) -> None:
    """In the 12 cycles after reset: every payload comes out once, unchanged and in order."""
    verdict = check(StreamFIFO(BITS, depth=DEPTH), order, tmp_path, mode="bmc", depth=12)
    assert verdict.status == "PASS", verdict


@pytest.mark.parametrize("properties", [count, order])
def test_reached(properties, tmp_path: Path) -> None:
    """It fills up, takes while it gives, and gives the tracked payload."""
    verdict = check(StreamFIFO(BITS, depth=DEPTH), properties, tmp_path, mode="cover", depth=12)
    assert verdict.status == "PASS", verdict


@pytest.mark.parametrize(
    ("properties", "old", "new"),
    [
        (count, "queue.r_en.eq(self.output.ready)", "queue.r_en.eq(1)"),
        (count, "self.level.eq(queue.level)", "self.level.eq(queue.level & 3)"),
        (order, "w_en.eq(self.input.valid)", "w_en.eq(self.input.valid & queue.level[0])"),
        (order, "queue.w_data.eq(payload)", "queue.w_data.eq(payload ^ queue.level[1])"),
    ],
)
def test_mutants_are_refuted(properties, old: str, new: str, tmp_path: Path) -> None:
    queue = mutant(StreamFIFO, old, new)(BITS, depth=DEPTH)
    verdict = check(queue, properties, tmp_path, mode="bmc", depth=12)
    assert verdict.status == "FAIL", verdict
