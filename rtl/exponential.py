"""Softmax lane: a logit and its row's maximum to a quantised weight and its digits."""

from amaranth.hdl import Array, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from paro_config import Config, formats
from rtl.blocks import log2
from rtl.digits import DigitWord, WeightEncoder

__all__ = ["ExponentialLane"]


class ExponentialLane(wiring.Component):
    """p = 2**(x - m) by piecewise-linear segments and a shift; section 4 of `docs/numerics.md`.

    Members
    -------
    logit : In, signed(LOGIT_BITS)
    maximum : In, signed(MAX_BITS)
        x, and m >= x.
    absent : In, 1
        The key is no token: p = 0.
    code : In, 2
        Block code of the weight that leaves one cycle later, that is `LATENCY` - 1 cycles after
        its logit.
    word : Out, `DigitWord`
    value : Out, 10
        See `WeightEncoder`.

    Latency
    -------
    `LATENCY` cycles, one logit a cycle.
    """

    LATENCY = 6

    def __init__(self, config: Config):
        self._segments = config.exp_segments
        super().__init__(
            {
                "logit": In(signed(formats.LOGIT_BITS)),
                "maximum": In(signed(formats.MAX_BITS)),
                "absent": In(1),
                "code": In(2),
                "word": Out(DigitWord),
                "value": Out(formats.P_FRAC + 1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        frac = formats.LOGIT_FRAC
        rest_bits = frac - log2(self._segments)

        # 1: distance from the maximum; beyond 2**-10 the weight is 0 anyway.
        farthest = formats.P_FRAC + 1
        distance = Signal(unsigned(formats.LOGIT_BITS))
        below = Signal(range(farthest + 2))
        fraction = Signal(frac)
        m.d.comb += distance.eq((self.maximum << frac) - self.logit)
        whole = distance >> frac
        m.d.sync += [
            fraction.eq(distance),
            below.eq(Mux(self.absent | (whole > farthest), farthest + 1, whole)),
        ]

        # 2, 3: 2**-fraction.
        table = formats.exp2_table(self._segments)
        bases = Array(Const(base, formats.EXP_FRAC + 1) for base, _ in table)
        slope_bits = max(slope for _, slope in table).bit_length()
        slopes = Array(Const(slope, slope_bits) for _, slope in table)
        segment, rest = fraction[rest_bits:], fraction[:rest_bits]
        base = Signal(formats.EXP_FRAC + 1)
        drop = Signal(slope_bits + rest_bits)
        below_2 = Signal.like(below)
        power = Signal(formats.EXP_FRAC + 1)
        below_3 = Signal.like(below)
        half = 1 << (formats.EXP_SLOPE_FRAC - 1)
        m.d.sync += [
            base.eq(bases[segment]),
            drop.eq(slopes[segment] * rest),
            below_2.eq(below),
            power.eq(base - ((drop + half) >> formats.EXP_SLOPE_FRAC)),
            below_3.eq(below_2),
        ]

        # 4: shift and round to P_FRAC bits.
        weight = Signal(formats.P_FRAC + 1)
        dropped = formats.EXP_FRAC - formats.P_FRAC  # 7
        shifted = Signal(formats.P_FRAC + 2)
        m.d.comb += shifted.eq((power >> (dropped - 1)) >> below_3)
        with m.If(below_3 > farthest):
            m.d.sync += weight.eq(0)
        with m.Else():
            m.d.sync += weight.eq((shifted + 1) >> 1)

        # 5, 6: digits.
        m.submodules.encoder = encoder = WeightEncoder()
        m.d.comb += [
            encoder.weight.eq(weight),
            encoder.code.eq(self.code),
            self.word.eq(encoder.word),
            self.value.eq(encoder.value),
        ]
        return m
