"""The normaliser's output, proven, of any words: its lanes give any."""

from functools import reduce
from operator import add

import pytest
from amaranth.asserts import AnySeq
from amaranth.hdl import Module

from paro.config import PRESETS
from rtl.core.normalizer import Normalizer, NormalizerLane
from tests.formal.fifo import queued
from tests.formal.prove import Proof, variant

CONFIG = PRESETS["tiny"]


class AnyLane(NormalizerLane):
    """Gives any word."""

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.word.eq(AnySeq(16)), self.layer_word.eq(AnySeq(16))]
        return m


def normalizer(old: str = "", new: str = "") -> Normalizer:
    return variant(Normalizer, old, new, NormalizerLane=AnyLane)(CONFIG)


def properties(proof: Proof, normalizer: Normalizer) -> None:
    o = normalizer.o
    proof.holds(proof.kept(o.valid, o.ready, o.payload))
    proof.holds(~o.valid | ~normalizer.idle)
    proof.holds(~normalizer.read | (normalizer.turn & normalizer.read_ready))
    proof.holds(~proof.past(normalizer.read) | ~normalizer.idle)
    proof.holds(~normalizer.row_done | normalizer.read)

    # What only the induction needs: every place that is reserved has a beat.
    valid, reserved = proof.inside("valid"), proof.inside("reserved")
    on_their_way = reduce(add, (valid[i] for i in range(len(valid))))
    proof.holds(reserved == proof.inside("output.queue.level") + on_their_way)
    proof.holds(reserved <= Normalizer.QUEUE)
    queued(proof, "output", Normalizer.QUEUE)

    proof.reach((reserved == Normalizer.QUEUE) & ~o.ready)
    proof.reach(normalizer.row_done & o.valid & o.ready)
    proof.reach(proof.past(o.valid) & normalizer.idle)


@pytest.mark.proof(of=Normalizer, mode="prove", depth=2)
def test_proven(judge) -> None:
    """What is offered stays until it is taken; there is room for every word that is read; it reads
    only in its turn, and is not idle until all that it has read is taken.
    """
    verdict = judge(normalizer(), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=Normalizer, mode="cover", depth=24)
def test_reached(judge) -> None:
    """The queue is full while nobody takes; a row ends while a word is taken; all is taken."""
    verdict = judge(normalizer(), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=Normalizer, mode="bmc", depth=24, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("reserved + read - sent", "reserved + (read & self.o.ready) - sent"),
        ("& (reserved != self.QUEUE)", ""),
        ("self.idle.eq(~reserved.any())", "self.idle.eq(~self.o.valid)"),
        ("self.turn\n                & self.queries.valid", "self.queries.valid"),
        ("valid.eq(Cat(read, valid))", "valid.eq(Cat(read | groups[1], valid))"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken ones lose words, read out of turn, or rest too early."""
    verdict = judge(normalizer(old, new), properties)
    assert verdict.status == "FAIL", verdict
