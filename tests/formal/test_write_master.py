"""The write master, proven, of any data: its queues and lanes are any."""

import pytest
from amaranth.hdl import Array, Mux, Signal
from amaranth.lib import data

from rtl.bus.axi import WORD_BYTES, run_layout
from rtl.bus.burst_splitter import burst_layout
from rtl.bus.write_master import WriteMaster
from tests.formal.bus import BEATS, OUTSTANDING, SMALL, Bursts, addresses, answers, error_of, stops
from tests.formal.models import AnyLanes, AnyQueue
from tests.formal.prove import Proof, variant

#: Bursts whose data waits, and runs that do.
BEGUN, WAITING = 2, 2


def small(old: str = "", new: str = "") -> WriteMaster:
    kind = variant(
        WriteMaster,
        old,
        new,
        StreamFIFO=AnyQueue,
        WordLanes=AnyLanes,
        OUTSTANDING=OUTSTANDING,
        BURST_BEATS=BEATS,
        BEGUN=BEGUN,
        WAITING_RUNS=WAITING,
    )
    return kind(SMALL)


def properties(proof: Proof, master: WriteMaster) -> None:
    axi = master.axi
    answered = axi.bvalid & axi.bready
    unanswered = Signal(range(OUTSTANDING + 2))
    bursts = Bursts(
        valid=axi.awvalid,
        ready=axi.awready,
        address=axi.awaddr,
        length=axi.awlen,
        unanswered=unanswered,
        answered=answered,
        failed=answered & error_of(axi.bresp),
    )
    addresses(proof, master, "aw")
    answers(proof, master, bursts)
    stops(proof, master, bursts)
    beats(proof, master, bursts)
    # What only the induction needs: runs that wait are runs.
    for place in range(WAITING):
        run = data.View(run_layout(SMALL), proof.inside(f"waiting.entry_{place}"))
        waits = place < proof.inside("waiting.held")
        proof.holds(~waits | ((run.units != 0) & (run.address % WORD_BYTES == 0)))


