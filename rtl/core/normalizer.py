"""Normaliser: numerators times the reciprocal of their denominator, to the output stream."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config, formats
from rtl import interfaces
from rtl.core.blocks import SLOTS
from rtl.core.output_accumulator import OutputAccumulator
from rtl.core.reciprocal import LEAST_EXPONENT, reciprocal_layout
from rtl.lib.arithmetic import round_shift
from rtl.lib.delay import delayed
from rtl.lib.library import replicate
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["Normalizer"]


class NormalizerLane(wiring.Component):
    """One output word; section 6 of `docs/numerics.md`.

    Members
    -------
    numerator, places : In
        See `reciprocal_layout`.
    reciprocal : In
        Two cycles later.
    word : Out, signed(OUT_BITS)

    Latency
    -------
    `LATENCY` cycles.
    """

    DATA_ONLY = True

    LATENCY = 4

    def __init__(self, config: Config):
        super().__init__(
            {
                "numerator": In(signed(config.numerator_bits)),
                "places": In(range(config.denominator_bits - LEAST_EXPONENT)),
                "reciprocal": In(unsigned(formats.RECIPROCAL_BITS)),
                "word": Out(signed(formats.OUT_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # |numerator| <= denominator < 2**(exponent + 1): NUMERATOR_FRAC + 9 bits are left of it.
        coarse = Signal(signed(len(self.numerator) + 1))
        fine = Signal(2)
        aligned = Signal(signed(formats.NUMERATOR_FRAC + 9))
        product = Signal(signed(len(aligned) + formats.RECIPROCAL_BITS))
        fraction = formats.NUMERATOR_FRAC + formats.RECIPROCAL_BITS
        word = round_shift(product, fraction - formats.OUT_FRAC)
        largest = (1 << (formats.OUT_BITS - 1)) - 1
        m.d.sync += [
            coarse.eq((self.numerator << 1) >> Cat(Const(0, 2), self.places[2:])),
            fine.eq(self.places),
            aligned.eq(coarse >> fine),
            product.eq(aligned * self.reciprocal),
            self.word.eq(Mux(word > largest, largest, word)),
        ]
        return m


class Normalizer(wiring.Component):
    """Sends the rows' outputs, query by query, as far as the last block's PV has completed them.

    It reads only when the output queue has room for the words, so that the pipeline never stops.

    Members
    -------
    queries : In, stream of `reciprocal_layout`
        Reciprocals of the queries, in order.
    groups_complete : In, 1
        Numerators of another R queries (fewer at a row's end) are complete.
    read, read_slot, read_query, read_part, read_ready, numerators
        See `OutputAccumulator`.
    row_done : Out, 1
        The last word of a row has been read: its slot is free.
    o : Out, stream
        See `rtl.interfaces`.
    idle : Out, 1
        No word is on its way.
    activity : Out, `rtl.interfaces.Activity`
        Busy: a beat leaves; blocked: it is not taken.
    """

    #: Cycles from a read to its words, at the output queue.
    LATENCY = OutputAccumulator.READ_LATENCY + NormalizerLane.LATENCY
    #: Beats on their way and in the output queue.
    QUEUE = 2 * LATENCY

    def __init__(self, config: Config):
        self._config = config
        self._parts = config.head_dim // config.drain_words
        super().__init__(
            {
                "queries": In(stream.Signature(reciprocal_layout(config))),
                "groups_complete": In(1),
                "read": Out(1),
                "read_slot": Out(1),
                "read_query": Out(range(config.block)),
                "read_part": Out(range(self._parts)),
                "read_ready": In(1),
                "numerators": In(
                    data.ArrayLayout(signed(config.numerator_bits), config.drain_words)
                ),
                "row_done": Out(1),
                "o": Out(interfaces.o_signature(config)),
                "idle": Out(1),
                "activity": Out(interfaces.Activity),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.output = output = StreamFIFO(self.o.payload.shape(), depth=self.QUEUE)
        connect(m, output.output, flipped(self.o))
        query = self.queries.payload

        # Groups of rows that PV has completed and that are not sent: at most those of two slots.
        groups = Signal(range(SLOTS * config.block // config.rows + 1))
        row_in_group = Signal(range(config.rows))
        part = Signal(range(self._parts))
        reserved = Signal(range(self.QUEUE + 1))
        read, last_part = self.read, part == self._parts - 1
        query_done = read & last_part
        group_done = query_done & (query.last | (row_in_group == config.rows - 1))
        m.d.comb += [
            read.eq(self.queries.valid & groups.any() & self.read_ready & (reserved != self.QUEUE)),
            self.read_part.eq(part),
            self.queries.ready.eq(query_done),
            self.row_done.eq(query_done & query.last),
        ]
        sent = self.o.valid & self.o.ready
        m.d.sync += [
            groups.eq(groups + self.groups_complete - group_done),
            reserved.eq(reserved + read - sent),
        ]
        with m.If(read):
            m.d.sync += part.eq(Mux(last_part, 0, part + 1))
            with m.If(last_part):
                m.d.sync += [
                    self.read_query.eq(Mux(query.last, 0, self.read_query + 1)),
                    row_in_group.eq(Mux(query.last, 0, row_in_group + 1)),
                    self.read_slot.eq(self.read_slot ^ query.last),
                ]

        # Places meet the numerators, the reciprocal meets them two cycles later.
        valid = Signal(self.LATENCY)
        m.d.sync += valid.eq(Cat(read, valid))
        read_latency = OutputAccumulator.READ_LATENCY
        places, reciprocal = query.places, query.reciprocal
        # Stage by stage, which is the order of the registers in the Verilog.
        for stage in range(1, read_latency + 1):
            places = delayed(m, places, 1, "places", first=stage)
            reciprocal = delayed(m, reciprocal, 1, "reciprocal", first=stage)
        reciprocal = delayed(m, reciprocal, 2, "reciprocal", first=read_latency + 1)
        lanes = replicate(
            m,
            platform,
            "normalizer_lane",
            lambda: NormalizerLane(config),
            config.output_words,
        )
        for index, lane in enumerate(lanes):
            m.d.comb += [
                lane.numerator.eq(self.numerators[index]),
                lane.places.eq(places),
                lane.reciprocal.eq(reciprocal),
                output.input.payload[index].eq(lane.word),
            ]
        m.d.comb += [
            output.input.valid.eq(valid[-1]),
            self.idle.eq(~reserved.any()),
            self.activity.busy.eq(sent),
            self.activity.blocked.eq(self.o.valid & ~self.o.ready),
            self.activity.starved.eq(~self.o.valid),
        ]
        return m
