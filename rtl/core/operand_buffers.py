"""Buffers of Q, K and V between their streams and the array."""

from amaranth.hdl import Cat, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config, formats
from rtl import interfaces
from rtl.core.blocks import load_layout
from rtl.core.load_control import LoadControl
from rtl.lib.arithmetic import log2
from rtl.lib.banked_memory import BankedMemory

__all__ = ["KeyBuffer", "QueryBuffer", "ValueBuffer"]


class _OperandBuffer(wiring.Component):
    """Common part of the three buffers: a stream in, load control, a memory of some slots.

    A block may be taken into use while it is still loading, as far as `loaded` has come.

    Members
    -------
    input : In, stream
        The operand, see `rtl.interfaces`.
    request, full, release, release_slot
        See `LoadControl`.
    loaded : Out
        Groups of ``side`` tokens that lie complete in the slot that is being filled.
    address : In
        Read address, slot in its highest bit.
    activity : Out, `rtl.interfaces.Activity`
        Busy: a beat is taken; starved: one is missing; blocked: no slot is free.

    Parameters
    ----------
    config : Config
        Size of blocks and beats.
    slots : int
        Blocks that it holds.
    signature : stream.Signature
        Of the operand.
    per_beat : int
        Tokens in a beat.
    side : int
        Tokens whose words are read together.
    beats : int
        Beats of ``per_beat`` tokens.
    extra : dict
        Further members.
    """

    #: Cycles from ``address`` to ``words``: a block RAM's words come so late in their cycle that a
    #: register follows before anything else.
    READ_LATENCY = 2

    def __init__(
        self,
        config: Config,
        signature: stream.Signature,
        *,
        slots: int,
        per_beat: int,
        side: int,
        beats: int,
        extra: dict[str, wiring.Member],
    ):
        self._config = config
        self._slots = slots
        self._per_beat, self._side, self._beats = per_beat, side, beats
        super().__init__(
            {
                "input": In(signature),
                "request": In(stream.Signature(load_layout(config))),
                "full": Out(slots),
                "loaded": Out(range(config.block // side)),
                "release": In(1),
                "release_slot": In(range(slots)),
                "activity": Out(interfaces.Activity),
                **extra,
            }
        )

    def _load(self, m: Module) -> tuple[Signal, Signal, Value]:
        """Add load control; count beats of a group of tokens and groups of the block.

        Returns
        -------
        (beat, group, slot)
            Where the beat that ``input`` offers belongs; it is written when it is taken.
        """
        config = self._config
        m.submodules.control = control = LoadControl(config, self._slots)
        connect(m, flipped(self.request), control.request)
        m.d.comb += [
            self.full.eq(control.full),
            control.release.eq(self.release),
            control.release_slot.eq(self.release_slot),
            self.input.ready.eq(control.load.valid),
            self.activity.busy.eq(control.load.valid & self.input.valid),
            self.activity.starved.eq(control.load.valid & ~self.input.valid),
            self.activity.blocked.eq(~control.load.valid & self.full.all()),
        ]
        beat = Signal(range(self._beats))
        group = Signal(range(config.block // self._per_beat))
        last_token = (control.load.payload.tokens - 1)[: log2(config.block)]
        last_group = group == (last_token >> log2(self._per_beat))
        with m.If(self.input.valid & self.input.ready):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat == self._beats - 1):
                m.d.sync += [beat.eq(0), group.eq(group + 1)]
                with m.If(last_group):
                    m.d.sync += group.eq(0)
                    m.d.comb += control.load.ready.eq(1)
        m.d.comb += self.loaded.eq(group >> log2(self._side // self._per_beat))
        return beat, group, control.load.payload.slot[: len(self.release_slot)]

    def _connect_write(self, m: Module, memory: BankedMemory, place: Value, address: Value) -> None:
        """Write the beats of ``input``: consecutive places lie in consecutive banks."""
        bank_bits = log2(len(memory.read_data))
        m.d.comb += [
            memory.write_enable.eq(self.input.valid & self.input.ready),
            memory.write_bank.eq(place[:bank_bits]),
            memory.write_address.eq(address),
        ]


class _TokenBuffer(_OperandBuffer):
    """Blocks of Q or K: reads four channels of ``side`` tokens side by side.

    ``address`` is (slot, group of ``side`` tokens, channel / 4), ``words`` follow `READ_LATENCY`
    cycles later; ``scale_address`` is (slot, group of ``scales_read`` tokens), ``scales`` follow
    one cycle later.
    """

    def __init__(
        self,
        config: Config,
        signature: stream.Signature,
        *,
        slots: int,
        side: int,
        scale_bits: int,
        scales_read: int,
    ):
        tokens = config.load_tokens
        chunks = config.head_dim // formats.LANES
        self._memory = BankedMemory(
            data.ArrayLayout(data.ArrayLayout(signed(8), formats.LANES), tokens),
            banks=side // tokens,
            depth=slots * config.block // side * chunks,
        )
        self._scale_bits, self._scales_read = scale_bits, scales_read
        super().__init__(
            config,
            signature,
            slots=slots,
            per_beat=tokens,
            side=side,
            beats=chunks,
            extra={
                "address": In(self._memory.read_address.shape()),
                "words": Out(data.ArrayLayout(data.ArrayLayout(signed(8), formats.LANES), side)),
                "scale_address": In(range(slots * config.block // scales_read)),
                "scales": Out(data.ArrayLayout(unsigned(scale_bits), scales_read)),
            },
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        chunk, group, slot = self._load(m)
        m.submodules.memory = memory = self._memory
        self._connect_write(
            m, memory, group, Cat(chunk, group[log2(self._side // self._per_beat) :], slot)
        )
        m.d.comb += [
            memory.write_data.eq(self.input.payload.data),
            memory.read_address.eq(self.address),
        ]
        m.d.sync += self.words.as_value().eq(memory.read_data)

        # The scales come with every beat of their tokens.
        tokens, together = self._per_beat, self._scales_read
        scales = BankedMemory(
            data.ArrayLayout(unsigned(self._scale_bits), tokens),
            banks=max(1, together // tokens),
            depth=self._slots * config.block // max(together, tokens),
        )
        m.submodules.scale_memory = scales
        self._connect_write(m, scales, group, Cat(group[log2(max(1, together // tokens)) :], slot))
        narrow = log2(max(1, tokens // together))
        m.d.comb += [
            scales.write_data.eq(self.input.payload.scale),
            scales.read_address.eq(self.scale_address[narrow:]),
        ]
        if narrow:
            part = Signal(narrow)
            m.d.sync += part.eq(self.scale_address[:narrow])
            width = len(Value.cast(self.scales))
            m.d.comb += self.scales.eq(Value.cast(scales.read_data).word_select(part, width))
        else:
            m.d.comb += self.scales.as_value().eq(scales.read_data)
        return m


class QueryBuffer(_TokenBuffer):
    """Blocks of Q: reads four channels of C queries, and the scales of drain_words queries."""

    def __init__(self, config: Config):
        super().__init__(
            config,
            interfaces.q_signature(config),
            slots=config.row_slots,
            side=config.cols,
            scale_bits=formats.QUERY_SCALE_BITS,
            scales_read=config.drain_words,
        )


class KeyBuffer(_TokenBuffer):
    """Blocks of K: reads four channels of R keys, and the scale of one key."""

    def __init__(self, config: Config):
        super().__init__(
            config,
            interfaces.k_signature(config),
            slots=config.key_slots,
            side=config.rows,
            scale_bits=formats.KEY_SCALE_BITS + formats.OUT_BITS,
            scales_read=1,
        )


class ValueBuffer(_OperandBuffer):
    """Blocks of V: reads C channels of four consecutive keys.

    ``address`` is (slot, key / 4, group of C channels), ``words`` follow `READ_LATENCY` cycles
    later. A bank holds one of the four keys and as many channels as a beat brings, at most C.
    """

    def __init__(self, config: Config):
        width = min(config.load_bytes, config.cols)  # channels of a bank's word
        self._wide = config.load_bytes // width  # banks that a beat fills
        self._narrow = config.cols // width  # banks that a read joins
        self._memory = BankedMemory(
            data.ArrayLayout(data.ArrayLayout(signed(8), width), self._wide),
            banks=formats.LANES * self._narrow,
            depth=config.key_slots
            * config.block
            // formats.LANES
            * (config.head_dim // (config.cols * self._wide)),
        )
        groups = config.block // formats.LANES * (config.head_dim // config.cols)
        super().__init__(
            config,
            interfaces.v_signature(config),
            slots=config.key_slots,
            per_beat=1,
            side=config.block,
            beats=config.head_dim // config.load_bytes,
            extra={
                "address": In(range(config.key_slots * groups)),
                "words": Out(
                    data.ArrayLayout(data.ArrayLayout(signed(8), config.cols), formats.LANES)
                ),
            },
        )

    def elaborate(self, platform):
        m = Module()
        part, token, slot = self._load(m)
        m.submodules.memory = memory = self._memory
        key, key_row = token[: log2(formats.LANES)], token[log2(formats.LANES) :]
        narrow, wide = log2(self._narrow), log2(self._wide)
        self._connect_write(m, memory, Cat(part[:narrow], key), Cat(part[narrow:], key_row, slot))
        m.d.comb += [
            memory.write_data.as_value().eq(self.input.payload),
            memory.read_address.eq(self.address[wide:]),
        ]
        read = Value.cast(memory.read_data)
        if wide:
            # A bank's word holds several groups of channels.
            chosen = Signal(wide)
            m.d.sync += chosen.eq(self.address[:wide])
            width = 8 * self._config.cols
            size = width << wide
            read = Cat(
                read[size * lane : size * (lane + 1)].word_select(chosen, width)
                for lane in range(formats.LANES)
            )
        m.d.sync += self.words.as_value().eq(read)
        return m
