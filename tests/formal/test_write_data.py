"""The write master's data, proven for some cycles: any word of any run goes to its address."""

from itertools import pairwise

import pytest
from amaranth.asserts import AnyConst
from amaranth.hdl import Array, Cat, Mux, Signal, Value

from paro.config import Config
from rtl.bus.axi import WORD_BYTES
from rtl.bus.write_master import WriteMaster
from rtl.lib.arithmetic import log2
from tests.formal.prove import Proof, variant

OUTSTANDING, BEATS, QUEUES = 2, 4, 3
SMALL = Config(rows=4, cols=4, block=16, head_dim=32, axi_bits=64)
#: A unit is as wide as a beat, half as wide, wider; half a word.
SHAPES = {
    "same": SMALL,
    "narrow": SMALL.changed(axi_bits=128),
    "wide": SMALL.changed(rows=8, cols=8),
    "halves": SMALL.changed(head_dim=256, block=64, max_tokens=64),
}


def writer(config: Config, old: str = "", new: str = "") -> WriteMaster:
    return variant(
        WriteMaster,
        old,
        new,
        OUTSTANDING=OUTSTANDING,
        BURST_BEATS=BEATS,
        WAITING_RUNS=QUEUES,
        BEGUN=QUEUES,
    )(config)


def properties(proof: Proof, master: WriteMaster) -> None:
    m, axi, config = proof.m, master.axi, master._config
    run = master.runs.payload
    accepted = master.runs.valid & master.runs.ready
    taken = master.data.valid & master.data.ready
    unit_bits = 8 * config.output_bytes
    proof.assume(~master.stop & ~master.refused)
    proof.assume(run.units <= max(4, 64 // unit_bits))

    # A half word, the smallest unit: the run's number ``index``.
    index = Signal(3)
    m.d.comb += index.eq(AnyConst(3))
    per_unit = unit_bits // 16
    inside, known = Signal(), Signal()
    value, place = Signal(16), Signal(len(run.address) - 1)
    left, ahead = Signal(8), Signal(8)  # units of all runs; before that of the half word
    m.d.sync += left.eq(left + Mux(accepted, run.units, 0) - taken)
    with m.If(accepted & proof.free(1, "track") & ~inside & (index < run.units * per_unit)):
        m.d.sync += [
            inside.eq(1),
            place.eq((run.address >> 1) + index),
            ahead.eq(left - taken + index // per_unit),
        ]
    with m.Elif(inside & taken & ~known):
        m.d.sync += [ahead.eq(ahead - 1), known.eq(ahead == 0)]
        parts = Array(Value.cast(master.data.payload).word_select(i, 16) for i in range(per_unit))
        with m.If(ahead == 0):
            m.d.sync += value.eq(parts[index % per_unit])
    written = _watch(proof, axi, config, place)
    # Bursts of runs before it, which may have the same address, are over.
    before = Signal(8)
    words = Signal(8)
    m.d.comb += words.eq((run.units * config.output_bytes) >> 2)
    count = Cat(axi.wstrb.word_select(i, WORD_BYTES).any() for i in range(len(axi.wstrb) // 4))
    moved = Mux(axi.wvalid & axi.wready, sum(count[i] for i in range(len(count))), 0)
    total = Signal(8)  # words of runs that are not written
    m.d.sync += total.eq(total + Mux(accepted, words, 0) - moved)
    own_words = Signal(8)  # that are not written
    with m.If(~inside):
        m.d.sync += [before.eq(total - moved), own_words.eq(words)]
    with m.Else():
        m.d.sync += before.eq(Mux(before > moved, before - moved, 0))
    of_run = inside & (before == 0) & (moved != 0)
    own = of_run & written.here
    with m.If(of_run):
        m.d.sync += own_words.eq(own_words - moved)
    proof.holds(~of_run | (own_words != moved) | own)
    proof.holds(~own | (known & (written.half == value)))
    proof.holds(~(axi.wvalid & axi.wready) | (moved <= total))
    proof.reach(own & (index == 3))
    with m.If(own):
        m.d.sync += [inside.eq(0), known.eq(0)]


class _Written:
    def __init__(self, here: Value, half: Value):
        self.here, self.half = here, half


def _watch(proof: Proof, axi, config: Config, place: Signal) -> _Written:
    """Whether the beat that is offered writes a half word, and which value."""
    m, beat_bits = proof.m, log2(config.axi_bits // 8)
    asked, beat = axi.awvalid & axi.awready, axi.wvalid & axi.wready
    bursts = [Signal(len(axi.awaddr), name=f"burst_{i}") for i in range(OUTSTANDING + 1)]
    count, done = Signal(range(OUTSTANDING + 2)), Signal(8)
    ends = beat & axi.wlast
    # Addresses go before data here, and answers come in order after both.
    proof.assume(~axi.wready | (count != 0))
    ended = Signal(range(OUTSTANDING + 2))
    answered = axi.bvalid & axi.bready
    proof.assume(~axi.bvalid | (ended != 0))
    m.d.sync += [
        ended.eq(ended + ends - answered),
        count.eq(count + asked - ends),
        done.eq(Mux(ends, 0, done + beat)),
    ]
    with m.If(ends):
        m.d.sync += [one.eq(other) for one, other in pairwise(bursts)]
    for number, burst in enumerate(bursts):
        with m.If(asked & (count - ends == number)):
            m.d.sync += burst.eq(axi.awaddr)
    at = bursts[0][beat_bits:] + done
    halves = config.axi_bits // 16
    half = place[: log2(halves)]
    enabled = axi.wstrb.word_select(half, 2).all()
    same = at[: len(place) - log2(halves)] == place[log2(halves) :]
    return _Written(same & enabled, axi.wdata.word_select(half, 16))


@pytest.mark.slow
@pytest.mark.proof(of=WriteMaster, mode="bmc", depth=13)
@pytest.mark.parametrize("shape", SHAPES)
def test_holds(shape: str, judge) -> None:
    """Every half word of every run is written to its address, in order, and nothing else; words are
    taken only where there are any.
    """
    verdict = judge(writer(SHAPES[shape]), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=WriteMaster, mode="cover", depth=16)
@pytest.mark.parametrize("shape", SHAPES)
def test_reached(shape: str, judge) -> None:
    """The half word is written."""
    verdict = judge(writer(SHAPES[shape]), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=WriteMaster, mode="bmc", depth=16, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lowest = Mux(index == 0, burst.first_lane, 0)", "lowest = burst.first_lane"),
        ("highest = Mux(last, burst.last_lane, self._lanes - 1)", "highest = burst.last_lane"),
        ("(-lane)[: log2(words)]", "lane[: log2(words)] + 1"),
        ("lane.eq(lane + words)", "lane.eq(lane)"),
        ("(stored >= burst.words)", "(stored + 1 >= burst.words)"),
        ("lane.eq(place.lane)", "lane.eq(0)"),
        ("further.eq(place.units - 1)", "further.eq(place.units)"),
        ("axi.wdata.eq(lanes.read_data)", "axi.wdata.eq(lanes.write_data)"),
        ("waiting.input.payload.eq(run)", "waiting.input.payload.units.eq(run.units)"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken masters lose, repeat or move words."""
    verdict = judge(writer(SHAPES["narrow"], old, new), properties)
    assert verdict.status == "FAIL", verdict
