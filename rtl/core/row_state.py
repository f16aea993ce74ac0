"""Online softmax state of the rows: running maximum and denominator, rescaled by shifts."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config, formats
from paro.config.config import bits_unsigned
from rtl.core.blocks import SLOTS, weighted_chunk_layout
from rtl.lib.arithmetic import round_shift_by
from rtl.lib.contract import Contracts
from rtl.lib.delay import delay_line, delayed
from rtl.lib.library import replicate
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["RowState", "rescale_layout"]

_SHIFT_BITS = bits_unsigned(formats.RESCALE_MAX)


def rescale_layout() -> data.StructLayout:
    """How PV of a block joins its row.

    ``shift`` places go to the older sum if ``shift_old``, else to the block's own.
    """
    return data.StructLayout({"shift": _SHIFT_BITS, "shift_old": 1})


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
        The shift that joined the two sums.

    Latency
    -------
    `LATENCY` cycles.
    """

    DATA_ONLY = True

    LATENCY = 6

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

        # 1: the inputs, which come out of a memory.
        first = Signal()
        maximum = Signal.like(self.maximum, name="maximum_1")
        block_sum = Signal.like(self.block_sum, name="block_sum_1")
        old_maximum = Signal.like(self.old_maximum, name="old_maximum_1")
        old_denominator = Signal.like(self.old_denominator, name="old_denominator_1")
        m.d.sync += [
            first.eq(self.first),
            maximum.eq(self.maximum),
            block_sum.eq(self.block_sum),
            old_maximum.eq(self.old_maximum),
            old_denominator.eq(self.old_denominator),
        ]

        # 2: whose maximum is larger, and by how much.
        rises = Signal()  # the block's maximum is the new one
        above, below = (Signal(signed(formats.MAX_BITS + 1), name=n) for n in ("above", "below"))
        joins = Signal()
        old = Signal(bits)
        new = Signal(bits)
        largest = Signal(signed(formats.MAX_BITS))
        difference = Signal(signed(formats.MAX_BITS + 1))
        m.d.comb += difference.eq(old_maximum - maximum)
        is_higher = first | (difference < 0)
        m.d.sync += [
            rises.eq(is_higher),
            largest.eq(Mux(is_higher, maximum, old_maximum)),
            above.eq(maximum - old_maximum),
            below.eq(difference),
            joins.eq(~first),
            old.eq(Mux(first, 0, old_denominator)),
            new.eq(block_sum << formats.DENOMINATOR_FRAC),
        ]

        # 3: choose the sum to shift, and by how much; 4, 5: shift; 6: add.
        small = Signal(bits)
        beside = data.StructLayout(
            {
                "shift": _SHIFT_BITS,
                "shift_old": 1,
                "large": unsigned(bits),
                "maximum": signed(formats.MAX_BITS),
            }
        )
        chosen, shifting, adding = (
            Signal(beside, name=name) for name in ("chosen", "shifting", "adding")
        )
        distance = Signal(formats.MAX_BITS)
        m.d.comb += distance.eq(Mux(rises, above, below))
        farthest = formats.RESCALE_MAX
        shifted, rounds_up = round_shift_by(m, small, chosen.shift)
        scaled = Signal(bits)
        carry = Signal()
        m.d.sync += [
            small.eq(Mux(rises, old, new)),
            chosen.large.eq(Mux(rises, new, old)),
            chosen.maximum.eq(largest),
            chosen.shift_old.eq(rises),
            # The first block is not shifted, whatever the state was before.
            chosen.shift.eq(Mux(joins, Mux(distance > farthest, farthest, distance), 0)),
            shifting.eq(chosen),
            adding.eq(shifting),
            scaled.eq(shifted),
            carry.eq(rounds_up),
            self.new_denominator.eq(adding.large + scaled + carry),
            self.rescale.shift_old.eq(adding.shift_old),
            self.rescale.shift.eq(adding.shift),
            self.new_maximum.eq(adding.maximum),
        ]
        return m


