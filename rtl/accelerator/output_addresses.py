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
    """``query_tokens`` queries, at least 1, from the first of block row ``first_block_row``."""
    return data.StructLayout(
        {
            "first_block_row": unsigned(bits_unsigned(config.blocks_max - 1)),
            "query_tokens": token_count_shape(config),
        }
    )


def output_head_layout(config: Config) -> data.StructLayout:
    """Where a head's outputs lie, in bytes."""
    return data.StructLayout(
        {
            "walk": walk_layout(config),
            "base": unsigned(MEMORY_ADDRESS_BITS),
            "row_stride": unsigned(ROW_STRIDE_BITS),
        }
    )


class OutputAddresses(wiring.Component):
    """Makes the runs of a head's outputs, in the order in which the core sends them.

    Members
    -------
    head : In, `output_head_layout`
        Constant unless ``idle``.
    request : In, stream of `output_request_layout`
        One a head.
    runs : Out, stream of `run_layout`
        Units of one beat of the O stream. A run does not go beyond a block.
    idle : Out, 1
        No request is in progress.

    Latency
    -------
    See `TokenWalker` and `TokenRuns`; only the first block is a jump. One token a cycle, and one
    cycle more for each block.
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
        m.submodules.rows = rows = TokenRuns(
            config,
            row_bytes=OUT_BYTES * config.head_dim,
            unit_bytes=OUT_BYTES * config.output_words,
        )
        connect(m, walker.tokens, rows.tokens)
        connect(m, rows.runs, flipped(self.runs))

        row = Signal.like(request.first_block_row)
        left = Signal.like(request.query_tokens)
        full = left > config.block
        m.d.comb += [
            walker.walk.eq(self.head.walk),
            walker.forget.eq(self.idle),
            walker.request.payload.position.eq(row << log2(config.block)),
            walker.request.payload.tokens.eq(Mux(full, config.block, left)),
            walker.request.valid.eq(left.any()),
            rows.base.eq(self.head.base),
            rows.row_stride.eq(self.head.row_stride),
            self.idle.eq(~left.any() & walker.request.ready & rows.idle),
            self.request.ready.eq(self.idle),
        ]
        with m.If(self.idle & self.request.valid):
            m.d.sync += [row.eq(request.first_block_row), left.eq(request.query_tokens)]
        with m.Elif(walker.request.valid & walker.request.ready):
            m.d.sync += [row.eq(row + 1), left.eq(Mux(full, left - config.block, 0))]
        return m
