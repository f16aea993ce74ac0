"""The run arbiter, proven."""

from pathlib import Path

import pytest
from amaranth.hdl import Cat

from paro.config import PRESETS
from rtl.bus.run_arbiter import RunArbiter
from tests.formal.prove import Proof, check, mutant

SOURCES = 3


def properties(proof: Proof, arbiter: RunArbiter) -> None:
    inputs, output = arbiter.inputs, arbiter.output
    for source in inputs:
        proof.assume(proof.kept(source.valid, source.ready, source.payload))
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


def test_proven(tmp_path: Path) -> None:
    """In all cycles, by induction: what is offered stays until it is taken; a run goes through
    exactly when one source's is taken, unchanged; a source is only overtaken by those before it,
    and not once its run is offered.
    """
    arbiter = RunArbiter(PRESETS["tiny"], SOURCES)
    verdict = check(arbiter, properties, tmp_path, mode="prove", depth=3)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
def test_reached(tmp_path: Path) -> None:
    """A run of every source is taken after it had to wait, while those before it ask as well."""
    arbiter = RunArbiter(PRESETS["tiny"], SOURCES)
    verdict = check(arbiter, properties, tmp_path, mode="cover", depth=6)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("offered.eq(self.output.valid & ~self.output.ready)", "offered.eq(0)"),
        ("source.ready.eq(self.output.ready)", "source.ready.eq(1)"),
        ("self.output.valid.eq(source.valid)", "self.output.valid.eq(source.valid & ~held)"),
        ("reversed(list(enumerate(self.inputs)))", "enumerate(self.inputs)"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, tmp_path: Path) -> None:
    arbiter = mutant(RunArbiter, old, new)(PRESETS["tiny"], SOURCES)
    verdict = check(arbiter, properties, tmp_path, mode="bmc", depth=6)
    assert verdict.status == "FAIL", verdict
