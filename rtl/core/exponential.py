"""Softmax lane: a logit and its row's maximum to a quantised weight and its digits."""

from amaranth.hdl import Array, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config, formats
from rtl.core.digits import DigitWord, WeightEncoder
from rtl.lib.arithmetic import log2
from rtl.lib.delay import delayed

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

    LATENCY = 7 + WeightEncoder.LATENCY

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

        # 1, 2: distance from the maximum; beyond 2**-10 the weight is 0 anyway.
        farthest = formats.P_FRAC + 1
        distance = Signal(unsigned(formats.LOGIT_BITS))
        absent = Signal()
        below_2 = Signal(range(farthest + 2))
        fraction = Signal(frac)
        whole = distance >> frac
        m.d.sync += [
            distance.eq((self.maximum << frac) - self.logit),
            absent.eq(self.absent),
            fraction.eq(distance),
            below_2.eq(Mux(absent | (whole > farthest), farthest + 1, whole)),
        ]
        below_5 = delayed(m, below_2, 3, "below", first=3)

        # 3, 4, 5: 2**-fraction.
        table = formats.exp2_table(self._segments)
        bases = Array(Const(base, formats.EXP_FRAC + 1) for base, _ in table)
        slope_bits = max(slope for _, slope in table).bit_length()
        slopes = Array(Const(slope, slope_bits) for _, slope in table)
        segment = fraction[rest_bits:]
        slope = Signal(slope_bits)
        rest = Signal(rest_bits)
        base_3, base_4, power = (
            Signal(formats.EXP_FRAC + 1, name=name) for name in ("base_3", "base_4", "power")
        )
        drop = Signal(slope_bits + rest_bits)
        half = 1 << (formats.EXP_SLOPE_FRAC - 1)
        m.d.sync += [
            base_3.eq(bases[segment]),
            slope.eq(slopes[segment]),
            rest.eq(fraction[:rest_bits]),
            base_4.eq(base_3),
            drop.eq(slope * rest),
            power.eq(base_4 - ((drop + half) >> formats.EXP_SLOPE_FRAC)),
        ]

        # 6, 7: shift and round to P_FRAC bits.
        dropped = formats.EXP_FRAC - formats.P_FRAC  # 7
        shifted = Signal(formats.P_FRAC + 2)
        weight = Signal(formats.P_FRAC + 1)
        with m.If(below_5 > farthest):
            m.d.sync += shifted.eq(0)
        with m.Else():
            m.d.sync += shifted.eq((power >> (dropped - 1)) >> below_5)
        m.d.sync += weight.eq((shifted + 1) >> 1)

        # Digits.
        m.submodules.encoder = encoder = WeightEncoder()
        m.d.comb += [
            encoder.weight.eq(weight),
            encoder.code.eq(self.code),
            self.word.eq(encoder.word),
            self.value.eq(encoder.value),
        ]
        return m
