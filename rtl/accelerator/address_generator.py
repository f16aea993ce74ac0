"""Address generator: the runs of memory that a block of Q, K or V is read from."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from paro.config import Config
from paro.config.config import bits_unsigned
from paro.config.descriptor import ROW_STRIDE_BITS
from paro.config.formats import SCALE_BYTES, Operand
from paro.config.registers import MEMORY_ADDRESS_BITS
from rtl.accelerator.token_runs import TokenRuns
from rtl.accelerator.token_walker import TokenWalker, walk_layout
from rtl.bus.axi import Destination, cores_shape, run_layout
from rtl.interfaces import token_count_shape
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts

__all__ = ["AddressGenerator", "block_request_layout", "head_layout"]


def block_request_layout(config: Config) -> data.StructLayout:
    """A block of the ``operand`` (`formats.Operand`): ``tokens`` from ``position`` on.

    Of a layer: of these rows chunk ``chunk`` of the inputs; of a head it is 0. In a cluster,
    ``cores`` that take the block.
    """
    return data.StructLayout(
        {
            "operand": unsigned(2),
            "position": token_count_shape(config),
            "tokens": unsigned(bits_unsigned(config.block)),
            "chunk": unsigned(bits_unsigned(config.chunks_max - 1)),
            "cores": cores_shape(config),
        }
    )


def head_layout(config: Config) -> data.StructLayout:
    """Where a head's inputs lie, in bytes; the arrays' index is `formats.Operand`.

    ``base`` and ``row_stride`` of the operands' rows, ``scales`` of Q and K.
    """
    return data.StructLayout(
        {
            "walk": walk_layout(config),
            "base": data.ArrayLayout(unsigned(MEMORY_ADDRESS_BITS), len(Operand)),
            "row_stride": data.ArrayLayout(unsigned(ROW_STRIDE_BITS), len(Operand)),
            "scales": data.ArrayLayout(unsigned(MEMORY_ADDRESS_BITS), 2),
        }
    )


class AddressGenerator(wiring.Component):
    """Makes the runs of a block: of Q and K first the scales, then the rows of the tokens.

    Scales lie in the head's order, so that a block's are one run; rows lie in memory's order.

    Members
    -------
    head : In, `head_layout`
        Constant unless ``idle``.
    new_head : In, 1
        ``head`` has changed: to be given before or with the head's first request.
    request : In, stream of `block_request_layout`
    runs : Out, stream of `run_layout`
        Units of ``load_bytes``. Scales fill whole units; the rest of the last unit is read too.
    idle : Out, 1
        No request is in progress.

    Latency
    -------
    From a request: 1 cycle to the run of the scales; to the first run of rows the latency of
    `TokenWalker` and of `TokenRuns`. Without stalls a request that is no jump takes ``tokens`` + 3
    cycles.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "head": In(head_layout(config)),
                "new_head": In(1),
                "request": In(stream.Signature(block_request_layout(config))),
                "runs": Out(stream.Signature(run_layout(config))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, head, request = self._config, self.head, self.request.payload
        m.submodules.walker = walker = TokenWalker(config, again=True, jumps=True)
        m.submodules.rows = rows = TokenRuns(
            config, row_bytes=config.head_dim, unit_bytes=config.load_bytes
        )
        connect(m, walker.tokens, rows.tokens)
        Contracts(m, platform, self).asks_constant(head, "head", unless=self.idle)

        # The rows' runs wait for the scales' run: once no row is left, neither is a run of scales.
        current = Signal.like(request)
        base = Signal(MEMORY_ADDRESS_BITS)
        scales_due = Signal()
        m.d.comb += [
            walker.walk.eq(head.walk),
            walker.forget.eq(self.new_head),
            walker.request.payload.position.eq(request.position),
            walker.request.payload.tokens.eq(request.tokens),
            walker.request.valid.eq(self.request.valid & self.idle),
            self.request.ready.eq(self.idle),
            self.idle.eq(walker.request.ready & rows.idle),
            rows.base.eq(base),
            rows.row_units.eq(config.head_dim // config.load_bytes),
            rows.row_stride.eq(head.row_stride[current.operand]),
            rows.cores.eq(current.cores),
        ]
        with m.Switch(current.operand):
            for operand in Operand:
                with m.Case(operand):
                    m.d.comb += rows.destination.eq(Destination[operand.name])
        with m.If(self.request.valid & self.idle):
            m.d.sync += [
                current.eq(request),
                scales_due.eq(request.operand != Operand.V),
                base.eq(head.base[request.operand] + (request.chunk << log2(config.head_dim))),
            ]

        of_k = current.operand == Operand.K
        with m.If(scales_due):
            m.d.comb += [
                self.runs.payload.address.eq(
                    head.scales[of_k] + (current.position << log2(SCALE_BYTES))
                ),
                self.runs.payload.units.eq(
                    (current.tokens + config.load_tokens - 1) >> log2(config.load_tokens)
                ),
                self.runs.payload.destination.eq(
                    Mux(of_k, Destination.K_SCALES, Destination.Q_SCALES)
                ),
                self.runs.payload.cores.eq(current.cores),
                self.runs.valid.eq(1),
            ]
            with m.If(self.runs.ready):
                m.d.sync += scales_due.eq(0)
        with m.Else():
            m.d.comb += [
                self.runs.payload.eq(rows.runs.payload),
                self.runs.valid.eq(rows.runs.valid),
                rows.runs.ready.eq(self.runs.ready),
            ]
        return m
