"""What is said of both bus masters: their addresses, their answers, and what stops them."""

from typing import Any, NamedTuple

from amaranth.hdl import Array, Signal, Value

from paro.config import Config
from paro.config.registers import PAGE_BYTES
from rtl.bus.axi import CACHE_BUFFERABLE, ERROR_BIT, Burst
from rtl.bus.burst_splitter import burst_layout
from rtl.bus.windows import inside
from rtl.lib.arithmetic import log2
from tests.formal.prove import Proof

__all__ = ["BEATS", "BEAT_BITS", "OUTSTANDING", "SMALL", "Bursts", "addresses", "answers", "stops"]

#: Two words a beat; a unit of reads or of writes has two words, too.
SMALL = Config(rows=4, cols=4, block=16, head_dim=32, axi_bits=64)
BEAT_BITS = log2(SMALL.axi_bits // 8)
#: Longest burst, and most bursts that are waited for, of small masters.
BEATS, OUTSTANDING = 4, 3

_PAGE_BITS = log2(PAGE_BYTES)


class Bursts(NamedTuple):
    """A channel of addresses, and how many of its bursts have no answer."""

    valid: Value
    ready: Value
    address: Value
    length: Value
    unanswered: Signal  # bursts that were accepted
    answered: Value  # one is, in this cycle
    failed: Value  # an answer, or a part of it, is an error, in this cycle


def addresses(proof: Proof, master: Any, channel: str) -> None:
    """Offers of addresses stay; a burst is legal, in one page, and in a window."""
    axi, bursts_ready = master.axi, getattr(master.axi, f"{channel}ready")
    valid, address, length = (getattr(axi, channel + name) for name in ("valid", "addr", "len"))
    proof.holds(proof.kept(valid, bursts_ready, address, length))
    for name, constant in (
        ("size", BEAT_BITS),
        ("burst", Burst.INCR),
        ("cache", CACHE_BUFFERABLE),
        ("prot", 0),
        ("id", 0),
    ):
        proof.holds(getattr(axi, channel + name) == constant)
    beats = length + 1
    proof.holds(~valid | (beats <= BEATS))
    proof.holds(~valid | (address[:BEAT_BITS] == 0))
    proof.holds(~valid | (address[:_PAGE_BITS] + (beats << BEAT_BITS) <= PAGE_BYTES))
    proof.rigid(master.windows.as_value())
    proof.holds(~valid | inside(master.windows, address[_PAGE_BITS:]))
    _help_splitter(proof, master)


def _help_splitter(proof: Proof, master: Any) -> None:
    """Properties of the splitter that only the induction needs."""
    offered = proof.inside("splitter.bursts__valid")
    burst = proof.inside("splitter.bursts__payload", burst_layout(SMALL, BEATS))
    beat = burst.address[BEAT_BITS:]
    proof.holds(~offered | (burst.address[:BEAT_BITS] == 0))
    proof.holds(~offered | (beat[: log2(BEATS)] + burst.last_beat < BEATS))
    allowed = inside(master.windows, burst.address[_PAGE_BITS:])
    proof.holds(~offered | (burst.allowed == allowed))
    crossings, last = proof.inside("splitter.crossings"), proof.inside("splitter.last_place")
    first = proof.inside("splitter.word")[: len(last)]
    proof.holds(~proof.inside("splitter.active") | (crossings != 0) | (last >= first))


def answers(proof: Proof, master: Any, bursts: Bursts) -> None:
    """No more bursts are waited for than is said; an error is told with the address of its burst.

    The queue of tags has one for each burst that is offered, or accepted and not answered.
    """
    m, unanswered = proof.m, bursts.unanswered
    accepted = bursts.valid & bursts.ready
    m.d.sync += unanswered.eq(unanswered + accepted - bursts.answered)
    proof.holds(unanswered <= OUTSTANDING)
    proof.holds(~master.idle | ((unanswered == 0) & ~bursts.valid))
    proof.holds(master.failed == proof.past(bursts.failed))
    inside, address = Signal(), Signal.like(bursts.address)
    ahead = Signal.like(unanswered)
    at_fault = inside & (ahead == 0) & bursts.failed
    with m.If(accepted & proof.free(1, "track") & ~inside):
        m.d.sync += [inside.eq(1), address.eq(bursts.address)]
        m.d.sync += ahead.eq(unanswered - bursts.answered)
    with m.Elif(inside & bursts.answered):
        m.d.sync += [ahead.eq(ahead - 1), inside.eq(ahead != 0)]
    proof.holds(~proof.past(at_fault) | (master.failed_address == address))
    proof.reach(proof.past(at_fault))
    proof.reach(unanswered == OUTSTANDING)
    proof.reach(proof.past(unanswered) & (unanswered == 0))

    # What only the induction needs.
    level = proof.inside("tags.held")
    tags = Array(proof.inside(f"tags.entry_{i}")[: len(address) - BEAT_BITS] for i in range(3))
    proof.holds(level == unanswered + bursts.valid)
    proof.holds(~bursts.valid | (tags[(level - 1)[:2]] == bursts.address[BEAT_BITS:]))
    proof.holds(~inside | (ahead < unanswered))
    proof.holds(~inside | (tags[ahead] == address[BEAT_BITS:]))
    proof.holds(~inside | (address[:BEAT_BITS] == 0))


def stops(proof: Proof, master: Any, bursts: Bursts) -> None:
    """After a stop, and after a burst that is refused, no other is offered."""
    proof.assume(~proof.past(master.stop) | master.stop)
    is_new = bursts.valid & ~proof.past(bursts.valid & ~bursts.ready)
    proof.holds(~is_new | ~proof.past(master.stop | master.refused))
    proof.holds(~proof.past(master.refused) | master.refused)
    proof.holds(~master.refused | ~inside(master.windows, master.refused_address[_PAGE_BITS:]))
    proof.holds(~master.stop | ~master.runs.ready)
    proof.reach(master.refused & (bursts.unanswered != 0))
    proof.reach(proof.past(master.stop) & bursts.valid)


def error_of(response: Value) -> Value:
    """Whether an answer is SLVERR or DECERR."""
    return response[ERROR_BIT]
