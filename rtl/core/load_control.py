"""Bookkeeping of an operand's slots: which one is being filled, which are full."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config
from rtl.core.blocks import load_layout
from rtl.lib.contract import Contracts
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["LoadControl"]


class LoadControl(wiring.Component):
    """Takes load requests in order, and knows which slots are full.

    Parameters
    ----------
    config : Config
        Size of a block.
    slots : int
        Of the operand.

    Members
    -------
    request : In, stream of `load_layout`
        Loads to come, into slots that are not full; at most ``slots`` are outstanding, so it is
        always ready.
    load : Out, stream of `load_layout`
        The load in progress; accepted (``ready``) with its last word.
    full : Out, slots
        Slots that hold a whole load.
    release : In, 1
        The slot ``release_slot``, which is full, is free.
    release_slot : In
    """

    def __init__(self, config: Config, slots: int):
        layout = load_layout(config)
        self._layout = layout
        self._slots = slots
        super().__init__(
            {
                "request": In(stream.Signature(layout)),
                "load": Out(stream.Signature(layout)),
                "full": Out(slots),
                "release": In(1),
                "release_slot": In(range(slots)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = StreamFIFO(self._layout, depth=self._slots + 1)
        connect(m, flipped(self.request), queue.input)
        connect(m, queue.output, flipped(self.load))
        contracts = Contracts(m, platform, self)
        asked_full = self.full.bit_select(self.request.payload.slot, 1)
        released_full = self.full.bit_select(self.release_slot, 1)
        contracts.has_room(self.request, "all loads that are asked for")
        contracts.asks(~self.request.valid | ~asked_full, "no load goes into a full slot")
        contracts.asks(~self.release | released_full, "a slot is released only while it is full")

        with m.If(self.release):
            m.d.sync += self.full.bit_select(self.release_slot, 1).eq(0)
        with m.If(self.load.valid & self.load.ready):
            m.d.sync += self.full.bit_select(self.load.payload.slot, 1).eq(1)
        return m
