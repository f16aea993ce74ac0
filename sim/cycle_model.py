"""Cycle model of the core: clocks of a run from its plan alone, equal to those of the RTL.

Nothing is simulated clock by clock. The core has few places that wait, and what happens between
them takes a fixed time; so it is enough to follow the blocks: when each is fetched, loaded, started
on the array, weighted, and when each query leaves. A time is a sum of the latencies that the
modules of `rtl` name, or the larger of two such sums.

What there is to decide is decided by the array sequencer: at the end of each product, the next QK
or the next PV, whichever its operands, and room behind it, allow first. Both candidates depend on
earlier decisions only, so that one pass over the blocks finds all times in order. The last rows'
outputs follow a pass behind, since they meet the partial sums of the rows after them in memory.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from paro_config import Config, ParoError
from paro_config.formats import LANES, Stage
from rtl import interfaces
from rtl.blocks import log2
from rtl.drain import DrainRouter
from rtl.logits import LogitBuffer
from rtl.normalizer import Normalizer
from rtl.output_accumulator import OutputAccumulator
from rtl.reciprocal import ReciprocalLane
from rtl.row_state import RowStateLane
from rtl.scheduler import SLOTS
from rtl.sequencer import ArraySequencer
from rtl.softmax import SoftmaxUnit
from rtl.stream_fifo import StreamFIFO
from sim.gap_replay import transfer_cycles
from sim.gaps import STREAMS

__all__ = ["BatchPrediction", "Prediction", "Work", "predict", "predict_heads"]


@dataclass(frozen=True, eq=False)
class Work:
    """What the core is asked to compute with one command.

    Parameters
    ----------
    codes : np.ndarray
        uint8 [rows, key blocks]: block codes of the rows that are computed.
    query_tokens, key_tokens : int
        Tokens of these rows, and of the keys; the last block of either may be partial.
    """

    codes: np.ndarray
    query_tokens: int
    key_tokens: int


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the core will do.

    Parameters
    ----------
    cycles : list of int
        For each command, clocks until the last of its outputs.
    total_cycles : int
        Clocks from the first command to the last output of all.
    row_ends : list of np.ndarray
        For each command, int64 [rows]: clocks from the first command to the row's last output.
    stages : dict of str to dict of str to int
        As `sim.core.Simulation` has them.
    """

    cycles: list[int]
    total_cycles: int
    row_ends: list[np.ndarray]
    stages: dict[str, dict[str, int]]


@dataclass(frozen=True, eq=False)
class BatchPrediction:
    """What the core will do with each of many heads, if it begins every one idle.

    Parameters
    ----------
    cycles : np.ndarray
        int64 [heads]: clocks from the command to the last output.
    stages : np.ndarray
        int64 [heads, stages, 3]: clocks in which each `formats.Stage` is busy, starved, blocked.
    """

    cycles: np.ndarray
    stages: np.ndarray


def predict(
    config: Config,
    works: Sequence[Work],
    *,
    memory_latency: int = 0,
    stall_seed: int | None = None,
) -> Prediction:
    """Predict some commands, given one directly after the other.

    Parameters
    ----------
    config : Config
        The core.
    works : sequence of Work
        What it computes.
    memory_latency : int
        Cycles from a fetch (for codes and commands: from those before) to the first beat; one beat
        a cycle follows on each stream.
    stall_seed : int, optional
        Random gaps on every stream as in a co-simulation with this seed; ``None`` for none.

    Raises
    ------
    ParoError
        If shapes do not fit each other or a block row has no live block.
    """
    if not works:
        raise ParoError("cycle model: there is nothing to compute")
    _check_latency(memory_latency)
    codes = [_checked_codes(config, work.codes[None], work)[0] for work in works]
    runs, first = [], 0
    for work, part in zip(works, codes, strict=True):
        runs.append((first, *part.shape, work.query_tokens, work.key_tokens))
        first += part.size
    cycles = 0 if stall_seed is None else _GAP_CYCLES
    while True:
        gaps = _gaps(stall_seed, memory_latency, cycles)
        spans, row_ends, stages = _predict(
            _core(config),
            np.concatenate([c.ravel() for c in codes]),
            np.array(runs),
            memory_latency,
            gaps,
        )
        if spans[-1, 1] <= gaps.shape[1] or stall_seed is None:
            break
        cycles *= 4
    flags = list(interfaces.Activity.as_shape().members)
    return Prediction(
        cycles=[int(end - start) for start, end in spans],
        total_cycles=int(spans[-1, 1]),
        row_ends=np.split(row_ends, np.cumsum([len(part) for part in codes])[:-1]),
        stages={
            stage.name.lower(): dict(zip(flags, map(int, counts), strict=True))
            for stage, counts in zip(Stage, stages, strict=True)
        },
    )