class RowState(wiring.Component):
    """State of the queries of a superblock, updated ``softmax_lanes`` queries at a time.

    Members
    -------
    row, chunk : In
        Block row and group of ``softmax_lanes`` queries; given one cycle before ``update``.
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
        Final denominators of the rows, in order.

    Contract
    --------
    At most ``row_slots`` + ``SLOTS`` block rows have denominators that wait: those of all output
    slots, and two that are ahead. Updates of a row's chunk are at least ``RowStateLane.LATENCY +
    2`` cycles apart. A rescale is read at least ``RowStateLane.LATENCY + 1`` cycles after its
    update.
    """

    READ_LATENCY = 3

    def __init__(self, config: Config):
        self._config = config
        lanes = config.softmax_lanes
        self._chunks = config.block // lanes
        super().__init__(
            {
                "row": In(range(config.query_rows)),
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
            shape=data.ArrayLayout(state_layout, lanes),
            depth=config.query_rows * self._chunks,
            init=[],
        )
        m.submodules.rescales = rescales = Memory(
            shape=data.ArrayLayout(rescale_layout(), lanes), depth=SLOTS * self._chunks, init=[]
        )
        read_state, write_state = states.read_port(), states.write_port()
        read_rescale, write_rescale = rescales.read_port(), rescales.write_port()

        # Room for all rows whose denominators may wait, see the contract.
        m.submodules.chunks = chunks = StreamFIFO(
            weighted_chunk_layout(config), depth=(config.row_slots + SLOTS) * self._chunks
        )
        connect(m, chunks.output, flipped(self.chunks))

        place = Cat(self.chunk, self.row)
        written = delayed(m, place, 1 + RowStateLane.LATENCY, "place", first=0)
        chunk = written[: len(self.chunk)]
        slot, write, last, queries = self.slot, self.update, self.update & self.last, self.queries
        # Stage by stage, which is the order of the registers in the Verilog.
        for stage in range(RowStateLane.LATENCY):
            slot = delayed(m, slot, 1, "slot", first=stage)
            write = delayed(m, write, 1, "write", first=stage)
            last = delayed(m, last, 1, "last", first=stage)
            queries = delayed(m, queries, 1, "queries", first=stage)
        m.d.comb += [
            read_state.addr.eq(place),
            write_state.addr.eq(written),
            write_state.en.eq(write),
            write_rescale.addr.eq(chunk | (slot << len(self.chunk))),
            write_rescale.en.eq(write),
            chunks.input.valid.eq(last),
            chunks.input.payload.queries.eq(queries),
            chunks.input.payload.chunk.eq(chunk),
        ]
        contracts = Contracts(m, platform, self)
        contracts.has_room(chunks.input, "denominators of all rows that may wait")
        self._hold_apart(m, contracts, place)
        for index, lane in enumerate(
            replicate(m, platform, "row_state_lane", lambda: RowStateLane(config), lanes)
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
        read_lane = delayed(
            m, self.read_query[:lane_bits], self.READ_LATENCY - 1, "read_lane", first=0
        )
        read_rescales = Signal.like(read_rescale.data)
        m.d.comb += read_rescale.addr.eq(
            self.read_query[lane_bits:] | (self.read_slot << len(self.chunk))
        )
        m.d.sync += [
            read_rescales.eq(read_rescale.data),
            self.rescale.eq(read_rescales[read_lane]),
        ]
        return m

    def _hold_apart(self, m: Module, contracts: Contracts, place: Value) -> None:
        """Ask for time between the updates of the same queries."""
        if not contracts.checked:
            return
        latest = RowStateLane.LATENCY + 1
        _, own, *earlier = delay_line(m, place, 1 + latest, "updated", first=0)
        updates = delay_line(m, self.update, latest, "updates")[1:]
        same = Cat(update & (other == own) for update, other in zip(updates, earlier, strict=True))
        contracts.asks(~self.update | ~same.any(), "a chunk's update has ended before the next")
