"""The run arbiter, proven."""

import pytest
from amaranth.hdl import Cat

from paro.config import PRESETS
from rtl.bus.run_arbiter import RunArbiter
from tests.formal.prove import Proof, mutant

SOURCES = 3


def properties(proof: Proof, arbiter: RunArbiter) -> None:
    inputs, output = arbiter.inputs, arbiter.output
    proof.holds(proof.kept(output.valid, output.ready, output.payload))
    taken = [source.valid & source.ready for source in inputs]
    proof.holds(output.valid == Cat(source.valid for source in inputs).any())
    proof.holds(sum(source.ready for source in inputs) <= 1)
    proof.holds(sum(taken) == (output.valid & output.ready))
    held = proof.past(output.valid & ~output.ready)
    for index, source in enumerate(inputs):
        proof.holds(~taken[index] | (output.payload == source.payload))
        before = Cat(other.valid for other in inputs[:index]).any()
        proof.holds(~taken[index] | held | ~before)
        proof.reach(taken[index] & held & (before if index else 1))


@pytest.mark.proof(of=RunArbiter, mode="prove", depth=3)
def test_proven(judge) -> None:
    """What is offered stays until it is taken; a run goes through exactly when one source's is
    taken, unchanged; a source is only overtaken by those before it, and not once its run is
    offered.
    """
    verdict = judge(RunArbiter(PRESETS["tiny"], SOURCES), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.proof(of=RunArbiter, mode="cover", depth=6)
def test_reached(judge) -> None:
    """A run of every source is taken after it had to wait, while those before it ask as well."""
    verdict = judge(RunArbiter(PRESETS["tiny"], SOURCES), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=RunArbiter, mode="bmc", depth=6, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("offered.eq(self.output.valid & ~self.output.ready)", "offered.eq(0)"),
        ("source.ready.eq(self.output.ready)", "source.ready.eq(1)"),
        ("self.output.valid.eq(source.valid)", "self.output.valid.eq(source.valid & ~held)"),
        ("reversed(list(enumerate(self.inputs)))", "enumerate(self.inputs)"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken arbiters lose, change or withdraw runs, or let others overtake."""
    verdict = judge(mutant(RunArbiter, old, new)(PRESETS["tiny"], SOURCES), properties)
    assert verdict.status == "FAIL", verdict
