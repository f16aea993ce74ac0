"""What the bench of the core is asked to do, and what it answers."""

from dataclasses import dataclass, field

__all__ = [
    "PROGRESS_FILE",
    "RESULT_FILE",
    "SCENARIO_FILE",
    "CommandBeats",
    "CommandResult",
    "Result",
    "Scenario",
]

#: The bench reads a `Scenario` from this file and leaves a `Result` in the other.
SCENARIO_FILE, RESULT_FILE = "scenario.json", "result.json"
#: A byte for each block row that was begun, as long as the bench runs.
PROGRESS_FILE = "progress"


@dataclass(frozen=True)
class CommandBeats:
    """Where the beats of one command lie in those of all streams.

    Parameters
    ----------
    codes : (int, int)
        First beat, count.
    fetch : dict of str to list of (int, int)
        By name of the operand, for each block (of a layer: for each chunk of each block) its first
        beat and their count.
    chunks : int
        Chunks of a layer's blocks; 0 for attention.
    output_beats : int
        Beats that the core answers with.
    rows : list of int
        With superblocks: the rows in the order in which they leave, each as its place.
    """

    codes: tuple[int, int]
    fetch: dict[str, list[tuple[int, int]]]
    chunks: int
    output_beats: int
    rows: list[int]


@dataclass(frozen=True)
class Scenario:
    """Commands, given one directly after the other, and how the streams behave.

    Parameters
    ----------
    commands : list of CommandBeats
        One for each command.
    memory_latency : int
        Cycles from a fetch (for codes: from those before) to its first beat.
    stall_seed : int, optional
        Random stalls on both sides of every stream; ``None`` for none.
    reset_at : int, optional
        Cycle of a reset, after which everything is done again.
    idle_limit : int
        Cycles without a transfer on any stream after which the core counts as hung.
    status_bits : dict of str to int
        See `sim.cosim.core_harness.status_bits`.
    operands : list of str
        Names of the operands, in the order of their numbers in a fetch.
    fetch_block, fetch_chunk : (int, int)
        Lowest bit and width of the numbers of block and chunk in a fetch.
    counter_bits : int
        Width of each counter of the stages' activities.
    """

    commands: list[CommandBeats]
    memory_latency: int
    stall_seed: int | None
    reset_at: int | None
    idle_limit: int
    status_bits: dict[str, int]
    operands: list[str]
    fetch_block: tuple[int, int]
    fetch_chunk: tuple[int, int]
    counter_bits: int


@dataclass
class CommandResult:
    """Cycles of one command, and the activity counters then; ``None`` until it happens.

    Parameters
    ----------
    start, activity_start
        When the command was taken.
    end, activity_end
        When the last output was.
    """

    start: int | None = None
    activity_start: list[int] = field(default_factory=list)
    end: int | None = None
    activity_end: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """What the bench saw.

    Parameters
    ----------
    failure : str or None
        Its objection.
    commands : list of CommandResult
        One for each command; none if the bench never began.
    cycles : int
        All cycles simulated.
    outputs_discarded : int
        Output beats before the reset.
    """

    failure: str | None
    commands: list[CommandResult] = field(default_factory=list)
    cycles: int = 0
    outputs_discarded: int = 0
