"""Trace of a run: what each stage did in each cycle, and when each block had its turn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from firmware_model.host.jobs import Job, LayerJob
from firmware_model.host.superblocks import deal
from paro.config import Config
from paro.config.config import blocks_of
from paro.config.formats import Operand
from paro.config.registers import STAGES, STATES
from rtl.core.blocks import block_layout
from rtl.interfaces import fetch_signature
from sim.trace.recording import Activity, Recording

__all__ = ["BLOCK", "PORTS", "BlockMap", "Trace", "Track", "build_trace"]

#: Directions of the memory port.
PORTS = ("read", "write")
#: A live block's turn. Of a layer ``row`` is an output block, ``column`` a chunk of inputs and
#: ``visit`` a block of tokens, which is 0 of attention. All else are cycles: when it was issued,
#: when the array began QK and PV of it and had done them; -1 if it did not.
BLOCK = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("job", "core", "row", "column", "visit", "code"),
            *("issued", "qk", "qk_end", "pv", "pv_end"),
        )
    ]
)


@dataclass(frozen=True, eq=False)
class Track:
    """States of a stage, or of a direction of the memory port, span after span.

    Parameters
    ----------
    core : int or None
        The stage's; None for the memory port.
    name : str
        In `paro.config.registers.STAGES` or `PORTS`.
    starts : np.ndarray
        int64 [spans]: first cycle of each, beginning with 0.
    states : np.ndarray
        int64 [spans]: 0 if it has nothing to do, else 1 and more as `paro.config.registers.STATES`.
    end : int
        Cycles of the trace.
    """

    core: int | None
    name: str
    starts: np.ndarray
    states: np.ndarray
    end: int

    @property
    def lengths(self) -> np.ndarray:
        """Cycles of each span, int64 [spans]."""
        return np.diff(self.starts, append=self.end)

    def counts(self) -> dict[str, int]:
        """Cycles in each state."""
        totals = np.bincount(self.states, self.lengths, 1 + len(STATES))
        return {state: int(count) for state, count in zip(STATES, totals[1:], strict=True)}

    def counts_until(self, cycles: np.ndarray) -> np.ndarray:
        """Cycles in each state before some cycles, int64 [states, cycles]."""
        edges = np.append(self.starts, self.end)
        own = self.lengths * (self.states == np.arange(1, 1 + len(STATES))[:, None])
        before = np.pad(own.cumsum(axis=1), ((0, 0), (1, 0)))
        return np.array([np.interp(cycles, edges, row) for row in before]).astype(np.int64)


@dataclass(frozen=True)
class BlockMap:
    """Map of a job's blocks.

    Parameters
    ----------
    linear : bool
        It is a layer's: output blocks and chunks of inputs.
    first_row, rows, columns : int
        First row that is computed; how many are, of so many columns.
    visits : int
        How often the array comes to each of them: once, of a layer for each block of tokens.
    """

    linear: bool
    first_row: int
    rows: int
    columns: int
    visits: int


@dataclass(frozen=True, eq=False)
class Trace:
    """A run, from its first cycle that counts to its last.

    Parameters
    ----------
    cycles : int
        Length.
    tracks : list of Track
        Of each core's stages, then of the memory port, if there is one.
    maps : list of BlockMap
        Of each job.
    blocks : np.ndarray
        `BLOCK` [blocks], in the order in which each core issued them, core after core.
    """

    cycles: int
    tracks: list[Track]
    maps: list[BlockMap]
    blocks: np.ndarray


def build_trace(
    recording: Recording,
    config: Config,
    jobs: Sequence[Job],
    window: tuple[int, int | None] | None = None,
) -> Trace:
    """Make a trace of a recording.

    Parameters
    ----------
    recording : Recording
        Of a simulation of ``jobs``.
    config : Config
        The core, or the accelerator.
    jobs : sequence of Job
        In their order.
    window : (int, int or None), optional
        First cycle that counts and the end of them, None for all that was recorded; of an
        accelerator it is known from the recording.
    """
    start, end = window or _queue_window(recording)
    if end is None:
        end = recording.last_cycle + 1
    sources: list[tuple[int, int | None, Sequence[str]]] = [
        (core, core, list(STAGES)) for core in range(config.cores)
    ]
    if config.cores in recording.activities:
        sources.append((config.cores, None, PORTS))
    tracks = [
        Track(core, name, *_spans(recording.activity(source), index, start, end), end - start)
        for source, core, names in sources
        for index, name in enumerate(names)
    ]
    maps = [_block_map(config, job) for job in jobs]
    linear = np.array([each.linear for each in maps])
    blocks = []
    for core in range(config.cores):
        events = [event for event in recording.events.get(core, ()) if event[1] >= start]
        issued = np.array(list(_issued(config, maps, core, events)), BLOCK)
        issued["issued"] -= start
        own = {track.name: track for track in tracks if track.core == core}
        _add_turns(issued, linear[issued["job"]], events, own, start)
        blocks.append(issued)
    return Trace(end - start, tracks, maps, np.concatenate(blocks))


def _queue_window(recording: Recording) -> tuple[int, int | None]:
    """Cycles in which an accelerator works through its last queue."""
    start = recording.cycles("s")[-1]
    ends = recording.cycles("e")
    ends = ends[ends > start]
    return int(start), int(ends[0]) + 1 if len(ends) else None


def _spans(activity: Activity, index: int, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and states of the spans of a source's stage ``index``."""
    flags = activity.values >> index * len(STATES) & (1 << len(STATES)) - 1
    state_of = np.zeros(1 << len(STATES), np.int64)
    state_of[1 << np.arange(len(STATES))] = 1 + np.arange(len(STATES))
    # What holds when the trace begins, then all changes within it. Before the first one: nothing.
    states = np.append(0, state_of[flags])
    cycles = np.append(0, activity.cycles)
    first = np.searchsorted(cycles, start, "right") - 1
    inside = slice(first, np.searchsorted(cycles, end))
    starts, states = np.maximum(cycles[inside] - start, 0), states[inside]
    changes = np.append(True, states[1:] != states[:-1])
    return starts[changes], states[changes]