def beats(proof: Proof, master: WriteMaster, bursts: Bursts) -> None:
    """Beats stay, and the last one of a burst, and no other, is marked as such."""
    m, axi = proof.m, master.axi
    proof.holds(proof.kept(axi.wvalid, axi.wready, axi.wdata, axi.wstrb, axi.wlast))
    for word in range(len(axi.wstrb) // WORD_BYTES):
        enables = axi.wstrb.word_select(word, WORD_BYTES)
        proof.holds(~axi.wvalid | (enables.any() == enables.all()))
    beat = axi.wvalid & axi.wready
    ends = beat & axi.wlast
    # Bursts all of whose beats have gone and that are not answered; beats of the one in progress.
    ended, sent = Signal(range(OUTSTANDING + 2)), Signal(range(BEATS + 1))
    m.d.sync += ended.eq(ended + ends - bursts.answered)
    m.d.sync += sent.eq(Mux(ends, 0, sent + beat))
    proof.assume(~axi.bvalid | ((ended != 0) & (bursts.unanswered != 0)))
    proof.holds(~master.idle | ~axi.wvalid)
    offered = bursts.unanswered + bursts.valid  # and accepted
    proof.holds(~axi.wvalid | (offered > ended))

    # Any one burst, the first that is offered after this cycle: bursts before it on either channel.
    inside, known, length = Signal(), Signal(), Signal.like(bursts.length)
    addresses_ahead, data_ahead = Signal(), Signal.like(ended)
    accepted = bursts.valid & bursts.ready
    told = known | (bursts.valid & ~addresses_ahead)
    last_beat = Mux(known, length, bursts.length)
    with m.If(proof.free(1, "follow") & ~inside):
        m.d.sync += [inside.eq(1), known.eq(0), addresses_ahead.eq(bursts.valid & ~accepted)]
        m.d.sync += data_ahead.eq(offered - ended - ends)
    with m.Elif(inside):
        m.d.sync += [known.eq(told), length.eq(last_beat)]
        m.d.sync += addresses_ahead.eq(addresses_ahead & ~accepted)
        m.d.sync += data_ahead.eq(data_ahead - ends)
        with m.If(data_ahead == 0):
            m.d.sync += inside.eq(~ends)
            proof.holds(~beat | (told & (axi.wlast == (sent == last_beat))))
    own = inside & (data_ahead == 0) & beat
    proof.reach(own & axi.wlast & (last_beat == BEATS - 1))
    proof.reach(own & axi.wlast & (last_beat == 0) & (bursts.unanswered == ended))

    # What only the induction needs: where the burst is on its way through the queue of begun ones.
    waiting, index = proof.inside("begun.held"), proof.inside("index")
    entries = Array(
        data.View(burst_layout(SMALL, BEATS), proof.inside(f"begun.entry_{i}")).last_beat
        for i in range(BEGUN)
    )
    leaving = axi.wvalid & axi.wlast
    proof.holds(offered == ended + waiting + leaving)
    proof.holds(~leaving | (index == 0))
    proof.holds(leaving | (index == sent + axi.wvalid))
    proof.holds((index == 0) | ((waiting != 0) & (index <= entries[0])))
    proof.holds(~addresses_ahead | ~inside | (bursts.valid & ~known))
    proof.holds(~inside | (data_ahead <= waiting + leaving))
    proof.holds(~inside | (told == (data_ahead < waiting + leaving)))
    place = (data_ahead - leaving)[:1]
    there = Mux(leaving & (data_ahead == 0), sent == last_beat, entries[place] == last_beat)
    proof.holds(~inside | ~told | there)


@pytest.mark.proof(of=WriteMaster, mode="prove", depth=2)
def test_proven(judge) -> None:
    """Offered addresses and beats stay; a burst is legal, whole beats of a page in the window; its
    last beat is marked; no more are waited for than is said; an error is told with its burst's
    address; none begins after a stop or a burst that is refused; words go where there is room.
    """
    verdict = judge(small(), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=WriteMaster, mode="cover", depth=18)
def test_reached(judge) -> None:
    """As many bursts as may be are waited for, and all answered; an error is told of one that
    others went before; one is refused while others are waited for; a stop keeps what is offered; a
    longest burst ends, and one of a single beat before its address is accepted.
    """
    verdict = judge(small(), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=WriteMaster, mode="bmc", depth=14, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(~axi.awvalid | axi.awready) & ~self.stop & burst", "~self.stop & burst"),
        ("& ~self.stop & burst.allowed", "& ~self.stop"),
        ("& ~self.stop & burst.allowed", "& burst.allowed"),
        ("axi.awlen.eq(burst.last_beat)", "axi.awlen.eq(burst.last_beat + 1)"),
        ("may_begin & tags.input.ready & begun", "may_begin & begun"),
        ("may_begin & tags.input.ready & begun.input.ready", "may_begin & tags.input.ready"),
        ("self.idle.eq(~waited_for & (self.stop", "self.idle.eq((self.stop"),
        ("begun.output.ready.eq(step & last)", "begun.output.ready.eq(step)"),
        ("last.eq(index == burst.last_beat)", "last.eq(index == BURST_BEATS - 1)"),
        ("begun.output.valid & (~axi.wvalid | axi.wready)", "begun.output.valid"),
        ("Mux(last, 0, index + 1)", "index + 1"),
        ("answered & axi.bresp[ERROR_BIT]", "answered & axi.bresp[0]"),
        ("self.data.valid & active & lanes.room", "self.data.valid & active"),
        ("bit.replicate(WORD_BYTES) for", "bit.replicate(2) for"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken masters change offers, cross pages or windows, mark other beats as last, wait for too
    many bursts, or miss errors.
    """
    verdict = judge(small(old, new), properties)
    assert verdict.status == "FAIL", verdict
