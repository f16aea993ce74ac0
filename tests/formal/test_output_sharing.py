"""The core's output stream, proven: normaliser and layer output share it by turns.

Both are any parts that read only in their turn and are not idle from then on until all is taken,
which `tests/formal/test_normalizer.py` and `tests/formal/test_layer_output.py` show of them.
"""

from typing import Any

import pytest
from amaranth.asserts import AnySeq
from amaranth.hdl import Module, Signal, Value

import rtl.core.core as home
from paro.config import PRESETS
from rtl.core.core import Core
from rtl.core.layer_output import LayerOutput
from rtl.core.normalizer import Normalizer
from rtl.core.output_accumulator import OutputAccumulator
from rtl.core.sequencer import ArraySequencer
from rtl.lib.contract import Contracts
from tests.formal.fifo import queued
from tests.formal.prove import Proof, mutant

CONFIG = PRESETS["tiny"]


def sharing(kind: type[Core]) -> Core:
    """Core of which only the sharing of its output is left."""

    class Sharing(kind):
        def elaborate(self, platform):
            m = Module()
            contracts = Contracts(m, platform, self)
            contracts.keeps(self.o, "o")
            accumulator, sequencer, normalizer, layer = map(
                _ports, (OutputAccumulator, ArraySequencer, Normalizer, LayerOutput)
            )
            for name, part in (("normalizer", normalizer), ("layer", layer)):
                _work(m, part, name)
            ending = sequencer.ending_rows
            for value in (ending.valid, ending.payload):
                m.d.comb += Value.cast(value).eq(AnySeq(len(Value.cast(value))))
            output = home._Output(accumulator, normalizer, layer)
            self._share_output(m, contracts, output, sequencer)
            self._send(m, output)
            return m

    Sharing.__name__ = Core.__name__
    return Sharing(CONFIG)


def _ports(kind: type[Any]) -> Any:
    """Ports of a component, which is not there itself."""
    component = kind(CONFIG)
    component._MustUse__silence = True
    return component.signature.create(path=(kind.__name__,))


def _work(m: Module, part: Any, name: str) -> None:
    """Read in turn, be busy then, and offer and keep any words."""
    busy, refused = Signal(name=f"{name}_busy"), Signal()
    reads, goes_on, offers, ends = Signal(), Signal(), Signal(), Signal()
    word = Value.cast(part.o.payload)
    before = Signal.like(word)
    m.d.comb += [
        *(choice.eq(AnySeq(1)) for choice in (reads, goes_on, offers, ends)),
        part.read.eq(part.turn & reads),
        part.row_done.eq(part.read & ends),
        part.idle.eq(~busy),
        part.o.valid.eq(busy & (offers | refused)),
        word.eq(before),
    ]
    m.d.sync += [
        refused.eq(part.o.valid & ~part.o.ready),
        busy.eq(part.read | (busy & goes_on) | (part.o.valid & ~part.o.ready)),
    ]
    with m.If(~part.o.valid | part.o.ready):
        m.d.sync += before.eq(AnySeq(len(word)))


def properties(proof: Proof, core: Core) -> None:
    # A row that ends has an output slot, and its last operation takes more than a cycle.
    ends = proof.inside("input__valid")
    proof.assume(~ends | (proof.inside("ending_rows.queue.level") < CONFIG.row_slots))
    proof.assume(~ends | ~proof.past(ends))
    queued(proof, "ending_rows", CONFIG.row_slots)
    # What only the induction needs.
    busy = [proof.inside(f"{name}_busy") for name in ("normalizer", "layer")]
    proof.holds(~(busy[0] & busy[1]))
    for own in busy:
        proof.reach(own & core.o.valid & core.o.ready)


@pytest.mark.proof(of=Core, mode="prove", depth=3)
def test_proven(judge) -> None:
    """What the core offers as O stays until it is taken; normaliser and layer output neither read
    nor offer at the same time.
    """
    verdict = judge(sharing(Core), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.proof(of=Core, mode="cover", depth=10)
def test_reached(judge) -> None:
    """A word of each of them is taken."""
    verdict = judge(sharing(Core), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=Core, mode="bmc", depth=10, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("~reads_layer & layer.idle)", "~reads_layer)"),
        ("reads_layer & normalizer.idle)", "reads_layer)"),
        ("ending.output.valid & ~reads_layer", "ending.output.valid"),
        ("normalizer.o.ready.eq(self.o.ready)", "normalizer.o.ready.eq(1)"),
        ("normalizer.o.valid | layer.o.valid)", "normalizer.o.valid ^ layer.idle)"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken ones read both, or change or withdraw what is offered."""
    verdict = judge(sharing(mutant(Core, old, new)), properties)
    assert verdict.status == "FAIL", verdict
