"""Bookkeeping of a double-buffered operand: which slot is being filled, how many are full."""

from amaranth.hdl import Module, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from paro_config import Config
from rtl.blocks import load_layout
from rtl.scheduler import SLOTS

__all__ = ["LoadControl"]


class LoadControl(wiring.Component):
    """Takes load requests in order and counts filled slots.

    Members
    -------
    request : In, stream of `load_layout`
        Loads to come; at most ``SLOTS`` are outstanding, so it is always ready.
    load : Out, stream of `load_layout`
        The load in progress; accepted (``ready``) with its last word.
    slot : Out, 1
        Slot that it fills.
    filled : Out
        Number of full slots that were not taken yet.
    take : In, 1
        One full slot is taken into use; legal when ``filled`` is not 0.
    """

    def __init__(self, config: Config):
        layout = load_layout(config)
        self._layout = layout
        super().__init__(
            {
                "request": In(stream.Signature(layout)),
                "load": Out(stream.Signature(layout)),
                "slot": Out(1),
                "filled": Out(range(SLOTS + 1)),
                "take": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=self._layout.size, depth=SLOTS + 1)
        m.d.comb += [
            queue.w_data.eq(self.request.payload),
            queue.w_en.eq(self.request.valid),
            self.request.ready.eq(queue.w_rdy),
            self.load.payload.eq(queue.r_data),
            self.load.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.load.ready),
        ]
        done = Signal()
        m.d.comb += done.eq(self.load.valid & self.load.ready)
        m.d.sync += [
            self.slot.eq(self.slot ^ done),
            self.filled.eq(self.filled + done - self.take),
        ]
        return m
