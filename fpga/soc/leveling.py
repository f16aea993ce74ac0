"""Read leveling of a DDR memory: which delay and which bit of a burst each byte lane is read at.

What LiteDRAM's software does with a CPU, as a state machine. In Migen, as all of LiteX.
"""

# Migen's `comb` and `sync` are no attributes that a type checker sees.
# pyright: reportOperatorIssue=false, reportIndexIssue=false

import random
from typing import Any

from litex.gen import LiteXModule
from migen import FSM, Case, Cat, If, NextState, NextValue, Signal

from fpga.soc.dfi import DfiCommands

__all__ = ["WINDOW_BITS", "ReadLeveling"]

#: Bits of a lane's window in `ReadLeveling.windows`.
WINDOW_BITS = 8
#: Bursts with which a setting is tested, and how often each.
_PATTERNS, _REPEATS = 4, 4
#: Cycles after a command, and after a delay was turned.
_WAIT = 32
#: Settings of a lane that the PHY can turn, by the names of its registers.
_TURNS = ("_rdly_dq_rst", "_rdly_dq_inc", "_rdly_dq_bitslip_rst", "_rdly_dq_bitslip")


class _Turn(LiteXModule):
    """Turns one setting of one byte lane, as LiteDRAM's software does: select, turn, leave.

    Parameters
    ----------
    phy : module
    lane : Signal

    Members
    -------
    start, done
        1 until ``done``; ``done`` is 1 in the last cycle.
    kind
        Place in `_TURNS`.
    """

    def __init__(self, phy: Any, lane: Any):
        self.start, self.done = Signal(), Signal()
        self.kind = Signal(max=len(_TURNS))

        # # #

        select = phy._dly_sel.storage
        time = Signal(max=_WAIT)
        self.sync += If(self.start & ~self.done, time.eq(time + 1)).Else(time.eq(0))
        self.comb += [
            self.done.eq(time == _WAIT - 1),
            # Selected lanes of an ECP5 pause; all together then begin anew, in step.
            If(
                self.start,
                If((time >= 1) & (time < 6), select.eq(1 << lane)),
                If((time >= 8) & (time < 12), select.eq(2 ** len(select) - 1)),
            ),
        ]
        for kind, name in enumerate(_TURNS):
            strobe = getattr(phy, name).re
            self.comb += strobe.eq(self.start & (time == 3) & (self.kind == kind))


class _Test(LiteXModule):
    """Writes bursts and reads them, and says whether a byte lane came back as it was written.

    Parameters
    ----------
    commands : DfiCommands
    phy : module
    lane : Signal

    Members
    -------
    start, done
        1 until ``done``; ``done`` is 1 in the last cycle.
    good
        Whether all came back; counts with ``done``.
    """

    def __init__(self, commands: DfiCommands, phy: Any, lane: Any):
        self.start, self.done, self.good = Signal(), Signal(), Signal()

        # # #

        names = ("activate", "write", "read", "precharge")
        step, time = Signal(max=len(names)), Signal(max=_WAIT)
        number = Signal(max=_PATTERNS * _REPEATS)
        failed, came = Signal(), Signal()
        first, last = Signal(), Signal()
        rng = random.Random(0)
        patterns = {
            place: commands.write_data.eq(rng.getrandbits(len(commands.write_data)))
            for place in range(_PATTERNS)
        }
        issue = {
            # ras, cas, we, write, read, address: bit 10 of it precharges all banks
            "activate": (1, 0, 0, 0, 0, 0),
            "write": (0, 1, 1, 1, 0, 0),
            "read": (0, 1, 0, 0, 1, 0),
            "precharge": (1, 0, 1, 0, 0, 1 << 10),
        }
        outputs = ("ras", "cas", "we", "write", "read", "address")
        self.comb += [
            first.eq(self.start & (time == 0)),
            last.eq(time == _WAIT - 1),
            Case(number[: (_PATTERNS - 1).bit_length()], patterns),
            If(
                first,
                commands.issue.eq(1),
                Case(
                    step,
                    {
                        place: [
                            getattr(commands, output).eq(value)
                            for output, value in zip(outputs, issue[name], strict=True)
                        ]
                        for place, name in enumerate(names)
                    },
                ),
            ),
            self.good.eq(~failed),
            self.done.eq(last & (step == len(names) - 1) & (number == _PATTERNS * _REPEATS - 1)),
        ]
        wrong, reading = _wrong_lanes(commands, phy), step == names.index("read")
        seen: Any = came
        if hasattr(phy, "_burstdet_seen"):
            # The PHY says whether it saw a whole burst; cleared in the cycle before the read.
            self.comb += phy._burstdet_clr.re.eq(last & (step == names.index("write")))
            seen = came & (phy._burstdet_seen.status >> lane)[0]
        self.sync += [
            If(~self.start | self.done, step.eq(0), time.eq(0), number.eq(0), failed.eq(0)).Else(
                time.eq(time + 1),
                If(first, came.eq(0)),
                If(
                    reading & commands.valid & ~came,
                    came.eq(1),
                    If((wrong >> lane)[0], failed.eq(1)),
                ),
                If(
                    last,
                    time.eq(0),
                    step.eq(step + 1),
                    If(reading & ~seen, failed.eq(1)),
                    If(step == len(names) - 1, step.eq(0), number.eq(number + 1)),
                ),
            )
        ]


