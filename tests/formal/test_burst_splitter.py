"""The burst splitter, proven."""

from typing import NamedTuple

import pytest
from amaranth.hdl import Cat, Mux, Signal

from paro.config import Config
from paro.config.registers import PAGE_BYTES
from rtl.bus.axi import WORD_BYTES
from rtl.bus.burst_splitter import BurstSplitter
from rtl.lib.arithmetic import log2
from tests.formal.prove import Proof, mutant


def splitter(axi_bits: int, unit_bytes: int, beats: int, kind=BurstSplitter) -> BurstSplitter:
    config = Config(rows=4, cols=4, block=16, head_dim=32, axi_bits=axi_bits)
    return kind(config, unit_bytes=unit_bytes, beats=beats)


#: As the read master and the write master have them, and as long as a page.
SHAPES = [(128, 8, 64), (64, 2, 16), (512, 4, 64)]


class Uncovered(NamedTuple):
    """Words that bursts have still to cover: of a run, and of at most one more after it."""

    next_word: Signal
    left: Signal  # words
    next_word_2: Signal
    left_2: Signal


def properties(proof: Proof, splitter: BurstSplitter) -> None:
    uncovered = track_runs(proof, splitter)
    check_bursts(proof, splitter, uncovered)
    help_induction(proof, splitter, uncovered)
    burst, left, left_2 = splitter.bursts.payload, uncovered.left, uncovered.left_2
    taken = splitter.bursts.valid & splitter.bursts.ready
    longest = 1 << len(burst.first_lane) + len(burst.last_beat)
    proof.reach(taken & (left_2 != 0) & (burst.last_lane == 0))
    proof.reach(taken & (burst.words == longest) & proof.past(taken) & (left != burst.words))


def track_runs(proof: Proof, splitter: BurstSplitter) -> Uncovered:
    m = proof.m
    run, burst = splitter.runs.payload, splitter.bursts.payload
    accepted = splitter.runs.valid & splitter.runs.ready
    taken = splitter.bursts.valid & splitter.bursts.ready
    total = run.units * splitter._unit_bytes
    word = run.address[log2(WORD_BYTES) :]
    words = Signal(len(total) - log2(WORD_BYTES))
    m.d.comb += words.eq(total >> log2(WORD_BYTES))
    next_word, next_word_2 = Signal.like(word), Signal.like(word)
    left, left_2 = Signal.like(words), Signal.like(words)
    now_left = Signal.like(words)
    m.d.comb += now_left.eq(Mux(taken, left - burst.words, left))
    m.d.sync += [left.eq(now_left), next_word.eq(next_word + Mux(taken, burst.words, 0))]
    with m.If(now_left == 0):
        m.d.sync += [left.eq(left_2), next_word.eq(next_word_2), left_2.eq(0)]
    with m.If(accepted):
        with m.If((now_left == 0) & (left_2 == 0)):
            m.d.sync += [left.eq(words), next_word.eq(word)]
        with m.Else():
            m.d.sync += [left_2.eq(words), next_word_2.eq(word)]
    proof.holds(~accepted | (left_2 == 0) | (now_left == 0))
    return Uncovered(next_word, left, next_word_2, left_2)


def check_bursts(proof: Proof, splitter: BurstSplitter, uncovered: Uncovered) -> None:
    m, burst = proof.m, splitter.bursts.payload
    next_word, left, *_ = uncovered
    lanes = 1 << len(burst.first_lane)
    beats = 1 << len(burst.last_beat)
    beat_bytes = lanes * WORD_BYTES
    offered = splitter.bursts.valid
    end = next_word[: log2(lanes * beats)] + burst.words
    with m.If(offered):
        proof.holds((burst.words != 0) & (burst.words <= left))
        proof.holds(Cat(burst.first_lane, burst.address[log2(beat_bytes) :]) == next_word)
        proof.holds(burst.address % beat_bytes == 0)
        proof.holds(burst.first_lane + burst.words == burst.last_beat * lanes + burst.last_lane + 1)
        proof.holds((burst.words == left) | (end == lanes * beats))
    page = burst.address[log2(PAGE_BYTES) :]
    # The window is looked at when the burst is first offered.
    window = proof.past(splitter.windows.as_value())
    first, last = window[: len(page)], window[len(page) :]
    is_new = offered & ~proof.past(offered & ~splitter.bursts.ready)
    proof.holds(~is_new | (burst.allowed == ((first <= page) & (page <= last))))
    proof.holds(splitter.idle == (left == 0))
    quiet = (left != 0) & ~offered
    proof.holds(~(quiet & proof.past(quiet)))


def help_induction(proof: Proof, splitter: BurstSplitter, uncovered: Uncovered) -> None:
    """Properties of the run that is cut, after the offered burst; only the induction needs them."""
    m, burst = proof.m, splitter.bursts.payload
    next_word, left, next_word_2, left_2 = uncovered
    offered = splitter.bursts.valid
    active, place = proof.inside("active"), proof.inside("last_place")
    rest = Mux(offered, left - burst.words, left)
    rest_word = next_word + Mux(offered, burst.words, 0)
    whole = Cat(place, proof.inside("crossings"))
    proof.holds((left != 0) | ((left_2 == 0) & ~offered))
    proof.holds((rest == 0) | (left_2 == 0))
    proof.holds(active == ((rest != 0) | (left_2 != 0)))
    with m.If(active):
        at = proof.inside("word")
        proof.holds(at == Mux(rest != 0, rest_word, next_word_2)[: len(at)])
        proof.holds(whole + 1 == at[: len(place)] + Mux(rest != 0, rest, left_2))


@pytest.mark.proof(of=BurstSplitter, mode="prove", depth=2)
@pytest.mark.parametrize("shape", SHAPES)
def test_proven(shape: tuple[int, int, int], judge) -> None:
    """Bursts cover every word of every run once, in order, and no other; none is longer than the
    longest, crosses 4 KiB or ends before a boundary without need; an offered one stays, and is
    allowed just if its page, and so all of it, lies in the window.
    """
    verdict = judge(splitter(*shape), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.proof(of=BurstSplitter, mode="cover", depth=8)
def test_reached(judge) -> None:
    """A burst is taken while the next run waits; two follow each other, the second of full length
    and not its run's last.
    """
    verdict = judge(splitter(*SHAPES[0]), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=BurstSplitter, mode="bmc", depth=6, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("last.eq(Mux(ends, last_place, -1))", "last.eq(last_place)"),
        ("run_word[:place_bits] + run_words - 1", "run_word[:place_bits] + run_words"),
        ("burst.words.eq(last - first + 1)", "burst.words.eq(last + 1)"),
        ("place_bits = beat_bits + lane_bits", "place_bits = beat_bits + lane_bits + 1"),
        ("(~self.bursts.valid | self.bursts.ready)", "(~self.bursts.valid | self.runs.valid)"),
        ("~active | (issue & ends)", "~active | issue"),
        ("crossings.eq(run_last[place_bits:])", "crossings.eq(run_words[place_bits:])"),
        ("inside(self.windows, word[page_bits:])", "inside(self.windows, word[page_bits + 1 :])"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken splitters leave out words, or cut elsewhere."""
    broken = splitter(*SHAPES[1], kind=mutant(BurstSplitter, old, new))
    verdict = judge(broken, properties)
    assert verdict.status == "FAIL", verdict
