"""Superblock scheduler: issues the live blocks of several block rows, one load of K and V each."""

from collections.abc import Callable

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out

from paro.config import Config
from paro.config.formats import Operand
from rtl import interfaces
from rtl.core.scheduler import Run, SchedulerSlots, scheduler_members
from rtl.lib.arithmetic import first_of

__all__ = ["SuperblockScheduler"]

_CODES = interfaces.CODES_PER_BEAT


class _Codes:
    """Codes of sixteen block columns of a superblock's rows, and those of the column in progress.

    Members
    -------
    groups_left : Signal
        Groups of sixteen columns to come.
    row : Signal
        Row whose codes come next.
    live : Value
        Columns of the group with a code that is not 0.
    column : Signal
        Column in progress.
    column_live : Signal
        Rows with a live block in the column in progress that is not issued yet.
    """

    def __init__(self, m: Module, run: Run, rows: int):
        self._more = Signal(rows, name="more")
        self._codes = [Signal(2 * _CODES, name=f"codes_{row}") for row in range(rows)]
        self._column_codes = Array(Signal(2, name=f"column_code_{row}") for row in range(rows))
        self._group = Signal(run.column_bits, name="group")
        self.groups_left = Signal(run.column_bits + 1)
        self.live = Signal(_CODES)
        self.column = Signal(run.column_bits)
        self.column_live = Signal(rows)
        self._first_column = first_of(m, self.live, "first_column")
        self.first_row = first_of(m, self.column_live, "first_row")
        m.d.comb += [
            self.live.eq(
                Cat(
                    Cat(codes[2 * i : 2 * i + 2] for codes in self._codes).any()
                    for i in range(_CODES)
                )
            ),
            self.column_live.eq(Cat(code.any() for code in self._column_codes)),
        ]

    def begin(self, m: Module, groups: Value) -> None:
        """Begin a superblock of so many groups of columns."""
        m.d.sync += [self.groups_left.eq(groups), self._group.eq(-1)]

    def take_more(self, m: Module, beat: Value) -> None:
        """Begin the next group: take which rows have live blocks in groups after it."""
        m.d.sync += [
            self._more.eq(beat),
            self._group.eq(self._group + 1),
            self.groups_left.eq(self.groups_left - 1),
            *(codes.eq(0) for codes in self._codes),
        ]

    def take_row(self, m: Module, beat: Value, run: Run) -> None:
        """Take the codes of the row ``run.place``; of a layer, those of all rows."""
        for row, codes in enumerate(self._codes):
            with m.If(Mux(run.linear, run.present[row], row == run.place)):
                m.d.sync += codes.eq(beat)

    def pick_column(self, m: Module) -> None:
        """Choose the first live column."""
        m.d.sync += self.column.eq(Cat(self._first_column, self._group))

    def take_column(self, m: Module) -> None:
        """Take the codes of the column in progress out of the group."""
        for index in range(_CODES):
            with m.If(self.column[: len(self._first_column)] == index):
                for codes, code in zip(self._codes, self._column_codes, strict=True):
                    pair = codes[2 * index : 2 * index + 2]
                    m.d.sync += [code.eq(pair), pair.eq(0)]

    def first_code(self) -> Value:
        """Return the code of the column's first live row."""
        return self._column_codes[self.first_row]

    def is_last(self) -> Value:
        """Whether the column's block of the first live row is the row's last live one."""
        return ~(Array(codes.any() for codes in self._codes)[self.first_row]) & ~(
            self._more.bit_select(self.first_row, 1)
        )

    def clear_first(self, m: Module) -> None:
        """Take the block of the column's first live row as issued."""
        m.d.sync += self._column_codes[self.first_row].eq(0)


class _Block:
    """The block that is issued next, and what was done for the rows of its superblock."""

    def __init__(self, rows: int, query_slot: Value):
        self.code = Signal(2, name="block_code")
        self.first = Signal(name="block_first")
        self.last = Signal(name="block_last")
        self.keeps = Signal(name="block_keeps")
        self.loads = Signal(name="block_loads")  # K, and V, are asked for with it
        self.begun, self.ended = Signal(rows, name="begun"), Signal(rows, name="ended")
        self.query_slots = Array(
            Signal.like(query_slot, name=f"queries_of_{row}") for row in range(rows)
        )


