"""Output addresses: the runs of memory that a head's outputs are written to."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

from amaranth.hdl import Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config
from paro.config.config import bits_unsigned
from paro.config.descriptor import ROW_STRIDE_BITS
from paro.config.formats import OUT_BYTES
from paro.config.registers import MEMORY_ADDRESS_BITS
from rtl.accelerator.deal import dealt_place
from rtl.accelerator.token_runs import TokenRuns
from rtl.accelerator.token_walker import TokenWalker, walk_layout
from rtl.bus.axi import run_layout
from rtl.interfaces import token_count_shape
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts

__all__ = [
    "OutputAddresses",
    "output_head_layout",
    "output_request_layout",
    "places_signature",
    "row_beats",
]


def output_request_layout(config: Config) -> data.StructLayout:
    """``query_tokens`` queries, at least 1, from the first of block row ``first_block_row``.

    Of a layer (``linear``): its tokens, and the index of its ``last_output_block``.
    """
    blocks = unsigned(bits_unsigned(config.blocks_max - 1))
    return data.StructLayout(
        {
            "first_block_row": blocks,
            "query_tokens": token_count_shape(config),
            "linear": 1,
            "last_output_block": blocks,
        }
    )


def output_head_layout(config: Config) -> data.StructLayout:
    """Where a head's outputs lie, in bytes; ``half``: its words have 8 bits."""
    return data.StructLayout(
        {
            "walk": walk_layout(config),
            "base": unsigned(MEMORY_ADDRESS_BITS),
            "row_stride": unsigned(ROW_STRIDE_BITS),
            "half": 1,
        }
    )


def places_signature(config: Config) -> stream.Signature:
    """Block rows in the order in which they leave: the ``core``, and its ``row`` of the wave."""
    return stream.Signature(
        data.StructLayout({"row": range(config.query_rows), "core": range(config.cores)})
    )


