"""A queue of typed payloads between two streams."""

from amaranth.hdl import Module, Shape
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["StreamFIFO"]


class StreamFIFO(wiring.Component):
    """`amaranth.lib.fifo.SyncFIFOBuffered` with a stream on either side.

    Parameters
    ----------
    shape : ShapeLike
        Payload.
    depth : int
        Payloads that it holds.

    Members
    -------
    input : In, stream
    output : Out, stream
    level : Out
        Payloads that it holds now.

    Latency
    -------
    `LATENCY` cycles from an accepted payload to its offer.
    """

    LATENCY = 2

    def __init__(self, shape, *, depth: int):
        self._depth = depth
        super().__init__(
            {
                "input": In(stream.Signature(shape)),
                "output": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        payload = self.input.payload
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(
            width=Shape.cast(payload.shape()).width, depth=self._depth
        )
        m.d.comb += [
            queue.w_data.eq(payload),
            queue.w_en.eq(self.input.valid),
            self.input.ready.eq(queue.w_rdy),
            self.output.payload.eq(queue.r_data),
            self.output.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.output.ready),
            self.level.eq(queue.level),
        ]
        return m
