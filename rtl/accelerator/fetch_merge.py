"""Fetch merge: the fetches of all cores as one stream, each block of K and V once."""

from functools import reduce
from typing import Any, NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.formats import Operand
from rtl.accelerator.deal import dealt_row
from rtl.interfaces import fetch_signature
from rtl.lib.contract import Contracts

__all__ = ["FetchMerge", "merged_fetch_layout"]


def merged_fetch_layout(config: Config) -> data.StructLayout:
    """A fetch as of `rtl.interfaces.fetch_signature`, whose rows of Q are those of the head.

    ``cores``: a bit for each core that takes the block.
    """
    members = fetch_signature(config).members["payload"].shape.members
    return data.StructLayout({**members, "cores": config.cores})


class _Offer(NamedTuple):
    """Earliest fetch of some cores, if they have any."""

    valid: Value
    key: Value  # place in the order of all fetches
    payload: Value


class FetchMerge(wiring.Component):
    """Puts the fetches of the cores into one order, in which each block of K and V comes once.

    Every core goes through the same superblocks and block columns in the same order, but leaves out
    columns in which its own rows have no live block. So a block that is the earliest of those that
    the cores ask for is asked for by no core later on; it goes to those that ask for it now. That
    is known once every core that works asks for one. A core that is ahead therefore waits when its
    slots of K are full; blocks of Q go before all others, each to its core.

    Parameters
    ----------
    config : Config
        ``cores`` above 1.

    Members
    -------
    fetches : In, array of stream of `rtl.interfaces.fetch_signature`
        Of each core.
    working : In, a bit for each core
        It has still to ask for blocks of the head in progress.
    new_head : In, 1
        No core has asked for a block of the head yet.
    output : Out, stream of `merged_fetch_layout`
    idle : Out, 1
        Nothing is offered.

    Latency
    -------
    1 cycle. One block every cycle.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "fetches": In(fetch_signature(config)).array(config.cores),
                "working": In(config.cores),
                "new_head": In(1),
                "output": Out(stream.Signature(merged_fetch_layout(config))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        superblock = Signal()  # low bit of the one in progress
        of_queries = Signal(self._config.cores)
        of_keys = Signal(self._config.cores)
        keys = []
        for core, fetch in enumerate(self.fetches):
            payload = fetch.payload
            queries = payload.operand == Operand.Q
            m.d.comb += [
                of_queries[core].eq(fetch.valid & queries),
                of_keys[core].eq(fetch.valid & ~queries),
            ]
            # K goes before V of the same block.
            key = Signal(2 + len(payload.block) + len(payload.chunk), name=f"key_{core}")
            later = payload.superblock ^ superblock
            m.d.comb += key.eq(
                Cat(payload.operand == Operand.V, payload.chunk, payload.block, later)
            )
            keys.append(key)
        earliest = reduce(
            self._earlier,
            (
                _Offer(of_keys[core], keys[core], fetch.payload.as_value())
                for core, fetch in enumerate(self.fetches)
            ),
        )
        known = Signal()
        m.d.comb += known.eq((of_keys | ~self.working).all() & earliest.valid)

        chosen = Signal(self._config.cores)
        output = self.output.payload
        free = ~self.output.valid | self.output.ready
        with m.If(free):
            m.d.sync += self.output.valid.eq(chosen.any())
        with m.If(of_queries.any()):
            self._choose_queries(m, of_queries, chosen, free)
        with m.Elif(known):
            m.d.comb += chosen.eq(
                Cat(of_keys[core] & (key == earliest.key) for core, key in enumerate(keys))
            )
            with m.If(free):
                m.d.sync += [
                    Cat(output[name] for name in self.fetches[0].payload.shape().members).eq(
                        earliest.payload
                    ),
                    output.cores.eq(chosen),
                    superblock.eq(superblock ^ earliest.key[-1]),
                ]
        with m.If(self.new_head):
            m.d.sync += superblock.eq(0)
        contracts = Contracts(m, platform, self)
        contracts.asks(~(of_keys & ~self.working).any(), "a core asks for blocks while it works")
        m.d.comb += self.idle.eq(~self.output.valid)
        for core, fetch in enumerate(self.fetches):
            m.d.comb += fetch.ready.eq(chosen[core] & free)
        return m

    def _choose_queries(self, m: Module, asking: Value, chosen: Signal, free: Value) -> None:
        """Take the fetch of Q of the first core that has one."""
        output = self.output.payload
        m.d.comb += chosen.eq(asking & -asking)
        for core in reversed(range(self._config.cores)):
            fetch = self.fetches[core].payload
            with m.If(asking[core] & free):
                m.d.sync += [
                    *(output[name].eq(fetch[name]) for name in fetch.shape().members),
                    output.block.eq(dealt_row(self._config, core, fetch.block)),
                    output.cores.eq(Const(1 << core, self._config.cores)),
                ]

    @staticmethod
    def _earlier(one: _Offer, other: _Offer) -> Any:
        """Return the earlier of two offers."""
        first = one.valid & (~other.valid | (one.key <= other.key))
        return _Offer(
            one.valid | other.valid,
            Mux(first, one.key, other.key),
            Mux(first, one.payload, other.payload),
        )
