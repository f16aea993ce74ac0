"""Online softmax state of the rows: running maximum and denominator, rescaled by shifts."""

from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from paro_config import Config, formats
from paro_config.config import bits_unsigned
from rtl.blocks import weighted_chunk_layout
from rtl.library import replicate
from rtl.scheduler import SLOTS
from rtl.stream_fifo import StreamFIFO

__all__ = ["RowState", "rescale_layout", "round_shift_by"]

_SHIFT_BITS = bits_unsigned(formats.RESCALE_MAX)


def rescale_layout() -> data.StructLayout:
    """How PV of a block joins its row.

    ``shift`` places go to the older sum if ``shift_old``, else to the block's own.
    """
    return data.StructLayout({"shift": _SHIFT_BITS, "shift_old": 1})


def round_shift_by(value: Value, places: Value) -> tuple[Value, Value]:
    """Floor of a value shifted right by a signal, and the bit that rounds it half up."""
    shifted = (value << 1) >> places
    return shifted >> 1, shifted[0]


class RowStateLane(wiring.Component):
    """One row: joins a block's maximum and sum to the row's; section 5 of `docs/numerics.md`.

    Members
    -------
    first : In, 1
        The block is the first of its row: there is no older state.
    maximum, block_sum : In
        Of the block; the sum in units of P.
    old_maximum, old_denominator : In
        Of the row so far; denominators have DENOMINATOR_FRAC fractional bits more than P.
    new_maximum, new_denominator : Out
        New state.
    rescale : Out, `rescale_layout`
        The shifts that led there.

    Latency
    -------
    `LATENCY` cycles.
    """

    LATENCY = 3

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "first": In(1),
                "maximum": In(signed(formats.MAX_BITS)),
                "block_sum": In(unsigned(config.block_sum_bits)),
                "old_maximum": In(signed(formats.MAX_BITS)),
                "old_denominator": In(unsigned(config.denominator_bits)),
                "new_maximum": Out(signed(formats.MAX_BITS)),
                "new_denominator": Out(unsigned(config.denominator_bits)),
                "rescale": Out(rescale_layout()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self._config.denominator_bits

        # 1: which of the two is smaller, and by how much.
        difference = Signal(signed(formats.MAX_BITS + 1))
        distance = Signal(formats.MAX_BITS)
        rises = Signal()  # the block's maximum is the new one
        m.d.comb += [
            difference.eq(self.maximum - self.old_maximum),
            rises.eq(self.first | (difference > 0)),
            distance.eq(Mux(difference < 0, -difference, difference)),
        ]
        shift_old, shift = Signal(), Signal(_SHIFT_BITS)
        small, large = Signal(bits), Signal(bits)
        maximum_1 = Signal(signed(formats.MAX_BITS))
        farthest = formats.RESCALE_MAX
        old = Mux(self.first, 0, self.old_denominator)
        new = self.block_sum << formats.DENOMINATOR_FRAC
        m.d.sync += [
            shift_old.eq(rises),
            # The first block is not shifted, whatever the state was before.
            shift.eq(Mux(self.first, 0, Mux(distance > farthest, farthest, distance))),
            small.eq(Mux(rises, old, new)),
            large.eq(Mux(rises, new, old)),
            maximum_1.eq(Mux(rises, self.maximum, self.old_maximum)),
        ]

        # 2: the smaller one, shifted.
        shifted, rounds_up = round_shift_by(small, shift)
        scaled, carry = Signal(bits), Signal()
        large_2, maximum_2 = Signal(bits), Signal(signed(formats.MAX_BITS))
        shift_old_2, shift_2 = Signal(), Signal(_SHIFT_BITS)
        m.d.sync += [
            scaled.eq(shifted),
            carry.eq(rounds_up),
            large_2.eq(large),
            maximum_2.eq(maximum_1),
            shift_old_2.eq(shift_old),
            shift_2.eq(shift),
        ]

        # 3: the sum.
        m.d.sync += [
            self.new_denominator.eq(large_2 + scaled + carry),
            self.rescale.shift_old.eq(shift_old_2),
            self.rescale.shift.eq(shift_2),
            self.new_maximum.eq(maximum_2),
        ]
        return m


class RowState(wiring.Component):
    """State of the rows of the block row in progress, updated ``softmax_lanes`` rows at a time.

    Members
    -------
    chunk : In
        Group of ``softmax_lanes`` queries; given one cycle before ``update``.
    update : In, 1
        Join a block's sums to the rows of ``chunk`` (of the cycle before).
    slot : In, 1
        Rescale slot, with ``update``.
    first, last, queries : In
        The block is the first, the last of its row; valid queries of the row.
    maxima, block_sums : In, softmax_lanes x ...
        With ``update``.
    read_slot, read_query : In
        Rescale to be read.
    rescale : Out, `rescale_layout`
        `READ_LATENCY` cycles after ``read_query``.
    chunks : Out, stream of `weighted_chunk_layout`
        Final denominators of the rows, in order; there is always room.

    Contract
    --------
    Updates are at least ``RowStateLane.LATENCY + 2`` cycles apart.
    """

    READ_LATENCY = 1

    def __init__(self, config: Config):
        self._config = config
        lanes = config.softmax_lanes
        self._chunks = config.block // lanes
        super().__init__(
            {
                "chunk": In(range(self._chunks)),
                "update": In(1),
                "slot": In(1),
                "first": In(1),
                "last": In(1),
                "queries": In(unsigned(bits_unsigned(config.block))),
                "maxima": In(data.ArrayLayout(signed(formats.MAX_BITS), lanes)),
                "block_sums": In(data.ArrayLayout(unsigned(config.block_sum_bits), lanes)),
                "read_slot": In(1),
                "read_query": In(range(config.block)),
                "rescale": Out(rescale_layout()),
                "chunks": Out(stream.Signature(weighted_chunk_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        lanes = config.softmax_lanes
        state_layout = data.StructLayout(
            {
                "maximum": signed(formats.MAX_BITS),
                "denominator": unsigned(config.denominator_bits),
            }
        )
        m.submodules.states = states = Memory(
            shape=data.ArrayLayout(state_layout, lanes), depth=self._chunks, init=[]
        )
        m.submodules.rescales = rescales = Memory(
            shape=data.ArrayLayout(rescale_layout(), lanes), depth=2 * self._chunks, init=[]
        )
        read_state, write_state = states.read_port(), states.write_port()
        read_rescale, write_rescale = rescales.read_port(), rescales.write_port()

        # Rows that may wait for their reciprocals: two output slots, and two more that are ahead.
        m.submodules.chunks = chunks = StreamFIFO(
            weighted_chunk_layout(config), depth=2 * SLOTS * self._chunks
        )
        connect(m, chunks.output, flipped(self.chunks))

        chunk, slot, write = [self.chunk], [self.slot], [self.update]
        last, queries = [self.update & self.last], [self.queries]
        for stage in range(1 + RowStateLane.LATENCY):
            chunk.append(Signal.like(self.chunk, name=f"chunk_{stage}"))
            m.d.sync += chunk[-1].eq(chunk[-2])
        for stage in range(RowStateLane.LATENCY):
            slot.append(Signal(name=f"slot_{stage}"))
            write.append(Signal(name=f"write_{stage}"))
            last.append(Signal(name=f"last_{stage}"))
            queries.append(Signal.like(self.queries, name=f"queries_{stage}"))
            m.d.sync += [delays[-1].eq(delays[-2]) for delays in (slot, write, last, queries)]
        m.d.comb += [
            read_state.addr.eq(self.chunk),
            write_state.addr.eq(chunk[-1]),
            write_state.en.eq(write[-1]),
            write_rescale.addr.eq(chunk[-1] | (slot[-1] << len(self.chunk))),
            write_rescale.en.eq(write[-1]),
            chunks.input.valid.eq(last[-1]),
            chunks.input.payload.queries.eq(queries[-1]),
            chunks.input.payload.chunk.eq(chunk[-1]),
        ]
        for index, lane in enumerate(
            replicate(m, platform, "paro_row_state_lane", lambda: RowStateLane(config), lanes)
        ):
            m.d.comb += [
                lane.first.eq(self.first),
                lane.maximum.eq(self.maxima[index]),
                lane.block_sum.eq(self.block_sums[index]),
                lane.old_maximum.eq(read_state.data[index].maximum),
                lane.old_denominator.eq(read_state.data[index].denominator),
                write_state.data[index].maximum.eq(lane.new_maximum),
                write_state.data[index].denominator.eq(lane.new_denominator),
                chunks.input.payload.denominators[index].eq(lane.new_denominator),
                write_rescale.data[index].eq(lane.rescale),
            ]

        lane_bits = (lanes - 1).bit_length()
        read_lane = Signal(lane_bits)
        m.d.sync += read_lane.eq(self.read_query[:lane_bits])
        m.d.comb += [
            read_rescale.addr.eq(self.read_query[lane_bits:] | (self.read_slot << len(self.chunk))),
            self.rescale.eq(read_rescale.data[read_lane]),
        ]
        return m
