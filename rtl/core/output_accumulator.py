"""Output accumulator: joins each block's P x V, or products of a layer, to sums of its rows."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from rtl.core.drain import drained_layout
from rtl.core.row_state import RowState, rescale_layout
from rtl.lib.arithmetic import log2, round_shift_by
from rtl.lib.contract import Contracts
from rtl.lib.deep_memory import DeepMemory
from rtl.lib.delay import delay_line, delayed
from rtl.lib.library import replicate

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

    DATA_ONLY = True

    LATENCY = 4

    def __init__(self, config: Config):
        self._bits = config.numerator_bits
        super().__init__(
            {
                "rescale": In(rescale_layout()),
                "first": In(1),
                "old": In(signed(self._bits)),
                "partial": In(signed(config.accumulator_bits)),
                "total": Out(signed(self._bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        old = Mux(self.first, 0, self.old)
        small = Signal(signed(self._bits))
        large = Signal(signed(self._bits))
        shift = Signal(len(self.rescale.shift))
        m.d.sync += [
            small.eq(Mux(self.rescale.shift_old, old, self.partial)),
            large.eq(Mux(self.rescale.shift_old, self.partial, old)),
            shift.eq(self.rescale.shift),
        ]
        shifted, rounds_up = round_shift_by(m, small, shift)
        scaled = Signal(signed(self._bits))
        carry = Signal()
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
    """Numerators of block rows: those of a superblock are accumulated, one of them is normalised.

    A row of a linear layer has output channels in place of queries, and tokens in place of
    channels. Its sums are joined as they are.

    Members
    -------
    input, input_valid : In
        Partial outputs, or sums of a layer, from the drain router.
    rescale_slot, rescale_query : Out
    rescale : In, `rescale_layout`
        Read port of the row state (`RowState.READ_LATENCY`).
    groups_complete : Out, 1
        A last block's PV has completed a group of R queries of which at least one is valid.
    layer_tiles_complete : Out, 1
        A layer's last block has completed a tile of R outputs and C tokens, at least one valid.
    read_slot, read_query, read_part : In
        Numerators to be read, ``drain_words`` channels at a time.
    read_ready : Out, 1
        They can be read in this cycle.
    numerators : Out
        `READ_LATENCY` cycles later.
    """

    READ_LATENCY = RowState.READ_LATENCY
    #: Cycles from ``input`` to its sums, and to ``groups_complete``.
    LATENCY = RowState.READ_LATENCY + OutputLane.LATENCY

    def __init__(self, config: Config):
        self._config = config
        self._parts = config.head_dim // config.drain_words
        super().__init__(
            {
                "input": In(drained_layout(config)),
                "input_valid": In(1),
                "rescale_slot": Out(1),
                "rescale_query": Out(range(config.block)),
                "rescale": In(rescale_layout()),
                "groups_complete": Out(1),
                "layer_tiles_complete": Out(1),
                "read_slot": In(range(config.row_slots)),
                "read_query": In(range(config.block)),
                "read_part": In(range(self._parts)),
                "read_ready": Out(1),
                "numerators": Out(
                    data.ArrayLayout(signed(config.numerator_bits), config.drain_words)
                ),
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
                "slot": range(config.row_slots),
                "first": 1,
                "linear": 1,
                "group_complete": 1,
                "layer_tile_complete": 1,
            }
        )
        place = Signal(beside, name="place_0")
        linear = tile.block.linear
        last_channels = tile.col_group == config.head_dim // config.cols - 1
        has_queries = (tile.row_group << log2(config.rows)) < tile.block.queries
        has_tokens = (tile.col_group << log2(config.cols)) < tile.block.queries
        tile_ends_row = self.input_valid & self.input.last & tile.block.last
        m.d.comb += [
            self.rescale_slot.eq(tile.slot),
            self.rescale_query.eq(query),
            place.valid.eq(self.input_valid),
            place.query.eq(query),
            place.part.eq(part),
            place.slot.eq(tile.output_slot),
            place.first.eq(tile.block.first),
            place.linear.eq(linear),
            place.group_complete.eq(tile_ends_row & ~linear & last_channels & has_queries),
            place.layer_tile_complete.eq(tile_ends_row & linear & has_tokens),
        ]
        places = delay_line(m, place, RowState.READ_LATENCY + OutputLane.LATENCY, "place")
        arriving, leaving = places[RowState.READ_LATENCY], places[-1]
        own = Cat(place.query, place.part, place.slot)
        joined = Cat(
            other.valid & (own == Cat(other.query, other.part, other.slot)) for other in places[1:]
        )
        Contracts(m, platform, self).asks(
            ~place.valid | ~joined.any(), "numerators are joined once their last sum is written"
        )
        # In 2-bit blocks K comes out of the array four times too large (rtl/core/digits.py).
        times_four = linear & (tile.block.code == 1)
        partials = Signal.like(self.input.words)
        for partial, word in zip(partials, self.input.words, strict=True):
            m.d.comb += partial.eq(Mux(times_four, word >> 2, word))
        words = delayed(m, partials, RowState.READ_LATENCY, "words")

        # Two memories, like the squares of a chessboard, of one read port each: PV goes first, but
        # visits them in turn, so that the normaliser finds one free in every other cycle.
        def place_of(query: Signal, part: Signal, slot: Signal) -> tuple[Value, Value]:
            """Memory and address of some numerators."""
            index = Cat(part, query, slot)
            return index[0] ^ (query[0] if len(part) else Const(0)), index[1:]

        totals = Signal(self.numerators.shape())
        old_place = place_of(place.query, place.part, place.slot)
        new_place = place_of(leaving.query, leaving.part, leaving.slot)
        read_place = place_of(self.read_query, self.read_part, self.read_slot)
        m.d.comb += [
            self.read_ready.eq(~(place.valid & (old_place[0] == read_place[0]))),
            self.groups_complete.eq(leaving.group_complete),
            self.layer_tiles_complete.eq(leaving.layer_tile_complete),
        ]
        memories = []
        for number in range(2):
            memory = DeepMemory(
                self.numerators.shape(), depth=config.row_slots * config.block * self._parts // 2
            )
            m.submodules[f"numerators_{number}"] = memory
            accumulating = place.valid & (old_place[0] == number)
            m.d.comb += [
                memory.read_address.eq(Mux(accumulating, old_place[1], read_place[1])),
                memory.write_address.eq(new_place[1]),
                memory.write_data.eq(totals),
                memory.write_enable.eq(leaving.valid & (new_place[0] == number)),
            ]
            memories.append(memory.read_data)
        # A register after the choice: as late as the rescales.
        old = Signal(self.numerators.shape())
        old_memory = delayed(m, old_place[0], DeepMemory.READ_LATENCY, "old_memory")
        read_memory = delayed(m, read_place[0], DeepMemory.READ_LATENCY, "read_memory")
        m.d.sync += [
            old.eq(Mux(old_memory, memories[1], memories[0])),
            self.numerators.eq(Mux(read_memory, memories[1], memories[0])),
        ]
        for index, lane in enumerate(
            replicate(m, platform, "output_lane", lambda: OutputLane(config), config.drain_words)
        ):
            m.d.comb += [
                lane.rescale.shift.eq(Mux(arriving.linear, 0, self.rescale.shift)),
                lane.rescale.shift_old.eq(self.rescale.shift_old),
                lane.first.eq(arriving.first),
                lane.old.eq(old[index]),
                lane.partial.eq(words[index]),
                totals[index].eq(lane.total),
            ]
        return m
