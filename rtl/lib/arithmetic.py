"""Small arithmetic that several components share."""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value

__all__ = ["first_of", "log2", "rotate", "round_shift", "round_shift_by"]


def log2(value: int) -> int:
    """Exponent of a power of two; every dimension of the core is one."""
    exponent = value.bit_length() - 1
    assert value == 1 << exponent, value
    return exponent


def round_shift(value: Value, places: int) -> Value:
    """Arithmetic shift right by a constant, rounded half up."""
    if places == 0:
        return value
    return (value + (1 << (places - 1))) >> places


def round_shift_by(m: Module, value: Value, places: Value) -> tuple[Value, Value]:
    """Floor of a value shifted right by a signal, and the bit that rounds it half up.

    Both come one cycle later: multiples of eight places go before a register, the rest after it.
    """
    coarse = Signal(Shape(len(value) + 1, value.shape().signed))
    fine = Signal(3)
    m.d.sync += [
        coarse.eq((value << 1) >> Cat(Const(0, 3), places[3:])),
        fine.eq(places[:3]),
    ]
    shifted = coarse >> fine
    return shifted >> 1, shifted[0]


def rotate(vector: Value, amount: Value, places: int, *, left: bool) -> Value:
    """Rotate ``vector``, made of ``places`` equal parts, by ``amount`` parts."""
    part = len(vector) // places
    for stage in range(log2(places)):
        distance = part << stage
        rotated = vector.rotate_left(distance) if left else vector.rotate_right(distance)
        vector = Mux(amount[stage], rotated, vector)
    return vector


def first_of(m: Module, bits: Value, name: str) -> Signal:
    """Return the index of the lowest bit that is set."""
    first = Signal(range(len(bits)), name=name)
    for index in reversed(range(len(bits))):
        with m.If(bits[index]):
            m.d.comb += first.eq(index)
    return first
