"""Block scheduler: reads the codes of a block row, skips 0-bit blocks, issues the live ones."""

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.formats import Kind, Operand
from rtl import interfaces
from rtl.core.blocks import block_layout, layer_row_layout, load_layout
from rtl.lib.arithmetic import first_of, log2
from rtl.lib.contract import Contracts

__all__ = ["BlockScheduler", "Run", "SchedulerSlots", "scheduler_members"]


class Run:
    """Tokens of the run in progress, and its block row.

    Tokens are kept as the index of the last one, whose low bits size the partial block. A layer has
    a row for each output block of each block of tokens. Rows of a superblock are those whose blocks
    of queries follow one another; of a layer those of the same output block.

    Members
    -------
    linear : Signal
        It is a linear layer.
    superblock, place : Signal
        Superblock of the row, and the row's place in it. The user counts places.
    row : Value
        Block of queries.
    output_block : Signal
        Of a layer.
    at_last_queries, at_last_output : Value
        Either of them is the run's last one.
    last_place, present : Value
        Place of the superblock's last row; for each place whether it has a row.
    beats : Value
        Beats of codes of a row.
    column_bits : int
        Width of the index of a block column.
    """

    def __init__(self, config: Config):
        tokens_shape = interfaces.token_count_shape(config)
        self._block = config.block
        self._layer_tokens = config.layer_tokens
        bits = log2(config.block)
        self._last_query = Signal(tokens_shape, name="last_query")
        self._last_key = Signal(tokens_shape, name="last_key")
        self._last_chunk = Signal(range(config.chunks_max), name="last_chunk")
        self._shifts = {
            name: Signal(shape, name=name) for name, shape in interfaces.layer_shifts().items()
        }
        self.linear = Signal()
        place_bits = log2(config.query_rows)
        row_bits = len(self._last_query) - log2(config.layer_tokens)
        self.place = Signal(place_bits)
        self.superblock = Signal(row_bits - place_bits)
        self.row = Cat(self.place, self.superblock)
        self.output_block = Signal(len(self._last_query) - bits)
        self.column_bits = max(len(self.output_block), len(self._last_chunk))
        last_row = self._last_query[bits:]
        if config.layer_tokens < config.block:
            of_layer = self._last_query[log2(config.layer_tokens) :]
            last_row = Mux(self.linear, of_layer, last_row)
        self.at_last_queries = self.row == last_row
        self._at_last_superblock = self.superblock == last_row[place_bits:]
        self.last_place = Mux(
            self._at_last_superblock, last_row[:place_bits], config.query_rows - 1
        )
        self.present = Cat(
            Const(1, 1), (self.last_place >= place for place in range(1, config.query_rows))
        )
        self.at_last_output = self.output_block == self._last_key[bits:]
        beat_bits = log2(interfaces.CODES_PER_BEAT)
        self.beats = (
            Mux(self.linear, self._last_chunk >> beat_bits, self._last_key >> (bits + beat_bits))
            + 1
        )

    def begin(self, m: Module, command: Any) -> None:
        """Begin the run of a command, at its first row."""
        m.d.sync += [
            self._last_query.eq(command.query_tokens - 1),
            self._last_key.eq(command.key_tokens - 1),
            self._last_chunk.eq(command.chunks - 1),
            self.linear.eq(command.kind == Kind.LINEAR),
            *(register.eq(command[name]) for name, register in self._shifts.items()),
            self.superblock.eq(0),
        ]

    def end_superblock(self, m: Module) -> Value:
        """Go on to the next superblock; returns whether there is none."""
        last_output = ~self.linear | self.at_last_output
        m.d.sync += self.superblock.eq(self.superblock + last_output)
        with m.If(self.linear):
            m.d.sync += self.output_block.eq(Mux(last_output, 0, self.output_block + 1))
        return last_output & self._at_last_superblock

    def tell_superblock(self, m: Module, fetch: Any) -> None:
        """Tell with a fetch which superblock it is for, if others need to know."""
        if "superblock" in fetch.shape().members:
            m.d.comb += fetch.superblock.eq(self.superblock[:1])

    def queries(self) -> Value:
        """Return how many queries the block row has."""
        tokens = self._tokens_up_to(self._last_query, self._block)
        full: Any = self._block
        if self._layer_tokens < self._block:
            of_layer = self._tokens_up_to(self._last_query, self._layer_tokens)
            tokens = Mux(self.linear, of_layer, tokens)
            full = Mux(self.linear, self._layer_tokens, full)
        return Mux(self.at_last_queries, tokens, full)

    def key_block(self, column: Value) -> Value:
        """Return the block of keys that belongs to a block column."""
        return Mux(self.linear, self.output_block, column)

    def keys(self, block: Value) -> Value:
        """Return how many keys a block of them has."""
        at_last = block == self._last_key[log2(self._block) :]
        return Mux(at_last, self._tokens_up_to(self._last_key, self._block), self._block)

    def describe_row(self, m: Module, row: Any) -> None:
        """Drive a `layer_row_layout` with the row."""
        m.d.comb += [
            row.tokens.eq(self.queries()),
            *(row[name].eq(register) for name, register in self._shifts.items()),
        ]

    @staticmethod
    def _tokens_up_to(last: Value, block: int) -> Value:
        """Tokens of the block that ``last`` ends."""
        bits = log2(block)
        return (last[:bits] + 1)[: bits + 1]


