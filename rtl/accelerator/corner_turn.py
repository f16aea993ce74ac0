"""Corner turn: from channels of one token to few channels of several tokens side by side."""

from typing import Any, NamedTuple

from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config, formats
from paro.config.config import bits_unsigned
from rtl.bus.axi import cores_shape
from rtl.lib.arithmetic import log2, rotate
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["CornerTurn", "turn_request_layout", "turned_layout"]

#: Bits of a scale in memory that matter: a layer's weights have their bias in them.
SCALE_BITS = max(formats.QUERY_SCALE_BITS, formats.KEY_SCALE_BITS + formats.OUT_BITS)


def turn_request_layout(config: Config) -> data.StructLayout:
    """A block of ``operand`` (`formats.Operand`, Q or K), ``tokens`` long; its ``cores``."""
    return data.StructLayout(
        {
            "operand": unsigned(2),
            "tokens": unsigned(bits_unsigned(config.block)),
            "cores": cores_shape(config),
        }
    )


def turned_layout(config: Config) -> data.StructLayout:
    """A beat of `rtl.interfaces.q_signature` or `k_signature`, and which of them; its ``cores``."""
    tokens = config.load_tokens
    return data.StructLayout(
        {
            "data": data.ArrayLayout(data.ArrayLayout(signed(8), formats.LANES), tokens),
            "scale": data.ArrayLayout(unsigned(SCALE_BITS), tokens),
            "operand": unsigned(2),
            "cores": cores_shape(config),
        }
    )


def _group_layout(config: Config) -> data.StructLayout:
    """The scales of a group, its operand and cores: a beat without its data."""
    members = turned_layout(config).members
    return data.StructLayout({name: members[name] for name in members if name != "data"})


