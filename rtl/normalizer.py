"""Normaliser: numerators times the reciprocal of their denominator, to the output stream."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from paro_config import Config, formats
from rtl import interfaces
from rtl.library import replicate
from rtl.logits import round_shift
from rtl.reciprocal import LEAST_EXPONENT, reciprocal_layout

__all__ = ["Normalizer"]


class NormalizerLane(wiring.Component):
    """One output word; section 6 of `docs/numerics.md`.

    Members
    -------
    enable : In, 1
        When 0, nothing moves.
    numerator, places : In
        See `reciprocal_layout`.
    reciprocal : In
        One enabled cycle later.
    word : Out, signed(OUT_BITS)

    Latency
    -------
    `LATENCY` enabled cycles.
    """

    LATENCY = 3

    def __init__(self, config: Config):
        super().__init__(
            {
                "enable": In(1),
                "numerator": In(signed(config.numerator_bits)),
                "places": In(range(config.denominator_bits - LEAST_EXPONENT)),
                "reciprocal": In(unsigned(formats.RECIPROCAL_BITS)),
                "word": Out(signed(formats.OUT_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # |numerator| <= denominator < 2**(exponent + 1): NUMERATOR_FRAC + 9 bits are left of it.
        aligned = Signal(signed(formats.NUMERATOR_FRAC + 9))
        product = Signal(signed(len(aligned) + formats.RECIPROCAL_BITS))
        fraction = formats.NUMERATOR_FRAC + formats.RECIPROCAL_BITS
        word = round_shift(product, fraction - formats.OUT_FRAC)
        largest = (1 << (formats.OUT_BITS - 1)) - 1
        with m.If(self.enable):
            m.d.sync += [
                aligned.eq((self.numerator << 1) >> self.places),
                product.eq(aligned * self.reciprocal),
                self.word.eq(Mux(word > largest, largest, word)),
            ]
        return m


class Normalizer(wiring.Component):
    """Sends the rows' outputs, query by query; the pipeline stops with its stream.

    Members
    -------
    queries : In, stream of `reciprocal_layout`
        Queries to be sent; the next is prepared while one is sent.
    read_slot, read_query, read_part, read_enable, numerators
        See `OutputAccumulator`.
    row_done : Out, 1
        The last word of a row has been read: its slot is free.
    o : Out, stream
        See `rtl.interfaces`.
    idle : Out, 1
        No word is in the pipeline.
    """

    def __init__(self, config: Config):
        self._config = config
        self._parts = config.head_dim // config.drain_words
        super().__init__(
            {
                "queries": In(stream.Signature(reciprocal_layout(config))),
                "read_slot": Out(1),
                "read_query": Out(range(config.block)),
                "read_part": Out(range(self._parts)),
                "read_enable": Out(1),
                "numerators": In(
                    data.ArrayLayout(signed(config.numerator_bits), config.drain_words)
                ),
                "row_done": Out(1),
                "o": Out(interfaces.o_signature(config)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        layout = reciprocal_layout(config)
        m.submodules.prepared = prepared = fifo.SyncFIFOBuffered(width=layout.size, depth=2)
        m.d.comb += [
            prepared.w_data.eq(self.queries.payload),
            prepared.w_en.eq(self.queries.valid),
            self.queries.ready.eq(prepared.w_rdy),
        ]
        query = Signal(layout)
        m.d.comb += query.eq(prepared.r_data)

        beats = config.drain_words // config.output_words
        beat, part = Signal(range(beats)), Signal(range(self._parts))
        last_beat, last_part = beat == beats - 1, part == self._parts - 1
        enable, issue = Signal(), Signal()
        valid = Signal(1 + NormalizerLane.LATENCY)
        m.d.comb += [
            enable.eq(~self.o.valid | self.o.ready),
            issue.eq(prepared.r_rdy & enable),
            prepared.r_en.eq(issue & last_beat & last_part),
            self.read_slot.eq(query.slot),
            self.read_query.eq(query.query),
            self.read_part.eq(part),
            self.read_enable.eq(enable),
            self.o.valid.eq(valid[-1]),
            self.idle.eq(~valid.any()),
        ]
        with m.If(issue):
            m.d.sync += beat.eq(Mux(last_beat, 0, beat + 1))
            with m.If(last_beat):
                m.d.sync += part.eq(Mux(last_part, 0, part + 1))

        # The memory's word is in use while it is arriving; only then is the slot free.
        arriving_beat, arriving_last = Signal(range(beats)), Signal()
        places = Signal.like(query.places)
        reciprocal = [Signal.like(query.reciprocal, name=f"reciprocal_{i}") for i in range(2)]
        with m.If(enable):
            m.d.sync += [
                valid.eq(Cat(issue, valid)),
                arriving_beat.eq(beat),
                arriving_last.eq(prepared.r_en & query.last),
                places.eq(query.places),
                reciprocal[0].eq(query.reciprocal),
                reciprocal[1].eq(reciprocal[0]),
            ]
        m.d.comb += self.row_done.eq(enable & arriving_last)
        lanes = replicate(
            m,
            platform,
            "paro_normalizer_lane",
            lambda: NormalizerLane(config),
            config.output_words,
        )
        for index, lane in enumerate(lanes):
            numerators = Array(
                self.numerators[group * config.output_words + index] for group in range(beats)
            )
            m.d.comb += [
                lane.enable.eq(enable),
                lane.numerator.eq(numerators[arriving_beat]),
                lane.places.eq(places),
                lane.reciprocal.eq(reciprocal[1]),
                self.o.payload[index].eq(lane.word),
            ]
        return m