class SchedulerSlots:
    """Slots of the operand buffers as the scheduler knows them.

    Those of K and V are taken in turn, those of Q as they are free.

    Members
    -------
    room : list of Value
        For each operand, whether a slot is free.
    slots : list of Value
        For each operand, the slot that the next load fills.
    """

    def __init__(self, m: Module, platform: Any, scheduler: Any, config: Config):
        contracts = Contracts(m, platform, scheduler)
        queries_free = Signal(config.row_slots, init=-1, name="free_queries")
        counts = {
            operand: Signal(
                range(config.key_slots + 1), init=config.key_slots, name=f"room_{operand.name}"
            )
            for operand in (Operand.K, Operand.V)
        }
        turns = {
            operand: Signal(range(config.key_slots), name=f"slot_{operand.name}")
            for operand in counts
        }
        fetch, command = scheduler.fetch, scheduler.command
        some = command.payload.query_tokens.any() & command.payload.key_tokens.any()
        contracts.keeps(fetch, "fetch")
        contracts.asks(~command.valid | some, "a command has tokens")
        self.room = [queries_free.any(), *(count.any() for count in counts.values())]
        self.slots = [first_of(m, queries_free, "free_query"), *turns.values()]
        for operand in Operand:
            taken = fetch.valid & fetch.ready & (fetch.payload.operand == operand)
            m.d.comb += scheduler.load_valid[operand].eq(taken)
            with m.If(taken):
                m.d.comb += scheduler.load.slot.eq(self.slots[operand])
            released = scheduler.release[operand]
            contracts.holds(~taken | self.room[operand], "a fetch is for a slot that is free")
            if operand == Operand.Q:
                is_taken = (~queries_free).bit_select(scheduler.released_query_slot, 1)
                contracts.asks(~released | is_taken, "a slot of Q is released while it is taken")
                with m.If(released):
                    m.d.sync += queries_free.bit_select(scheduler.released_query_slot, 1).eq(1)
                with m.If(taken):
                    m.d.sync += queries_free.bit_select(self.slots[Operand.Q], 1).eq(0)
            else:
                taken_some = counts[operand] != config.key_slots
                contracts.asks(
                    ~released | taken_some,
                    f"a slot of {operand.name} is released while one is taken",
                )
                m.d.sync += [
                    counts[operand].eq(counts[operand] + released - taken),
                    turns[operand].eq(turns[operand] + taken),
                ]


def scheduler_members(config: Config) -> dict[str, wiring.Member]:
    """Members of a scheduler, see `BlockScheduler`."""
    return {
        "command": In(interfaces.command_signature(config)),
        "codes": In(interfaces.codes_signature(config)),
        "fetch": Out(interfaces.fetch_signature(config)),
        "blocks": Out(stream.Signature(block_layout(config), always_ready=True)),
        "row_begun": Out(1),
        "layer_rows": Out(stream.Signature(layer_row_layout(config), always_ready=True)),
        "load": Out(load_layout(config)),
        "load_valid": Out(3),
        "release": In(3),
        "released_query_slot": In(range(config.row_slots)),
        "idle": Out(1),
        "empty_row": Out(1),
        "activity": Out(interfaces.Activity),
    }


