"""Reciprocal unit: denominators of finished rows to reciprocals, by restoring division."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config, formats
from rtl.core.blocks import weighted_chunk_layout
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts
from rtl.lib.library import replicate

__all__ = ["ReciprocalUnit", "reciprocal_layout"]

#: Exponent of the smallest denominator: every row's best key has a weight of at least one half.
LEAST_EXPONENT = formats.P_FRAC - 1 + formats.DENOMINATOR_FRAC


def reciprocal_layout(config: Config) -> data.StructLayout:
    """Reciprocal of a query's denominator.

    ``last`` of its row; ``places`` is the exponent of its denominator less `LEAST_EXPONENT`;
    ``reciprocal`` is ``r`` of section 6 of `docs/numerics.md`.
    """
    return data.StructLayout(
        {
            "last": 1,
            "places": range(config.denominator_bits - LEAST_EXPONENT),
            "reciprocal": unsigned(formats.RECIPROCAL_BITS),
        }
    )


class ReciprocalLane(wiring.Component):
    """Finds ``min(floor(2**(e + 17) / L), 2**17 - 1)`` of one denominator ``L``, e its exponent.

    The denominator is shifted until its leading one is the highest bit. Dividing a 1 in that place
    by it gives one bit of the quotient a cycle; for a power of two all bits come out 1, which is
    the bound.

    Members
    -------
    denominator : In
        With ``load``.
    load : In, 1
        Begin.
    places, reciprocal : Out
        See `reciprocal_layout`; they stay until the next ``load``.

    Latency
    -------
    `LATENCY` cycles from ``load``.
    """

    DATA_ONLY = True

    #: Measure the exponent, subtract, align, then a cycle a bit.
    LATENCY = 4 + formats.RECIPROCAL_BITS

    def __init__(self, config: Config):
        self._bits = config.denominator_bits
        layout = reciprocal_layout(config)
        super().__init__(
            {
                "denominator": In(unsigned(self._bits)),
                "load": In(1),
                "places": Out(layout["places"].shape),
                "reciprocal": Out(layout["reciprocal"].shape),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self._bits
        divisor = Signal(bits)
        remainder = Signal(bits)
        places = Signal.like(self.places, name="places_found")
        above = Signal(range(bits - LEAST_EXPONENT))
        stage = Signal(3)
        m.d.sync += stage.eq(Cat(self.load, stage))

        with m.If(self.load):
            m.d.sync += divisor.eq(self.denominator)
        with m.If(stage[0]):
            for bit in range(LEAST_EXPONENT, bits):
                with m.If(divisor[bit]):
                    m.d.sync += [places.eq(bit - LEAST_EXPONENT), above.eq(bits - 1 - bit)]
        with m.If(stage[1]):
            m.d.sync += [self.places.eq(places), divisor.eq(divisor << above)]
        doubled = Signal(bits + 1)
        m.d.comb += doubled.eq(remainder << 1)
        fits = doubled >= divisor
        # Once all bits are there, the division runs on unseen until the next one begins.
        left = Signal(range(formats.RECIPROCAL_BITS + 1))
        with m.If(stage[2]):
            m.d.sync += [remainder.eq(1 << (bits - 1)), left.eq(formats.RECIPROCAL_BITS)]
        with m.Elif(left.any()):
            m.d.sync += [
                left.eq(left - 1),
                self.reciprocal.eq(Cat(fits, self.reciprocal)),
                remainder.eq(doubled),
            ]
            with m.If(fits):
                m.d.sync += remainder.eq(doubled - divisor)
        return m


class ReciprocalUnit(wiring.Component):
    """Reciprocals of all valid queries of finished rows, ``reciprocal_lanes`` at a time.

    Members
    -------
    chunks : In, stream of `weighted_chunk_layout`
        Denominators, in the order of the queries.
    output : Out, stream of `reciprocal_layout`
        One valid query after another.

    Latency
    -------
    ``ReciprocalLane.LATENCY`` + ``reciprocal_lanes`` cycles for each ``reciprocal_lanes`` queries.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "chunks": In(stream.Signature(weighted_chunk_layout(config))),
                "output": Out(stream.Signature(reciprocal_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        lanes_count, together = config.reciprocal_lanes, config.softmax_lanes
        chunk, output = self.chunks.payload, self.output.payload
        contracts = Contracts(m, platform, self)
        lanes = replicate(
            m,
            platform,
            "reciprocal_lane",
            lambda: ReciprocalLane(config),
            lanes_count,
        )
        group = Signal(range(together // lanes_count))
        lane = Signal(range(lanes_count))
        load = Signal()
        for index, unit in enumerate(lanes):
            candidates = Array(
                chunk.denominators[first + index] for first in range(0, together, lanes_count)
            )
            m.d.comb += [unit.denominator.eq(candidates[group]), unit.load.eq(load)]
            number = chunk.chunk * together + group * lanes_count + index
            large = (unit.denominator >> LEAST_EXPONENT).any() | (number >= chunk.queries)
            contracts.asks(~load | large, "a row's best key has a weight of one half at least")

        # The chunk comes out of the queue's memory: its fields pass a register first.
        place = Signal.like(chunk.chunk)
        last_query = Signal(range(config.block))
        query = Signal(range(config.block))
        present = Signal()
        offered = Signal()  # or left out
        next_lane = Signal.like(lane)
        m.d.sync += [
            place.eq(chunk.chunk),
            last_query.eq(chunk.queries - 1),
            # Compared a cycle ahead: the queue of reciprocals is far away.
            present.eq(query <= last_query),
            output.last.eq(query == last_query),
            lane.eq(next_lane),
        ]
        m.d.comb += [
            next_lane.eq(lane + offered),
            query.eq(
                Cat(next_lane[: log2(lanes_count)], group[: log2(together // lanes_count)], place)
            ),
            output.places.eq(Array(unit.places for unit in lanes)[lane]),
            output.reciprocal.eq(Array(unit.reciprocal for unit in lanes)[lane]),
        ]
        waited = Signal(range(ReciprocalLane.LATENCY))
        last_lane, last_group = lane == lanes_count - 1, group == together // lanes_count - 1
        with m.FSM():
            with m.State("LOAD"):
                m.d.comb += load.eq(self.chunks.valid)
                m.d.comb += next_lane.eq(0)
                m.d.sync += waited.eq(1)
                with m.If(self.chunks.valid):
                    m.next = "DIVIDE"
            with m.State("DIVIDE"):
                m.d.sync += waited.eq(waited + 1)
                with m.If(waited == ReciprocalLane.LATENCY - 1):
                    m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += [
                    self.output.valid.eq(present),
                    offered.eq(self.output.ready | ~present),
                ]
                with m.If(offered):
                    with m.If(last_lane):
                        m.d.comb += self.chunks.ready.eq(last_group)
                        m.d.sync += group.eq(Mux(last_group, 0, group + 1))
                        m.next = "LOAD"
        return m
