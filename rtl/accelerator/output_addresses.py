"""Output addresses: the runs of memory that a head's outputs are written to."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config
from paro.config.config import bits_unsigned
from paro.config.descriptor import ROW_STRIDE_BITS
from paro.config.formats import OUT_BYTES
from paro.config.registers import MEMORY_ADDRESS_BITS
from rtl.accelerator.token_runs import TokenRuns
from rtl.accelerator.token_walker import TokenWalker, walk_layout
from rtl.bus.axi import run_layout
from rtl.interfaces import token_count_shape
from rtl.lib.arithmetic import log2

__all__ = ["OutputAddresses", "output_head_layout", "output_request_layout"]


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


class OutputAddresses(wiring.Component):
    """Makes the runs of a head's or layer's outputs, in the order in which the core sends them.

    Members
    -------
    head : In, `output_head_layout`
        Constant unless ``idle``.
    request : In, stream of `output_request_layout`
        One a head or layer; it stays until ``idle``.
    runs : Out, stream of `run_layout`
        Units of one beat of the O stream, or of two that are half as long. A run does not go beyond
        a block.
    idle : Out, 1
        No request is in progress.

    Latency
    -------
    See `TokenWalker` and `TokenRuns`; only the first block is a jump. One token a cycle, and one
    cycle more for each block; of a layer, as many as it takes until the block's runs have left.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "head": In(output_head_layout(config)),
                "request": In(stream.Signature(output_request_layout(config))),
                "runs": Out(stream.Signature(run_layout(config))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, request = self._config, self.request.payload
        m.submodules.walker = walker = TokenWalker(config)
        longest = max(config.head_dim, config.block)
        unit_bytes = OUT_BYTES * config.output_words
        m.submodules.rows = rows = TokenRuns(
            config, row_bytes=OUT_BYTES * longest, unit_bytes=unit_bytes
        )
        connect(m, walker.tokens, rows.tokens)
        connect(m, rows.runs, flipped(self.runs))

        linear = Signal()
        position = Signal(token_count_shape(config))
        left = Signal.like(request.query_tokens)
        output_block = Signal.like(request.last_output_block)
        offset = Signal(range(OUT_BYTES * config.max_tokens + 1))  # of the output block, in bytes
        base = Signal.like(self.head.base)
        step = Signal(range(config.block + 1))
        tokens = Signal.like(step)
        row_units = Signal.like(rows.row_units)
        last_output = ~linear | (output_block == request.last_output_block)
        taken = walker.request.valid & walker.request.ready
        m.d.comb += [
            step.eq(Mux(linear, config.layer_tokens, config.block)),
            tokens.eq(Mux(left > step, step, left)),
            row_units.eq(
                Mux(
                    linear,
                    OUT_BYTES * config.block // unit_bytes,
                    OUT_BYTES * config.head_dim // unit_bytes,
                )
            ),
            walker.walk.eq(self.head.walk),
            walker.forget.eq(self.idle),
            walker.request.payload.position.eq(position),
            walker.request.payload.tokens.eq(tokens),
            # The base of a layer's next block is another one.
            walker.request.valid.eq(left.any() & (~linear | rows.idle)),
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
            with m.If(last_output):
                m.d.sync += [
                    position.eq(position + step),
                    left.eq(left - tokens),
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