class _RowCodes:
    """Codes of a block row that are not issued yet: those of one beat, and the beats to come.

    Members
    -------
    live : Signal
        Codes of the beat that are not 0 and not cleared.
    beats_left : Signal
        Beats of the row to come.
    """

    def __init__(self, m: Module, column_bits: int):
        self._beat = Signal(2 * interfaces.CODES_PER_BEAT, name="beat")
        self._beat_index = Signal(column_bits, name="beat_index")
        self.beats_left = Signal(column_bits + 1)
        self._pairs = [self._beat[2 * i : 2 * i + 2] for i in range(interfaces.CODES_PER_BEAT)]
        self.live = Signal(interfaces.CODES_PER_BEAT)
        m.d.comb += self.live.eq(Cat(pair.any() for pair in self._pairs))
        self._first_live = first_of(m, self.live, "first_live")

    def begin_row(self, m: Module, beats: Value) -> None:
        """Begin a row of so many beats: no code is there yet."""
        m.d.sync += [
            self._beat.eq(0),
            self._beat_index.eq(-1),
            self.beats_left.eq(beats),
        ]

    def take_beat(self, m: Module, beat: Value) -> None:
        """Take the next beat of the row."""
        m.d.sync += [
            self._beat.eq(beat),
            self._beat_index.eq(self._beat_index + 1),
            self.beats_left.eq(self.beats_left - 1),
        ]

    def first_column(self) -> Value:
        """Column of the first live code."""
        return Cat(self._first_live, self._beat_index)

    def first_code(self) -> Value:
        """Return the first live code."""
        return Array(self._pairs)[self._first_live]

    def clear_first(self, m: Module) -> None:
        """Clear the first live code."""
        for index, pair in enumerate(self._pairs):
            with m.If(self._first_live == index):
                m.d.sync += pair.eq(0)


class _PendingBlock:
    """A live block that waits to be issued, until it is known whether it is its row's last one."""

    def __init__(self, column_bits: int):
        self.valid = Signal(name="pending")
        self.column = Signal(column_bits, name="pending_column")
        self.keys = Signal(column_bits, name="pending_keys")  # its block of keys
        self.code = Signal(2, name="pending_code")
        self.first = Signal()  # of its row
        self.last = Signal()


