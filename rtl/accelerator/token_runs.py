"""Token runs: from indices of tokens to runs of consecutive memory units."""

from contextlib import nullcontext

from amaranth.hdl import Cat, Module, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.descriptor import ROW_STRIDE_BITS
from paro.config.registers import MEMORY_ADDRESS_BITS
from rtl.accelerator.token_walker import token_layout
from rtl.bus.axi import run_layout
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts

__all__ = ["TokenRuns"]


class TokenRuns(wiring.Component):
    """Finds the row of each token and joins rows that follow each other in memory.

    Parameters
    ----------
    config : Config
    row_bytes : int
        Most bytes of one token.
    unit_bytes : int
        Bytes of one unit of a run; divides ``row_bytes``.
    joins : bool
        Whether rows that follow each other in memory become one run.

    Members
    -------
    base, row_stride : In
        Token t begins ``t * row_stride`` bytes after ``base``.
    row_units : In
        Units of one token.
    destination, cores : In
        Passed on in every run.
    tokens : In, stream of `token_layout`
    runs : Out, stream of `run_layout`
        A run ends where the next row is elsewhere, and with the last token of a request. Without
        ``joins`` it is a single row, whether the token is the last or not.
    idle : Out, 1
        No token is in the pipeline.

    Latency
    -------
    `LATENCY` cycles from the last token of a run, where the next token is there at once. One token
    a cycle.

    Contract
    --------
    ``base``, ``row_stride``, ``row_units``, ``destination`` and ``cores`` are constant unless
    ``idle``. Rows begin at multiples of 4 bytes.
    """

    LATENCY = 2

    def __init__(self, config: Config, *, row_bytes: int, unit_bytes: int, joins: bool = True):
        assert row_bytes % unit_bytes == 0, (row_bytes, unit_bytes)
        self._config = config
        self._row_bytes, self._unit_bytes, self._joins = row_bytes, unit_bytes, joins
        layout = run_layout(config)
        super().__init__(
            {
                "base": In(unsigned(MEMORY_ADDRESS_BITS)),
                "row_stride": In(unsigned(ROW_STRIDE_BITS)),
                "row_units": In(range(row_bytes // unit_bytes + 1)),
                "destination": In(layout["destination"].shape),
                "cores": In(layout["cores"].shape),
                "tokens": In(stream.Signature(token_layout(config))),
                "runs": Out(stream.Signature(layout)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        run, token = self.runs.payload, self.tokens.payload
        units, most_units = self.row_units, self._row_bytes // self._unit_bytes
        most_rows = self._config.block if self._joins else 1
        assert (most_rows * most_units).bit_length() <= len(run.units)

        given = Cat(self.base, self.row_stride, units, self.destination, self.cores)
        Contracts(m, platform, self).asks_constant(given, "row", unless=self.idle)

        # The row that is being placed, and whether the run ends before it.
        row_valid = Signal()
        words = Signal(len(token.token) + ROW_STRIDE_BITS - 2)

        run_valid = Signal()
        place_row = Signal()
        offered = Signal()
        is_whole, can_place = run_valid, ~run_valid | offered
        row_joins = None
        if self._joins:
            row_joins, run_ends = self._find_joins(m, row_valid, place_row)
            is_whole, can_place = run_valid & run_ends, row_joins | can_place
        m.d.comb += [
            run.destination.eq(self.destination),
            run.cores.eq(self.cores),
            self.runs.valid.eq(is_whole),
            offered.eq(self.runs.valid & self.runs.ready),
            place_row.eq(row_valid & can_place),
            self.tokens.ready.eq(~row_valid | place_row),
            self.idle.eq(~row_valid & ~run_valid),
        ]
        with m.If(self.tokens.ready):
            m.d.sync += row_valid.eq(self.tokens.valid)
            with m.If(self.tokens.valid):
                m.d.sync += words.eq(token.token * self.row_stride[2:])
        with m.If(offered):
            m.d.sync += run_valid.eq(0)
        address = Signal.like(run.address)
        number = Signal.like(run.units)
        m.d.comb += [run.address.eq(address), run.units.eq(number)]
        with m.If(place_row):
            m.d.sync += run_valid.eq(1)
            if row_joins is not None:
                with m.If(row_joins):
                    m.d.sync += number.eq(number + units)
            with nullcontext() if row_joins is None else m.Else():
                m.d.sync += [
                    address.eq(self.base + (words << 2)),
                    number.eq(units),
                ]
        return m

    def _find_joins(self, m: Module, row_valid: Signal, place_row: Signal) -> tuple[Signal, Value]:
        """Find whether the row that is being placed joins the run, and whether the run ends."""
        token = self.tokens.payload
        row_last = Signal()
        row_joins = Signal()
        joinable = Signal()
        expected = Signal.like(token.token)
        run_last = Signal()
        follows = self.row_stride == self.row_units << log2(self._unit_bytes)
        with m.If(self.tokens.valid & self.tokens.ready):
            m.d.sync += [
                row_joins.eq(joinable & (token.token == expected)),
                row_last.eq(token.last),
                expected.eq(token.token + 1),
                joinable.eq(~token.last & follows),
            ]
        with m.If(place_row):
            m.d.sync += run_last.eq(row_last)
        return row_joins, run_last | (row_valid & ~row_joins)
