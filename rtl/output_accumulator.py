"""Output accumulator: joins each block's P x V to the sums of its rows."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from paro_config import Config
from paro_config.config import bits_unsigned
from rtl.blocks import finished_row_layout, log2
from rtl.drain import drained_layout
from rtl.library import replicate
from rtl.row_state import RowState, rescale_layout, round_shift_by
from rtl.scheduler import SLOTS

__all__ = ["OutputAccumulator"]


class OutputLane(wiring.Component):
    """One numerator: the smaller of old and new is shifted, then they are added.

    Members
    -------
    rescale : In, `rescale_layout`
    first : In, 1
        There is no old value.
    old, partial : In
    total : Out

    Latency
    -------
    `LATENCY` cycles.
    """

    LATENCY = 4

    def __init__(self, config: Config):
        self._bits = config.numerator_bits
        super().__init__(
            {
                "rescale": In(rescale_layout(config)),
                "first": In(1),
                "old": In(signed(self._bits)),
                "partial": In(signed(config.accumulator_bits)),
                "total": Out(signed(self._bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        old = Mux(self.first, 0, self.old)
        small, large = Signal(signed(self._bits)), Signal(signed(self._bits))
        shift = Signal(len(self.rescale.shift))
        m.d.sync += [
            small.eq(Mux(self.rescale.shift_old, old, self.partial)),
            large.eq(Mux(self.rescale.shift_old, self.partial, old)),
            shift.eq(self.rescale.shift),
        ]
        shifted, rounds_up = round_shift_by(m, small, shift)
        scaled, carry = Signal(signed(self._bits)), Signal()
        large_2, large_3 = (Signal(signed(self._bits), name=f"large_{i}") for i in (2, 3))
        m.d.sync += [
            large_2.eq(large),
            large_3.eq(large_2),
            scaled.eq(shifted),
            carry.eq(rounds_up),
            self.total.eq(large_3 + scaled + Cat(carry, Const(0, 1)).as_signed()),
        ]
        return m


class OutputAccumulator(wiring.Component):
    """Numerators and denominators of two block rows: one is accumulated, one is normalised.

    Members
    -------
    input, input_valid : In
        Partial outputs from the drain router.
    rescale_slot, rescale_query : Out
    rescale : In, `rescale_layout`
        Read port of the row state (`RowState.READ_LATENCY`).
    rows : Out, stream of `finished_row_layout`
        Rows whose sums are complete; there is room for all slots.
    read_slot, read_query, read_part : In
        Numerators to be read, ``drain_words`` channels at a time.
    read_enable : In, 1
        When 0, ``numerators`` keep their value.
    numerators : Out
        One cycle later.
    denominator_slot, denominator_query : In
    denominator : Out
        One cycle later.

    Contract
    --------
    The slot being read is not the slot of ``input``.
    """

    def __init__(self, config: Config):
        self._config = config
        self._parts = config.head_dim // config.drain_words
        super().__init__(
            {
                "input": In(drained_layout(config)),
                "input_valid": In(1),
                "rescale_slot": Out(1),
                "rescale_query": Out(range(config.block)),
                "rescale": In(rescale_layout(config)),
                "rows": Out(stream.Signature(finished_row_layout(config))),
                "read_slot": In(1),
                "read_query": In(range(config.block)),
                "read_part": In(range(self._parts)),
                "read_enable": In(1),
                "numerators": Out(
                    data.ArrayLayout(signed(config.numerator_bits), config.drain_words)
                ),
                "denominator_slot": In(1),
                "denominator_query": In(range(config.block)),
                "denominator": Out(unsigned(config.denominator_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        tile = self.input.tile
        query = Cat(self.input.row, tile.row_group)
        part = Cat(self.input.part, tile.col_group[: log2(config.head_dim // config.cols)])
        beside = data.StructLayout(
            {
                "valid": 1,
                "query": range(config.block),
                "part": range(self._parts),
                "slot": 1,
                "first": 1,
                "last": 1,
                "row_done": 1,
                "queries": unsigned(bits_unsigned(config.block)),
            }
        )
        place = [Signal(beside, name="place_0")]
        m.d.comb += [
            self.rescale_slot.eq(tile.slot),
            self.rescale_query.eq(query),
            place[0].valid.eq(self.input_valid),
            place[0].query.eq(query),
            place[0].part.eq(part),
            place[0].slot.eq(tile.output_slot),
            place[0].first.eq(tile.block.first),
            place[0].last.eq(tile.block.last),
            place[0].row_done.eq(self.input_valid & self.input.last & tile.last & tile.block.last),
            place[0].queries.eq(tile.block.queries),
        ]
        for stage in range(RowState.READ_LATENCY + OutputLane.LATENCY):
            place.append(Signal(beside, name=f"place_{stage + 1}"))
            m.d.sync += place[-1].eq(place[-2])
        arriving, leaving = place[RowState.READ_LATENCY], place[-1]
        words = [self.input.words]
        for stage in range(RowState.READ_LATENCY):
            words.append(Signal(self.input.words.shape(), name=f"words_{stage + 1}"))
            m.d.sync += words[-1].eq(words[-2])

        # A memory a slot: each is either accumulated or normalised, so one read port is enough.
        totals = Signal(self.numerators.shape())
        read_slot = Signal()
        with m.If(self.read_enable):
            m.d.sync += read_slot.eq(self.read_slot)
        memories = []
        for slot in range(SLOTS):
            memory = Memory(
                shape=self.numerators.shape(), depth=config.block * self._parts, init=[]
            )
            m.submodules[f"numerators_{slot}"] = memory
            read, write = memory.read_port(), memory.write_port()
            accumulating = place[0].valid & (place[0].slot == slot)
            m.d.comb += [
                read.addr.eq(
                    Mux(
                        accumulating,
                        Cat(place[0].part, place[0].query),
                        Cat(self.read_part, self.read_query),
                    )
                ),
                read.en.eq(accumulating | self.read_enable),
                write.addr.eq(Cat(leaving.part, leaving.query)),
                write.data.eq(totals),
                write.en.eq(leaving.valid & (leaving.slot == slot)),
            ]
            memories.append(read)
        m.d.comb += self.numerators.eq(Mux(read_slot, memories[1].data, memories[0].data))
        # The old sums, as late as the rescales: a register behind each memory, one for the slot's.
        fetched = [Signal(self.numerators.shape(), name=f"fetched_{slot}") for slot in range(SLOTS)]
        old = Signal(self.numerators.shape())
        m.d.sync += [
            *(new.eq(memory.data) for new, memory in zip(fetched, memories, strict=True)),
            old.eq(Mux(place[RowState.READ_LATENCY - 1].slot, fetched[1], fetched[0])),
        ]
        for index, lane in enumerate(
            replicate(
                m, platform, "paro_output_lane", lambda: OutputLane(config), config.drain_words
            )
        ):
            m.d.comb += [
                lane.rescale.eq(self.rescale),
                lane.first.eq(arriving.first),
                lane.old.eq(old[index]),
                lane.partial.eq(words[-1][index]),
                totals[index].eq(lane.total),
            ]

        m.submodules.denominators = denominators = Memory(
            shape=self.denominator.shape(), depth=SLOTS * config.block, init=[]
        )
        read, write = denominators.read_port(), denominators.write_port()
        m.d.comb += [
            write.addr.eq(Cat(arriving.query, arriving.slot)),
            write.data.eq(self.rescale.denominator),
            write.en.eq(arriving.valid & arriving.last),
            read.addr.eq(Cat(self.denominator_query, self.denominator_slot)),
            self.denominator.eq(read.data),
        ]
        row_layout = finished_row_layout(config)
        m.submodules.rows = rows = fifo.SyncFIFOBuffered(width=row_layout.size, depth=SLOTS)
        m.d.comb += [
            rows.w_data.eq(Cat(leaving.queries, leaving.slot)),
            rows.w_en.eq(leaving.row_done),
            self.rows.payload.eq(rows.r_data),
            self.rows.valid.eq(rows.r_rdy),
            rows.r_en.eq(self.rows.ready),
        ]
        return m
