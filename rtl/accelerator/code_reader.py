"""Code reader: a head's block codes from memory to the scheduler, ahead of it."""

from amaranth.hdl import Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from paro.config import Config
from paro.config.config import bits_unsigned
from paro.config.registers import MEMORY_ADDRESS_BITS
from rtl import interfaces
from rtl.bus.axi import Destination, run_layout
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["CodeReader", "code_rows", "codes_request_layout"]

#: Units that one run reads, and that wait here at most.
RUN_UNITS, WAITING_UNITS = 8, 16


def codes_request_layout(config: Config) -> data.StructLayout:
    """``rows`` rows of words (`code_rows`), each for ``key_blocks`` blocks, from ``address`` on.

    All of them are read ``passes`` times, 1 or more.
    """
    with_more = 1 if config.query_rows == 1 else 2  # at most one row of words more for each
    return data.StructLayout(
        {
            "address": unsigned(MEMORY_ADDRESS_BITS),
            "rows": unsigned(bits_unsigned(with_more * config.blocks_max)),
            "key_blocks": unsigned(bits_unsigned(max(config.blocks_max, config.chunks_max))),
            "passes": unsigned(interfaces.block_index_bits(config) + 1),
        }
    )


def code_rows(config: Config, last_row: Value, linear: Value) -> Value:
    """Rows of code words that a head or layer has, whose last block row is ``last_row``.

    With superblocks each of them has one more, which tells which block rows go on; each output
    block of a layer is a superblock of its own. See `rtl.interfaces.codes_signature`.
    """
    if config.query_rows == 1:
        return last_row + 1
    last_superblock = Mux(linear, last_row, last_row >> log2(config.query_rows))
    return last_row + last_superblock + 2


class CodeReader(wiring.Component):
    """Reads codes as far ahead as there is room for, and hands them on word by word.

    Parameters
    ----------
    config : Config
        Size of units, of heads and of superblocks.
    core : int
        Whose codes they are.

    Members
    -------
    request : In, stream of `codes_request_layout`
        Accepted when ``idle``.
    runs : Out, stream of `run_layout`
        Of no more units than there is room for.
    units : In, stream of ``load_bytes``
        Always ready. The rest of a unit after the last code is ignored.
    codes : Out, stream
        See `rtl.interfaces`.
    idle : Out, 1
        All codes have been handed on.

    Latency
    -------
    `REQUEST_LATENCY` cycles from a request to its first run.
    """

    REQUEST_LATENCY = 2

    def __init__(self, config: Config, core: int = 0):
        self._config, self._core = config, core
        super().__init__(
            {
                "request": In(stream.Signature(codes_request_layout(config))),
                "runs": Out(stream.Signature(run_layout(config))),
                "units": In(stream.Signature(unsigned(8 * config.load_bytes))),
                "codes": Out(interfaces.codes_signature(config)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, request = self._config, self.request.payload
        words_per_unit = config.load_tokens
        m.submodules.queue = queue = StreamFIFO(
            unsigned(8 * config.load_bytes), depth=WAITING_UNITS
        )
        connect(m, wiring.flipped(self.units), queue.input)

        row_words = (request.key_blocks + interfaces.CODES_PER_BEAT - 1) >> log2(
            interfaces.CODES_PER_BEAT
        )
        product = Signal(len(request.rows) + len(request.key_blocks))
        units = Signal.like(product)
        words_left = Signal.like(product)
        units_left = Signal.like(product)
        address = Signal(MEMORY_ADDRESS_BITS)
        begin = Signal(MEMORY_ADDRESS_BITS)
        # Passes that are not begun: to be asked for, to be handed on.
        passes_to_ask = Signal.like(request.passes)
        passes_to_give = Signal.like(request.passes)
        measure = Signal()  # the number of codes is known in this cycle
        accepted = self.request.valid & self.request.ready

        # Units that are asked for, or wait, or are being handed on.
        reserved = Signal(range(WAITING_UNITS + 1))
        asked = Signal(range(RUN_UNITS + 1))
        handed_on = queue.output.valid & queue.output.ready
        moved = Signal()
        m.d.comb += [
            self.idle.eq(~measure & ~words_left.any()),
            self.request.ready.eq(self.idle),
            self.runs.payload.address.eq(address),
            self.runs.payload.units.eq(Mux(units_left > RUN_UNITS, RUN_UNITS, units_left)),
            self.runs.payload.destination.eq(Destination.CODES),
            self.runs.payload.cores.eq(1 << self._core),
            self.runs.valid.eq(units_left.any() & (reserved <= WAITING_UNITS - RUN_UNITS)),
        ]
        m.d.sync += measure.eq(accepted)
        m.d.comb += units.eq((product + words_per_unit - 1) >> log2(words_per_unit))
        with m.If(accepted):
            m.d.sync += [
                product.eq(request.rows * row_words),
                address.eq(request.address),
                begin.eq(request.address),
                passes_to_ask.eq(request.passes - 1),
                passes_to_give.eq(request.passes - 1),
            ]
        with m.If(measure):
            m.d.sync += [words_left.eq(product), units_left.eq(units)]
        with m.If(self.runs.valid & self.runs.ready):
            m.d.comb += asked.eq(self.runs.payload.units)
            m.d.sync += [
                units_left.eq(units_left - asked),
                address.eq(address + (asked << log2(config.load_bytes))),
            ]
            with m.If((units_left == asked) & passes_to_ask.any()):
                m.d.sync += [
                    units_left.eq(units),
                    address.eq(begin),
                    passes_to_ask.eq(passes_to_ask - 1),
                ]
        m.d.sync += reserved.eq(reserved + asked - handed_on)
        contracts = Contracts(m, platform, self)
        contracts.has_room(self.units, "all units that were asked for")
        contracts.asks(~self.units.valid | reserved.any(), "only units come that were asked for")

        place = Signal(range(words_per_unit))
        last_word = words_left == 1
        m.d.comb += [
            self.codes.payload.as_value().eq(queue.output.payload.word_select(place, 32)),
            self.codes.valid.eq(queue.output.valid),
            moved.eq(self.codes.valid & self.codes.ready),
            queue.output.ready.eq(moved & (last_word | (place == words_per_unit - 1))),
        ]
        with m.If(moved):
            m.d.sync += [
                words_left.eq(words_left - 1),
                place.eq(Mux(last_word | (place == words_per_unit - 1), 0, place + 1)),
            ]
            with m.If(last_word & passes_to_give.any()):
                m.d.sync += [
                    words_left.eq(product),
                    passes_to_give.eq(passes_to_give - 1),
                ]
        return m
