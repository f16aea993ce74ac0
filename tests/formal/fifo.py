"""Where the payloads of a `StreamFIFO` inside a component are: for inductions."""

from typing import Any

from amaranth.hdl import Mux, Signal, Value

from tests.formal.prove import Proof

__all__ = ["queued"]


def queued(proof: Proof, path: str, depth: int) -> list[Value]:
    """Payloads of a queue, the oldest first, as far as there are any; ``depth`` is that of it.

    Says what an induction has to know of the queue itself.
    """
    places = depth - 1
    level, offered = proof.inside(f"{path}.queue.inner_level"), proof.inside(f"{path}.queue.r_rdy")
    write, read = proof.inside(f"{path}.queue.produce"), proof.inside(f"{path}.queue.consume")
    end = read + level
    proof.holds((level <= places) & (read < places) & (write < places))
    proof.holds(write == Mux(end < places, end, end - places))
    proof.holds(offered | (level <= 1))
    payloads: list[Value] = []
    for index in range(depth):
        at = read + index - offered
        place = Signal(range(2 * places), name=f"place_{index}")
        proof.m.d.comb += place.eq(Mux(at < places, at, at - places))
        word: Any = proof.word(f"{path}.queue.storage", place)
        out = Value.cast(proof.inside(f"{path}.output__payload"))
        payloads.append(Mux(offered, out, word) if index == 0 else word)
    return payloads