class BlockScheduler(wiring.Component):
    """Walks over the block rows of a run and requests the operands of every live block.

    All non-zero codes of a beat are found by a priority encoder, so that a skipped block costs no
    cycle of its own; sixteen of them cost one. A block is issued when the next live one (or the end
    of its row) is known, because the last block of a row is marked.

    Parameters
    ----------
    config : Config
        Block size and longest sequence.

    Members
    -------
    command, codes : In, stream
    fetch : Out, stream
        See `rtl.interfaces`. A fetch is only offered when the core has a free buffer for it.
    blocks : Out, stream of `block_layout`
        Live blocks in order; always accepted. At most ``key_slots`` have a slot of K that
        is not free.
    row_begun : Out, 1
        A block row begins.
    layer_rows : Out, stream of `layer_row_layout`
        Those of layers; always accepted.
    load : Out, `load_layout`
    load_valid : Out, 3
        ``load`` goes to the buffer of operand i (`formats.Operand`) in this cycle.
    release : In, 3
        A slot of operand i has become free.
    released_query_slot : In
        That of Q.
    idle : Out, 1
        No row is being scanned.
    empty_row : Out, 1
        A row without a live block was found; nothing more is issued until reset.
    activity : Out, `rtl.interfaces.Activity`
        Busy: codes are looked at or a fetch is accepted; starved: codes or a command are missing;
        blocked: no operand buffer is free, or a fetch is not accepted.

    Contract
    --------
    Codes past the last key block of a row are 0.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(scheduler_members(config))

    def elaborate(self, platform):
        m = Module()
        fetched = self.fetch.valid & self.fetch.ready
        slots = SchedulerSlots(m, platform, self, self._config)
        query_slot = Signal.like(slots.slots[Operand.Q], name="query_slot")
        with m.If(self.load_valid[Operand.Q]):
            m.d.sync += query_slot.eq(slots.slots[Operand.Q])
        m.d.comb += self.blocks.payload.query_slot.eq(query_slot)

        run = Run(self._config)
        codes = _RowCodes(m, run.column_bits)
        pending = _PendingBlock(run.column_bits)
        self._describe_block(m, run, pending)
        starved = self.idle | (self.codes.ready & ~self.codes.valid)
        blocked = Signal()
        m.d.comb += [
            self.activity.starved.eq(starved),
            self.activity.blocked.eq(blocked),
            self.activity.busy.eq(~starved & ~blocked),
        ]

        def offer_fetch(operand: Operand, block: Value) -> None:
            m.d.comb += [
                blocked.eq(~fetched),
                self.fetch.payload.operand.eq(operand),
                self.fetch.payload.block.eq(block),
                self.fetch.valid.eq(slots.room[operand]),
            ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.idle.eq(1), self.command.ready.eq(1)]
                run.begin(m, self.command.payload)
                with m.If(self.command.valid):
                    self._begin_row(m, self.command.payload.kind == Kind.LINEAR)
            with m.State("FETCH_Q"):
                offer_fetch(Operand.Q, run.row)
                m.d.comb += [self.load.tokens.eq(run.queries()), self.row_begun.eq(fetched)]
                codes.begin_row(m, run.beats)
                m.d.sync += pending.first.eq(1)
                with m.If(fetched):
                    m.next = "SCAN"
            with m.State("BEGIN_LAYER_ROW"):
                m.d.comb += [self.row_begun.eq(1), self.layer_rows.valid.eq(1)]
                codes.begin_row(m, run.beats)
                m.d.sync += pending.first.eq(1)
                m.next = "SCAN"
            with m.State("SCAN"):
                self._scan(m, codes, pending, run.linear)
            self._add_fetches(m, run, pending, offer_fetch)
            with m.State("ROW_END"):
                with m.If(run.end_superblock(m)):
                    m.next = "IDLE"
                with m.Else():
                    self._begin_row(m, run.linear)
            with m.State("EMPTY_ROW"):
                m.d.comb += self.empty_row.eq(1)
        return m

    def _describe_block(self, m: Module, run: Run, pending: _PendingBlock) -> None:
        """Describe the pending block and its row."""
        block = self.blocks.payload
        m.d.comb += [
            pending.keys.eq(run.key_block(pending.column)),
            block.code.eq(pending.code),
            block.first.eq(pending.first),
            block.last.eq(pending.last),
            block.linear.eq(run.linear),
            block.keys.eq(run.keys(pending.keys)),
            block.queries.eq(run.queries()),
            self.load.tokens.eq(block.keys),
            self.fetch.payload.chunk.eq(pending.column),
        ]
        run.tell_superblock(m, self.fetch.payload)
        run.describe_row(m, self.layer_rows.payload)

    def _add_fetches(
        self,
        m: Module,
        run: Run,
        pending: _PendingBlock,
        offer_fetch: Callable[[Operand, Value], None],
    ) -> None:
        """Add the states in which the operands of the pending block are fetched."""
        fetched = self.fetch.valid & self.fetch.ready
        with m.State("FETCH_INPUTS"):
            offer_fetch(Operand.Q, run.row)
            m.d.comb += self.load.tokens.eq(run.queries())
            with m.If(fetched):
                m.next = "FETCH_K"
        with m.State("FETCH_K"):
            offer_fetch(Operand.K, pending.keys)
            m.d.comb += self.blocks.valid.eq(fetched)
            with m.If(fetched):
                m.d.sync += pending.first.eq(0)
                with m.If(~run.linear):
                    m.next = "FETCH_V"
                with m.Else():
                    self._end_block(m, pending)
        with m.State("FETCH_V"):
            offer_fetch(Operand.V, pending.column)
            with m.If(fetched):
                self._end_block(m, pending)

    @staticmethod
    def _begin_row(m: Module, linear: Value) -> None:
        """Go to the state in which a row begins."""
        with m.If(linear):
            m.next = "BEGIN_LAYER_ROW"
        with m.Else():
            m.next = "FETCH_Q"

    @staticmethod
    def _end_block(m: Module, pending: _PendingBlock) -> None:
        """Leave the pending block, all of whose operands are asked for."""
        m.d.sync += pending.valid.eq(0)
        with m.If(pending.last):
            m.next = "ROW_END"
        with m.Else():
            m.next = "SCAN"

    def _scan(self, m: Module, codes: _RowCodes, pending: _PendingBlock, linear: Value) -> None:
        """Look for the next live block; the pending one is fetched once that, or the end, is found.

        Adds the statements of the state SCAN.
        """

        def fetch_pending() -> None:
            with m.If(linear):
                m.next = "FETCH_INPUTS"
            with m.Else():
                m.next = "FETCH_K"

        with m.If(codes.live.any()):
            with m.If(pending.valid):
                m.d.sync += pending.last.eq(0)
                fetch_pending()
            with m.Else():
                m.d.sync += [
                    pending.valid.eq(1),
                    pending.column.eq(codes.first_column()),
                    pending.code.eq(codes.first_code()),
                ]
                codes.clear_first(m)
        with m.Elif(codes.beats_left.any()):
            m.d.comb += self.codes.ready.eq(1)
            with m.If(self.codes.valid):
                codes.take_beat(m, self.codes.payload)
        with m.Elif(pending.valid):
            m.d.sync += pending.last.eq(1)
            fetch_pending()
        with m.Else():
            m.next = "EMPTY_ROW"
