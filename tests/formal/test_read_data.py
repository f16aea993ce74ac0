"""The read master's data, proven for some cycles: any word of any run comes in its unit."""

from itertools import pairwise

import pytest
from amaranth.asserts import AnyConst
from amaranth.hdl import Array, Cat, Mux, Signal

from paro.config import Config
from rtl.bus.axi import WORD_BYTES
from rtl.bus.read_master import ReadMaster
from rtl.lib.arithmetic import log2
from tests.formal.prove import Proof, variant

OUTSTANDING, BEATS, DEPTH = 2, 4, 4
SMALL = Config(rows=4, cols=4, block=16, head_dim=32, axi_bits=64)
#: A unit is as wide as a beat, half as wide, four times as wide.
SHAPES = {
    "same": SMALL,
    "narrow": SMALL.changed(axi_bits=128),
    "wide": SMALL.changed(rows=8, cols=8),
}


def reader(config: Config, old: str = "", new: str = "") -> ReadMaster:
    return variant(ReadMaster, old, new, OUTSTANDING=OUTSTANDING, BURST_BEATS=BEATS, DEPTH=DEPTH)(
        config
    )


def properties(proof: Proof, master: ReadMaster) -> None:
    m, axi, config = proof.m, master.axi, master._config
    run, unit = master.runs.payload, master.units.payload
    accepted = master.runs.valid & master.runs.ready
    given = master.units.valid & master.units.ready
    unit_words = config.load_bytes // WORD_BYTES
    proof.assume(~master.stop & ~master.refused)

    # A word: the run's word ``index``, which has this value in memory.
    index, value = Signal(3), Signal(32)
    m.d.comb += [index.eq(AnyConst(3)), value.eq(AnyConst(32))]
    inside, word = Signal(), Signal(len(run.address) - log2(WORD_BYTES))
    destination = Signal.like(run.destination)
    left, ahead = Signal(8), Signal(8)  # units of all runs; before that of the word
    m.d.sync += left.eq(left + Mux(accepted, run.units, 0) - given)
    follows = accepted & proof.free(1, "track") & ~inside & (index < run.units * unit_words)
    proof.assume(run.units <= 4)
    with m.If(follows):
        m.d.sync += [
            inside.eq(1),
            word.eq(run.address[log2(WORD_BYTES) :] + index),
            destination.eq(run.destination),
            ahead.eq(left - given + index // unit_words),
        ]
    with m.Elif(inside & given):
        m.d.sync += [ahead.eq(ahead - 1), inside.eq(ahead != 0)]
        with m.If(ahead == 0):
            words = Array(unit.data[i] for i in range(unit_words))
            proof.holds(words[index % unit_words] == value)
            proof.holds(unit.destination == destination)
    proof.reach(inside & given & (ahead == 0) & (index == 3) & (word[0] == 0))
    proof.reach(given & inside & (ahead == 2))
    _remember(proof, axi, config, word, value)


def _remember(proof: Proof, axi, config: Config, word: Signal, value: Signal) -> None:
    """Have the memory answer bursts in order, with all their beats, and the word with its value."""
    m, beat_bits = proof.m, log2(config.axi_bits // 8)
    asked, beat = axi.arvalid & axi.arready, axi.rvalid & axi.rready
    bursts = [Signal(len(axi.araddr) + 8, name=f"burst_{i}") for i in range(OUTSTANDING + 1)]
    count, done = Signal(range(OUTSTANDING + 2)), Signal(8)
    ends = beat & axi.rlast
    m.d.sync += [count.eq(count + asked - ends), done.eq(Mux(ends, 0, done + beat))]
    with m.If(ends):
        m.d.sync += [one.eq(other) for one, other in pairwise(bursts)]
    for place, burst in enumerate(bursts):
        with m.If(asked & (count - ends == place)):
            m.d.sync += burst.eq(Cat(axi.araddr, axi.arlen))
    first, length = bursts[0][: len(axi.araddr)], bursts[0][len(axi.araddr) :]
    place = first[beat_bits:] + done
    lanes = config.axi_bits // 32
    lane = word[: log2(lanes)]
    here = place[: len(word) - log2(lanes)] == word[log2(lanes) :]
    proof.assume(~axi.rvalid | (count != 0))
    proof.assume(~axi.rvalid | (axi.rlast == (done == length)))
    proof.assume(~here | (axi.rdata.word_select(lane, 32) == value))


@pytest.mark.slow
@pytest.mark.proof(of=ReadMaster, mode="bmc", depth=12)
@pytest.mark.parametrize("shape", SHAPES)
def test_holds(shape: str, judge) -> None:
    """Every word of every run comes once, in its place of its unit, in order; words are taken only
    where there are any.
    """
    verdict = judge(reader(SHAPES[shape]), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=ReadMaster, mode="cover", depth=14)
@pytest.mark.parametrize("shape", SHAPES)
def test_reached(shape: str, judge) -> None:
    """The word comes, of a run that begins in the midst of a beat, and behind other units."""
    verdict = judge(reader(SHAPES[shape]), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=ReadMaster, mode="bmc", depth=14, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lowest.eq(Mux(first, tag.first_lane, 0))", "lowest.eq(tag.first_lane)"),
        ("highest.eq(Mux(axi.rlast, tag.last_lane, self", "highest.eq(Mux(1, tag.last_lane, self"),
        ("lane.eq(lane + words)", "lane.eq(lane + 1)"),
        ("(stored >= words)", "(stored >= words - 1)"),
        ("lane.eq(place.lane)", "lane.eq(0)"),
        ("further.eq(place.units - 1)", "further.eq(place.units)"),
        (
            "axi.rready.eq(tags.output.valid & (lanes.room | self.stop))",
            "axi.rready.eq(tags.output.valid)",
        ),
        ("(~valid | self.units.ready)", "1"),
        ("destination.eq(place.destination)", "destination.eq(self.runs.payload.destination)"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken masters lose, repeat or move words."""
    verdict = judge(reader(SHAPES["narrow"], old, new), properties)
    assert verdict.status == "FAIL", verdict
