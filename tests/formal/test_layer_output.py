"""The output of layers, proven, of any words: its memories give any."""

from functools import reduce
from operator import add

import pytest
from amaranth.lib import data

from paro.config import PRESETS
from rtl.core.layer_output import PAGES, LayerOutput, rows_max
from rtl.core.normalizer import Normalizer
from tests.formal.fifo import queued
from tests.formal.models import AnyMemory
from tests.formal.prove import Proof, variant

CONFIG = PRESETS["tiny"]


def layer_output(old: str = "", new: str = "") -> LayerOutput:
    return variant(LayerOutput, old, new, Memory=AnyMemory)(CONFIG)


def properties(proof: Proof, layer: LayerOutput) -> None:
    o = layer.o
    level = proof.inside("rows.queue.level")
    proof.assume(~layer.rows.valid | (level < rows_max(CONFIG)))
    proof.holds(proof.kept(o.valid, o.ready, o.payload))
    proof.holds(~o.valid | ~layer.idle)
    proof.holds(~layer.read | (layer.turn & layer.read_ready))
    proof.holds(~proof.past(layer.read) | ~layer.idle)
    proof.holds(~layer.row_done | layer.read)

    # What only the induction needs: where each page is that is not sent.
    pages, output = proof.inside("pages"), proof.inside("output")
    layout = data.StructLayout(
        {
            "valid": 1,
            "page": range(PAGES),
            "output": range(CONFIG.block),
            "tokens": range(CONFIG.output_words + 1),
        }
    )
    places = [
        proof.inside(f"place_{stage}", layout) for stage in range(1, Normalizer.LAYER_LATENCY + 1)
    ]
    full = reduce(add, (place.valid & (place.output == CONFIG.block - 1) for place in places))
    proof.holds(pages == proof.inside("full.queue.level") + full + (output != 0))
    proof.holds(pages <= PAGES)
    queued(proof, "full", PAGES)
    queued(proof, "rows", rows_max(CONFIG))

    proof.reach(o.valid & o.ready & (pages == 0))
    proof.reach(layer.row_done)


@pytest.mark.proof(of=LayerOutput, mode="prove", depth=2)
def test_proven(judge) -> None:
    """What is offered stays until it is taken; there is room for every page that is full; it reads
    only in its turn, and is not idle until all that it has read is taken.
    """
    verdict = judge(layer_output(), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=LayerOutput, mode="cover", depth=50)
def test_reached(judge) -> None:
    """A row has been read; all of its beats are taken."""
    verdict = judge(layer_output(), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=LayerOutput, mode="bmc", depth=50, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("enable.eq(~valid | self.o.ready)", "enable.eq(1)"),
        ("self.idle.eq(~pages.any() & ~leaving)", "self.idle.eq(~pages.any())"),
        ("self.turn\n                & rows.output.valid", "rows.output.valid"),
        ("place.output == config.block - 1", "place.output[0]"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken ones change what they offer, read out of turn, rest too early, or fill too much."""
    verdict = judge(layer_output(old, new), properties)
    assert verdict.status == "FAIL", verdict
