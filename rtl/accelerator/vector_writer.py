"""Vector writer: words and mantissas of the vector unit to runs of memory and their data."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from paro.config import Config
from paro.config.config import bits_unsigned
from paro.config.descriptor import ROW_STRIDE_BITS
from paro.config.formats import OUT_BITS, OUT_BYTES, SCALE_BYTES
from paro.config.registers import MEMORY_ADDRESS_BITS
from rtl.accelerator.token_runs import TokenRuns
from rtl.bus.axi import Destination, run_layout
from rtl.interfaces import o_signature, token_count_shape
from rtl.lib.arithmetic import log2
from rtl.lib.stream_fifo import StreamFIFO
from rtl.lib.stream_resize import StreamResize
from rtl.vector.passes import mantissa_shape

__all__ = ["VectorWriter", "outputs_layout"]

#: Units of mantissas that wait.
_SCALE_UNITS = 4


def outputs_layout(config: Config) -> data.StructLayout:
    """What ``tokens`` tokens put out, at least 1.

    ``rows`` of ``chunks`` times head_dim words, of 8 bits each or of 16, and ``mantissas``, of
    every ``bank_step``-th bank of the unit by turns.
    """
    return data.StructLayout(
        {
            "tokens": token_count_shape(config),
            "chunks": unsigned(bits_unsigned(config.vector_channels // config.head_dim)),
            "rows": 1,
            "int8": 1,
            "mantissas": 1,
            "bank_step": range(config.vector_rows),
            "base": unsigned(MEMORY_ADDRESS_BITS),
            "row_stride": unsigned(ROW_STRIDE_BITS),
            "scales": unsigned(MEMORY_ADDRESS_BITS),
        }
    )


class VectorWriter(wiring.Component):
    """Offers a run when all its data is there.

    Parameters
    ----------
    config : Config

    Members
    -------
    outputs : In, `outputs_layout`
        Constant from ``start`` until ``idle``.
    start : In, 1
    tokens : In, stream
        Tokens in the order of their rows.
    results : In, stream
        Beats of their words.
    mantissas : In, stream of each bank
        See `outputs_layout`.
    runs, data : Out, stream of `run_layout`, `rtl.interfaces.o_signature`
        Of rows, then of mantissas.
    idle : Out, 1
        All runs have been passed on.
    """

    def __init__(self, config: Config):
        self._config = config
        beat = data.ArrayLayout(signed(OUT_BITS), config.vector_lanes)
        super().__init__(
            {
                "outputs": In(outputs_layout(config)),
                "start": In(1),
                "tokens": In(stream.Signature(token_count_shape(config))),
                "results": In(stream.Signature(beat)),
                "mantissas": In(stream.Signature(mantissa_shape())).array(config.vector_rows),
                "runs": Out(stream.Signature(run_layout(config))).array(2),
                "data": Out(o_signature(config)).array(2),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows_left = self._write_rows(m)
        scales_left = self._write_mantissas(m)
        m.d.comb += self.idle.eq(~rows_left & ~scales_left)
        return m

    def _write_rows(self, m: Module) -> Signal:
        """Write rows of words; returns whether any are left."""
        config, outputs = self._config, self.outputs
        unit_bits = 8 * config.output_bytes
        lanes = config.vector_lanes
        longest = OUT_BYTES * config.vector_channels // config.output_bytes
        m.submodules.bytes = narrow = StreamResize(8 * lanes, unit_bits)
        m.submodules.words = wide = StreamResize(OUT_BITS * lanes, unit_bits)
        m.submodules.row_queue = queue = StreamFIFO(unsigned(unit_bits), depth=2 * longest)
        results = self.results
        m.d.comb += [
            narrow.input.payload.eq(Cat(results.payload[lane][:8] for lane in range(lanes))),
            wide.input.payload.eq(results.payload.as_value()),
        ]
        for chosen, resize in ((outputs.int8, narrow), (~outputs.int8, wide)):
            with m.If(chosen):
                m.d.comb += [
                    resize.input.valid.eq(results.valid),
                    results.ready.eq(resize.input.ready),
                    queue.input.valid.eq(resize.output.valid),
                    queue.input.payload.eq(resize.output.payload),
                    resize.output.ready.eq(queue.input.ready),
                ]

        m.submodules.rows = rows = TokenRuns(
            config,
            row_bytes=OUT_BYTES * config.vector_channels,
            unit_bytes=config.output_bytes,
            joins=False,
        )
        units_of_chunk = OUT_BYTES * config.head_dim // config.output_bytes
        m.d.comb += [
            rows.base.eq(outputs.base),
            rows.row_stride.eq(outputs.row_stride),
            rows.row_units.eq((outputs.chunks << log2(units_of_chunk)) >> outputs.int8),
            rows.destination.eq(Destination.VECTOR),
            rows.tokens.payload.token.eq(self.tokens.payload),
            rows.tokens.valid.eq(self.tokens.valid & outputs.rows),
            self.tokens.ready.eq(rows.tokens.ready | ~outputs.rows),
        ]
        units = Signal.like(rows.row_units)  # of the row that is put together
        whole = Signal(range(2 * longest + 1))  # rows
        ends = Signal()
        starts = self.runs[0].valid & self.runs[0].ready
        with m.If(queue.input.valid & queue.input.ready):
            m.d.comb += ends.eq(units == rows.row_units - 1)
            m.d.sync += units.eq(Mux(ends, 0, units + 1))
        m.d.sync += whole.eq(whole + ends - starts)
        m.d.comb += [
            self.runs[0].payload.eq(rows.runs.payload),
            self.runs[0].valid.eq(rows.runs.valid & whole.any()),
            rows.runs.ready.eq(self.runs[0].ready & whole.any()),
            self.data[0].payload.as_value().eq(queue.output.payload),
            self.data[0].valid.eq(queue.output.valid),
            queue.output.ready.eq(self.data[0].ready),
        ]
        left = Signal.like(outputs.tokens)
        with m.If(self.start):
            m.d.sync += left.eq(Mux(outputs.rows, outputs.tokens, 0))
        with m.Elif(starts):
            m.d.sync += left.eq(left - 1)
        return left.any()

    def _write_mantissas(self, m: Module) -> Signal:
        """Write mantissas, filled up to whole units; returns whether any are left."""
        config, outputs = self._config, self.outputs
        unit_bytes = config.output_bytes
        units = max(1, SCALE_BYTES // unit_bytes)  # of a run
        m.submodules.scales = resize = StreamResize(8 * SCALE_BYTES, 8 * unit_bytes)
        m.submodules.scale_queue = queue = StreamFIFO(
            unsigned(8 * unit_bytes), depth=_SCALE_UNITS * units
        )
        connect(m, resize.output, queue.input)
        left = Signal.like(outputs.tokens)
        bank = Signal(range(config.vector_rows))
        fills = ~left.any() & resize.partial
        valid = Array(port.valid for port in self.mantissas)[bank]
        word = Array(port.payload for port in self.mantissas)[bank]
        taken = left.any() & valid & resize.input.ready
        m.d.comb += [
            resize.input.valid.eq((left.any() & valid) | fills),
            resize.input.payload.eq(Mux(fills, 0, word)),
        ]
        for index, port in enumerate(self.mantissas):
            m.d.comb += port.ready.eq(taken & (bank == index))
        address = Signal(MEMORY_ADDRESS_BITS)
        with m.If(self.start):
            m.d.sync += [
                left.eq(Mux(outputs.mantissas, outputs.tokens, 0)),
                bank.eq(0),
                address.eq(outputs.scales),
            ]
        with m.Elif(taken):
            m.d.sync += [left.eq(left - 1), bank.eq(bank + outputs.bank_step)]

        run = self.runs[1]
        waiting = Signal(range(_SCALE_UNITS * units + 1))  # units of no run yet
        starts = run.valid & run.ready
        m.d.sync += waiting.eq(
            waiting + (queue.input.valid & queue.input.ready) - Mux(starts, units, 0)
        )
        m.d.comb += [
            run.payload.address.eq(address),
            run.payload.units.eq(units),
            run.payload.destination.eq(Destination.VECTOR),
            run.valid.eq(waiting >= units),
            self.data[1].payload.as_value().eq(queue.output.payload),
            self.data[1].valid.eq(queue.output.valid),
            queue.output.ready.eq(self.data[1].ready),
        ]
        with m.If(starts):
            m.d.sync += address.eq(address + units * unit_bytes)
        return left.any() | resize.partial | resize.output.valid | (waiting != 0)
