"""Burst splitter: runs of units to AXI bursts."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.config import bits_unsigned
from paro.config.registers import MEMORY_ADDRESS_BITS, PAGE_BYTES
from rtl.bus.axi import WORD_BYTES, Destination, run_layout, vector_shape
from rtl.bus.windows import inside, windows_member
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts

__all__ = ["BurstSplitter", "ask_for_runs", "burst_layout"]


def burst_layout(config: Config, beats: int) -> data.StructLayout:
    """A burst of ``last_beat`` + 1 (at most ``beats``) whole beats from ``address`` on.

    ``address`` is a multiple of a beat's bytes. ``words`` 32-bit words of it belong to the run:
    from lane ``first_lane`` of the first beat to lane ``last_lane`` of the last. It may begin if it
    is ``allowed``: its page lies in a window. ``vector``: its run is one of the vector unit.
    """
    lanes = config.axi_bits // 8 // WORD_BYTES
    return data.StructLayout(
        {
            "address": unsigned(MEMORY_ADDRESS_BITS),
            "last_beat": range(beats),
            "first_lane": range(lanes),
            "last_lane": range(lanes),
            "words": unsigned(bits_unsigned(beats * lanes)),
            "allowed": 1,
            "vector": vector_shape(config),
        }
    )


def ask_for_runs(contracts: Contracts, runs: Any, unit_bytes: int) -> None:
    """Ask for what a run must be: one unit at least, whole words from a word on."""
    run = runs.payload
    whole = ((run.units * unit_bytes) | run.address) % WORD_BYTES == 0
    contracts.asks(~runs.valid | (run.units != 0), "a run has a unit")
    contracts.asks(~runs.valid | whole, "a run is made of whole words")


class BurstSplitter(wiring.Component):
    """Cuts runs where an address is a multiple of a longest burst, so also of 4 KiB.

    Parameters
    ----------
    config : Config
    unit_bytes : int
        A power of two.
    beats : int
        Longest burst, a power of two.
    windows : int
        How many windows there are.

    Members
    -------
    runs : In, stream of `run_layout`
    windows : In, `rtl.bus.windows.windows_member`
        Where bursts may lie.
    bursts : Out, stream of `burst_layout`
    idle : Out, 1
        No burst is offered and none is left of a run.

    Latency
    -------
    `LATENCY` cycles from a run to its first burst; then one burst a cycle, also from run to run.
    """

    LATENCY = 2

    def __init__(self, config: Config, *, unit_bytes: int, beats: int, windows: int = 1):
        self._config = config
        self._unit_bytes, self._beats = unit_bytes, beats
        beat_bytes = config.axi_bits // 8
        assert beats * beat_bytes <= PAGE_BYTES, (beats, beat_bytes)
        super().__init__(
            {
                "runs": In(stream.Signature(run_layout(config))),
                "windows": windows_member(windows),
                "bursts": Out(stream.Signature(burst_layout(config, beats))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        run, burst = self.runs.payload, self.bursts.payload
        contracts = Contracts(m, platform, self)
        ask_for_runs(contracts, self.runs, self._unit_bytes)
        end = burst.address % PAGE_BYTES + (burst.last_beat + 1) * (self._config.axi_bits // 8)
        contracts.keeps(self.bursts, "bursts")
        contracts.holds(~self.bursts.valid | (end <= PAGE_BYTES), "no burst crosses 4 KiB")
        lane_bits = log2(self._config.axi_bits // 8 // WORD_BYTES)
        beat_bits = log2(self._beats)
        page_bits = log2(PAGE_BYTES // WORD_BYTES)

        # A run: the word at which the next burst begins, the last word's place between two
        # boundaries, and how many boundaries are still to be crossed.
        place_bits = beat_bits + lane_bits
        run_words = (run.units << log2(self._unit_bytes)) >> log2(WORD_BYTES)
        run_word = run.address[log2(WORD_BYTES) :]
        run_last = Signal(max(len(run_words), place_bits) + 1)
        m.d.comb += run_last.eq(run_word[:place_bits] + run_words - 1)
        active = Signal()
        vector = Signal.like(burst.vector)
        word = Signal(MEMORY_ADDRESS_BITS - log2(WORD_BYTES))
        last_place = Signal(place_bits)
        crossings = Signal(len(run_last) - place_bits)

        issue = Signal()
        ends = Signal()
        first = word[:place_bits]
        last = Signal(place_bits)
        m.d.comb += [
            ends.eq(crossings == 0),
            last.eq(Mux(ends, last_place, -1)),
            issue.eq(active & (~self.bursts.valid | self.bursts.ready)),
            self.runs.ready.eq(~active | (issue & ends)),
            self.idle.eq(~active & ~self.bursts.valid),
        ]
        with m.If(self.bursts.ready):
            m.d.sync += self.bursts.valid.eq(0)
        with m.If(issue):
            m.d.sync += [
                self.bursts.valid.eq(1),
                burst.address.eq(Cat(Const(0, log2(WORD_BYTES) + lane_bits), word[lane_bits:])),
                burst.last_beat.eq(last[lane_bits:] - first[lane_bits:]),
                burst.first_lane.eq(first[:lane_bits]),
                burst.last_lane.eq(last[:lane_bits]),
                burst.words.eq(last - first + 1),
                burst.vector.eq(vector),
                burst.allowed.eq(inside(self.windows, word[page_bits:])),
                word.eq(Cat(Const(0, place_bits), word[place_bits:] + 1)),
                crossings.eq(crossings - 1),
            ]
        with m.If(self.runs.ready):
            m.d.sync += [
                active.eq(self.runs.valid),
                word.eq(run_word),
                vector.eq(run.destination == Destination.VECTOR),
                last_place.eq(run_last),
                crossings.eq(run_last[place_bits:]),
            ]
        return m