class CornerTurn(wiring.Component):
    """Turns groups of ``load_tokens`` (lt) tokens; one is read while the next is written.

    A chunk is four channels of a token, a unit lt chunks of a token, a beat one chunk of each of lt
    tokens. Chunk c of a group's token i lies in bank (c + i) mod lt of lt memories: the chunks of a
    unit lie in different banks, and those of a beat too. One rotation brings them there, one back.

    Members
    -------
    request : In, stream of `turn_request_layout`
        The blocks, in the order in which their units come. All that the core may have asked for
        and not received wait here: those of all slots of Q and of K.
    units : In, stream of lt 32-bit words
        Of each block: the scales, a unit for each lt tokens; then the tokens' rows.
    beats : Out, stream of `turned_layout`
        The values of a group's missing tokens are undefined.
    idle : Out, 1
        No block is waiting or in progress.

    Latency
    -------
    `LATENCY` cycles from the last unit of a group to its first beat. One unit and one beat a cycle.
    """

    LATENCY = 3

    def __init__(self, config: Config):
        self._config = config
        self._tokens = config.load_tokens
        self._lane_bits = log2(self._tokens)
        self._chunks = config.head_dim // formats.LANES
        self._parts = self._chunks // self._tokens  # units of a row
        super().__init__(
            {
                "request": In(stream.Signature(turn_request_layout(config))),
                "units": In(stream.Signature(data.ArrayLayout(unsigned(32), config.load_tokens))),
                "beats": Out(stream.Signature(turned_layout(config))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout = turn_request_layout(self._config)
        depth = self._config.cores * (self._config.row_slots + self._config.key_slots)
        m.submodules.requests = requests = StreamFIFO(layout, depth=depth)
        connect(m, flipped(self.request), requests.input)
        block = Signal(layout)
        m.d.comb += block.eq(requests.output.payload)
        scales, group = self._queue_scales(m, block)
        banks = []
        for index in range(self._tokens):
            memory = Memory(shape=32, depth=2 * self._chunks, init=[])
            m.submodules[f"bank_{index}"] = memory
            banks.append((memory.write_port(), memory.read_port()))

        full = Signal(range(3))  # groups in memory
        filling = self._fill(m, requests, block, scales, full)
        reading = self._read(m, scales, full, filling.filled)
        words = self._connect_banks(m, banks, filling, reading)
        self._send(m, reading, words, group, ~requests.level.any() & ~full.any())
        return m

    def _queue_scales(self, m: Module, block: Any) -> tuple[StreamFIFO, Any]:
        """Queue the scales of each group until it is read.

        Returns the queue, and the group at its end: a view of `_group_layout`. There is room for a
        block's groups and the two in memory.
        """
        layout = _group_layout(self._config)
        depth = self._config.block // self._tokens + 2
        m.submodules.scales = scales = StreamFIFO(layout, depth=depth)
        arriving = Signal(layout)
        leaving = Signal(layout)
        m.d.comb += [scales.input.payload.eq(arriving), leaving.eq(scales.output.payload)]
        m.d.comb += [arriving.operand.eq(block.operand), arriving.cores.eq(block.cores)]
        for index in range(self._tokens):
            m.d.comb += arriving.scale[index].eq(self.units.payload[index])
        return scales, leaving

    def _fill(
        self, m: Module, requests: StreamFIFO, block: Any, scales: StreamFIFO, full: Signal
    ) -> "_Filling":
        """Take a block's units: the scales of all groups, then the rows."""
        tokens, lane_bits = self._tokens, self._lane_bits
        in_rows = Signal()
        token = Signal(range(self._config.block))
        part = Signal(range(self._parts))
        write_slot = Signal()
        filled = Signal()
        do_write = Signal()
        do_scale = Signal()
        last_token = Signal(range(self._config.block))
        m.d.comb += [
            last_token.eq(block.tokens - 1),
            do_scale.eq(self.units.valid & requests.output.valid & ~in_rows & scales.input.ready),
            do_write.eq(self.units.valid & requests.output.valid & in_rows & (full != 2)),
            self.units.ready.eq(
                requests.output.valid & Mux(in_rows, full != 2, scales.input.ready)
            ),
            scales.input.valid.eq(do_scale),
        ]
        with m.If(do_scale):
            m.d.sync += token.eq(token + tokens)
            with m.If(token[lane_bits:] == last_token[lane_bits:]):
                m.d.sync += [in_rows.eq(1), token.eq(0)]
        with m.If(do_write):
            m.d.sync += part.eq(part + 1)
            with m.If(part == self._parts - 1):
                m.d.sync += [part.eq(0), token.eq(token + 1)]
                with m.If(token == last_token):
                    m.d.comb += [filled.eq(1), requests.output.ready.eq(1)]
                    m.d.sync += [in_rows.eq(0), token.eq(0)]
                with m.Elif(token[:lane_bits].all() if lane_bits else 1):
                    m.d.comb += filled.eq(1)
        m.d.sync += write_slot.eq(write_slot ^ filled)
        lane = token[:lane_bits]
        written = Signal(32 * tokens)
        m.d.comb += written.eq(rotate(self.units.payload.as_value(), lane, tokens, left=True))
        return _Filling(do_write, self._address(write_slot, lane, part), written, filled)

    def _read(self, m: Module, scales: StreamFIFO, full: Signal, filled: Signal) -> "_Reading":
        """Walk over the chunks of the groups in memory."""
        chunk = Signal(range(self._chunks))
        read_slot = Signal()
        enable = Signal()
        do_read = Signal()
        emptied = Signal()
        m.d.comb += [
            do_read.eq(full.any() & scales.output.valid & enable),
            emptied.eq(do_read & (chunk == self._chunks - 1)),
            scales.output.ready.eq(emptied),
        ]
        with m.If(do_read):
            m.d.sync += chunk.eq(chunk + 1)
        m.d.sync += [read_slot.eq(read_slot ^ emptied), full.eq(full + filled - emptied)]
        return _Reading(enable, do_read, read_slot, chunk)

    def _connect_banks(
        self, m: Module, banks: list[tuple[Any, Any]], filling: "_Filling", reading: "_Reading"
    ) -> Signal:
        """Connect each bank's write and read port; returns the words read, bank by bank."""
        read = Signal(32 * self._tokens)
        chunk, lane_bits = reading.chunk, self._lane_bits
        for bank, (write_port, read_port) in enumerate(banks):
            lane = (bank - chunk)[:lane_bits]
            m.d.comb += [
                write_port.en.eq(filling.do_write),
                write_port.addr.eq(filling.address),
                write_port.data.eq(filling.written.word_select(bank, 32)),
                read_port.en.eq(reading.enable),
                read_port.addr.eq(self._address(reading.slot, lane, chunk[lane_bits:])),
                read.word_select(bank, 32).eq(read_port.data),
            ]
        return read

    def _send(
        self, m: Module, reading: "_Reading", words: Signal, group: Any, empty: Value
    ) -> None:
        """Rotate the words that were read into a beat and offer it.

        ``group`` is the one that is read. ``empty``: no block is waiting or in memory.
        """
        enable = reading.enable
        read_valid = Signal()
        read_group = Signal(group.shape())
        read_rotation = Signal(self._lane_bits)
        beat = Signal.like(self.beats.payload)
        valid = Signal()
        m.d.comb += [
            enable.eq(~valid | self.beats.ready),
            self.beats.valid.eq(valid),
            self.beats.payload.eq(beat),
            self.idle.eq(empty & ~read_valid & ~valid),
        ]
        with m.If(enable):
            m.d.sync += [
                read_valid.eq(reading.do_read),
                read_rotation.eq(reading.chunk),
                read_group.eq(group),
                valid.eq(read_valid),
                beat.data.eq(rotate(words, read_rotation, self._tokens, left=False)),
                beat.scale.eq(read_group.scale),
                beat.operand.eq(read_group.operand),
                beat.cores.eq(read_group.cores),
            ]

    def _address(self, slot: Value, lane: Value, part: Value) -> Value:
        """Where a lane's chunk of a unit lies in its bank."""
        return (((slot << self._lane_bits) | lane) << log2(self._parts)) | part


class _Filling(NamedTuple):
    """A unit on its way into the banks."""

    do_write: Signal
    address: Value
    written: Signal  # its words, each in its bank's place
    filled: Signal  # it is the last of its group


class _Reading(NamedTuple):
    """A chunk on its way out of the banks."""

    enable: Signal  # the pipeline from the banks to the beats moves
    do_read: Signal
    slot: Signal
    chunk: Signal
