"""The read master, proven, of any data: its queues and lanes are any."""

import pytest
from amaranth.hdl import Signal

from rtl.bus.read_master import ReadMaster
from tests.formal.bus import BEATS, OUTSTANDING, SMALL, Bursts, addresses, answers, error_of, stops
from tests.formal.models import AnyLanes, AnyQueue
from tests.formal.prove import Proof, variant


def small(old: str = "", new: str = "") -> ReadMaster:
    kind = variant(
        ReadMaster,
        old,
        new,
        StreamFIFO=AnyQueue,
        WordLanes=AnyLanes,
        OUTSTANDING=OUTSTANDING,
        BURST_BEATS=BEATS,
    )
    return kind(SMALL)


def properties(proof: Proof, master: ReadMaster) -> None:
    axi = master.axi
    beat = axi.rvalid & axi.rready
    unanswered = Signal(range(OUTSTANDING + 2))
    bursts = Bursts(
        valid=axi.arvalid,
        ready=axi.arready,
        address=axi.araddr,
        length=axi.arlen,
        unanswered=unanswered,
        answered=beat & axi.rlast,
        failed=beat & error_of(axi.rresp),
    )
    proof.assume(~axi.rvalid | (unanswered != 0))
    addresses(proof, master, "ar")
    answers(proof, master, bursts)
    stops(proof, master, bursts)
    proof.holds(~master.stop | ~master.units.valid)
    proof.holds(master.burst == (axi.arvalid & axi.arready))
    proof.holds(master.beat == beat)


@pytest.mark.proof(of=ReadMaster, mode="prove", depth=2)
def test_proven(judge) -> None:
    """Offered addresses stay; a burst is legal, whole beats of one page in a window; no more are
    waited for than is said; an error is told with its burst's address; none begins after a stop or
    a burst that is refused; words go where there is room.
    """
    verdict = judge(small(), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.proof(of=ReadMaster, mode="cover", depth=14)
def test_reached(judge) -> None:
    """As many bursts as may be are waited for, and all answered; an error is told of one that
    others went before; one is refused while others are waited for; a stop keeps what is offered.
    """
    verdict = judge(small(), properties)
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
@pytest.mark.proof(of=ReadMaster, mode="bmc", depth=10, mutant=True)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(~axi.arvalid | axi.arready) & ~self.stop & bursts", "~self.stop & bursts"),
        ("axi.arready) & ~self.stop & bursts.payload.allowed", "axi.arready) & ~self.stop"),
        ("axi.arready) & ~self.stop & bursts", "axi.arready) & bursts"),
        ("axi.arlen.eq(bursts.payload.last_beat)", "axi.arlen.eq(bursts.payload.last_beat + 1)"),
        ("may_begin & tags.input.ready", "may_begin"),
        ("(tags.level == 0) & (self.stop", "(tags.level < 2) & (self.stop"),
        ("tags.output.ready.eq(self.beat & axi.rlast)", "tags.output.ready.eq(self.beat)"),
        ("self.beat & axi.rresp[ERROR_BIT]", "self.beat & axi.rresp[0]"),
        ("tags.output.valid & (lanes.room | self.stop)", "tags.output.valid"),
        ("self.refused.eq(bursts.valid", "self.refused.eq(~self.stop & bursts.valid"),
        ("self.units.valid.eq(valid & ~self.stop)", "self.units.valid.eq(valid)"),
    ],
)
def test_mutants_are_refuted(old: str, new: str, judge) -> None:
    """Broken masters change offers, cross pages or windows, wait for too many, or miss errors."""
    verdict = judge(small(old, new), properties)
    assert verdict.status == "FAIL", verdict
