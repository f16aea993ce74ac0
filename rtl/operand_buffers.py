"""Double buffers of Q, K and V between their streams and the array."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from paro_config import Config, formats
from rtl import interfaces
from rtl.banked_memory import BankedMemory
from rtl.blocks import load_layout, log2
from rtl.digits import DigitWord, KeyEncoder
from rtl.library import replicate
from rtl.load_control import LoadControl
from rtl.scheduler import SLOTS

__all__ = ["KeyBuffer", "QueryBuffer", "ValueBuffer"]


class _OperandBuffer(wiring.Component):
    """What the three buffers have in common: a stream in, load control, a banked memory.

    Members
    -------
    input : In, stream
        The operand, see `rtl.interfaces`.
    request, filled, take
        See `LoadControl`.
    address : In
        Read address, slot in its highest bit.
    words : Out
        One cycle after ``address``, all banks.
    """

    def __init__(
        self,
        config: Config,
        signature: stream.Signature,
        memory: BankedMemory,
        extra: dict[str, wiring.Member] | None = None,
    ):
        self._config = config
        self._memory = memory
        super().__init__(
            {
                "input": In(signature),
                "request": In(stream.Signature(load_layout(config))),
                "filled": Out(range(SLOTS + 1)),
                "take": In(1),
                "address": In(memory.read_address.shape()),
                "words": Out(memory.read_data.shape()),
                **(extra or {}),
            }
        )

    def _start(self, m: Module) -> LoadControl:
        """Add load control and memory, wire what is the same for all operands."""
        m.submodules.memory = self._memory
        m.submodules.control = control = LoadControl(self._config)
        connect(m, flipped(self.request), control.request)
        m.d.comb += [
            self.filled.eq(control.filled),
            control.take.eq(self.take),
            self._memory.read_address.eq(self.address),
            self.words.eq(self._memory.read_data),
        ]
        return control

    def _count(
        self, m: Module, control: LoadControl, beats: int, per_beat: int
    ) -> tuple[Signal, Signal, Signal]:
        """Count beats in a group of tokens and groups in the block.

        Parameters
        ----------
        beats : int
            Words of a group of ``per_beat`` tokens.
        per_beat : int
            Tokens side by side.

        Returns
        -------
        (beat, group, advance)
            Counters, and the strobe the caller drives when a word has been written.
        """
        beat, advance = Signal(range(beats)), Signal()
        group = Signal(range(self._config.block // per_beat))
        last_token = (control.load.payload.tokens - 1)[: log2(self._config.block)]
        last_group = group == (last_token >> log2(per_beat))
        with m.If(advance):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat == beats - 1):
                m.d.sync += [beat.eq(0), group.eq(group + 1)]
                with m.If(last_group):
                    m.d.sync += group.eq(0)
                    m.d.comb += control.load.ready.eq(1)
        return beat, group, advance


def _split(group: Signal, banks: int) -> tuple[Value, Value]:
    """Bank and row of a group of tokens: consecutive groups lie in consecutive banks."""
    return group[: log2(banks)], group[log2(banks) :]


class QueryBuffer(_OperandBuffer):
    """Two blocks of Q: reads four channels of C queries, and the scales of drain_words queries.

    ``address`` is (slot, group of C queries, channel / 4); ``scale_address`` is (slot, group of
    drain_words queries), ``scales`` follow one cycle later.
    """

    def __init__(self, config: Config):
        tokens = config.load_tokens
        memory = BankedMemory(
            unsigned(tokens * 8 * formats.LANES),
            banks=config.cols // tokens,
            depth=SLOTS * config.block // config.cols * (config.head_dim // formats.LANES),
        )
        self._scales = BankedMemory(
            unsigned(tokens * formats.QUERY_SCALE_BITS),
            banks=config.drain_words // tokens,
            depth=SLOTS * config.block // config.drain_words,
        )
        super().__init__(
            config,
            interfaces.q_signature(config),
            memory,
            {
                "scale_address": In(self._scales.read_address.shape()),
                "scales": Out(
                    data.ArrayLayout(unsigned(formats.QUERY_SCALE_BITS), config.drain_words)
                ),
            },
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        control = self._start(m)
        m.submodules.scale_memory = self._scales
        chunks = config.head_dim // formats.LANES
        chunk, group, advance = self._count(m, control, chunks, config.load_tokens)
        bank, row = _split(group, config.cols // config.load_tokens)
        scale_bank, scale_row = _split(group, config.drain_words // config.load_tokens)
        m.d.comb += [
            self.input.ready.eq(control.load.valid),
            advance.eq(control.load.valid & self.input.valid),
            self._memory.write_enable.eq(advance),
            self._memory.write_bank.eq(bank),
            self._memory.write_address.eq(Cat(chunk, row, control.slot)),
            self._memory.write_data.eq(self.input.payload.data),
            self._scales.write_enable.eq(advance),
            self._scales.write_bank.eq(scale_bank),
            self._scales.write_address.eq(Cat(scale_row, control.slot)),
            self._scales.write_data.eq(self.input.payload.scale),
            self._scales.read_address.eq(self.scale_address),
            self.scales.eq(self._scales.read_data),
        ]
        return m


class KeyBuffer(_OperandBuffer):
    """Two blocks of K, as digits of the width that each block of the map needs.

    ``address`` is (slot, group of R keys, digit word); an 8-bit key has head_dim digit words, a
    4-bit key half, a 2-bit key a quarter of that. ``scale_address`` is (slot, key).
    """

    def __init__(self, config: Config):
        memory = BankedMemory(
            data.ArrayLayout(DigitWord, config.load_tokens),
            banks=config.rows // config.load_tokens,
            depth=SLOTS * config.block // config.rows * config.head_dim,
        )
        super().__init__(
            config,
            interfaces.k_signature(config),
            memory,
            {
                "scale_address": In(range(SLOTS * config.block)),
                "scale": Out(unsigned(formats.KEY_SCALE_BITS)),
            },
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        control = self._start(m)
        code = control.load.payload.code
        tokens = config.load_tokens

        # One beat becomes 1, 2 or 4 digit words; it is accepted with its last one.
        phase = Signal(2)
        last_phase = Mux(code == 1, 0, Mux(code == 2, 1, 3))
        writing = control.load.valid & self.input.valid
        chunk, group, advance = self._count(m, control, config.head_dim // formats.LANES, tokens)
        bank, row = _split(group, config.rows // tokens)
        m.d.comb += [
            advance.eq(writing & (phase == last_phase)),
            self.input.ready.eq(control.load.valid & (phase == last_phase)),
        ]
        with m.If(writing):
            m.d.sync += phase.eq(Mux(advance, 0, phase + 1))
        word = Signal(range(config.head_dim))
        with m.Switch(code):
            with m.Case(1):
                m.d.comb += word.eq(chunk)
            with m.Case(2):
                m.d.comb += word.eq(Cat(phase[0], chunk))
            with m.Default():
                m.d.comb += word.eq(Cat(phase, chunk))
        # The encoder's latency. A block is counted as filled that much before its last words are
        # written; the array reads them later still, after all other words of the block's last keys.
        place = Cat(writing, bank, word, row, control.slot)
        for stage in range(KeyEncoder.LATENCY):
            following = Signal(len(place), name=f"place_{stage + 1}")
            m.d.sync += following.eq(place)
            place = following
        m.d.comb += Cat(
            self._memory.write_enable, self._memory.write_bank, self._memory.write_address
        ).eq(place)
        for index, encoder in enumerate(
            replicate(m, platform, "paro_key_encoder", KeyEncoder, tokens)
        ):
            m.d.comb += [
                encoder.channels.eq(self.input.payload.data[index]),
                encoder.code.eq(code),
                encoder.phase.eq(phase),
                self._memory.write_data[index].eq(encoder.word),
            ]

        m.submodules.scale_memory = scales = Memory(
            shape=data.ArrayLayout(unsigned(formats.KEY_SCALE_BITS), tokens),
            depth=SLOTS * config.block // tokens,
            init=[],
        )
        write, read = scales.write_port(), scales.read_port()
        selected = Signal(log2(tokens))
        m.d.sync += selected.eq(self.scale_address[: log2(tokens)])
        m.d.comb += [
            write.en.eq(advance),
            write.addr.eq(Cat(group, control.slot)),
            write.data.eq(self.input.payload.scale),
            read.addr.eq(self.scale_address[log2(tokens) :]),
            self.scale.eq(read.data[selected]),
        ]
        return m


class ValueBuffer(_OperandBuffer):
    """Two blocks of V: reads C channels of four consecutive keys.

    ``address`` is (slot, key / 4, group of C channels).
    """

    def __init__(self, config: Config):
        memory = BankedMemory(
            data.ArrayLayout(signed(8), config.cols),
            banks=formats.LANES,
            depth=SLOTS * config.block // formats.LANES * (config.head_dim // config.cols),
        )
        super().__init__(config, interfaces.v_signature(config), memory)

    def elaborate(self, platform):
        m = Module()
        config = self._config
        control = self._start(m)
        part, token, advance = self._count(m, control, config.head_dim // config.cols, 1)
        bank, row = _split(token, formats.LANES)
        m.d.comb += [
            self.input.ready.eq(control.load.valid),
            advance.eq(control.load.valid & self.input.valid),
            self._memory.write_enable.eq(advance),
            self._memory.write_bank.eq(bank),
            self._memory.write_address.eq(Cat(part, row, control.slot)),
            self._memory.write_data.eq(self.input.payload),
        ]
        return m