def predict_heads(
    config: Config,
    codes: np.ndarray,
    query_tokens: int,
    key_tokens: int,
    *,
    memory_latency: int = 0,
) -> BatchPrediction:
    """Predict many heads of one shape, each on an idle core; one thread a processor.

    Parameters
    ----------
    config : Config
        The core.
    codes : np.ndarray
        uint8 [heads, rows, key blocks].
    query_tokens, key_tokens, memory_latency
        See `Work` and `predict`.

    Raises
    ------
    ParoError
        See `predict`.
    """
    _check_latency(memory_latency)
    checked = _checked_codes(config, codes, Work(codes[:0], query_tokens, key_tokens))
    core, (rows, columns) = _core(config), checked.shape[1:]
    runs = np.array([(0, rows, columns, query_tokens, key_tokens)])
    no_gaps = _gaps(None, memory_latency, 0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(
            pool.map(
                lambda head: _predict(core, head.ravel(), runs, memory_latency, no_gaps), checked
            )
        )
    return BatchPrediction(
        np.array([spans[0, 1] for spans, _, _ in results]),
        np.array([stages for _, _, stages in results]),
    )


def _gaps(stall_seed: int | None, memory_latency: int, cycles: int) -> np.ndarray:
    """When streams can transfer, counted from the first command, for so many cycles."""
    if stall_seed is None:
        return np.empty((len(STREAMS), 0), np.int64)
    # The first command comes so long after reset.
    begin = max(memory_latency - 1, 0)
    return transfer_cycles(stall_seed, begin + cycles)[:, begin:] - begin


def _check_latency(memory_latency: int) -> None:
    if memory_latency < 0:
        raise ParoError(f"cycle model: a latency of {memory_latency} cycles cannot be")


def _checked_codes(config: Config, codes: np.ndarray, work: Work) -> np.ndarray:
    """Codes [heads, rows, key blocks] as the model takes them, or a sentence."""
    if codes.ndim != 3:
        raise ParoError(f"cycle model: codes have {codes.ndim - 1} dimensions instead of 2")
    for name, tokens, blocks in (
        ("query", work.query_tokens, codes.shape[1]),
        ("key", work.key_tokens, codes.shape[2]),
    ):
        if not 1 <= tokens <= config.max_tokens:
            raise ParoError(f"cycle model: {tokens} {name} tokens; legal: 1 to {config.max_tokens}")
        if blocks != -(-tokens // config.block):
            raise ParoError(
                f"cycle model: {tokens} {name} tokens do not make {blocks} blocks of {config.block}"
            )
    if codes.size and (codes.min() < 0 or codes.max() > 3):
        raise ParoError("cycle model: block codes must be 0, 1, 2 or 3")
    dead = ~codes.any(axis=2).all(axis=0)
    if dead.any():
        raise ParoError(f"cycle model: block row {int(dead.argmax())} has no live block")
    return np.ascontiguousarray(codes, np.uint8)


class _Core(NamedTuple):
    """Numbers of a configuration; times are in cycles."""

    block: int
    rows: int
    cols: int
    head_dim: int
    row_groups: int  # groups of R tokens in a block
    query_groups: int  # groups of C queries in a block
    channel_groups: int  # groups of C channels
    begun: int  # from the arrival of a block's first groups to the start of its QK
    # Beats of the streams.
    beat_shift: int  # log2 of the codes in a beat
    load_tokens: int
    token_beats: int  # of Q and K, for each load_tokens tokens
    value_beats: int  # of V, for each token
    # Drain and softmax.
    drain_cycles: int
    drain_shift: int  # log2 of the cycles in which an array row drains
    drain: int  # from a tile's last step to its first drained words
    key_release: int  # from a block's last drained scores to a free K slot
    value_release: int  # from the last step of a PV to a free V slot
    logits: int  # from a group's last drained scores to its logits
    softmax_lanes: int
    weights: int  # from the last key of a block to its weights
    denominators: int  # from the last key of a chunk to its denominators, at the reciprocal unit
    # Output.
    reciprocal: int
    reciprocal_lanes: int
    groups: int  # from the last drained partial outputs of a group of R queries to its completion
    pv_tiles: int
    parts: int  # reads of a query's numerators
    output: int  # from such a read to its beat
    queue: int  # beats that the output queue holds, those that are read for it included
    fifo: int


def _core(config: Config) -> _Core:
    """Read the configuration, and the latencies that the modules name."""
    weights = SoftmaxUnit.LATENCY
    return _Core(
        block=config.block,
        rows=config.rows,
        cols=config.cols,
        head_dim=config.head_dim,
        row_groups=config.block // config.rows,
        query_groups=config.block // config.cols,
        channel_groups=config.head_dim // config.cols,
        begun=ArraySequencer.BEGUN_LATENCY,
        beat_shift=log2(interfaces.CODES_PER_BEAT),
        load_tokens=config.load_tokens,
        token_beats=config.head_dim // LANES,
        value_beats=config.head_dim // config.load_bytes,
        drain_cycles=config.drain_cycles,
        drain_shift=log2(config.cols // config.drain_words),
        drain=ArraySequencer.TILE_LATENCY + DrainRouter.DELAY + DrainRouter.LATENCY,
        key_release=LogitBuffer.RELEASE_LATENCY,
        value_release=ArraySequencer.LATENCY,
        logits=LogitBuffer.GROUP_LATENCY,
        softmax_lanes=config.softmax_lanes,
        weights=weights + StreamFIFO.LATENCY,
        denominators=weights + RowStateLane.LATENCY + StreamFIFO.LATENCY,
        reciprocal=ReciprocalLane.LATENCY,
        reciprocal_lanes=config.reciprocal_lanes,
        groups=OutputAccumulator.LATENCY,
        pv_tiles=config.block // config.rows * (config.head_dim // config.cols),
        parts=config.head_dim // config.drain_words,
        output=Normalizer.LATENCY + StreamFIFO.LATENCY,
        queue=Normalizer.QUEUE,
        fifo=StreamFIFO.LATENCY,
    )


#: Cycles of gaps that are looked at first.
_GAP_CYCLES = 1 << 16

#: A time that does not come, one before all.
_NEVER, _ALWAYS = 1 << 60, -(1 << 60)
#: Blocks and rows of which something is remembered, a power of two: more than can be under way.
_RING = 4 * SLOTS
_SCHEDULER, _LOAD_Q, _LOAD_K, _LOAD_V, _QK, _PV, _SOFTMAX, _OUTPUT = map(int, Stage)
_STAGES = len(Stage)
_BUSY, _STARVED, _BLOCKED = range(3)
_COMMAND, _CODES, _FETCH, _Q, _K, _V, _O = range(len(STREAMS))


class _Pv(NamedTuple):
    """PV of the last blocks, in a ring: its tiles drain at equal distances."""

    first: np.ndarray  # int64: cycle of its first drained words
    shift: np.ndarray  # uint8: log2 of the cycles from a tile to the next


class _Output(NamedTuple):
    """State of the reciprocal unit and the normaliser."""

    left: np.ndarray  # int64 [block]: when the last queries left the queue between the two
    sent: np.ndarray  # int64 [queue]: when the last beats left, if the stream has gaps
    # int64 [5]: first free cycle of the reciprocal unit and of the normaliser, queries so far,
    # oldest PV that may still drain, cycles in which a beat was not taken.
    state: np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def _after(gaps, stream, cycle):
    """First cycle after this one in which a stream has no gap."""
    if gaps.shape[1] == 0:
        return cycle + 1
    # Beyond the last cycle that was looked at there is no gap; `predict` then looks further.
    return gaps[stream, cycle] if 0 <= cycle < gaps.shape[1] else cycle + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _load(gaps, stream, first, beats, group_beats, there):
    """Follow a load from its first beat on.

    ``there`` receives the cycle after the last beat of each group; returns that of the load.
    """
    if gaps.shape[1] == 0:
        for group in range(len(there)):
            there[group] = first + min(beats, (group + 1) * group_beats)
        return first + beats
    group = 0
    now = first
    for beat in range(1, beats + 1):
        if beat == (group + 1) * group_beats:
            there[group] = now + 1
            group += 1
        if beat < beats:
            now = _after(gaps, stream, now)
    there[group:] = now + 1
    return now + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _send_row(core, chunk_starts, queries, completion, pv, pv_count, output, gaps):
    """Follow a row from its denominators to its last output.

    Parameters
    ----------
    core : _Core
    chunk_starts : np.ndarray
        For each group of C queries, when the softmax unit began with it in the row's last block.
    queries : int
        Valid ones of the row.
    completion : np.ndarray
        When the numerators of its first R queries are complete, cycles until the next R are.
    pv : _Pv
    pv_count : int
        Number of PVs begun until now.
    output : _Output
    gaps : np.ndarray
        See `_predict`.

    Returns
    -------
    (int, int)
        Cycles of the row's last read and of its last beat.
    """
    reciprocal, free, count, oldest, _ = output.state
    complete, complete_step = completion
    mask = len(pv.first) - 1
    chunks = core.cols // core.softmax_lanes  # in a group of C queries
    query = 0
    for chunk in range(core.block // core.softmax_lanes):
        group = chunk // chunks
        last_key = chunk_starts[group] + (chunk - group * chunks + 1) * core.block - 1
        reciprocal = max(reciprocal, last_key + core.denominators)
        for _ in range(core.softmax_lanes // core.reciprocal_lanes):
            reciprocal += core.reciprocal
            for _ in range(core.reciprocal_lanes):
                if query < queries:
                    # The queue holds as many queries as a block.
                    place = count & (core.block - 1)
                    reciprocal = max(reciprocal, output.left[place] + 1)
                    if query & (core.rows - 1) == 0 and query > 0:
                        complete += complete_step
                    now = max(free, reciprocal + core.fifo, complete)
                    for part in range(core.parts):
                        if gaps.shape[1]:
                            # There is room for what is read.
                            beat = count * core.parts + part
                            now = max(now, output.sent[beat % core.queue] + 1)
                        # A memory that takes partial outputs in this cycle cannot be read.
                        memory = (query if core.parts == 1 else query ^ part) & 1
                        while True:
                            while (
                                oldest < pv_count
                                and now
                                >= pv.first[oldest & mask]
                                + ((core.pv_tiles - 1) << pv.shift[oldest & mask])
                                + core.drain_cycles
                            ):
                                oldest += 1
                            if oldest == pv_count:
                                break
                            since = now - pv.first[oldest & mask]
                            if since < 0:
                                break
                            shift = pv.shift[oldest & mask]
                            tile = since >> shift
                            word = since - (tile << shift)
                            if word >= core.drain_cycles:
                                break
                            row = word >> core.drain_shift
                            part_written = word if core.drain_shift else tile
                            written = (row if core.parts == 1 else row ^ part_written) & 1
                            if written != memory:
                                break
                            now += 1
                        if gaps.shape[1]:
                            before = output.sent[(beat - 1) % core.queue]
                            offered = max(now + core.output, before + 1)
                            leaves = _after(gaps, _O, offered - 1)
                            output.sent[beat % core.queue] = leaves
                            output.state[4] += leaves - offered
                        now += 1
                    free = now
                    output.left[place] = now - 1
                    count += 1
                query += 1
                reciprocal += 1
    output.state[0] = reciprocal
    output.state[1] = free
    output.state[2] = count
    output.state[3] = oldest
    if gaps.shape[1]:
        return free - 1, output.sent[(count * core.parts - 1) % core.queue]
    return free - 1, free - 1 + core.output


@njit(cache=True, nogil=True, error_model="numpy")
def _next_live(codes, column, end):
    while column < end and codes[column] == 0:
        column += 1
    return column


@njit(cache=True, nogil=True, error_model="numpy")
def _predict(core, codes, runs, latency, gaps):
    """Follow some runs block by block.

    Parameters
    ----------
    core : _Core
    codes : np.ndarray
        uint8, of all runs.
    runs : np.ndarray
        int64 [runs, 5]: where a run's codes begin, rows, columns, query tokens, key tokens.
    latency : int
        Of the memory.
    gaps : np.ndarray
        int64 [streams, cycles], see `sim.gap_replay.transfer_cycles`, from the first command on; no
        cycles if no stream has gaps.

    Returns
    -------
    (spans, row_ends, stages)
        int64 [runs, 2], first command and last output; [rows]; [stages, 3].
    """
    stages = np.zeros((_STAGES, 3), np.int64)
    spans = np.zeros((len(runs), 2), np.int64)
    row_ends = np.empty(runs[:, 1].sum(), np.int64)
    row_run = np.empty(len(row_ends), np.int64)
    # A beat is there in the cycle after it was asked for at the earliest.
    answer = max(latency, 1)
    query_group_beats = core.cols // core.load_tokens * core.token_beats
    key_group_beats = core.rows // core.load_tokens * core.token_beats
    block_beats = core.block // core.load_tokens * core.token_beats
    softmax_group = core.block * (core.cols // core.softmax_lanes)
    # From a tile's last step to its last drained words.
    drained = core.drain + core.drain_cycles - 1

    # Scheduler: the row that it scans, the block that it has found last.
    run, row, rows_left = -1, -1, 0
    column, end = 0, 0  # of the block in `codes`, and the end of its row
    code, keys, queries = 0, 0, 0
    first, last, more = True, True, True
    query_fetch = key_fetch = 0
    value_fetch = -2
    command_at = codes_at = 0
    code_taken = -1
    row_codes = following = columns = last_beat = 0

    # Loads: when slots are free, streams are free, a load began and how long it is.
    query_free = np.full(SLOTS, _ALWAYS)
    key_free = np.full(SLOTS, _ALWAYS)
    value_free = np.full(SLOTS, _ALWAYS)
    value_full = np.zeros(SLOTS, np.int64)
    query_port = key_port = value_port = 0
    query_there = np.zeros(core.query_groups, np.int64)
    key_there = np.zeros(core.row_groups, np.int64)
    values_there = np.zeros(1, np.int64)

    # Blocks between QK and PV, rows between QK and output.
    block_code = np.zeros(_RING, np.int64)
    block_first = np.zeros(_RING, np.bool_)
    block_last = np.zeros(_RING, np.bool_)
    block_weighted = np.zeros(_RING, np.int64)
    chunk_starts = np.zeros((_RING, core.query_groups), np.int64)
    row_queries = np.zeros(_RING, np.int64)
    row_complete = np.zeros((_RING, 2), np.int64)
    size = _RING
    while size < _RING * runs[:, 2].max():
        size *= 2
    pv_shifts = np.zeros(4, np.uint8)
    for code in range(1, 4):
        while (1 << pv_shifts[code]) < max(core.block >> (3 - code), core.drain_cycles):
            pv_shifts[code] += 1
    pv_log = _Pv(np.zeros(size, np.int64), np.zeros(size, np.uint8))
    output = _Output(
        np.full(core.block, _ALWAYS), np.full(core.queue, _ALWAYS), np.zeros(5, np.int64)
    )

    qk, pv, pv_row, sent = 0, 0, 0, 0  # blocks and rows so far
    output_free = _ALWAYS
    step, idle = -core.drain_cycles, 0  # the array's last step, the first cycle after it
    softmax = 0  # when the softmax unit is free
    steps = period = 1
    find = True
    loaded = seen = _NEVER
    while True:
        if find:
            find = False
            # V of the block whose QK has just begun.
            if qk > 0:
                slot = (qk - 1) % SLOTS
                value_fetch = max(key_fetch + 1, value_free[slot])
                value_fetch = _after(gaps, _FETCH, value_fetch - 1)
                stages[_SCHEDULER, _BLOCKED] += value_fetch - key_fetch - 1
                offered = max(value_fetch + core.fifo, value_port)
                value_first = max(value_fetch + answer, offered, _after(gaps, _V, value_port - 1))
                value_beats = core.value_beats * keys
                value_port = _load(gaps, _V, value_first, value_beats, value_beats, values_there)
                value_full[slot] = value_port
                stages[_LOAD_V, _BUSY] += value_beats
                stages[_LOAD_V, _STARVED] += value_port - offered - value_beats
                if pv >= qk - 1 and qk > 1:
                    stages[_LOAD_V, _BLOCKED] += max(0, value_free[qk % SLOTS] - value_port)
            # The next block: of this row, the next one, the next run.
            if last and rows_left == 0:
                first_idle = value_fetch + 2
                run += 1
                if run == len(runs):
                    more, loaded, seen = False, _NEVER, _NEVER
                    stages[_SCHEDULER, _STARVED] -= first_idle
                    continue
                start = max(first_idle, command_at)
                spans[run, 0] = start
                stages[_SCHEDULER, _STARVED] += start - first_idle + 1
                command_at = max(start + answer, _after(gaps, _COMMAND, start))
                if run > 0:
                    codes_at = code_taken + answer
                end, rows_left = runs[run, 0], runs[run, 1]
                begin_row = start + 1
            else:
                begin_row = value_fetch + 2
            if last:
                row += 1
                rows_left -= 1
                row_run[row] = run
                columns = runs[run, 2]
                row_codes, end = end, end + columns
                last_beat = (columns - 1) >> core.beat_shift
                queries = core.block
                if rows_left == 0:
                    queries = (runs[run, 3] - 1) % core.block + 1
                query_fetch = max(begin_row, query_free[row % SLOTS])
                query_fetch = _after(gaps, _FETCH, query_fetch - 1)
                stages[_SCHEDULER, _BLOCKED] += query_fetch - begin_row
                offered = max(query_fetch + core.fifo, query_port)
                query_first = max(query_fetch + answer, offered, _after(gaps, _Q, query_port - 1))
                query_beats = ((queries - 1) // core.load_tokens + 1) * core.token_beats
                query_port = _load(
                    gaps, _Q, query_first, query_beats, query_group_beats, query_there
                )
                stages[_LOAD_Q, _BUSY] += query_beats
                stages[_LOAD_Q, _STARVED] += query_port - offered - query_beats
                stages[_LOAD_Q, _BLOCKED] += max(0, query_free[(row + 1) % SLOTS] - query_port)
                row_queries[row % _RING] = queries
                # The scan up to the first live block.
                following = _next_live(codes, row_codes, end)
                beat = (following - row_codes) >> core.beat_shift
                scan = query_fetch + 1
                for _ in range(beat + 1):
                    code_taken = max(scan, codes_at, _after(gaps, _CODES, code_taken))
                    stages[_SCHEDULER, _STARVED] += code_taken - scan
                    scan = code_taken + 1
                first = True
            else:
                scan = value_fetch + 1
                first = False
            # The block is found in this cycle; what follows it is sought in the next ones.
            column = following
            code = codes[column]
            following = _next_live(codes, column + 1, end)
            last = following == end
            keys, key_beats = core.block, block_beats
            if column == end - 1:
                keys = (runs[run, 4] - 1) % core.block + 1
                key_beats = ((keys - 1) // core.load_tokens + 1) * core.token_beats
            beat = (column - row_codes) >> core.beat_shift
            next_beat = last_beat if last else (following - row_codes) >> core.beat_shift
            scan += 1
            for _ in range(next_beat - beat):
                code_taken = max(scan, _after(gaps, _CODES, code_taken))
                stages[_SCHEDULER, _STARVED] += code_taken - scan
                scan = code_taken + 1
            begin = scan + 1
            slot = qk % SLOTS
            key_fetch = max(begin, key_free[slot])
            key_fetch = _after(gaps, _FETCH, key_fetch - 1)
            stages[_SCHEDULER, _BLOCKED] += key_fetch - begin
            offered = max(key_fetch + core.fifo, key_port)
            key_first = max(key_fetch + answer, offered, _after(gaps, _K, key_port - 1))
            key_port = _load(gaps, _K, key_first, key_beats, key_group_beats, key_there)
            stages[_LOAD_K, _BUSY] += key_beats
            stages[_LOAD_K, _STARVED] += key_port - offered - key_beats
            stages[_LOAD_K, _BLOCKED] += max(0, key_free[(qk + 1) % SLOTS] - key_port)
            seen = key_fetch + core.fifo
            loaded = max(seen, key_there[0] + core.begun)
            if first:
                loaded = max(loaded, query_there[0] + core.begun)

        # The sequencer's choice.
        room = more and qk - pv < SLOTS
        qk_at = loaded if room else _NEVER
        pv_at = pv_loaded = _NEVER
        pv_room = _ALWAYS
        # A row's first PV needs the output slot of the row before the last one.
        due = 0
        if pv < qk and block_first[pv % _RING]:
            due = pv_row + 1 - SLOTS
        elif pv == qk and not more:
            due = len(row_ends)
        while sent < due:
            at = sent % _RING
            read, leaves = _send_row(
                core, chunk_starts[at], row_queries[at], row_complete[at], pv_log, pv, output, gaps
            )
            row_ends[sent] = leaves
            spans[row_run[sent], 1] = leaves
            output_free = read + 1
            sent += 1
        if pv < qk:
            pv_loaded = max(block_weighted[pv % _RING], value_full[pv % SLOTS])
            if block_first[pv % _RING]:
                pv_room = output_free
            pv_at = max(pv_loaded, pv_room)
        elif not more:
            break
        now = max(step, min(qk_at, pv_at))
        is_qk = qk_at <= now

        # What the idle array waited for, this cycle included.
        if now > step:
            waiting_qk = max(idle, seen) if room else _NEVER
            stages[_QK, _STARVED] += max(0, min(now + 1, loaded) - waiting_qk)
            until = min(now + 1, waiting_qk)
            stages[_PV, _STARVED] += max(0, min(until, pv_loaded) - idle)
            stages[_PV, _BLOCKED] += max(0, min(until, pv_room) - max(idle, pv_loaded))

        if is_qk:
            at = qk % _RING
            block_code[at], block_first[at], block_last[at] = code, first, last
            steps = core.head_dim >> (3 - code)
            period = max(steps, core.drain_cycles)
            begin = now + 1
            if max(key_port, query_port) <= begin and not last:
                # All is loaded: the tiles follow at equal distances.
                end_step = max(now + steps, step + core.drain_cycles)
                group_cycles = core.row_groups * period
                step = end_step + core.row_groups * core.query_groups * period - period
                stages[_QK, _BLOCKED] += step - now - core.row_groups * core.query_groups * steps
                arrives = step + drained + core.logits
                softmax = max(
                    max(softmax, arrives - (core.query_groups - 1) * group_cycles)
                    + core.query_groups * softmax_group,
                    arrives + softmax_group,
                )
            else:
                for group in range(core.query_groups):
                    # The tiles of C queries; each waits for its operands while they load.
                    there = query_there[group]
                    tiles = core.row_groups
                    while tiles > 0:
                        at_once = tiles
                        if group == 0 and key_port > begin:
                            # Key groups come one by one.
                            at_once = 1
                            there = max(there, key_there[core.row_groups - tiles])
                        ready = max(begin, there)
                        end_step = max(ready + steps - 1, step + core.drain_cycles)
                        step = end_step + (at_once - 1) * period
                        stages[_QK, _STARVED] += ready - begin
                        stages[_QK, _BLOCKED] += step + 1 - ready - at_once * steps
                        begin = step + 1
                        tiles -= at_once
                    # The softmax unit takes the group when it is complete.
                    softmax = max(softmax, step + drained + core.logits)
                    chunk_starts[row % _RING, group] = softmax
                    softmax += softmax_group
            stages[_QK, _BUSY] += core.row_groups * core.query_groups * steps
            stages[_SOFTMAX, _BUSY] += core.query_groups * softmax_group
            block_weighted[at] = softmax - 1 + core.weights
            key_free[qk % SLOTS] = step + drained + core.key_release + 1
            if last:
                query_free[row % SLOTS] = step + drained + core.key_release + 1
            qk += 1
            find = True
        else:
            at = pv % _RING
            steps = core.block >> (3 - block_code[at])
            shift = pv_shifts[block_code[at]]
            period = 1 << shift
            end_step = max(now + steps, step + core.drain_cycles)
            step = end_step + (core.pv_tiles - 1) * period
            stages[_PV, _BUSY] += core.pv_tiles * steps
            stages[_PV, _BLOCKED] += step - now - core.pv_tiles * steps
            pv_log.first[pv & (size - 1)] = end_step + core.drain
            pv_log.shift[pv & (size - 1)] = shift
            value_free[pv % SLOTS] = step + core.value_release + 1
            if pv + 1 < qk:
                # V of the next block has been asked for already.
                full = value_full[(pv + 1) % SLOTS]
                stages[_LOAD_V, _BLOCKED] += max(0, value_free[pv % SLOTS] - full)
            if block_last[at]:
                group_cycles = core.channel_groups * period
                row_complete[pv_row % _RING, 0] = (
                    end_step + group_cycles - period + drained + core.groups + 1
                )
                row_complete[pv_row % _RING, 1] = group_cycles
                pv_row += 1
            pv += 1
        idle = step + 1

    total = spans[-1, 1]
    # The array may still work for queries that are none.
    for _ in range(core.pv_tiles):
        after = min(step + 1 - total, period)
        if after > 0:
            blocked = min(after - 1, period - steps)
            stages[_PV, _BUSY] -= after - blocked
            stages[_PV, _BLOCKED] -= blocked
            step -= period
    stages[_SCHEDULER, _STARVED] += total
    stages[_SCHEDULER, _BUSY] = total - stages[_SCHEDULER].sum()
    stages[_PV, _STARVED] += max(0, total - idle)
    stages[_SOFTMAX, _STARVED] = total - stages[_SOFTMAX, _BUSY]
    stages[_OUTPUT, _BUSY] = output.state[2] * core.parts - 1
    stages[_OUTPUT, _BLOCKED] = output.state[4]
    stages[_OUTPUT, _STARVED] = total - stages[_OUTPUT, _BUSY] - stages[_OUTPUT, _BLOCKED]
    return spans, row_ends, stages
