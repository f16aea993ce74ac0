"""Layer output: reads the sums of a linear layer, and sends their words token by token."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config, formats
from rtl import interfaces
from rtl.core.blocks import layer_row_layout
from rtl.core.drain import drained_layout
from rtl.core.normalizer import Normalizer, layer_scales_layout
from rtl.lib.arithmetic import log2, rotate
from rtl.lib.contract import Contracts
from rtl.lib.delay import delayed
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["PAGES", "LayerOutput", "rows_max"]

#: Pages of the corner turn, a power of two: one is filled, one is sent, others are on their way.
PAGES = 4


def rows_max(config: Config) -> int:
    """Rows of layers that are begun and not sent, at most.

    Those of the blocks of all weight tiles at hand, of all output slots, and the one that the
    scheduler looks at.
    """
    return config.key_slots * config.query_rows + config.row_slots + 1


def _in_turn(config: Config, output: Value) -> Value:
    """Order of the outputs in which reads meet the accumulator's memories in turn with the drain.

    The drain visits them, for an array row of one, two, four reads, as 0101, 0110 or 01011010 (see
    `rtl.core.output_accumulator`); outputs one after the other as 0101.
    """
    if config.cols // config.output_words == 2:
        return Cat(output[1], output[0], output[2:])
    return output


class LayerOutput(wiring.Component):
    """Turns a layer's sums into words, and the words of output_words (W) tokens into beats.

    A read of the accumulator gives sums of one output channel for W tokens; a beat is W output
    channels of one token. Word i of output o lies in bank (o + i) mod W of W memories: those of a
    read lie in different banks, and those of a beat too.

    The row's scales are kept here, since those of the operand buffers go with their blocks.

    Members
    -------
    rows : In, stream of `layer_row_layout`
        The rows, in order, as they begin.
    drained, drained_valid : In
        Sums of a layer from the drain router. The scales of a row's last block are taken, from
    key_scale, query_scales : In
        the operand buffers, one cycle later.
    tiles_complete : In, 1
        Sums of another tile of R outputs and C tokens are complete; tiles come as the array works.
    turn : In, 1
        The row to be read next is one of a layer, and nothing of attention is under way.
    slot : In, 1
        Output slot of that row.
    read, read_output, read_part, read_ready
        See `rtl.core.output_accumulator.OutputAccumulator`: its queries are output channels.
    row_done : Out, 1
        The last sum of a row has been read: its slot is free.
    scales : Out, `rtl.core.normalizer.layer_scales_layout`
    words : In
        To and from the lanes of the normaliser.
    o : Out, stream
        See `rtl.interfaces`.
    idle : Out, 1
        Nothing is under way.

    Latency
    -------
    `TURN_LATENCY` cycles from the last read of W tokens to the read of their first beat out of the
    banks, `BEAT_LATENCY` cycles to its offer. One read and one beat a cycle.
    """

    #: Through the lanes into the banks, and through the queue of full pages.
    TURN_LATENCY = Normalizer.LAYER_LATENCY + StreamFIFO.LATENCY
    #: Out of the banks, and rotated.
    BEAT_LATENCY = 2

    def __init__(self, config: Config):
        self._config = config
        words = config.output_words
        self._parts = config.layer_tokens // words
        super().__init__(
            {
                "rows": In(stream.Signature(layer_row_layout(config))),
                "drained": In(drained_layout(config)),
                "drained_valid": In(1),
                "key_scale": In(unsigned(formats.KEY_SCALE_BITS + formats.OUT_BITS)),
                "query_scales": In(
                    data.ArrayLayout(unsigned(formats.QUERY_SCALE_BITS), config.drain_words)
                ),
                "tiles_complete": In(1),
                "turn": In(1),
                "slot": In(range(config.row_slots)),
                "read": Out(1),
                "read_output": Out(range(config.block)),
                "read_part": Out(range(self._parts)),
                "read_ready": In(1),
                "row_done": Out(1),
                "scales": Out(layer_scales_layout(config)),
                "words": In(data.ArrayLayout(signed(formats.OUT_BITS), words)),
                "o": Out(interfaces.o_signature(config)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, words = self._config, self._config.output_words
        m.submodules.rows = rows = StreamFIFO(layer_row_layout(config), depth=rows_max(config))
        connect(m, flipped(self.rows), rows.input)
        row = rows.output.payload

        # Pages of the corner turn that are being filled, wait, or are being sent.
        pages = Signal(range(PAGES + 1))
        page = Signal(range(PAGES))
        # Complete tiles, from the first one of the C tokens that are being read.
        tiles_of_group = config.block // config.rows
        groups = config.layer_tokens // config.cols
        tiles = Signal(range(config.row_slots * groups * tiles_of_group + 1))
        output, part = Signal.like(self.read_output, name="output"), self.read_part
        first_output, last_output = output == 0, output == config.block - 1
        m.d.comb += self.read_output.eq(_in_turn(config, output))
        tokens_left = Signal.like(row.tokens)
        m.d.comb += tokens_left.eq(row.tokens - (part << log2(words)))
        last_part = tokens_left <= words
        parts_of_group = config.cols // words
        last_of_group = part[: log2(parts_of_group)].all() if parts_of_group > 1 else True
        part_done = self.read & last_output
        group_done = part_done & (last_part | last_of_group)
        page_free = Signal()
        m.d.comb += [
            self.read.eq(
                self.turn
                & rows.output.valid
                & (tiles > output[log2(config.rows) :])
                & self.read_ready
                & (~first_output | (pages != PAGES))
            ),
            self.row_done.eq(part_done & last_part),
            rows.output.ready.eq(self.row_done),
        ]
        m.d.sync += [
            tiles.eq(tiles + self.tiles_complete - Mux(group_done, tiles_of_group, 0)),
            pages.eq(pages + (self.read & first_output) - page_free),
            page.eq(page + part_done),
        ]
        with m.If(self.read):
            m.d.sync += output.eq(output + 1)
        with m.If(part_done):
            m.d.sync += part.eq(Mux(last_part, 0, part + 1))

        self._scale(m, row, pages)
        full = data.StructLayout({"tokens": range(words + 1)})
        m.submodules.full = filled = StreamFIFO(full, depth=PAGES)
        arriving = data.StructLayout(
            {
                "valid": 1,
                "page": range(PAGES),
                "output": range(config.block),
                "tokens": range(words + 1),
            }
        )
        now = Signal(arriving)
        m.d.comb += [
            now.valid.eq(self.read),
            now.page.eq(page),
            now.output.eq(self.read_output),
            now.tokens.eq(Mux(last_part, tokens_left, words)),
        ]
        place = delayed(m, now, Normalizer.LAYER_LATENCY, "place")
        m.d.comb += [
            filled.input.valid.eq(place.valid & (place.output == config.block - 1)),
            filled.input.payload.tokens.eq(place.tokens),
        ]
        contracts = Contracts(m, platform, self)
        contracts.has_room(self.rows, "all rows of layers that are begun")
        contracts.has_room(filled.input, "all pages that are full")
        contracts.holds(~page_free | pages.any(), "a page that is sent was filled")
        contracts.asks(
            ~self.tiles_complete | (tiles != config.row_slots * groups * tiles_of_group),
            "no more tiles are complete than there are",
        )
        leaving = self._turn(m, place, filled, page_free)
        m.d.comb += self.idle.eq(~pages.any() & ~leaving)
        return m

    def _scale(self, m: Module, row: Any, pages: Signal) -> None:
        """Keep the scales of a row as its last block drains, and multiply those that are read."""
        config, words = self._config, self._config.output_words
        drained, tile = self.drained, self.drained.tile
        m.submodules.weight_scales = weights = Memory(
            shape=self.key_scale.shape(), depth=config.row_slots * config.block, init=[]
        )
        m.submodules.token_scales = tokens = Memory(
            shape=self.query_scales.shape(), depth=config.row_slots * self._parts, init=[]
        )
        capture = Signal()
        m.d.sync += capture.eq(self.drained_valid & tile.block.last)
        part_bits, group_bits = log2(config.cols // words), log2(config.layer_tokens // config.cols)
        for memory, place, scale in (
            (weights, Cat(drained.row, tile.row_group), self.key_scale),
            (tokens, Cat(drained.part[:part_bits], tile.col_group[:group_bits]), self.query_scales),
        ):
            write = memory.write_port()
            m.d.sync += write.addr.eq(Cat(place, tile.output_slot))
            m.d.comb += [write.en.eq(capture), Value.cast(write.data).eq(Value.cast(scale))]

        # Read, out of a register, multiplied: in time for the normaliser's register.
        read_weight, read_tokens = weights.read_port(), tokens.read_port()
        weight = Signal.like(read_weight.data)
        scales = Signal.like(read_tokens.data)
        m.d.comb += [
            read_weight.addr.eq(delayed(m, Cat(self.read_output, self.slot), 1, "weight_place")),
            read_tokens.addr.eq(delayed(m, Cat(self.read_part, self.slot), 1, "tokens_place")),
        ]
        m.d.sync += [weight.eq(read_weight.data), scales.eq(read_tokens.data)]
        mantissa, bias = weight[: formats.KEY_SCALE_BITS], weight[formats.KEY_SCALE_BITS :]
        for index in range(words):
            product = Signal(formats.KEY_SCALE_BITS + formats.QUERY_SCALE_BITS)
            m.d.sync += product.eq(scales[index] * mantissa)
            m.d.comb += self.scales.scales[index].eq(product >> formats.LAYER_SCALE_SHIFT)
        # One cycle after a read there is a page; two cycles after it the first of the others comes.
        m.d.sync += self.scales.valid.eq(pages.any())
        m.d.comb += [
            self.scales.places.eq(delayed(m, row.sum_shift + 1, 2, "places")),
            self.scales.out_shift.eq(delayed(m, row.out_shift, 6, "out_shift")),
            self.scales.bias.eq(delayed(m, bias, 4, "bias").as_signed()),
        ]

    def _turn(self, m: Module, place: Any, filled: StreamFIFO, page_free: Signal) -> Value:
        """Write the words of a place into the banks, and send the pages that are full.

        Returns whether beats are on their way out of the banks.
        """
        config, words = self._config, self._config.output_words
        lane_bits, beats = log2(words), config.block // words
        page = Signal(range(PAGES))
        token = Signal(range(words))
        beat = Signal(range(beats))
        enable = Signal()
        valid = Signal()
        read_valid = Signal()
        sending = filled.output.valid & enable
        last_beat = beat == beats - 1
        last_token = token == (filled.output.payload.tokens - 1)[:lane_bits]
        m.d.comb += [
            enable.eq(~valid | self.o.ready),
            filled.output.ready.eq(sending & last_beat & last_token),
            page_free.eq(filled.output.valid & filled.output.ready),
        ]
        with m.If(sending):
            m.d.sync += beat.eq(Mux(last_beat, 0, beat + 1))
            with m.If(last_beat):
                m.d.sync += token.eq(Mux(last_token, 0, token + 1))
        m.d.sync += page.eq(page + page_free)

        written = Signal(formats.OUT_BITS * words)
        m.d.comb += written.eq(
            rotate(self.words.as_value(), place.output[:lane_bits], words, left=True)
        )
        read = Signal(formats.OUT_BITS * words)
        for bank in range(words):
            memory = Memory(shape=formats.OUT_BITS, depth=PAGES * config.block, init=[])
            m.submodules[f"bank_{bank}"] = memory
            write_port, read_port = memory.write_port(), memory.read_port()
            lane = (bank - place.output)[:lane_bits]
            m.d.comb += [
                write_port.en.eq(place.valid),
                write_port.addr.eq(Cat(place.output[lane_bits:], lane, place.page)),
                write_port.data.eq(written.word_select(bank, formats.OUT_BITS)),
                read_port.en.eq(enable),
                read_port.addr.eq(Cat(beat, token, page)),
                read.word_select(bank, formats.OUT_BITS).eq(read_port.data),
            ]
        rotation = Signal(lane_bits)
        with m.If(enable):
            m.d.sync += [
                read_valid.eq(filled.output.valid),
                rotation.eq(token),
                valid.eq(read_valid),
                self.o.payload.eq(rotate(read, rotation, words, left=False)),
            ]
        m.d.comb += self.o.valid.eq(valid)
        return read_valid | valid
