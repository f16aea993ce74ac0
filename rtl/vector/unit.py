"""The vector unit: passes over rows of words, several rows in progress."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config, formats, vector_formats
from paro.config.vector_program import Added, Left, Partner, Right
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts
from rtl.lib.delay import delay_line, delayed
from rtl.lib.library import replicate
from rtl.lib.stream_fifo import StreamFIFO
from rtl.vector.issue import TOTALS, PassIssue, beat_layout
from rtl.vector.lane import VectorLane
from rtl.vector.passes import (
    SCALAR_SHIFT,
    command_layout,
    mantissa_shape,
    total_layout,
)
from rtl.vector.scalars import MIDDLE_BITS, ScalarUnit
from rtl.vector.totals import GroupTotals

__all__ = ["VectorUnit"]

#: Beats that wait at each input.
_WAITING = 4
#: Streams of operands.
_INPUTS = ("words", "others", "addends")


class VectorUnit(wiring.Component):
    """Runs commands in their order, a beat of `lanes` channels a cycle.

    Of each row in progress (in a bank) it holds two copies, in memories 0 and 1, and M and R of
    each group, for which each bank has a scalar unit. A pass begins when the words and scalars
    that earlier passes of its bank make for it are there; meanwhile passes of other banks run. So
    whoever sends commands takes several tokens by turns, and hides the latency of roots and
    quotients.

    A memory holds two of the longest rows. Bank b begins at place b of as many equal ones; a row
    that is longer than a place takes those of the banks after it, which are then not used.

    Parameters
    ----------
    config : Config
        The core that it serves: ``vector_lanes`` are the channels of a beat, ``vector_rows`` the
        banks.
    channels : int
        Of the longest row, a power of two.

    Members
    -------
    commands : In, stream of `command_layout`
    words, others, addends : In, streams
        A beat of x, B and D for each beat of the passes that take one, in their order.
    results : Out, stream
        A beat of words for each beat of the passes that send; INT8 is sign-extended.
    mantissas : Out, a stream of each bank
        Of INT8, a mantissa a group; in the order of the groups.
    idle : Out, 1
        Nothing is under way.

    Contract
    --------
    A row is whole beats, and so is a group; a row has at most `GROUPS_MAX` of them. ``HALVES``
    needs groups of a power of two of beats, two or more. A pass reads A and D from different
    memories, and keeps no words in the memory that it reads partners from. What a pass reads has
    been made. No word is -2**15.

    Latency
    -------
    `LATENCY` cycles from a beat's issue to its words in memory or in the output queue. A pass
    begins in the second cycle after the last beat of the one before, if nothing is waited for.
    """

    LATENCY = 1 + VectorLane.LATENCY
    #: Beats on their way and in the output queue.
    QUEUE = 2 * LATENCY

    def __init__(self, config: Config, channels: int):
        self._lanes, self._banks = config.vector_lanes, config.vector_rows
        self._depth = channels // self._lanes
        log2(self._depth)
        beat = data.ArrayLayout(signed(formats.OUT_BITS), self._lanes)
        super().__init__(
            {
                "commands": In(stream.Signature(command_layout(self._depth, self._banks))),
                "words": In(stream.Signature(beat)),
                "others": In(stream.Signature(beat)),
                "addends": In(stream.Signature(beat)),
                "results": Out(stream.Signature(beat)),
                "mantissas": Out(stream.Signature(mantissa_shape())).array(self._banks),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth, latency = self._depth, self.LATENCY
        m.submodules.issue = issue = PassIssue(
            depth=depth, banks=self._banks, latency=latency, queue=self.QUEUE
        )
        connect(m, flipped(self.commands), issue.commands)
        m.submodules.output = output = StreamFIFO(self.results.payload.shape(), depth=self.QUEUE)
        connect(m, output.output, flipped(self.results))
        contracts = Contracts(m, platform, self)
        contracts.has_room(output.input, "all beats that are sent")
        inputs = {}
        for place, name in enumerate(_INPUTS):
            queue = StreamFIFO(self.words.payload.shape(), depth=_WAITING)
            m.submodules[f"{name}_queue"] = queue
            connect(m, flipped(getattr(self, name)), queue.input)
            m.d.comb += [
                issue.available[place].eq(queue.output.valid),
                queue.output.ready.eq(issue.take[place]),
            ]
            inputs[name] = delayed(m, queue.output.payload.as_value(), 1, name)

        # Element i of a line is i cycles after its beat's issue.
        layout = beat_layout(depth, self._banks)
        line = [
            data.View(layout, value)
            for value in delay_line(m, issue.beat.as_value(), latency + 1, "beat")
        ]
        valid = delay_line(m, issue.go, latency + 1, "valid")
        made = Signal(self.results.payload.shape())
        last = line[latency]
        rows = self._rows(m, issue.beat, last, valid[latency], made.as_value())
        now = line[1]
        words = Mux(now.loads, inputs["words"], Mux(now.row, rows[1], rows[0]))
        # D comes from the memory that A does not: of a pass that loads, from the one it names.
        other_row = Mux(now.row ^ ~now.loads, rows[1], rows[0])
        operands = (
            words,
            inputs["others"],
            Mux(now.added == Added.ROW, other_row, inputs["addends"]),
        )

        m.submodules.totals = totals = GroupTotals(
            lanes=self._lanes, depth=depth, banks=self._banks
        )
        scalars = []
        for bank in range(self._banks):
            unit = ScalarUnit(lanes=self._lanes, depth=depth, banks=self._banks)
            waiting = StreamFIFO(total_layout(depth, self._banks), depth=TOTALS)
            m.submodules[f"scalars_{bank}"], m.submodules[f"totals_{bank}"] = unit, waiting
            connect(m, waiting.output, unit.totals)
            connect(m, unit.mantissas, flipped(self.mantissas[bank]))
            m.d.comb += [
                waiting.input.payload.eq(totals.total),
                waiting.input.valid.eq(totals.done & (totals.total.bank == bank)),
                issue.kept[bank].eq(valid[latency] & last.keeps & (last.bank == bank)),
                issue.found[bank].eq(unit.done),
            ]
            contracts.has_room(waiting.input, "all totals of groups that have ended")
            scalars.append(unit)
        found = self._scalars(m, scalars, issue.beat)
        lanes = self._compute(m, platform, line, operands, found)
        for index, lane in enumerate(lanes):
            m.d.comb += [made[index].eq(lane.result), totals.squares[index].eq(lane.square)]
        m.d.comb += [
            output.input.payload.eq(made),
            output.input.valid.eq(valid[latency] & last.sends),
            totals.words.eq(made),
            totals.valid.eq(valid[latency + 1]),
            totals.beat.eq(line[latency + 1]),
            totals.epsilon.eq(issue.epsilon),
            issue.sent.eq(self.results.valid & self.results.ready),
            self.idle.eq(issue.idle),
        ]
        return m

    def _rows(self, m: Module, beat: Any, last: Any, written: Any, made: Any) -> list[Any]:
        """Both memories: words of a beat one cycle later; what is made is written at its end."""
        half = (beat.group + 1) >> 1
        partner = Mux(beat.partner == Partner.HALVES, beat.beat ^ half, beat.beat)
        reads = []
        room = log2(2 * self._depth // self._banks)
        for row in range(2):
            shape = unsigned(formats.OUT_BITS * self._lanes)
            memory = Memory(shape=shape, depth=2 * self._depth, init=[])
            m.submodules[f"row_{row}"] = memory
            read, write = memory.read_port(), memory.write_port()
            address = Mux(~beat.loads & (beat.row == row), partner, beat.beat)
            m.d.comb += [
                read.addr.eq(address[: log2(self._depth)] | beat.bank << room),
                write.addr.eq(last.beat | last.bank << room),
                write.data.eq(made),
                write.en.eq(written & last.keeps & (last.kept == row)),
            ]
            reads.append(read.data)
        return reads

    def _scalars(self, m: Module, scalars: list[ScalarUnit], beat: Any) -> tuple[Any, Any]:
        """M, and R with its shift above it, of a beat's group: one cycle later."""
        reads: dict[str, list[Any]] = {"middles": [], "factors": []}
        for bank, unit in enumerate(scalars):
            found = unit.found
            for name, wanted, value in (
                ("middles", found.mean, found.middle),
                ("factors", ~found.mean, Cat(found.factor, found.shift)),
            ):
                memory = Memory(
                    shape=unsigned(len(value)), depth=vector_formats.GROUPS_MAX, init=[]
                )
                m.submodules[f"{name}_{bank}"] = memory
                read, write = memory.read_port(), memory.write_port()
                m.d.comb += [
                    write.addr.eq(found.index),
                    write.data.eq(value),
                    write.en.eq(unit.done & wanted),
                    read.addr.eq(beat.index),
                ]
                reads[name].append(read.data)
        bank = delayed(m, beat.bank, 1, "scalars_of")
        middle, factor = (Array(of_banks)[bank] for of_banks in reads.values())
        return middle.as_signed(), factor

    def _compute(
        self,
        m: Module,
        platform: Any,
        line: list[Any],
        operands: tuple[Any, Any, Any],
        scalars: tuple[Any, Any],
    ) -> list[VectorLane]:
        """Lanes: everything meets the words in the cycles that `VectorLane` says."""
        lanes = replicate(m, platform, "vector_lane", VectorLane, self._lanes)
        middle = Mux(line[1].left == Left.CENTRED, scalars[0], 0)
        middle_2 = Signal(signed(MIDDLE_BITS))
        m.d.sync += middle_2.eq(middle)
        scalar_3 = delayed(m, scalars[1], 2, "factor", first=2)
        factor_3 = scalar_3[: vector_formats.ROOT_BITS]
        shift_5 = delayed(m, scalar_3[vector_formats.ROOT_BITS :], 2, "shift", first=4)
        shift = Signal(SCALAR_SHIFT)
        m.d.comb += shift.eq(Mux(line[5].right == Right.FACTOR, shift_5, line[5].shift))
        bits = formats.OUT_BITS
        words, others, addends = operands
        crossed = line[1].partner == Partner.NEIGHBOURS
        for index, lane in enumerate(lanes):
            own, neighbour = (words.word_select(place, bits) for place in (index, index ^ 1))
            m.d.comb += [
                lane.word.eq(Mux(crossed, neighbour, own)),
                lane.other.eq(others.word_select(index, bits)),
                lane.addend.eq(addends.word_select(index, bits)),
                lane.silu.eq(line[2].silu),
                lane.fraction.eq(line[2].fraction),
                lane.middle.eq(middle_2),
                lane.left.eq(line[3].left),
                lane.right.eq(line[3].right),
                lane.added.eq(line[3].added),
                lane.factor.eq(factor_3),
                lane.shift.eq(shift),
                lane.narrow.eq(line[7].bytes),
            ]
        return lanes
