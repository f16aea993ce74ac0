"""The stream FIFO, proven: it does nothing that `tests.formal.models.AnyQueue` does not."""

import pytest
from amaranth.hdl import Mux, Signal

from rtl.lib.stream_fifo import StreamFIFO
from tests.formal.prove import Proof, mutant

BITS = 2


def queue(depth: int, kind=StreamFIFO) -> StreamFIFO:
    return kind(BITS, depth=depth)


def properties(proof: Proof, queue: StreamFIFO) -> None:
    put = queue.input.valid & queue.input.ready
    got = queue.output.valid & queue.output.ready
    held = Signal.like(queue.level)
    proof.m.d.sync += held.eq(held + put - got)
    proof.holds(queue.level == held)
    proof.holds(held <= queue._depth)
    proof.holds(~put | (held < queue._depth))
    proof.holds(~got | (held > 0))
    proof.holds(proof.kept(queue.output.valid, queue.output.ready, queue.output.payload))
    proof.holds(~proof.past(held > got) | queue.output.valid)
    proof.reach((held == queue._depth) & got & ~queue.input.ready)
    proof.reach(put & got & (held == queue._depth - 1))
    follow(proof, queue, put, got)


def follow(proof: Proof, queue: StreamFIFO, put, got) -> None:
    """Any one payload comes out unchanged, behind those that it found inside."""
    m, depth = proof.m, queue._depth
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
    proof.reach(inside & got & (ahead == 0) & (queue.level == depth))
    proof.reach(inside & (ahead == depth - 1))

    # What only the induction needs: where the payloads are, in memory and behind it.
    places = depth - 1
    level, offered = proof.inside("queue.inner_level"), proof.inside("queue.r_rdy")
    write, read = proof.inside("queue.produce"), proof.inside("queue.consume")
    proof.holds((level <= places) & (read < places) & (write < places))
    end = read + level
    proof.holds(write == Mux(end < places, end, end - places))
    behind = ahead - offered  # of the payload in memory
    place = Signal(range(2 * places))
    m.d.comb += place.eq(Mux(read + behind < places, read + behind, read + behind - places))
    word = proof.word("queue.storage", place)
    first = inside & (ahead == 0) & offered
    proof.holds(~first | (queue.output.payload == payload))
    proof.holds(~inside | first | (word == payload))


@pytest.mark.proof(of=StreamFIFO, mode="prove", depth=2)
@pytest.mark.parametrize("depth", [2, 4, 6])
def test_proven(depth: int, judge) -> None:
    """It holds what was put in and not taken, never more than its depth; payloads come out once,
    unchanged and in order; what is offered stays; what it holds is offered in the second cycle.
    """
    verdict = judge(queue(depth), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.proof(of=StreamFIFO, mode="cover", depth=8)
def test_reached(judge) -> None:
    """It fills up, takes while it gives, and gives any payload."""
    verdict = judge(queue(4), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=StreamFIFO, mode="bmc", depth=12, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("queue.r_en.eq(self.output.ready)", "queue.r_en.eq(1)"),
        ("self.level.eq(queue.level)", "self.level.eq(queue.level & 3)"),
        ("w_en.eq(self.input.valid)", "w_en.eq(self.input.valid & queue.level[0])"),
        ("queue.w_data.eq(payload)", "queue.w_data.eq(payload ^ queue.level[1])"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken queues lose, change or withdraw a payload, or miscount."""
    verdict = judge(queue(4, kind=mutant(StreamFIFO, old, new)), properties)
    assert verdict.status == "FAIL", verdict
