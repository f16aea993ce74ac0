"""Issue of the vector unit: commands to beats, each when all that it needs is there."""

from functools import reduce

from amaranth.hdl import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import vector_formats
from paro.config.vector_program import Added, Left, Reduce, Right
from rtl.lib.contract import Contracts
from rtl.vector.passes import command_layout

__all__ = ["TOTALS", "PassIssue", "beat_layout"]

#: Totals of groups on their way to a bank's scalar unit.
TOTALS = 8


def beat_layout(depth: int, banks: int) -> data.StructLayout:
    """A beat of a pass: fields of its command but those of the whole row, and its place.

    ``beat`` of the row and ``index`` of its group; whether it ``begins`` and ``ends`` that.
    """
    fields = {
        name: field.shape
        for name, field in command_layout(depth, banks)
        if name not in ("beats", "epsilon")
    }
    place = {
        "beat": range(depth),
        "index": range(vector_formats.GROUPS_MAX),
        "begins": 1,
        "ends": 1,
    }
    return data.StructLayout({**fields, **place})


class PassIssue(wiring.Component):
    """Takes a command when what it reads is there, and issues a beat a cycle.

    A beat waits for its streams, for room in the output queue and, where it ends a group, for room
    on the way to the scalar unit. What follows it never waits.

    Parameters
    ----------
    depth : int
        Beats of the longest row, a power of two.
    banks : int
        Rows in progress.
    latency : int
        Cycles from a beat to its words in memory.
    queue : int
        Beats that may be under way to the output.

    Members
    -------
    commands : In, stream of `command_layout`
    available, take : In, Out, 1 for each of words, others, addends
        A beat is offered, and taken.
    go : Out, 1
        A beat is issued.
    beat : Out, `beat_layout`
    epsilon : Out
        Of each bank, until its root is found.
    kept, found : In, 1 for each bank
        Words of a beat are in memory; scalars of a group are there.
    sent : In, 1
        A beat has left the output queue.
    idle : Out, 1
        Nothing is under way.
    """

    def __init__(self, *, depth: int, banks: int, latency: int, queue: int):
        self._depth, self._banks = depth, banks
        self._latency, self._queue = latency, queue
        epsilon = unsigned(vector_formats.SQUARES_BITS - 1)
        super().__init__(
            {
                "commands": In(stream.Signature(command_layout(depth, banks))),
                "available": In(3),
                "take": Out(3),
                "go": Out(1),
                "beat": Out(beat_layout(depth, banks)),
                "epsilon": Out(data.ArrayLayout(epsilon, banks)),
                "kept": In(banks),
                "found": In(banks),
                "sent": In(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        command = Signal(command_layout(self._depth, self._banks))
        active = Signal()
        beat = Signal(range(self._depth))
        group_beat = Signal(range(self._depth))
        group = Signal(range(vector_formats.GROUPS_MAX))
        group_last = Signal()
        copied = [name for name, _ in command.shape() if name not in ("beats", "epsilon")]
        m.d.comb += [self.beat[name].eq(command[name]) for name in copied]
        m.d.comb += [
            group_last.eq(group_beat == command.group),
            self.beat.beat.eq(beat),
            self.beat.index.eq(group),
            self.beat.begins.eq(group_beat == 0),
            self.beat.ends.eq(group_last),
        ]
        with m.If(self.commands.valid & self.commands.ready):
            m.d.sync += [command.eq(self.commands.payload), active.eq(1)]
            m.d.sync += [beat.eq(0), group_beat.eq(0), group.eq(0)]
        with m.Elif(self.go):
            m.d.sync += [
                active.eq(beat != command.beats),
                beat.eq(beat + 1),
                group_beat.eq(Mux(group_last, 0, group_beat + 1)),
                group.eq(group + group_last),
            ]
        for bank in range(self._banks):
            with m.If(active & (command.bank == bank) & (command.reduce == Reduce.SQUARES)):
                m.d.sync += self.epsilon[bank].eq(command.epsilon)
        contracts = Contracts(m, platform, self)
        self._wait(m, contracts, command, active, group_last)
        return m

    def _wait(
        self, m: Module, contracts: Contracts, command, active: Signal, group_last: Signal
    ) -> None:
        """When a command begins, and a beat goes."""
        reserved = Signal(range(self._queue + 1))
        pending = [Signal(range(TOTALS + 1), name=f"pending_{bank}") for bank in range(self._banks)]
        writing = [
            Signal(range(self._latency + 2), name=f"writing_{bank}") for bank in range(self._banks)
        ]
        offered = self.commands.payload
        reads = ~offered.loads | (offered.added == Added.ROW)
        # Squares wait too: epsilon stays that of a bank until its root is found.
        scaled = (
            (offered.left == Left.CENTRED)
            | (offered.right == Right.FACTOR)
            | (offered.reduce == Reduce.SQUARES)
        )
        free = [
            ~(reads & written.any()) & ~(scaled & totals.any())
            for written, totals in zip(writing, pending, strict=True)
        ]
        takes = (
            command.loads,
            command.right == Right.STREAM,
            command.added == Added.STREAM,
        )
        there = [~taken | self.available[place] for place, taken in enumerate(takes)]
        totals = command.reduce != Reduce.NOTHING
        full = Signal(self._banks)
        m.d.comb += [
            self.commands.ready.eq(~active & Array(free)[offered.bank]),
            full.eq(Cat(count == TOTALS for count in pending)),
            self.go.eq(
                active
                & reduce(lambda a, b: a & b, there)
                & ~(command.sends & (reserved == self._queue))
                & ~(totals & group_last & full.bit_select(command.bank, 1))
            ),
            self.idle.eq(
                ~active
                & ~reserved.any()
                & ~reduce(lambda a, b: a | b, [count.any() for count in (*pending, *writing)])
            ),
        ]
        m.d.comb += [self.take[place].eq(self.go & taken) for place, taken in enumerate(takes)]
        contracts.asks(~self.sent | reserved.any(), "a beat leaves the queue that was issued")
        m.d.sync += reserved.eq(reserved + (self.go & command.sends) - self.sent)
        for bank in range(self._banks):
            contracts.asks(~self.kept[bank] | writing[bank].any(), "words are kept that are issued")
            contracts.asks(~self.found[bank] | pending[bank].any(), "scalars are of a group's end")
            own = self.go & (command.bank == bank)
            m.d.sync += [
                writing[bank].eq(writing[bank] + (own & command.keeps) - self.kept[bank]),
                pending[bank].eq(pending[bank] + (own & totals & group_last) - self.found[bank]),
            ]
