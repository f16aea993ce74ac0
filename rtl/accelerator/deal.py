"""Deal: which block rows each core of a cluster computes.

A wave is as many consecutive block rows as all cores together have in progress: ``query_rows`` (S)
of each of ``cores`` (G). Place j of wave w goes to core (j xor j / G xor w) mod G, as its row j / G
of the wave. Without the exclusive ors, patterns of the map that repeat every G rows would go to the
same core all the time.
"""

from typing import Any, NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from paro.config import Config
from rtl.lib.arithmetic import log2

__all__ = ["Share", "dealt_place", "dealt_row", "share_of"]


class Share(NamedTuple):
    """Part of a head or layer that a core computes, numbered by itself."""

    any: Value  # it has a row
    last_token: Signal  # index of its last query


def dealt_place(config: Config, core: Any, row: Any, wave: Any) -> Value:
    """Return the place in its wave of a core's row of that wave."""
    bits = log2(config.cores)
    first = Value.cast(core) ^ Value.cast(row)[:bits] ^ Value.cast(wave)[:bits]
    return Cat(first[:bits], row)


def dealt_row(config: Config, core: int, row: Value) -> Value:
    """Return the block row of the head that is a core's row ``row``, counted from its first."""
    rows = log2(config.query_rows)
    first = dealt_place(config, Const(core, log2(config.cores)), row[:rows], row[rows:])
    return Cat(first[: log2(config.cores)], row)


def share_of(m: Module, config: Config, core: int, last_token: Value, block_bits: int) -> Share:
    """Return the share of a core of queries up to ``last_token``, in blocks of 2**block_bits.

    The last block, which may be partial, is the last one of its core.
    """
    bits = log2(config.cores)
    last_row = last_token[block_bits:]
    own, place = last_row[bits:], last_row[:bits]
    # Where the core's row lies among the G rows that the last one belongs to.
    own_place = dealt_row(config, core, own)[:bits]
    share = Share(Signal(name=f"core_{core}_{block_bits}_any"), Signal.like(last_token))
    before = own - 1
    full = Const(-1, block_bits)
    m.d.comb += [
        share.any.eq(own.any() | (own_place <= place)),
        share.last_token.eq(
            Mux(
                own_place == place,
                Cat(last_token[:block_bits], own),
                Mux(own_place < place, Cat(full, own), Cat(full, before[: len(own)])),
            )
        ),
    ]
    return share
