"""Block scheduler: reads the codes of a block row, skips 0-bit blocks, issues the live ones."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.formats import Operand
from rtl import interfaces
from rtl.core.blocks import SLOTS, block_layout, load_layout
from rtl.lib.arithmetic import log2

__all__ = ["BlockScheduler"]


class _Run:
    """Tokens of the run in progress, and its block row.

    Tokens are kept as the index of the last one, whose low bits size the partial block.

    Members
    -------
    row : Signal
        Block row.
    at_last_row : Value
        It is the last one of the run.
    beats : Value
        Beats of codes of a row.
    """

    def __init__(self, config: Config):
        tokens_shape = interfaces.token_count_shape(config)
        self._block = config.block
        self._block_bits = bits = log2(config.block)
        self._last_query = Signal(tokens_shape, name="last_query")
        self._last_key = Signal(tokens_shape, name="last_key")
        self.row = Signal(len(self._last_query) - bits)
        self.at_last_row = self.row == self._last_query[bits:]
        self.beats = (self._last_key >> (bits + log2(interfaces.CODES_PER_BEAT))) + 1

    def begin(self, m: Module, command: Any) -> None:
        """Begin the run of a command, at its first row."""
        m.d.sync += [
            self._last_query.eq(command.query_tokens - 1),
            self._last_key.eq(command.key_tokens - 1),
            self.row.eq(0),
        ]

    def queries(self) -> Value:
        """Return how many queries the block row has."""
        return Mux(self.at_last_row, self._tokens_up_to(self._last_query), self._block)

    def keys(self, column: Value) -> Value:
        """Return how many keys a block column has."""
        at_last_column = column == self._last_key[self._block_bits :]
        return Mux(at_last_column, self._tokens_up_to(self._last_key), self._block)

    def _tokens_up_to(self, last: Value) -> Value:
        """Tokens of the block that ``last`` ends."""
        bits = self._block_bits
        return (last[:bits] + 1)[: bits + 1]


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
        self._first_live = Signal(range(interfaces.CODES_PER_BEAT), name="first_live")
        for index in reversed(range(interfaces.CODES_PER_BEAT)):
            with m.If(self.live[index]):
                m.d.comb += self._first_live.eq(index)

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
        Live blocks in order; always accepted. At most ``SLOTS`` have a slot of K that is not free.
    load : Out, `load_layout`
    load_valid : Out, 3
        ``load`` goes to the buffer of operand i (`formats.Operand`) in this cycle.
    release : In, 3
        The buffer of operand i has become free.
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
        super().__init__(
            {
                "command": In(interfaces.command_signature(config)),
                "codes": In(interfaces.codes_signature(config)),
                "fetch": Out(interfaces.fetch_signature(config)),
                "blocks": Out(stream.Signature(block_layout(config), always_ready=True)),
                "load": Out(load_layout(config)),
                "load_valid": Out(3),
                "release": In(3),
                "idle": Out(1),
                "empty_row": Out(1),
                "activity": Out(interfaces.Activity),
            }
        )

    def elaborate(self, platform):
        m = Module()
        fetched = self.fetch.valid & self.fetch.ready
        room = self._room(m, fetched)

        run = _Run(self._config)
        codes = _RowCodes(m, len(run.row))
        pending = _PendingBlock(len(run.row))
        block = self.blocks.payload
        m.d.comb += [
            block.code.eq(pending.code),
            block.first.eq(pending.first),
            block.last.eq(pending.last),
            block.keys.eq(run.keys(pending.column)),
            block.queries.eq(run.queries()),
            self.load.tokens.eq(block.keys),
        ]

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
                self.fetch.valid.eq(room[operand].any()),
            ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.idle.eq(1), self.command.ready.eq(1)]
                run.begin(m, self.command.payload)
                with m.If(self.command.valid):
                    m.next = "FETCH_Q"
            with m.State("FETCH_Q"):
                offer_fetch(Operand.Q, run.row)
                m.d.comb += self.load.tokens.eq(block.queries)
                codes.begin_row(m, run.beats)
                m.d.sync += pending.first.eq(1)
                with m.If(fetched):
                    m.next = "SCAN"
            with m.State("SCAN"):
                self._scan(m, codes, pending)
            with m.State("FETCH_K"):
                offer_fetch(Operand.K, pending.column)
                m.d.comb += self.blocks.valid.eq(fetched)
                with m.If(fetched):
                    m.d.sync += pending.first.eq(0)
                    m.next = "FETCH_V"
            with m.State("FETCH_V"):
                offer_fetch(Operand.V, pending.column)
                with m.If(fetched):
                    m.d.sync += pending.valid.eq(0)
                    with m.If(pending.last):
                        m.next = "ROW_END"
                    with m.Else():
                        m.next = "SCAN"
            with m.State("ROW_END"):
                m.d.sync += run.row.eq(run.row + 1)
                with m.If(run.at_last_row):
                    m.next = "IDLE"
                with m.Else():
                    m.next = "FETCH_Q"
            with m.State("EMPTY_ROW"):
                m.d.comb += self.empty_row.eq(1)
        return m

    def _room(self, m: Module, fetched: Value) -> list[Signal]:
        """Count the free slots of each operand's buffer."""
        room = [Signal(range(SLOTS + 1), init=SLOTS, name=f"room_{o.name}") for o in Operand]
        for operand in Operand:
            taken = fetched & (self.fetch.payload.operand == operand)
            m.d.comb += self.load_valid[operand].eq(taken)
            m.d.sync += room[operand].eq(room[operand] + self.release[operand] - taken)
        return room

    def _scan(self, m: Module, codes: _RowCodes, pending: _PendingBlock) -> None:
        """Look for the next live block; the pending one is fetched once that, or the end, is found.

        Adds the statements of the state SCAN.
        """
        with m.If(codes.live.any()):
            with m.If(pending.valid):
                m.d.sync += pending.last.eq(0)
                m.next = "FETCH_K"
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
            m.next = "FETCH_K"
        with m.Else():
            m.next = "EMPTY_ROW"
