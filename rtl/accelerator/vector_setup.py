"""Vector setup: the program and the tables of a vector step, read from memory and kept."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.config import bits_unsigned
from paro.config.formats import OUT_BITS, OUT_BYTES
from paro.config.registers import MEMORY_ADDRESS_BITS
from paro.config.vector_program import (
    PROGRAM_BYTES,
    PROGRAM_MAGIC,
    SLOT_BYTES,
    SLOTS,
    TABLES_MAX,
)
from rtl.accelerator.vector_program import header_layout, pass_layout
from rtl.bus.axi import Destination, run_layout
from rtl.lib.arithmetic import log2

__all__ = ["SETUP_BITS", "VectorSetup"]

#: Bits of a word as it is read.
SETUP_BITS = 32


class VectorSetup(wiring.Component):
    """Reads a program, then its tables one after the other.

    Parameters
    ----------
    config : Config
    readers : int
        Readers of the tables.

    Members
    -------
    start : In, 1
    program, tables, chunks : In
        Where they lie, and chunks of head_dim channels of a row; constant until ``done``.
    runs : Out, stream of `run_layout`
    words : In, stream
        `SETUP_BITS` of what was asked for.
    done : Out, 1
        All is there, in this cycle.
    bad : Out, 1
        The program has no header of ours; it stays, until reset.
    header : Out, `header_layout`
    slot : In
        A slot of the program.
    slot_pass : Out, `pass_layout`
        Of the slot that was given one cycle before.
    addresses, beats : In, Out, array for each reader
        Beat of a table, as `rtl.accelerator.operand_feed` has it; its words, one cycle later.
    """

    def __init__(self, config: Config, readers: int):
        self._config = config
        self._depth = config.vector_channels // config.vector_lanes
        beat = data.ArrayLayout(unsigned(OUT_BITS), config.vector_lanes)
        super().__init__(
            {
                "start": In(1),
                "program": In(MEMORY_ADDRESS_BITS),
                "tables": In(MEMORY_ADDRESS_BITS),
                "chunks": In(unsigned(bits_unsigned(config.vector_channels // config.head_dim))),
                "runs": Out(stream.Signature(run_layout(config))),
                "words": In(stream.Signature(unsigned(SETUP_BITS))),
                "done": Out(1),
                "bad": Out(1),
                "header": Out(header_layout()),
                "slot": In(range(SLOTS)),
                "slot_pass": Out(pass_layout()),
                "addresses": In(unsigned(log2(self._depth * TABLES_MAX))).array(readers),
                "beats": Out(beat).array(readers),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, run = self._config, self.runs
        slot_bits, beat_bits = 8 * SLOT_BYTES, OUT_BITS * config.vector_lanes
        joined = Signal(max(slot_bits, beat_bits))
        bits = Signal(range(len(joined) + 1))
        address = Signal(MEMORY_ADDRESS_BITS)
        completes = self._join(m, joined, bits)
        slot_write, table_write = self._memories(m, slot_bits, beat_bits)
        m.d.comb += [
            slot_write.data.eq(joined),
            table_write.data.eq(joined),
            run.payload.address.eq(address),
            run.payload.destination.eq(Destination.VECTOR),
        ]
        with m.FSM():
            with m.State("REST"):
                m.d.sync += address.eq(self.program)
                with m.If(self.start):
                    m.next = "ASK_PROGRAM"
            with m.State("ASK_PROGRAM"):
                m.d.comb += run.payload.units.eq(PROGRAM_BYTES // config.load_bytes)
                m.d.comb += run.valid.eq(1)
                with m.If(run.ready):
                    m.next = "PROGRAM"
            with m.State("PROGRAM"):
                m.d.comb += bits.eq(slot_bits)
                self._keep_slots(m, slot_write, joined, completes)
            with m.State("CHECK"):
                m.d.sync += address.eq(self.tables)
                self._check(m)
            with m.State("BAD"):
                m.d.comb += self.bad.eq(1)
            self._read_tables(m, table_write, address, bits, completes)
        return m

    def _keep_slots(self, m: Module, write: Any, joined: Value, completes: Value) -> None:
        """Keep slot after slot, the header in a register too."""
        slot = Signal(range(SLOTS))
        m.d.comb += write.addr.eq(slot)
        with m.If(completes):
            m.d.comb += write.en.eq(1)
            m.d.sync += slot.eq(slot + 1)
            with m.If(slot == 0):
                m.d.sync += self.header.eq(joined)
            with m.If(slot == SLOTS - 1):
                m.next = "CHECK"

    def _check(self, m: Module) -> None:
        """Refuse what is no program."""
        header = self.header
        wrong = (header.magic != PROGRAM_MAGIC) | ~header.passes.any()
        with m.If(wrong | (header.tables > TABLES_MAX)):
            m.next = "BAD"
        with m.Else():
            m.next = "NEXT"

    def _read_tables(
        self, m: Module, write: Any, address: Signal, bits: Signal, completes: Value
    ) -> None:
        """Ask for one table after the other, and keep its beats."""
        config, run = self._config, self.runs
        table, beat = Signal(range(TABLES_MAX + 1)), Signal(range(self._depth))
        row_bytes = self.chunks << log2(OUT_BYTES * config.head_dim)
        row_beats = self.chunks << log2(config.head_dim // config.vector_lanes)
        m.d.comb += write.addr.eq(Cat(beat, table[: log2(TABLES_MAX)]))
        with m.State("NEXT"):
            m.d.sync += beat.eq(0)
            m.d.comb += run.payload.units.eq(row_bytes >> log2(config.load_bytes))
            with m.If(table == self.header.tables):
                m.d.comb += self.done.eq(1)
                m.d.sync += table.eq(0)
                m.next = "REST"
            with m.Else():
                m.d.comb += run.valid.eq(1)
                with m.If(run.ready):
                    m.d.sync += address.eq(address + row_bytes)
                    m.next = "TABLE"
        with m.State("TABLE"):
            m.d.comb += bits.eq(OUT_BITS * config.vector_lanes)
            with m.If(completes):
                m.d.comb += write.en.eq(1)
                m.d.sync += beat.eq(beat + 1)
                with m.If(beat == row_beats - 1):
                    m.d.sync += table.eq(table + 1)
                    m.next = "NEXT"

    def _join(self, m: Module, joined: Signal, bits: Signal) -> Value:
        """Take words and join them; returns whether one completes a group of so many ``bits``.

        With 0 bits none is taken.
        """
        held = Signal.like(joined)
        place = Signal(range(len(joined) // SETUP_BITS))
        completes = self.words.valid & (place == (bits >> log2(SETUP_BITS)) - 1)
        m.d.comb += [
            joined.eq(held),
            joined.word_select(place, SETUP_BITS).eq(self.words.payload),
            self.words.ready.eq(bits.any()),
        ]
        with m.If(self.words.valid & self.words.ready):
            m.d.sync += [held.eq(joined), place.eq(Mux(completes, 0, place + 1))]
        return completes

    def _memories(self, m: Module, slot_bits: int, beat_bits: int) -> tuple[Any, Any]:
        """Add the memories of slots and tables; returns their write ports."""
        m.submodules.slots = slots = Memory(shape=unsigned(slot_bits), depth=SLOTS, init=[])
        m.submodules.beats = beats = Memory(
            shape=unsigned(beat_bits), depth=TABLES_MAX * self._depth, init=[]
        )
        read = slots.read_port()
        m.d.comb += [read.addr.eq(self.slot), self.slot_pass.eq(read.data)]
        for address, words in zip(self.addresses, self.beats, strict=True):
            port = beats.read_port()
            m.d.comb += [port.addr.eq(address), words.as_value().eq(port.data)]
        return slots.write_port(), beats.write_port()