class SuperblockScheduler(wiring.Component):
    """As `BlockScheduler`, for ``query_rows`` > 1 block rows that share one load of K and V.

    It goes through the block columns in which any row of the superblock has a live block; in each
    it issues the live blocks of all rows, lowest row first. Queries are asked for with the first
    block of their row, K with the first block of a column, and V after it, so that the array can
    begin.

    A row's last block is not known from the codes at hand: with each sixteen columns comes which
    rows have more live blocks after them (`rtl.interfaces.codes_signature`).

    Parameters
    ----------
    config : Config
        Block size, longest sequence, rows of a superblock.

    Members
    -------
    ended_rows : Out, stream of a row of its superblock
        The last block of this row is issued: rows leave the core in this order; always accepted.
    empty_row : Out, 1
        A row had no live block, or more or fewer than was said; nothing more is issued until reset.
    others
        See `BlockScheduler`.

    Latency
    -------
    A group of sixteen columns takes a cycle and one for each row's codes, a column 2, a block 2 and
    one for each fetch but that of K.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                **scheduler_members(config),
                "ended_rows": Out(stream.Signature(range(config.query_rows), always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        run = Run(self._config)
        codes = _Codes(m, run, self._config.query_rows)
        slots = SchedulerSlots(m, platform, self, self._config)
        block = _Block(self._config.query_rows, slots.slots[Operand.Q])
        self._describe_block(m, run, codes, block)
        fetched = self.fetch.valid & self.fetch.ready
        blocked = Signal()
        starved = self.idle | (self.codes.ready & ~self.codes.valid)
        m.d.comb += [
            self.activity.starved.eq(starved),
            self.activity.blocked.eq(blocked),
            self.activity.busy.eq(~starved & ~blocked),
        ]

        def offer_fetch(operand: Operand, of_block: Value) -> None:
            m.d.comb += [
                blocked.eq(~fetched),
                self.fetch.payload.operand.eq(operand),
                self.fetch.payload.block.eq(of_block),
                self.fetch.valid.eq(slots.room[operand]),
            ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.idle.eq(1), self.command.ready.eq(1)]
                run.begin(m, self.command.payload)
                with m.If(self.command.valid):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                codes.begin(m, run.beats)
                m.d.sync += [block.begun.eq(0), block.ended.eq(0)]
                m.next = "TAKE_MORE"
            self._add_codes(m, run, codes, block)
            with m.State("CHOOSE"):
                self._choose(m, run, codes, block)
            with m.State("FETCH_Q"):
                offer_fetch(Operand.Q, run.row)
                m.d.comb += self.load.tokens.eq(run.queries())
                with m.If(fetched):
                    m.d.sync += block.query_slots[run.place].eq(slots.slots[Operand.Q])
                    self._go_to_block(m, block)
            self._add_blocks(m, run, codes, block, offer_fetch)
            with m.State("END"):
                is_last = run.end_superblock(m)
                with m.If(block.ended != run.present):
                    m.next = "EMPTY_ROW"
                with m.Elif(is_last):
                    m.next = "IDLE"
                with m.Else():
                    m.next = "BEGIN"
            with m.State("EMPTY_ROW"):
                m.d.comb += self.empty_row.eq(1)
        return m

    def _add_codes(self, m: Module, run: Run, codes: _Codes, block: _Block) -> None:
        """Add the states that take codes and look for the next live column."""
        with m.State("TAKE_MORE"):
            m.d.comb += self.codes.ready.eq(1)
            m.d.sync += run.place.eq(0)
            with m.If(self.codes.valid):
                codes.take_more(m, self.codes.payload.as_value())
                m.next = "TAKE_ROWS"
        with m.State("TAKE_ROWS"):
            m.d.comb += self.codes.ready.eq(1)
            with m.If(self.codes.valid):
                codes.take_row(m, self.codes.payload.as_value(), run)
                m.d.sync += run.place.eq(run.place + 1)
                with m.If(run.linear | (run.place == run.last_place)):
                    m.next = "SCAN"
        with m.State("SCAN"):
            codes.pick_column(m)
            with m.If(codes.live.any()):
                m.next = "TAKE_COLUMN"
            with m.Elif(codes.groups_left.any()):
                m.next = "TAKE_MORE"
            with m.Else():
                m.next = "END"
        with m.State("TAKE_COLUMN"):
            codes.take_column(m)
            m.d.sync += block.loads.eq(1)
            m.next = "CHOOSE"

    @staticmethod
    def _choose(m: Module, run: Run, codes: _Codes, block: _Block) -> None:
        """Choose the column's first live row that has not had its turn."""
        row = codes.first_row
        first = ~block.begun.bit_select(row, 1)
        m.d.sync += [
            run.place.eq(row),
            block.code.eq(codes.first_code()),
            block.first.eq(first),
            block.last.eq(codes.is_last()),
            block.keeps.eq((codes.column_live & (codes.column_live - 1)).any()),
            block.begun.bit_select(row, 1).eq(1),
        ]
        codes.clear_first(m)
        with m.If(block.ended.bit_select(row, 1)):
            m.next = "EMPTY_ROW"
        with m.Elif(first | run.linear):
            m.next = "FETCH_Q"
        with m.Else():
            SuperblockScheduler._go_to_block(m, block)

    @staticmethod
    def _go_to_block(m: Module, block: _Block) -> None:
        """Go on to the block, whose queries are asked for."""
        with m.If(block.loads):
            m.next = "FETCH_K"
        with m.Else():
            m.next = "ISSUE"

    def _add_blocks(
        self,
        m: Module,
        run: Run,
        codes: _Codes,
        block: _Block,
        offer_fetch: Callable[[Operand, Value], None],
    ) -> None:
        """Add the states that issue a block, with K and V if it is its column's first one."""
        fetched = self.fetch.valid & self.fetch.ready

        def issue() -> None:
            m.d.comb += [self.blocks.valid.eq(1), self.ended_rows.valid.eq(block.last)]
            m.d.sync += block.ended.bit_select(run.place, 1).eq(block.last)

        def go_on() -> None:
            with m.If(codes.column_live.any()):
                m.next = "CHOOSE"
            with m.Else():
                m.next = "SCAN"

        with m.State("FETCH_K"):
            offer_fetch(Operand.K, run.key_block(codes.column))
            with m.If(fetched):
                issue()
                m.d.sync += block.loads.eq(0)
                with m.If(run.linear):
                    go_on()
                with m.Else():
                    m.next = "FETCH_V"
        with m.State("FETCH_V"):
            offer_fetch(Operand.V, codes.column)
            with m.If(fetched):
                go_on()
        with m.State("ISSUE"):
            issue()
            go_on()

    def _describe_block(self, m: Module, run: Run, codes: _Codes, block: _Block) -> None:
        """Describe the block and its row."""
        payload = self.blocks.payload
        fetches_queries = self.load_valid[Operand.Q]
        m.d.comb += [
            self.row_begun.eq(fetches_queries & block.first),
            self.layer_rows.valid.eq(self.row_begun & run.linear),
            payload.code.eq(block.code),
            payload.first.eq(block.first),
            payload.last.eq(block.last),
            payload.linear.eq(run.linear),
            payload.keys.eq(run.keys(run.key_block(codes.column))),
            payload.queries.eq(run.queries()),
            payload.row.eq(run.place),
            payload.query_slot.eq(block.query_slots[run.place]),
            payload.keeps.eq(block.keeps),
            self.load.tokens.eq(payload.keys),
            self.fetch.payload.chunk.eq(codes.column),
            self.ended_rows.payload.eq(run.place),
        ]
        run.tell_superblock(m, self.fetch.payload)
        run.describe_row(m, self.layer_rows.payload)