def _wrong_lanes(commands: DfiCommands, phy: Any) -> Any:
    """Byte lanes in which what is read is not what was written, a bit each."""
    bits, lanes = phy.settings.databits, phy.settings.databits // 8
    beats = len(commands.write_data) // bits

    def lane_of(data: Any, lane: int) -> Any:
        return Cat(*(data[beat * bits + 8 * lane :][:8] for beat in range(beats)))

    return Cat(
        *(
            lane_of(commands.read_data, lane) != lane_of(commands.write_data, lane)
            for lane in range(lanes)
        )
    )


class ReadLeveling(LiteXModule):
    """Finds for each byte lane the delay and the bit of the burst at which it reads right.

    All delays are tried at each bit; the middle of the longest run of delays that read right is
    taken, and tested once more.

    Parameters
    ----------
    commands : DfiCommands
        Of the memory, which has been initialised.
    phy : module
        A PHY of LiteDRAM with read leveling and no other; its registers are on no bus.

    Members
    -------
    start
        1: level.
    done, failed
        1 from the end on; whether a lane was found that reads right at no setting.
    windows
        Length of the run of delays of each of the first four lanes, `WINDOW_BITS` each; 0: none.
    """

    def __init__(self, commands: DfiCommands, phy: Any):
        lanes = phy.settings.databits // 8
        delays, bitslips = phy.settings.delays, phy.settings.bitslips
        self.start, self.done, self.failed = Signal(), Signal(), Signal()
        self.windows = Signal(4 * WINDOW_BITS)

        # # #

        lane = Signal(max=lanes + 1)
        delay, bitslip = Signal(max=delays + 1), Signal(max=bitslips + 1)
        run, length, end = (Signal(max=delays + 1) for _ in range(3))
        at_bitslip, middle = Signal(max=bitslips + 1), Signal(max=delays + 1)
        self.turn = turn = _Turn(phy, lane)
        self.test = test = _Test(commands, phy, lane)
        self.comb += middle.eq(end - ((length - 1) >> 1))
        self.fsm = fsm = FSM(reset_state="IDLE")

        def turning(state: str, name: str, *then: Any) -> None:
            fsm.act(state, turn.start.eq(1), turn.kind.eq(_TURNS.index(name)), If(turn.done, *then))

        fsm.act(
            "IDLE",
            If(self.start & ~self.done, NextState("FIRST_BITSLIP")),
        )
        turning(
            "FIRST_BITSLIP",
            "_rdly_dq_bitslip_rst",
            NextValue(bitslip, 0),
            NextValue(length, 0),
            NextState("FIRST_DELAY"),
        )
        turning(
            "FIRST_DELAY",
            "_rdly_dq_rst",
            NextValue(delay, 0),
            NextValue(run, 0),
            NextState("TRY"),
        )
        fsm.act(
            "TRY",
            test.start.eq(1),
            If(
                test.done,
                NextValue(run, 0),
                If(
                    test.good,
                    NextValue(run, run + 1),
                    If(
                        run >= length,
                        NextValue(length, run + 1),
                        NextValue(end, delay),
                        NextValue(at_bitslip, bitslip),
                    ),
                ),
                NextState("NEXT_DELAY"),
                If(
                    delay == delays - 1,
                    NextState("NEXT_BITSLIP"),
                    If(bitslip == bitslips - 1, NextState("TAKE_BITSLIP")),
                ),
            ),
        )
        turning("NEXT_DELAY", "_rdly_dq_inc", NextValue(delay, delay + 1), NextState("TRY"))
        turning(
            "NEXT_BITSLIP",
            "_rdly_dq_bitslip",
            NextValue(bitslip, bitslip + 1),
            NextState("FIRST_DELAY"),
        )
        turning(
            "TAKE_BITSLIP",
            "_rdly_dq_bitslip_rst",
            NextValue(bitslip, 0),
            NextState("TO_BITSLIP"),
            If(length == 0, NextValue(self.failed, 1), NextState("LEAVE")),
        )
        fsm.act(
            "TO_BITSLIP",
            NextState("STEP_BITSLIP"),
            If(bitslip == at_bitslip, NextState("TAKE_DELAY")),
        )
        turning(
            "STEP_BITSLIP",
            "_rdly_dq_bitslip",
            NextValue(bitslip, bitslip + 1),
            NextState("TO_BITSLIP"),
        )
        turning("TAKE_DELAY", "_rdly_dq_rst", NextValue(delay, 0), NextState("TO_DELAY"))
        fsm.act("TO_DELAY", NextState("STEP_DELAY"), If(delay == middle, NextState("CHECK")))
        turning("STEP_DELAY", "_rdly_dq_inc", NextValue(delay, delay + 1), NextState("TO_DELAY"))
        fsm.act(
            "CHECK",
            test.start.eq(1),
            If(test.done, If(~test.good, NextValue(self.failed, 1)), NextState("LEAVE")),
        )
        fsm.act(
            "LEAVE",
            Case(
                lane,
                {
                    place: NextValue(self.windows[WINDOW_BITS * place :][:WINDOW_BITS], length)
                    for place in range(min(lanes, len(self.windows) // WINDOW_BITS))
                },
            ),
            NextValue(lane, lane + 1),
            NextState("FIRST_BITSLIP"),
            If(lane == lanes - 1, NextValue(self.done, 1), NextState("IDLE")),
        )
