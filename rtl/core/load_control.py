"""Bookkeeping of a double-buffered operand: which slot is being filled, which are full."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config
from rtl.core.blocks import SLOTS, load_layout
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["LoadControl"]


class LoadControl(wiring.Component):
    """Takes load requests in order, fills the slots in turn, and knows which of them are full.

    Members
    -------
    request : In, stream of `load_layout`
        Loads to come; at most ``SLOTS`` are outstanding, so it is always ready.
    load : Out, stream of `load_layout`
        The load in progress; accepted (``ready``) with its last word.
    slot : Out, 1
        Slot that it fills.
    full : Out, SLOTS
        Slots that hold a whole load.
    release : In, 1
        The oldest slot, which is full, is free.
    """

    def __init__(self, config: Config):
        layout = load_layout(config)
        self._layout = layout
        super().__init__(
            {
                "request": In(stream.Signature(layout)),
                "load": Out(stream.Signature(layout)),
                "slot": Out(1),
                "full": Out(SLOTS),
                "release": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = StreamFIFO(self._layout, depth=SLOTS + 1)
        connect(m, flipped(self.request), queue.input)
        connect(m, queue.output, flipped(self.load))

        done = Signal()
        released_slot = Signal()
        m.d.comb += done.eq(self.load.valid & self.load.ready)
        with m.If(self.release):
            m.d.sync += [
                self.full.bit_select(released_slot, 1).eq(0),
                released_slot.eq(~released_slot),
            ]
        with m.If(done):
            m.d.sync += [self.full.bit_select(self.slot, 1).eq(1), self.slot.eq(~self.slot)]
        return m
