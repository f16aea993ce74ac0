"""Reciprocal unit: one denominator after another, by restoring division."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro_config import Config, formats
from rtl.blocks import finished_row_layout

__all__ = ["ReciprocalUnit", "reciprocal_layout"]

#: Exponent of the smallest denominator: every row's best key has a weight of at least one half.
LEAST_EXPONENT = formats.P_FRAC - 1 + formats.DENOMINATOR_FRAC


def reciprocal_layout(config: Config) -> data.StructLayout:
    """What normalises a query.

    ``slot`` and ``query`` say where its numerators are, ``last`` of its row; ``places`` is the
    exponent of its denominator less `LEAST_EXPONENT`; ``reciprocal`` is ``r`` of section 6 of
    `docs/numerics.md`.
    """
    return data.StructLayout(
        {
            "slot": 1,
            "query": range(config.block),
            "last": 1,
            "places": range(config.denominator_bits - LEAST_EXPONENT),
            "reciprocal": unsigned(formats.RECIPROCAL_BITS),
        }
    )


class ReciprocalUnit(wiring.Component):
    """Finds ``min(floor(2**(e + 17) / L), 2**17 - 1)`` for each valid query of a finished row.

    The denominator is shifted until its leading one is the highest bit. Dividing a 1 in that place
    by it gives one bit of the quotient a cycle; for a power of two all bits come out 1, which is
    the bound.

    Members
    -------
    rows : In, stream of `finished_row_layout`
    slot, query : Out
        Denominator to be read.
    denominator : In
        One cycle later.
    output : Out, stream of `reciprocal_layout`

    Latency
    -------
    RECIPROCAL_BITS + 4 cycles a query.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "rows": In(stream.Signature(finished_row_layout(config))),
                "slot": Out(1),
                "query": Out(range(config.block)),
                "denominator": In(unsigned(config.denominator_bits)),
                "output": Out(stream.Signature(reciprocal_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self._config.denominator_bits
        row, output = self.rows.payload, self.output.payload
        query = Signal(range(self._config.block))
        divisor, remainder = Signal(bits), Signal(bits)
        quotient = Signal(formats.RECIPROCAL_BITS)
        places = Signal.like(output.places)
        step = Signal(range(formats.RECIPROCAL_BITS))
        m.d.comb += [
            self.slot.eq(row.slot),
            self.query.eq(query),
            output.slot.eq(row.slot),
            output.query.eq(query),
            output.last.eq(query == row.queries - 1),
            output.places.eq(places),
            output.reciprocal.eq(quotient),
        ]
        exponent = Signal(range(bits))
        for bit in range(bits):
            with m.If(self.denominator[bit]):
                m.d.comb += exponent.eq(bit)
        doubled = Signal(bits + 1)
        m.d.comb += doubled.eq(remainder << 1)

        with m.FSM():
            with m.State("READ"):
                with m.If(self.rows.valid):
                    m.next = "MEASURE"
            with m.State("MEASURE"):
                m.d.sync += [places.eq(exponent - LEAST_EXPONENT), divisor.eq(self.denominator)]
                m.next = "ALIGN"
            with m.State("ALIGN"):
                m.d.sync += [
                    divisor.eq(divisor << (bits - 1 - LEAST_EXPONENT - places)[: len(exponent)]),
                    remainder.eq(1 << (bits - 1)),
                    step.eq(0),
                ]
                m.next = "DIVIDE"
            with m.State("DIVIDE"):
                fits = doubled >= divisor
                m.d.sync += [
                    quotient.eq(Cat(fits, quotient)),
                    remainder.eq(doubled),
                    step.eq(step + 1),
                ]
                with m.If(fits):
                    m.d.sync += remainder.eq(doubled - divisor)
                with m.If(step == formats.RECIPROCAL_BITS - 1):
                    m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += [
                    self.output.valid.eq(1),
                    self.rows.ready.eq(self.output.ready & output.last),
                ]
                with m.If(self.output.ready):
                    m.d.sync += query.eq(query + 1)
                    with m.If(output.last):
                        m.d.sync += query.eq(0)
                    m.next = "READ"
        return m