def row_beats(config: Config) -> range:
    """How many beats of O a block row may have."""
    return range(config.block * max(config.head_dim, config.block) // config.output_words + 1)


class OutputAddresses(wiring.Component):
    """Makes the runs of a head's or layer's outputs, in the order in which the core sends them.

    Members
    -------
    head : In, `output_head_layout`
        Constant unless ``idle``.
    request : In, stream of `output_request_layout`
        One a head or layer; it stays until ``idle``.
    places : In, stream of `places_signature`
        Of the block rows of all heads and layers. Only with superblocks or in a cluster, whose rows
        leave in an order of their own: those of a wave before any of the next.
    open : Out, a bit for each core
        It has a row of the wave in progress that has not been taken. Only in a cluster.
    beats : Out
        Beats of O of the row that is taken from ``places`` in this cycle. Likewise.
    runs : Out, stream of `run_layout`
        Units of one beat of the O stream, or of two that are half as long. A run does not go beyond
        a block.
    idle : Out, 1
        No request is in progress.

    Latency
    -------
    See `TokenWalker` and `TokenRuns`; a jump is only the first block, and one that does not follow
    the one before it. One token a cycle, and one cycle more for each block; of a layer, as many as
    it takes until the block's runs have left.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "head": In(output_head_layout(config)),
                "request": In(stream.Signature(output_request_layout(config))),
                **({"places": In(places_signature(config))} if config.wave_rows > 1 else {}),
                **(
                    {"open": Out(config.cores), "beats": Out(row_beats(config))}
                    if config.cores > 1
                    else {}
                ),
                "runs": Out(stream.Signature(run_layout(config))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, request = self._config, self.request.payload
        m.submodules.walker = walker = TokenWalker(config, again=False, jumps=True)
        longest = max(config.head_dim, config.block)
        unit_bytes = config.output_bytes
        m.submodules.rows = rows = TokenRuns(
            config, row_bytes=OUT_BYTES * longest, unit_bytes=unit_bytes
        )
        connect(m, walker.tokens, rows.tokens)
        connect(m, rows.runs, flipped(self.runs))
        Contracts(m, platform, self).asks_constant(self.head, "head", unless=self.idle)

        linear = Signal()
        # Of the superblock in progress: its first position, queries from there on.
        position = Signal(token_count_shape(config))
        left = Signal.like(request.query_tokens)
        output_block = Signal.like(request.last_output_block)
        offset = Signal(range(OUT_BYTES * config.max_tokens + 1))  # of the output block, in bytes
        base = Signal.like(self.head.base)
        step = Signal(range(config.block + 1))
        tokens = Signal.like(step)
        row_units = Signal.like(rows.row_units)
        last_output = Signal()
        m.d.comb += last_output.eq(~linear | (output_block == request.last_output_block))
        taken = walker.request.valid & walker.request.ready
        row = _Row(position, left, tokens, 1, None)
        if config.wave_rows > 1:
            row = self._choose_row(m, linear, position, left, taken, last_output)
        if config.cores > 1:
            row_bytes = Mux(linear, OUT_BYTES * config.block, OUT_BYTES * config.head_dim)
            m.d.comb += self.beats.eq(tokens * (row_bytes >> log2(unit_bytes)))
        m.d.comb += [
            step.eq(Mux(linear, config.layer_tokens, config.block)),
            tokens.eq(Mux(row.left > step, step, row.left)),
            row_units.eq(
                Mux(
                    linear,
                    OUT_BYTES * config.block // unit_bytes,
                    OUT_BYTES * config.head_dim // unit_bytes,
                )
            ),
            walker.walk.eq(self.head.walk),
            walker.forget.eq(self.idle),
            walker.request.payload.position.eq(row.position),
            walker.request.payload.tokens.eq(tokens),
            # The base of a layer's next block is another one.
            walker.request.valid.eq(left.any() & (~linear | rows.idle) & row.known),
            rows.base.eq(base),
            rows.row_stride.eq(self.head.row_stride),
            rows.row_units.eq(Mux(self.head.half, row_units >> 1, row_units)),
            self.idle.eq(~left.any() & walker.request.ready & rows.idle),
            self.request.ready.eq(self.idle),
        ]
        with m.If(self.idle & self.request.valid):
            m.d.sync += [
                linear.eq(request.linear),
                position.eq(request.first_block_row << log2(config.block)),
                left.eq(request.query_tokens),
            ]
        with m.Elif(taken):
            m.d.sync += base.eq(self.head.base + offset)
            with nullcontext() if row.is_last is None else m.If(row.is_last):
                with m.If(last_output):
                    m.d.sync += [
                        position.eq(position + (step << log2(config.wave_rows))),
                        left.eq(left - row.tokens_of_superblock),
                        output_block.eq(0),
                        offset.eq(0),
                    ]
                with m.Else():
                    row_bytes = Mux(self.head.half, config.block, OUT_BYTES * config.block)
                    m.d.sync += [
                        output_block.eq(output_block + 1),
                        offset.eq(offset + row_bytes),
                    ]
        return m

    def _choose_row(
        self,
        m: Module,
        linear: Value,
        position: Value,
        left: Value,
        taken: Value,
        last_output: Value,
    ) -> "_Row":
        """Choose the row of the superblock that leaves the core next."""
        config = self._config

        def tokens_of(blocks: Any) -> Value:
            return Mux(linear, blocks << log2(config.layer_tokens), blocks << log2(config.block))

        rows = config.wave_rows
        place, before = self.places, Signal(range(rows))  # rows that have left
        is_last = Signal()
        whole = tokens_of(Const(rows))
        number = place.payload.row
        if config.cores > 1:
            wave = self._count_waves(m, taken & is_last, last_output, left, tokens_of)
            number = dealt_place(config, place.payload.core, place.payload.row, wave)
        m.d.comb += [
            place.ready.eq(taken),
            is_last.eq((before == rows - 1) | (tokens_of(before + 1) >= left)),
        ]
        with m.If(taken):
            m.d.sync += before.eq(Mux(is_last, 0, before + 1))
        return _Row(
            position=position + tokens_of(number),
            left=left - tokens_of(number),
            tokens_of_superblock=Mux(left > whole, whole, left),
            known=place.valid,
            is_last=is_last,
        )

    def _count_waves(
        self,
        m: Module,
        wave_taken: Value,
        last_output: Value,
        left: Value,
        tokens_of: Callable[[Any], Value],
    ) -> Signal:
        """Count waves, and tell which cores have rows of this one that have not been taken.

        Returns the low bits of the wave's number; that of a layer's rows is the same for all output
        blocks.
        """
        config = self._config
        wave = Signal(range(config.cores))
        with m.If(self.idle):
            m.d.sync += wave.eq(0)
        with m.Elif(wave_taken & last_output):
            m.d.sync += wave.eq(wave + 1)
        for core in range(config.cores):
            rows = Signal(range(config.query_rows + 1), name=f"rows_of_{core}")  # taken of it
            with m.If(wave_taken):
                m.d.sync += rows.eq(0)
            with m.Elif(self.places.ready & (self.places.payload.core == core)):
                m.d.sync += rows.eq(rows + 1)
            own = dealt_place(config, Const(core, log2(config.cores)), rows, wave)
            m.d.comb += self.open[core].eq((rows != config.query_rows) & (tokens_of(own) < left))
        return wave


class _Row(NamedTuple):
    """The block row whose runs come next."""

    position: Value  # its first
    left: Value  # queries of the head or layer from there on
    tokens_of_superblock: Value
    known: Any  # whether it is known which row that is
    is_last: Value | None  # of its superblock, or of a layer's output block; None: always
