# amaranth: UnusedElaboratable=no
"""A design that a board can run: the core computes a built-in tile and checks the result itself."""

from typing import Any

from amaranth.hdl import Array, Module, Signal, Value, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from fpga.tile import Tile, signature_parameters
from fpga.top import LEDS
from gen.names import CORE, module_name
from paro.config import Config
from paro.config.formats import Operand
from rtl.core.core import Core
from rtl.lib.arithmetic import log2
from rtl.lib.library import ModuleLibrary, replicate
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["BeatPlayer", "SelfTest"]

#: Bit of the run counter that blinks: some thousand runs make a second.
_BLINK_BIT = 11
#: Beats of a ROM: those of one block RAM.
_ROM_BEATS = 1024
#: Beats that wait for the core.
_WAITING = 4


class BeatPlayer(wiring.Component):
    """Sends ranges of a ROM as a stream.

    Parameters
    ----------
    beats : list of int
        Content of the ROM.
    width : int
        Bits of a beat.
    ranges : list of (int, int)
        First beat and number of beats of each range that can be asked for.

    Members
    -------
    request : In, stream of a range's index
        Taken when the range before has left the ROM.
    output : Out, stream of ``width`` bits

    Latency
    -------
    4 cycles from a request to its first beat, then a beat a cycle.
    """

    def __init__(self, beats: list[int], width: int, ranges: list[tuple[int, int]]):
        self._beats = beats
        self._ranges = ranges
        super().__init__(
            {
                "request": In(stream.Signature(range(len(ranges)))),
                "output": Out(stream.Signature(unsigned(width))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = len(self._beats)
        address, last = Signal(range(depth)), Signal(range(depth))
        running, read, registered, advance = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            advance.eq(~self.output.valid | self.output.ready),
            self.request.ready.eq(~running),
        ]
        # Block RAM is slow to answer, and far from the core: a register behind each one, and one
        # behind their choice.
        words = Array(
            self._add_rom(m, first, address, advance) for first in range(0, depth, _ROM_BEATS)
        )
        rom = address >> log2(_ROM_BEATS)
        for stage in ("read", "registered"):
            chosen = Signal(range(len(words)), name=f"rom_{stage}")
            with m.If(advance):
                m.d.sync += chosen.eq(rom)
            rom = chosen
        with m.If(advance):
            m.d.sync += [
                read.eq(running),
                registered.eq(read),
                self.output.valid.eq(registered),
                self.output.payload.eq(words[rom]),
            ]
            with m.If(running):
                m.d.sync += [address.eq(address + 1), running.eq(address != last)]
        with m.If(self.request.valid & self.request.ready):
            m.d.sync += running.eq(1)
            with m.Switch(self.request.payload):
                for index, (first, count) in enumerate(self._ranges):
                    with m.Case(index):
                        m.d.sync += [address.eq(first), last.eq(first + count - 1)]
        return m

    def _add_rom(self, m: Module, first: int, address: Value, enable: Value) -> Signal:
        """Add the ROM of the beats from ``first`` on; returns the register behind it."""
        beats = self._beats[first : first + _ROM_BEATS]
        word = Signal(len(self.output.payload), name=f"word_{first}")
        rom = memory.Memory(shape=unsigned(len(word)), depth=len(beats), init=beats)
        m.submodules[f"rom_{first}"] = rom
        port = rom.read_port()
        m.d.comb += [port.addr.eq(address[: log2(_ROM_BEATS)]), port.en.eq(enable)]
        with m.If(enable):
            m.d.sync += word.eq(port.data)
        return word


class SelfTest(wiring.Component):
    """The core, fed from block RAM, run after run; each run's output is checked by its CRC.

    The core is an instance of the generated Verilog module, not elaborated again.

    Parameters
    ----------
    config : Config
        The core.
    tile : Tile
        The piece of attention that it computes.

    Members
    -------
    ended : Out, 1
        At least one run has ended.
    passed : Out, 1
        At least one run has ended, and all so far were right.
    failed : Out, 1
        A run was wrong: another signature, or a beat that belongs to no run.
    crc : Out, 32
        CRC of the last run.
    leds : Out, 8
        0 blinks with the runs; 1 ended; 2 passed; 3 failed; 4 to 7 low bits of the signature.
    """

    ended: Out(1)
    passed: Out(1)
    failed: Out(1)
    crc: Out(32)
    leds: Out(LEDS)

    def __init__(self, config: Config, tile: Tile):
        self.config = config
        self.tile = tile
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        tile = self.tile
        name = module_name(self.config, CORE)
        (core,) = replicate(m, ModuleLibrary(), name, lambda: Core(self.config), 1)

        # The streams that the core reads: all from ROMs.
        start = Signal()
        ranges = {
            "command": [(0, 1)],
            "codes": [(0, len(tile.beats["codes"]))],
            **{operand.name.lower(): tile.blocks[operand] for operand in Operand},
        }
        players = {
            name: self._add_player(m, name, getattr(core, name), blocks)
            for name, blocks in ranges.items()
        }
        for name in ("command", "codes"):
            m.d.comb += players[name].request.valid.eq(start)

        # The way from the scheduler's state through its fetch ends at a queue, too.
        m.submodules.fetches = fetches = StreamFIFO(core.fetch.payload.shape(), depth=_WAITING)
        m.d.comb += [
            fetches.input.payload.eq(core.fetch.payload),
            fetches.input.valid.eq(core.fetch.valid),
            core.fetch.ready.eq(fetches.input.ready),
        ]
        fetch = fetches.output
        for operand in Operand:
            chosen = players[operand.name.lower()].request
            asked = fetch.payload.operand == operand
            m.d.comb += [
                chosen.payload.eq(fetch.payload.block),
                chosen.valid.eq(fetch.valid & asked),
            ]
            with m.If(asked):
                m.d.comb += fetch.ready.eq(chosen.ready)

        # The output. Registers before the CRC keep its XORs off the core's last path, and off the
        # state's; no beat comes so soon after the start.
        parameters = signature_parameters(self.config)
        m.submodules.crc = checker = parameters.create()
        beat, beat_valid, begin = Signal(parameters.data_width), Signal(), Signal()
        left = Signal(range(tile.output_beats + 1))
        runs = Signal(_BLINK_BIT + 1)
        m.d.comb += [
            core.o.ready.eq(1),
            checker.data.eq(beat),
            checker.valid.eq(beat_valid),
            checker.start.eq(begin),
        ]
        m.d.sync += begin.eq(start)
        m.d.sync += [beat.eq(Value.cast(core.o.payload)), beat_valid.eq(core.o.valid)]

        right = Signal()
        m.d.comb += [
            right.eq(self.crc == tile.signature),
            self.passed.eq(self.ended & ~self.failed),
        ]
        with m.FSM():
            with m.State("START"):
                m.d.comb += start.eq(1)
                m.d.sync += left.eq(tile.output_beats)
                m.next = "RUN"
            with m.State("RUN"):
                m.d.sync += left.eq(left - beat_valid)
                with m.If(left == 0):
                    m.d.sync += self.crc.eq(checker.crc)
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [
                    self.ended.eq(1),
                    self.failed.eq(self.failed | ~right),
                    runs.eq(runs + 1),
                ]
                m.next = "SETTLE"
            with m.State("SETTLE"):
                with m.If(~core.busy):
                    m.next = "START"
        # A beat too many: one that comes when none is left.
        with m.If(beat_valid & (left == 0)):
            m.d.sync += self.failed.eq(1)
        blink = runs[_BLINK_BIT]
        m.d.comb += [
            self.leds[0].eq(blink),
            self.leds[1].eq(self.ended),
            self.leds[2].eq(self.passed),
            self.leds[3].eq(self.failed),
            self.leds[4:].eq(self.crc[: LEDS - 4]),
        ]
        return m

    def _add_player(
        self, m: Module, name: str, port: Any, blocks: list[tuple[int, int]]
    ) -> BeatPlayer:
        """Add the player of a stream of the core; returns it."""
        width = len(Value.cast(port.payload))
        player = BeatPlayer(self.tile.beats[name], width, blocks)
        m.submodules[f"{name}_player"] = player
        # The core's ready, which is late, moves a queue and not all of a ROM.
        m.submodules[f"{name}_beats"] = queue = StreamFIFO(unsigned(width), depth=_WAITING)
        connect(m, player.output, queue.input)
        m.d.comb += [
            Value.cast(port.payload).eq(queue.output.payload),
            port.valid.eq(queue.output.valid),
            queue.output.ready.eq(port.ready),
        ]
        return player
