"""A stream of another width: payloads joined, or taken apart, lowest bits first."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.lib.arithmetic import log2

__all__ = ["StreamResize"]


class StreamResize(wiring.Component):
    """Joins payloads to wider ones, or takes them apart.

    Parameters
    ----------
    width, other : int
        Bits of input and output; one divides the other, by a power of two.

    Members
    -------
    input : In, stream
    output : Out, stream
    partial : Out, 1
        A wider payload is being joined.

    Latency
    -------
    1 cycle from the payload that completes another, 0 cycles where both are as wide. One payload of
    the narrower a cycle.
    """

    def __init__(self, width: int, other: int):
        self._width, self._other = width, other
        super().__init__(
            {
                "input": In(stream.Signature(unsigned(width))),
                "output": Out(stream.Signature(unsigned(other))),
                "partial": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        source, sink = self.input, self.output
        if self._width == self._other:
            m.d.comb += [
                sink.payload.eq(source.payload),
                sink.valid.eq(source.valid),
                source.ready.eq(sink.ready),
            ]
            return m
        joins = self._width < self._other
        ratio = self._other // self._width if joins else self._width // self._other
        assert 1 << log2(ratio) == ratio
        assert max(self._width, self._other) == ratio * min(self._width, self._other)
        held = Signal(max(self._width, self._other), reset_less=True)
        place = Signal(range(ratio))
        full = Signal()
        narrow = min(self._width, self._other)
        last = place == ratio - 1
        m.d.comb += sink.valid.eq(full)
        if joins:
            m.d.comb += [
                sink.payload.eq(held),
                source.ready.eq(~full | sink.ready),
                self.partial.eq(place != 0),
            ]
            with m.If(full & sink.ready):
                m.d.sync += full.eq(0)
            with m.If(source.valid & source.ready):
                m.d.sync += [
                    held.word_select(place, narrow).eq(source.payload),
                    place.eq(place + 1),
                    full.eq(last),
                ]
        else:
            m.d.comb += [
                sink.payload.eq(held.word_select(place, narrow)),
                source.ready.eq(~full | (sink.ready & last)),
            ]
            with m.If(full & sink.ready):
                m.d.sync += [place.eq(place + 1), full.eq(~last)]
            with m.If(source.valid & source.ready):
                m.d.sync += [held.eq(source.payload), full.eq(1)]
        return m
