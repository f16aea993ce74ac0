"""One lane of the vector unit: a product, a shift, a sum and a clamp for one channel a cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from paro.config import formats, vector_formats
from paro.config.vector_formats import ACTIVATIONS, activation_table
from paro.config.vector_program import Added, Left, Right
from rtl.lib.arithmetic import round_shift_by
from rtl.lib.delay import delayed
from rtl.vector.passes import SCALAR_SHIFT
from rtl.vector.scalars import MIDDLE_BITS

__all__ = ["VectorLane"]

_SLOPE_BITS = 12
_REST = vector_formats.ACTIVATION_REST_BITS


def _table_words() -> list[int]:
    """Segments of GELU, then of SiLU: base, and slope above it."""
    mask = (1 << formats.OUT_BITS) - 1
    return [
        (base & mask) | (slope & ((1 << _SLOPE_BITS) - 1)) << formats.OUT_BITS
        for kind in ACTIVATIONS
        for base, slope in activation_table(kind)
    ]


class VectorLane(wiring.Component):
    """The formula of section 8 of `docs/numerics.md`, with the activations' table.

    Members
    -------
    word, other, addend : In, signed(OUT_BITS)
        x, and what B and D are where they are no scalar and not of the table.
    silu, fraction : In
        Activation; one cycle later.
    middle : In, signed(MIDDLE_BITS)
        M, 0 for no mean; one cycle later.
    left, right, added : In
        See `rtl.vector.passes`; two cycles later.
    factor : In
        R; two cycles later.
    shift : In
        Four cycles later.
    narrow : In, 1
        Clamp to INT8; six cycles later.
    square : Out, unsigned(34)
        Product of a factor with itself, `PRODUCT_LATENCY` cycles after the word.
    result : Out, signed(OUT_BITS)
        `LATENCY` cycles after it.
    """

    DATA_ONLY = True

    PRODUCT_LATENCY = 4
    LATENCY = 7

    def __init__(self):
        super().__init__(
            {
                "word": In(signed(formats.OUT_BITS)),
                "other": In(signed(formats.OUT_BITS)),
                "addend": In(signed(formats.OUT_BITS)),
                "silu": In(1),
                "fraction": In(range(vector_formats.ACTIVATION_FRAC + 1)),
                "middle": In(signed(MIDDLE_BITS)),
                "left": In(Left),
                "right": In(Right),
                "added": In(Added),
                "factor": In(unsigned(vector_formats.ROOT_BITS)),
                "shift": In(SCALAR_SHIFT),
                "narrow": In(1),
                "square": Out(unsigned(2 * (vector_formats.FACTOR_BITS - 1))),
                "result": Out(signed(formats.OUT_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        word_1 = delayed(m, self.word, 1, "word")
        word_2 = delayed(m, word_1, 1, "word", first=2)
        doubled = Signal(signed(vector_formats.FACTOR_BITS))
        m.d.sync += doubled.eq((word_1 << 1) - self.middle)
        rest, slope, base = self._look_up(m, word_1)
        positive = Mux(word_2 < 0, 0, word_2)

        # 3: the factors and what is added.
        left = Signal(signed(vector_formats.FACTOR_BITS))
        right = Signal(signed(vector_formats.FACTOR_BITS))
        chosen = Signal(signed(vector_formats.FACTOR_BITS))
        added = Signal(signed(formats.OUT_BITS + 1))
        other_2 = delayed(m, self.other, 2, "other")
        addend_2 = delayed(m, self.addend, 2, "addend")
        with m.Switch(self.left):
            with m.Case(Left.WORD):
                m.d.comb += chosen.eq(word_2)
            with m.Case(Left.TABLE):
                m.d.comb += chosen.eq(rest)
            with m.Default():
                m.d.comb += chosen.eq(doubled)
        with m.Switch(self.right):
            with m.Case(Right.STREAM):
                m.d.sync += right.eq(other_2)
            with m.Case(Right.ITSELF):
                m.d.sync += right.eq(chosen)
            with m.Case(Right.FACTOR):
                m.d.sync += right.eq(self.factor)
            with m.Case(Right.TABLE):
                m.d.sync += right.eq(slope)
        with m.Switch(self.added):
            with m.Case(Added.NOTHING):
                m.d.sync += added.eq(0)
            with m.Case(Added.TABLE):
                m.d.sync += added.eq(base + positive)
            with m.Default():
                m.d.sync += added.eq(addend_2)

        # 4: the product. 5, 6: shifted, and the sum. 7: clamped.
        product = Signal(signed(2 * vector_formats.FACTOR_BITS))
        total = Signal(signed(len(product) + 2))
        bound = Signal(signed(formats.OUT_BITS + 1))
        added_5 = delayed(m, added, 2, "added")
        floor, rounds = round_shift_by(m, product, self.shift)
        m.d.comb += [
            self.square.eq(product),
            bound.eq(Mux(self.narrow, formats.OPERAND_MAX, vector_formats.WORD_MAX)),
        ]
        m.d.sync += [
            left.eq(chosen),
            product.eq(left * right),
            total.eq(floor + rounds + added_5),
            self.result.eq(Mux(total > bound, bound, Mux(total < -bound, -bound, total))),
        ]
        return m

    def _look_up(self, m: Module, word: Value) -> tuple[Value, Value, Value]:
        """Rest, slope and base of an activation's segment, a cycle later; beyond its end 0."""
        words = _table_words()
        shape = unsigned(formats.OUT_BITS + _SLOPE_BITS)
        m.submodules.table = table = Memory(shape=shape, depth=len(words), init=words)
        read = table.read_port()
        frac = vector_formats.ACTIVATION_FRAC
        end = frac + (vector_formats.ACTIVATION_END - 1).bit_length()
        size = Signal(formats.OUT_BITS - 1)
        distance = Signal(formats.OUT_BITS - 1 + frac)
        beyond = Signal()
        rest = Signal(_REST)
        fraction = delayed(m, self.fraction, 1, "fraction")
        m.d.comb += [
            size.eq(Mux(word < 0, -word, word)),
            distance.eq(size << (frac - self.fraction)[: len(fraction)]),
            read.addr.eq(Cat(distance[_REST:end], self.silu)),
        ]
        m.d.sync += [beyond.eq(distance[end:].any()), rest.eq(distance[:_REST])]
        # Rounded half up: one place more is kept, and 1 added to it.
        places = (vector_formats.ACTIVATION_TABLE_FRAC - 1 - fraction)[: len(fraction)]
        halves = Signal(signed(formats.OUT_BITS))
        m.d.comb += halves.eq(read.data[: formats.OUT_BITS].as_signed() >> places)
        slope = read.data[formats.OUT_BITS :].as_signed()
        return rest, Mux(beyond, 0, slope), Mux(beyond, 0, (halves + 1) >> 1)
