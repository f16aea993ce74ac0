"""Vector reader: programs, tables and tokens' rows from memory to the vector unit."""

from amaranth.hdl import Array, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config
from paro.config.config import bits_unsigned
from paro.config.descriptor import ROW_STRIDE_BITS
from paro.config.formats import OUT_BITS, OUT_BYTES
from paro.config.registers import MEMORY_ADDRESS_BITS
from paro.config.vector_program import SECONDS_MAX
from rtl.accelerator.token_runs import TokenRuns
from rtl.accelerator.token_walker import TokenWalker, walk_layout
from rtl.accelerator.vector_setup import SETUP_BITS
from rtl.bus.axi import Destination, run_layout
from rtl.bus.read_master import RUNS
from rtl.interfaces import token_count_shape
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts
from rtl.lib.stream_fifo import StreamFIFO
from rtl.lib.stream_resize import StreamResize

__all__ = ["VectorReader", "rows_layout"]

#: Tokens whose rows are read and not written.
TOKENS = 32


class _Kind(enum.Enum, shape=2):
    """What a run is of."""

    SETUP = 0
    ROW = 1
    SECOND = 2


def rows_layout(config: Config) -> data.StructLayout:
    """Rows to read: the first ``tokens`` of a walk, at least 1.

    Of ``chunks`` times head_dim words each, and second rows ``seconds`` times as long, for every
    ``bank_step``-th bank of the unit by turns.
    """
    address, stride = unsigned(MEMORY_ADDRESS_BITS), unsigned(ROW_STRIDE_BITS)
    return data.StructLayout(
        {
            "walk": walk_layout(config),
            "tokens": token_count_shape(config),
            "chunks": unsigned(bits_unsigned(config.vector_channels // config.head_dim)),
            "seconds": range(SECONDS_MAX + 1),
            "bank_step": range(config.vector_rows),
            "base": address,
            "row_stride": stride,
            "second_base": address,
            "second_stride": stride,
        }
    )


class VectorReader(wiring.Component):
    """Asks for rows while there is room for them, so that what it reads never waits in the bus.

    Parameters
    ----------
    config : Config

    Members
    -------
    rows : In, `rows_layout`
        Constant from ``start`` until ``idle``.
    start : In, 1
        Read these rows.
    setup_runs : In, stream of `run_layout`
        Of programs and tables; not between ``start`` and ``idle``.
    setup : Out, stream
        Their words of `SETUP_BITS`.
    words : Out, stream
        Beats of rows, one token after another.
    seconds : Out, stream of each bank
        Beats of second rows.
    tokens : Out, stream
        Every token whose rows have been asked for.
    runs : Out, stream of `run_layout`
    units : In, stream of ``load_bytes``
    idle : Out, 1
        All rows have been asked for.
    """

    def __init__(self, config: Config):
        self._config = config
        beat = stream.Signature(data.ArrayLayout(unsigned(OUT_BITS), config.vector_lanes))
        run = stream.Signature(run_layout(config))
        super().__init__(
            {
                "rows": In(rows_layout(config)),
                "start": In(1),
                "setup_runs": In(run),
                "setup": Out(stream.Signature(unsigned(SETUP_BITS))),
                "words": Out(beat),
                "seconds": Out(beat).array(config.vector_rows),
                "tokens": Out(stream.Signature(token_count_shape(config))),
                "runs": Out(run),
                "units": In(stream.Signature(unsigned(8 * config.load_bytes))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, rows = self._config, self.rows
        beats_of_chunk = config.head_dim // config.vector_lanes
        units_of_chunk = OUT_BYTES * config.head_dim // config.load_bytes
        longest = config.vector_channels // config.vector_lanes
        row_beats = Signal(range(longest + 1))
        second_beats = Signal(range(SECONDS_MAX * longest + 1))
        m.d.comb += [
            row_beats.eq(rows.chunks << log2(beats_of_chunk)),
            second_beats.eq((row_beats * rows.seconds)[: len(second_beats)]),
        ]
        sources = {
            "row": (rows.base, rows.row_stride, rows.chunks << log2(units_of_chunk), 1),
            "second": (
                rows.second_base,
                rows.second_stride,
                (rows.chunks * rows.seconds) << log2(units_of_chunk),
                SECONDS_MAX,
            ),
        }
        places = {}
        for name, (base, row_stride, units, most) in sources.items():
            m.submodules[f"{name}_runs"] = runs = TokenRuns(
                config,
                row_bytes=most * OUT_BYTES * config.vector_channels,
                unit_bytes=config.load_bytes,
                joins=False,
            )
            m.d.comb += [
                runs.base.eq(base),
                runs.row_stride.eq(row_stride),
                runs.row_units.eq(units),
                runs.destination.eq(Destination.VECTOR),
            ]
            places[name] = runs
        contracts = Contracts(m, platform, self)
        row_queue, second_queues = self._fill(m, contracts, row_beats, second_beats, longest)
        connect(m, row_queue.output, flipped(self.words))
        for queue, port in zip(second_queues, self.seconds, strict=True):
            connect(m, queue.output, flipped(port))

        # Room in beats: what is asked for takes it, what leaves gives it back.
        has_second = rows.seconds != 0
        room = Signal(range(2 * longest + 1), init=2 * longest)
        bank = Signal(range(config.vector_rows))  # of the next token
        second_rooms = [
            Signal(range(depth + 1), init=depth, name=f"second_room_{index}")
            for index, depth in enumerate(_second_depths(config))
        ]
        second_room = Array(second_rooms)[bank]
        m.submodules.walker = walker = TokenWalker(config, again=False, jumps=False)
        m.submodules.asked = asked = StreamFIFO(token_count_shape(config), depth=TOKENS)
        connect(m, asked.output, flipped(self.tokens))
        ready = Signal()
        goes = Signal()
        token = walker.tokens
        m.d.comb += [
            ready.eq(
                places["row"].tokens.ready
                & asked.input.ready
                & (row_beats <= room)
                & (~has_second | (places["second"].tokens.ready & (second_beats <= second_room)))
            ),
            goes.eq(token.valid & ready),
            token.ready.eq(ready),
            asked.input.valid.eq(goes),
            asked.input.payload.eq(token.payload.token),
        ]
        for name, runs in places.items():
            m.d.comb += [
                runs.tokens.valid.eq(goes if name == "row" else goes & has_second),
                runs.tokens.payload.token.eq(token.payload.token),
            ]
        taken = self.words.valid & self.words.ready
        contracts.holds(~taken | (room != 2 * longest), "a beat that leaves had its place")
        m.d.sync += room.eq(room - Mux(goes, row_beats, 0) + taken)
        for index, (own, port) in enumerate(zip(second_rooms, self.seconds, strict=True)):
            asks = goes & has_second & (bank == index)
            taken = port.valid & port.ready
            contracts.holds(~taken | (own != own.init), "a second beat that leaves had its place")
            m.d.sync += own.eq(own - Mux(asks, second_beats, 0) + taken)
        with m.If(self.start):
            m.d.sync += bank.eq(0)
        with m.Elif(goes):
            m.d.sync += bank.eq(bank + rows.bank_step)
        self._walk(m, walker)
        self._ask(m, places)
        return m

    def _walk(self, m: Module, walker: TokenWalker) -> None:
        """Ask for all tokens, block by block, each where the one before ended."""
        rows, block = self.rows, self._config.block
        position = Signal.like(rows.tokens)
        left = Signal.like(rows.tokens)
        tokens = Mux(left > block, block, left)
        m.d.comb += [
            walker.walk.eq(rows.walk),
            walker.forget.eq(self.start),
            walker.request.payload.position.eq(position),
            walker.request.payload.tokens.eq(tokens),
            walker.request.valid.eq(left.any()),
            self.idle.eq(~left.any() & walker.request.ready),
        ]
        with m.If(self.start):
            m.d.sync += [position.eq(0), left.eq(rows.tokens)]
        with m.Elif(walker.request.valid & walker.request.ready):
            m.d.sync += [position.eq(position + block), left.eq(left - tokens)]

    def _ask(self, m: Module, places: dict[str, TokenRuns]) -> None:
        """Pass runs on, the setup's first, and note what each is of."""
        run = self.runs
        taken = self._kinds.input
        chosen = Signal(_Kind)
        held = Signal(_Kind)
        offered = Signal()
        sources = (
            (_Kind.SETUP, self.setup_runs),
            (_Kind.SECOND, places["second"].runs),
            (_Kind.ROW, places["row"].runs),
        )
        with m.If(offered):
            m.d.comb += chosen.eq(held)
        for kind, source in sources:
            with m.Elif(source.valid):
                m.d.comb += chosen.eq(kind)
        m.d.sync += [held.eq(chosen), offered.eq(run.valid & ~run.ready)]
        for kind, source in sources:
            with m.If(chosen == kind):
                m.d.comb += [
                    run.payload.eq(source.payload),
                    run.valid.eq(source.valid & taken.ready),
                    source.ready.eq(run.ready & taken.ready),
                ]
        m.d.comb += [
            taken.valid.eq(run.valid & run.ready),
            taken.payload.kind.eq(chosen),
            taken.payload.units.eq(run.payload.units),
        ]

    def _fill(
        self,
        m: Module,
        contracts: Contracts,
        row_beats: Signal,
        second_beats: Signal,
        longest: int,
    ) -> tuple[StreamFIFO, list[StreamFIFO]]:
        """Pass units on to what they are of; returns the queues of rows and of second rows."""
        config, units = self._config, self.units
        beat_bits = OUT_BITS * config.vector_lanes
        kinds = StreamFIFO(
            data.StructLayout({"kind": _Kind, "units": run_layout(config)["units"].shape}),
            depth=RUNS,
        )
        m.submodules.kinds = self._kinds = kinds
        turn = kinds.output
        taken = Signal.like(turn.payload.units)
        last = taken == turn.payload.units - 1
        with m.If(units.valid & units.ready):
            m.d.sync += taken.eq(Mux(last, 0, taken + 1))
            m.d.comb += turn.ready.eq(last)
        cut = {}
        for kind, bits in (
            (_Kind.SETUP, SETUP_BITS),
            (_Kind.ROW, beat_bits),
            (_Kind.SECOND, beat_bits),
        ):
            resize = StreamResize(8 * config.load_bytes, bits)
            m.submodules[f"{kind.name.lower()}_words"] = resize
            m.d.comb += resize.input.payload.eq(units.payload)
            with m.If(turn.valid & (turn.payload.kind == kind)):
                m.d.comb += [
                    resize.input.valid.eq(units.valid),
                    units.ready.eq(resize.input.ready),
                ]
            cut[kind] = resize.output
        connect(m, cut[_Kind.SETUP], flipped(self.setup))

        beat = self.words.payload.shape()
        m.submodules.row_queue = row_queue = StreamFIFO(beat, depth=2 * longest)
        m.d.comb += [
            row_queue.input.payload.eq(cut[_Kind.ROW].payload),
            row_queue.input.valid.eq(cut[_Kind.ROW].valid),
            cut[_Kind.ROW].ready.eq(row_queue.input.ready),
        ]
        contracts.has_room(row_queue.input, "all beats of rows that were asked for")
        bank = Signal(range(config.vector_rows))
        passed = Signal.like(second_beats)
        source = cut[_Kind.SECOND]
        with m.If(self.start):
            m.d.sync += [bank.eq(0), passed.eq(0)]
        with m.Elif(source.valid & source.ready):
            ends = passed == second_beats - 1
            m.d.sync += [
                passed.eq(Mux(ends, 0, passed + 1)),
                bank.eq(bank + Mux(ends, self.rows.bank_step, 0)),
            ]
        queues = []
        for index, depth in enumerate(_second_depths(config)):
            m.submodules[f"second_queue_{index}"] = queue = StreamFIFO(beat, depth=depth)
            m.d.comb += [
                queue.input.payload.eq(source.payload),
                queue.input.valid.eq(source.valid & (bank == index)),
            ]
            contracts.has_room(queue.input, "all beats of second rows that were asked for")
            with m.If(bank == index):
                m.d.comb += source.ready.eq(queue.input.ready)
            queues.append(queue)
        return row_queue, queues


def _second_depths(config: Config) -> list[int]:
    """Beats of second rows that are kept for each bank: the more, the longer its rows may be."""
    longest, banks = config.vector_channels // config.vector_lanes, config.vector_rows
    return [longest if not bank else 2 * longest * (bank & -bank) // banks for bank in range(banks)]
