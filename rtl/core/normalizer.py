"""Normaliser: numerators times the reciprocal of their denominator, to the output stream.

Its lanes also scale the sums of linear layers, for `rtl.core.layer_output`.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config, formats
from rtl import interfaces
from rtl.core.output_accumulator import OutputAccumulator
from rtl.core.reciprocal import LEAST_EXPONENT, reciprocal_layout
from rtl.lib.arithmetic import round_shift
from rtl.lib.contract import Contracts
from rtl.lib.delay import delayed
from rtl.lib.library import replicate
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["Normalizer", "layer_scales_layout"]


def _places_shape(config: Config) -> Shape:
    """Places by which a numerator or a layer's sum is shifted, once it is doubled."""
    numerators = config.denominator_bits - LEAST_EXPONENT
    return Shape.cast(range(max(numerators, formats.SUM_SHIFT_MAX + 2)))


class NormalizerLane(wiring.Component):
    """One output word; sections 6 and 7 of `docs/numerics.md`.

    Members
    -------
    numerator, places : In
        See `reciprocal_layout`; of a layer, a sum and one place more than its shift.
    reciprocal : In
        Two cycles later; of a layer, the product of its scales.
    word : Out, signed(OUT_BITS)
    out_shift, bias : In
        Of a layer: index in `formats.OUT_SHIFTS`, three cycles after ``numerator``; bias, another
        one later.
    layer_word : Out, signed(OUT_BITS)
        Of a layer.

    Latency
    -------
    `LATENCY` cycles to ``word``, `LAYER_LATENCY` to ``layer_word``.
    """

    DATA_ONLY = True

    LATENCY = 4
    LAYER_LATENCY = 6

    def __init__(self, config: Config):
        super().__init__(
            {
                "numerator": In(signed(config.numerator_bits)),
                "places": In(_places_shape(config)),
                "reciprocal": In(unsigned(formats.RECIPROCAL_BITS)),
                "word": Out(signed(formats.OUT_BITS)),
                "out_shift": In(range(len(formats.OUT_SHIFTS))),
                "bias": In(signed(formats.OUT_BITS)),
                "layer_word": Out(signed(formats.OUT_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # |numerator| <= denominator < 2**(exponent + 1): NUMERATOR_FRAC + 9 bits are left of it.
        coarse = Signal(signed(len(self.numerator) + 1))
        fine = Signal(2)
        aligned = Signal(signed(formats.SHORT_SUM_BITS))
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
        # A layer: all but one place of the shift, the one that rounds together with the bias.
        halves = Signal(signed(len(product) - formats.OUT_SHIFTS[0] + 1))
        total = Signal(signed(len(halves)))
        with m.Switch(self.out_shift):
            for index, shift in enumerate(formats.OUT_SHIFTS):
                with m.Case(index):
                    m.d.sync += halves.eq(product >> (shift - 1))
        m.d.sync += [
            total.eq((halves + Cat(Const(1, 1), self.bias).as_signed()) >> 1),
            self.layer_word.eq(
                Mux(total > largest, largest, Mux(total < -largest, -largest, total))
            ),
        ]
        return m


def layer_scales_layout(config: Config) -> data.StructLayout:
    """What the lanes need for a layer's sums: ``valid`` while they work for one.

    The others come so many cycles after a read: ``places`` 2, ``scales``, the product of both
    scales for each lane, 4, ``out_shift`` 6 and ``bias`` 7.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "places": _places_shape(config),
            "out_shift": interfaces.layer_shifts()["out_shift"],
            "scales": data.ArrayLayout(unsigned(formats.RECIPROCAL_BITS), config.output_words),
            "bias": signed(formats.OUT_BITS),
        }
    )


class Normalizer(wiring.Component):
    """Sends the rows' outputs, query by query, as far as the last block's PV has completed them.

    It reads only when the output queue has room for the words, so that the pipeline never stops.

    Members
    -------
    queries : In, stream of `reciprocal_layout`
        Reciprocals of the queries, in order.
    groups_complete : In, 1
        Numerators of another R queries (fewer at a row's end) are complete.
    turn : In, 1
        The row to be read next is one of attention, and nothing of a layer is under way.
    read, read_query, read_part, read_ready, numerators
        See `OutputAccumulator`.
    row_done : Out, 1
        The last word of a row has been read: its slot is free.
    layer : In, `layer_scales_layout`
        A layer's sums are read, or under way: ``numerators`` are these.
    layer_words : Out, output_words x signed(OUT_BITS)
        `LAYER_LATENCY` cycles after such a read.
    o : Out, stream
        See `rtl.interfaces`.
    idle : Out, 1
        No word is on its way.
    """

    #: Cycles from a read to its words, at the output queue.
    LATENCY = OutputAccumulator.READ_LATENCY + NormalizerLane.LATENCY
    #: Cycles from a read of a layer's sums to their words.
    LAYER_LATENCY = OutputAccumulator.READ_LATENCY + NormalizerLane.LAYER_LATENCY
    #: Beats on their way and in the output queue.
    QUEUE = 2 * LATENCY

    def __init__(self, config: Config):
        self._config = config
        self._parts = config.head_dim // config.drain_words
        super().__init__(
            {
                "queries": In(stream.Signature(reciprocal_layout(config))),
                "groups_complete": In(1),
                "turn": In(1),
                "read": Out(1),
                "read_query": Out(range(config.block)),
                "read_part": Out(range(self._parts)),
                "read_ready": In(1),
                "numerators": In(
                    data.ArrayLayout(signed(config.numerator_bits), config.drain_words)
                ),
                "row_done": Out(1),
                "layer": In(layer_scales_layout(config)),
                "layer_words": Out(data.ArrayLayout(signed(formats.OUT_BITS), config.output_words)),
                "o": Out(interfaces.o_signature(config)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.output = output = StreamFIFO(self.o.payload.shape(), depth=self.QUEUE)
        connect(m, output.output, flipped(self.o))
        query = self.queries.payload

        # Groups of rows that PV has completed and that are not sent: at most those of all slots.
        groups = Signal(range(config.row_slots * config.block // config.rows + 1))
        row_in_group = Signal(range(config.rows))
        part = Signal(range(self._parts))
        reserved = Signal(range(self.QUEUE + 1))
        read, last_part = self.read, part == self._parts - 1
        query_done = read & last_part
        group_done = query_done & (query.last | (row_in_group == config.rows - 1))
        m.d.comb += [
            read.eq(
                self.turn
                & self.queries.valid
                & groups.any()
                & self.read_ready
                & (reserved != self.QUEUE)
            ),
            self.read_part.eq(part),
            self.queries.ready.eq(query_done),
            self.row_done.eq(query_done & query.last),
        ]
        sent = self.o.valid & self.o.ready
        most = config.row_slots * config.block // config.rows
        contracts = Contracts(m, platform, self)
        contracts.has_room(output.input, "all words that are on their way")
        contracts.asks(
            ~self.groups_complete | (groups != most), "no more groups are complete than there are"
        )
        contracts.holds(~sent | reserved.any(), "a beat that is sent had its place")
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
                ]

        # Places meet the numerators, the reciprocal meets them two cycles later; the last register
        # of each takes those of a layer in their place.
        valid = Signal(self.LATENCY)
        m.d.sync += valid.eq(Cat(read, valid))
        read_latency = OutputAccumulator.READ_LATENCY
        places, reciprocal = query.places, query.reciprocal
        # Stage by stage, which is the order of the registers in the Verilog.
        for stage in range(1, read_latency):
            places = delayed(m, places, 1, "places", first=stage)
            reciprocal = delayed(m, reciprocal, 1, "reciprocal", first=stage)
        reciprocal = delayed(m, reciprocal, 2, "reciprocal", first=read_latency)
        layer = self.layer
        places = delayed(m, Mux(layer.valid, layer.places, places), 1, "lane_places")
        lanes = replicate(
            m,
            platform,
            "normalizer_lane",
            lambda: NormalizerLane(config),
            config.output_words,
        )
        for index, lane in enumerate(lanes):
            m.d.sync += lane.reciprocal.eq(Mux(layer.valid, layer.scales[index], reciprocal))
            m.d.comb += [
                lane.numerator.eq(self.numerators[index]),
                lane.places.eq(places),
                lane.out_shift.eq(layer.out_shift),
                lane.bias.eq(layer.bias),
                output.input.payload[index].eq(lane.word),
                self.layer_words[index].eq(lane.layer_word),
            ]
        m.d.comb += [
            output.input.valid.eq(valid[-1]),
            self.idle.eq(~reserved.any()),
        ]
        return m
