"""Block scheduler: reads the codes of a block row, skips 0-bit blocks, issues the live ones."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.formats import Operand
from rtl import interfaces
from rtl.core.blocks import SLOTS, block_layout, load_layout
from rtl.lib.arithmetic import log2

__all__ = ["BlockScheduler"]


class BlockScheduler(wiring.Component):
    """Walks over the block rows of a run and asks for the operands of every live block.

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

    # The states share the run's and the row's registers; apart they would only be longer.
    def elaborate(self, platform):  # noqa: PLR0915
        m = Module()
        block_bits = log2(self._config.block)

        # Room in the operand buffers.
        fetched = self.fetch.valid & self.fetch.ready
        room = [Signal(range(SLOTS + 1), init=SLOTS, name=f"room_{o.name}") for o in Operand]
        for operand in Operand:
            taken = fetched & (self.fetch.payload.operand == operand)
            m.d.comb += self.load_valid[operand].eq(taken)
            m.d.sync += room[operand].eq(room[operand] + self.release[operand] - taken)

        # The run, kept as the index of the last token: its low bits size the partial block.
        tokens_shape = interfaces.token_count_shape(self._config)
        last_query = Signal(tokens_shape)
        last_key = Signal(tokens_shape)
        row = Signal(len(last_query) - block_bits)
        partial_queries = (last_query[:block_bits] + 1)[: block_bits + 1]
        partial_keys = (last_key[:block_bits] + 1)[: block_bits + 1]
        last_row = row == last_query[block_bits:]

        # The codes of one beat, those already issued cleared.
        beat = Signal(2 * interfaces.CODES_PER_BEAT)
        beat_index = Signal(len(row))
        beats_left = Signal(len(row) + 1)
        pairs = [beat[2 * i : 2 * i + 2] for i in range(interfaces.CODES_PER_BEAT)]
        live = Signal(interfaces.CODES_PER_BEAT)
        m.d.comb += live.eq(Cat(pair.any() for pair in pairs))
        first_live = Signal(range(interfaces.CODES_PER_BEAT))
        for index in reversed(range(interfaces.CODES_PER_BEAT)):
            with m.If(live[index]):
                m.d.comb += first_live.eq(index)

        pending = Signal()  # a live block waits to be issued
        pending_column = Signal(len(row))
        pending_code = Signal(2)
        first = Signal()  # ... it is the first one of its row
        last = Signal()  # ... it is the last one of its row

        block = self.blocks.payload
        m.d.comb += [
            block.code.eq(pending_code),
            block.first.eq(first),
            block.last.eq(last),
            block.keys.eq(
                Mux(pending_column == last_key[block_bits:], partial_keys, 1 << block_bits)
            ),
            block.queries.eq(Mux(last_row, partial_queries, 1 << block_bits)),
            self.load.tokens.eq(block.keys),
        ]

        starved = self.idle | (self.codes.ready & ~self.codes.valid)
        blocked = Signal()
        m.d.comb += [
            self.activity.starved.eq(starved),
            self.activity.blocked.eq(blocked),
            self.activity.busy.eq(~starved & ~blocked),
        ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.idle.eq(1), self.command.ready.eq(1)]
                m.d.sync += [
                    last_query.eq(self.command.payload.query_tokens - 1),
                    last_key.eq(self.command.payload.key_tokens - 1),
                    row.eq(0),
                ]
                with m.If(self.command.valid):
                    m.next = "FETCH_Q"
            with m.State("FETCH_Q"):
                m.d.comb += [
                    blocked.eq(~fetched),
                    self.fetch.payload.operand.eq(Operand.Q),
                    self.fetch.payload.block.eq(row),
                    self.fetch.valid.eq(room[Operand.Q].any()),
                    self.load.tokens.eq(block.queries),
                ]
                m.d.sync += [
                    beat.eq(0),
                    beat_index.eq(-1),
                    beats_left.eq((last_key >> (block_bits + log2(interfaces.CODES_PER_BEAT))) + 1),
                    first.eq(1),
                ]
                with m.If(fetched):
                    m.next = "SCAN"
            with m.State("SCAN"):
                with m.If(live.any()):
                    with m.If(pending):
                        m.d.sync += last.eq(0)
                        m.next = "FETCH_K"
                    with m.Else():
                        m.d.sync += [
                            pending.eq(1),
                            pending_column.eq(Cat(first_live, beat_index)),
                            pending_code.eq(Array(pairs)[first_live]),
                        ]
                        for index, pair in enumerate(pairs):
                            with m.If(first_live == index):
                                m.d.sync += pair.eq(0)
                with m.Elif(beats_left.any()):
                    m.d.comb += self.codes.ready.eq(1)
                    with m.If(self.codes.valid):
                        m.d.sync += [
                            beat.eq(self.codes.payload),
                            beat_index.eq(beat_index + 1),
                            beats_left.eq(beats_left - 1),
                        ]
                with m.Elif(pending):
                    m.d.sync += last.eq(1)
                    m.next = "FETCH_K"
                with m.Else():
                    m.next = "EMPTY_ROW"
            with m.State("FETCH_K"):
                m.d.comb += [
                    blocked.eq(~fetched),
                    self.fetch.payload.operand.eq(Operand.K),
                    self.fetch.payload.block.eq(pending_column),
                    self.fetch.valid.eq(room[Operand.K].any()),
                    self.blocks.valid.eq(fetched),
                ]
                with m.If(fetched):
                    m.d.sync += first.eq(0)
                    m.next = "FETCH_V"
            with m.State("FETCH_V"):
                m.d.comb += [
                    blocked.eq(~fetched),
                    self.fetch.payload.operand.eq(Operand.V),
                    self.fetch.payload.block.eq(pending_column),
                    self.fetch.valid.eq(room[Operand.V].any()),
                ]
                with m.If(fetched):
                    m.d.sync += pending.eq(0)
                    with m.If(last):
                        m.next = "ROW_END"
                    with m.Else():
                        m.next = "SCAN"
            with m.State("ROW_END"):
                m.d.sync += row.eq(row + 1)
                with m.If(last_row):
                    m.next = "IDLE"
                with m.Else():
                    m.next = "FETCH_Q"
            with m.State("EMPTY_ROW"):
                m.d.comb += self.empty_row.eq(1)
        return m
