"""The vector engine: the vector unit, fed from memory, working on one step after another."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config
from paro.config.registers import MEMORY_ADDRESS_BITS, QUEUE_BITS, Cause
from paro.config.vector_program import SLOTS, Added, Right
from rtl.accelerator.operand_feed import OperandFeed
from rtl.accelerator.vector_reader import VectorReader, rows_layout
from rtl.accelerator.vector_setup import VectorSetup
from rtl.accelerator.vector_writer import VectorWriter, outputs_layout
from rtl.bus.axi import run_layout
from rtl.interfaces import o_signature
from rtl.lib.arithmetic import log2
from rtl.lib.stream_fifo import StreamFIFO
from rtl.vector.passes import command_layout
from rtl.vector.unit import VectorUnit

__all__ = ["VectorEngine", "step_layout"]

#: Commands that wait for the unit, so that their operands are there when it takes them.
_COMMANDS = 4
#: Fields of a command that do not come from a pass.
_OWN_FIELDS = ("bank", "beats", "group")


def step_layout(config: Config) -> data.StructLayout:
    """A vector step: its ``rows`` and ``outputs`` but for what its program says, its ``index``.

    ``program`` and ``tables``, where they lie; ``too_wide``: its rows have more channels than the
    unit holds.
    """
    return data.StructLayout(
        {
            "rows": rows_layout(config),
            "outputs": outputs_layout(config),
            "program": unsigned(MEMORY_ADDRESS_BITS),
            "tables": unsigned(MEMORY_ADDRESS_BITS),
            "index": unsigned(QUEUE_BITS),
            "too_wide": 1,
        }
    )


class VectorEngine(wiring.Component):
    """Reads a step's program and tables, then sends the unit its passes, for some tokens by turns.

    Parameters
    ----------
    config : Config
        ``vector_channels`` above 0.

    Members
    -------
    steps : In, stream of `step_layout`
        One waits while the one before it is worked on.
    runs : Out, stream of `run_layout`
    units : In, stream of ``load_bytes``
    write_runs, write_data : Out, arrays of stream
        See `rtl.accelerator.write_arbiter.WriteArbiter`.
    written : In, 1
        All that was passed on for writing has been written.
    rests : Out, 1
        All of the step has been passed on for writing: it waits for ``written``.
    fault : Out, `Cause`
        Of the step; it stays, and nothing more is done, until reset.
    index : Out
        Number of the step in progress, or of the one that waits if none is.
    step_done : Out, 1
        The step's last output has been written.
    idle : Out, 1
        No step is in progress, and none waits.

    Contract
    --------
    The passes of a program take all of the second rows that its header names, and no more; they
    send rows and mantissas as it says. Second rows are either factors or addends.
    """

    def __init__(self, config: Config):
        self._config = config
        self._depth = config.vector_channels // config.vector_lanes
        run = stream.Signature(run_layout(config))
        super().__init__(
            {
                "steps": In(stream.Signature(step_layout(config))),
                "runs": Out(run),
                "units": In(stream.Signature(unsigned(8 * config.load_bytes))),
                "write_runs": Out(run).array(2),
                "write_data": Out(o_signature(config)).array(2),
                "written": In(1),
                "rests": Out(1),
                "fault": Out(Cause),
                "index": Out(QUEUE_BITS),
                "step_done": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.reader = reader = VectorReader(config)
        m.submodules.setup = setup = VectorSetup(config, readers=2)
        m.submodules.unit = unit = VectorUnit(config, config.vector_channels)
        m.submodules.writer = writer = VectorWriter(config)
        connect(m, flipped(self.units), reader.units)
        connect(m, reader.runs, flipped(self.runs))
        connect(m, setup.runs, reader.setup_runs)
        connect(m, reader.setup, setup.words)
        connect(m, reader.tokens, writer.tokens)
        connect(m, unit.results, writer.results)
        _connect_words(m, reader.words, unit.words)
        for bank in range(config.vector_rows):
            connect(m, unit.mantissas[bank], writer.mantissas[bank])
        for index in range(2):
            connect(m, writer.runs[index], flipped(self.write_runs[index]))
            connect(m, writer.data[index], flipped(self.write_data[index]))

        step = Signal(step_layout(config))
        begins = Signal()
        waits = self._take_step(m, step, begins)
        bank_step = self._bank_step(m, step, setup)
        m.d.comb += [
            reader.rows.eq(step.rows),
            reader.rows.seconds.eq(setup.header.seconds),
            writer.outputs.eq(step.outputs),
            *(
                writer.outputs[name].eq(setup.header[name])
                for name in ("rows", "int8", "mantissas")
            ),
            reader.rows.bank_step.eq(bank_step),
            writer.outputs.bank_step.eq(bank_step),
            setup.program.eq(step.program),
            setup.tables.eq(step.tables),
            setup.chunks.eq(step.rows.chunks),
        ]
        start = Signal()
        m.d.comb += [reader.start.eq(start), writer.start.eq(start)]
        issued = self._issue(m, unit, reader, setup, step, bank_step, start)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.idle.eq(~waits), begins.eq(waits)]
                with m.If(waits):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += setup.start.eq(~step.too_wide)
                m.next = "SETUP"
            with m.State("SETUP"):
                with m.If(setup.bad | step.too_wide):
                    m.d.comb += self.fault.eq(Cause.BAD_PROGRAM)
                with m.Elif(setup.done):
                    m.d.comb += start.eq(1)
                    m.next = "WORK"
            with m.State("WORK"):
                with m.If(issued & unit.idle & reader.idle & writer.idle):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += self.rests.eq(1)
                with m.If(self.written):
                    m.d.comb += self.step_done.eq(1)
                    m.next = "IDLE"
        return m

    def _take_step(self, m: Module, step: Any, begins: Signal) -> Signal:
        """Let a step wait until it ``begins``; returns whether one waits."""
        waiting = Signal(step_layout(self._config), reset_less=True)
        waits = Signal()
        m.d.comb += [
            self.steps.ready.eq(~waits),
            self.index.eq(Mux(begins, waiting.index, step.index)),
        ]
        with m.If(begins):
            m.d.sync += [step.eq(waiting), waits.eq(0)]
        with m.Elif(self.steps.valid & self.steps.ready):
            m.d.sync += [waiting.eq(self.steps.payload), waits.eq(1)]
        return waits

    def _bank_step(self, m: Module, step: Any, setup: VectorSetup) -> Signal:
        """Distance of the banks that are used: of all, if a row of the step fits in one's place."""
        banks = self._config.vector_rows
        place = 2 * self._depth // banks
        chunks = step.rows.chunks
        beats = Mux(setup.header.seconds > 1, chunks << 1, chunks) << log2(
            self._config.head_dim // self._config.vector_lanes
        )
        bank_step = Signal(range(banks))
        m.d.comb += bank_step.eq(banks // 2)
        for power in reversed(range(log2(banks) - 1)):
            with m.If(beats <= place << power):
                m.d.comb += bank_step.eq(1 << power)
        return bank_step

    def _issue(
        self,
        m: Module,
        unit: VectorUnit,
        reader: VectorReader,
        setup: VectorSetup,
        step: Any,
        bank_step: Signal,
        start: Signal,
    ) -> Any:
        """Send passes, of some tokens by turns, to the unit and to the feeds of its streams.

        Returns whether all have been sent and taken.
        """
        banks = self._config.vector_rows
        left = Signal.like(step.rows.tokens)  # those of the turn included
        slot = Signal(range(SLOTS))
        token = Signal(range(banks))  # of the turn
        bank = Signal(range(banks))
        known = Signal()  # the slot has been read
        sent = Signal()
        next_bank = Signal(range(banks + 1))
        m.d.comb += next_bank.eq(bank + bank_step)
        ends_turn = next_bank == banks
        last_token = ends_turn | (token + 1 == left)
        last_slot = slot == setup.header.passes
        m.d.comb += setup.slot.eq(slot)
        with m.If(start):
            m.d.sync += [left.eq(step.rows.tokens), slot.eq(1), token.eq(0), bank.eq(0)]
            m.d.sync += known.eq(0)
        with m.Elif(sent):
            m.d.sync += [token.eq(token + 1), bank.eq(next_bank)]
            with m.If(last_token):
                m.d.sync += [slot.eq(Mux(last_slot, 1, slot + 1)), token.eq(0), bank.eq(0)]
                m.d.sync += known.eq(0)
                with m.If(last_slot):
                    m.d.sync += left.eq(left - token - 1)
        with m.Else():
            m.d.sync += known.eq(1)

        now, lanes = setup.slot_pass, log2(self._config.vector_lanes)
        m.submodules.commands = commands = StreamFIFO(
            unit.commands.payload.shape(), depth=_COMMANDS
        )
        connect(m, commands.output, unit.commands)
        command = commands.input.payload
        m.d.comb += [
            command.bank.eq(bank),
            command.beats.eq((step.rows.chunks << log2(self._config.head_dim) - lanes) - 1),
            command.group.eq((now.group >> lanes) - 1),
        ]
        for name, _ in command_layout(self._depth, banks):
            if name not in _OWN_FIELDS:
                m.d.comb += command[name].eq(now[name])
        feeds = self._feed(m, unit, reader, setup)
        takes = (now.right == Right.STREAM, now.added == Added.STREAM)
        ready = [feed.passes.ready | ~taken for feed, taken in zip(feeds, takes, strict=True)]
        # Command and operands go together.
        m.d.comb += [
            sent.eq(left.any() & known & Cat(ready).all() & commands.input.ready),
            commands.input.valid.eq(sent),
        ]
        for feed, taken, source in zip(feeds, takes, (now.others, now.addends), strict=True):
            m.d.comb += [
                feed.passes.valid.eq(sent & taken),
                feed.passes.payload.source.eq(source),
                feed.passes.payload.bank.eq(bank),
                feed.passes.payload.beats.eq(command.beats),
            ]
        return ~left.any() & (commands.level == 0)

    def _feed(
        self, m: Module, unit: VectorUnit, reader: VectorReader, setup: VectorSetup
    ) -> list[OperandFeed]:
        """Add the feeds of factors and addends, from tables and second rows."""
        feeds = []
        for index, name in enumerate(("others", "addends")):
            sink = getattr(unit, name)
            m.submodules[name] = feed = OperandFeed(
                sink.payload.shape(), self._depth, self._config.vector_rows
            )
            _connect_words(m, feed.output, sink)
            m.d.comb += [
                setup.addresses[index].eq(feed.address),
                feed.words.as_value().eq(setup.beats[index].as_value()),
            ]
            feeds.append(feed)
        for bank, source in enumerate(reader.seconds):
            ports = [feed.seconds[bank] for feed in feeds]
            m.d.comb += source.ready.eq(Cat(port.ready for port in ports).any())
            for port in ports:
                m.d.comb += [
                    port.payload.as_value().eq(source.payload.as_value()),
                    port.valid.eq(source.valid),
                ]
        return feeds


def _connect_words(m: Module, source: Any, sink: Any) -> None:
    """Connect streams of a beat of words, signed or not."""
    m.d.comb += [
        sink.payload.as_value().eq(source.payload.as_value()),
        sink.valid.eq(source.valid),
        source.ready.eq(sink.ready),
    ]