def _block_map(config: Config, job: Job) -> BlockMap:
    if isinstance(job, LayerJob):
        rows, columns = job.codes.shape
        return BlockMap(True, 0, rows, columns, blocks_of(job.tokens, config.layer_tokens))
    rows = job.rows(config)
    return BlockMap(False, rows.start, len(rows), config.blocks_of(job.head.tokens), 1)


def _issued(
    config: Config, maps: Sequence[BlockMap], core: int, events: Sequence[tuple[str, int, int]]
) -> Iterator[tuple[int, ...]]:
    """Blocks that a core issues, with what was fetched for them."""
    request: Any = fetch_signature(config).members["payload"].shape
    operand, fetched, chunk = (_field(request, name) for name in ("operand", "block", "chunk"))
    code, first, place = (_field(block_layout(config), name) for name in ("code", "first", "row"))
    # A core counts the rows that are its own.
    shares = [deal(each.visits if each.linear else each.rows, config)[core] for each in maps]
    commands = (number for number, share in enumerate(shares) if len(share))
    job = queries = keys = inputs = 0
    rows: dict[int, int] = {}  # of a superblock: which queries are in its places
    for kind, cycle, payload in events:
        if kind == "c":
            job = next(commands)
        elif kind == "f" and operand(payload) == Operand.Q:
            queries = fetched(payload)
        elif kind == "f" and operand(payload) == Operand.K:
            keys, inputs = fetched(payload), chunk(payload)
        elif kind == "b":
            if maps[job].linear:
                where = (keys, inputs, int(shares[job][queries]))
            else:
                if first(payload):
                    rows[place(payload)] = queries
                where = (maps[job].first_row + int(shares[job][rows[place(payload)]]), keys, 0)
            yield (job, core, *where, code(payload), cycle, -1, -1, -1, -1)


def _field(layout: Any, name: str) -> Callable[[int], int]:
    """Return what takes a field of a layout out of a payload."""
    offset, mask = layout[name].offset, (1 << layout[name].width) - 1
    return lambda payload: payload >> offset & mask


def _add_turns(
    blocks: np.ndarray,
    linear: np.ndarray,
    events: Sequence[tuple[str, int, int]],
    tracks: dict[str, Track],
    start: int,
) -> None:
    """Add to the blocks of a core when its array worked on them; blocks never overtake another.

    An operation begins in the cycle after its start, in which the one before may still be at work.
    Those of layers (``linear``) are QK alone.
    """
    starts = {
        name: np.array([cycle - start for kind, cycle, _ in events if kind == key], np.int64)
        for name, key in (("qk", "q"), ("pv", "p"))
    }
    all_starts = np.sort(np.concatenate(list(starts.values())))
    for name, chosen in (("qk", np.arange(len(blocks))), ("pv", np.flatnonzero(~linear))):
        track, begun = tracks[name], starts[name]
        busy = np.flatnonzero(track.states == 1)
        if len(busy) == 0:
            continue
        # The last cycle in which it can be at work, and the span that ends no later.
        last = np.append(all_starts, track.end - 1)[np.searchsorted(all_starts, begun, "right")]
        span = busy[np.searchsorted(track.starts[busy], last, "right") - 1]
        ends = np.minimum(np.append(track.starts, track.end)[span + 1], last + 1)
        rows = chosen[: len(begun)]
        blocks[name][rows] = begun + 1
        blocks[f"{name}_end"][rows] = np.maximum(ends, begun + 1)
