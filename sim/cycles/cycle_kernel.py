"""The cycle model's one pass over the blocks, compiled.

Latencies of the RTL come in as arguments. What is imported is frozen in the machine code that
`sim.cycles.compilation` keeps, which is thrown away when this file or a module that it imports
changes.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from paro.config.formats import Stage
from rtl.core.blocks import SLOTS
from sim.cycles.gaps import CHANNELS, DELAYS, STREAMS

__all__ = ["Core", "MemoryPort", "follow"]

_compiled: Any = njit(nogil=True, error_model="numpy")
#: What is called for every block: to hand over its many arguments would take as long as its work.
_inlined: Any = njit(nogil=True, error_model="numpy", inline="always")

#: A time that does not come, one before all.
_NEVER, _ALWAYS = 1 << 60, -(1 << 60)
#: Blocks and rows of which something is remembered, a power of two: more than can be under way.
_RING = 4 * SLOTS
_SCHEDULER, _LOAD_Q, _LOAD_K, _LOAD_V, _QK, _PV, _SOFTMAX, _OUTPUT = map(int, Stage)
_STAGES = len(Stage)
_BUSY, _STARVED, _BLOCKED = range(3)
_COMMAND, _CODES, _FETCH, _Q, _K, _V, _O = range(len(STREAMS))
_PORT_Q, _PORT_K, _PORT_V, _PORT_DESCRIPTOR, _PORT_CODES = range(5)
#: Indices of `MemoryPort.state`: cycles in which the last two addresses were offered, the last one
#: was taken and came to the memory, of the last beat, of the last unit, of the last beat out of the
#: corner turn, first cycle in which the address generator is idle, bursts and runs so far, tokens
#: at which the last walk began and ended.
_ADDRESS, _BEFORE, _TAKEN, _CAME, _BEAT, _UNIT, _TURNED, _IDLE = range(8)
_COUNT, _RUNS, _BEGAN, _ENDED = range(8, 12)
#: Indices of `MemoryPort.writer`: bursts so far; cycles in which the last address was offered, in
#: which it, a beat and an answer were taken, an answer was there; run whose outputs come, units of
#: it to come, cycle in which its first burst was known; lane of the next word, words so far, units
#: of the word so far; cycles in which the last unit and the last run were taken, in which the last
#: row was placed, and its token was known; beats so far.
_NEXT_BURST, _LAST_ADDRESS, _LAST_TAKEN, _LAST_BEAT, _LAST_ANSWER, _ANSWER_OUT = range(6)
_RUN, _UNITS_LEFT, _SPLIT, _LANE, _WORDS, _HALVES = range(6, 12)
_LAST_UNIT, _LAST_RUN, _PLACED, _TOKEN, _BEATS = range(12, 17)
#: Columns of `MemoryPort.output_runs` and of `MemoryPort.outputs`.
_RUN_TOKENS, _RUN_LANE, _RUN_WALK, _RUN_HEAD = range(4)
_BURST_BEATS, _BURST_UNTIL = range(2)
#: Columns of a generator, and the rows of those of `MemoryPort`.
_VALUE, _AT, _RATE, _START = range(4)
_AR, _R, _AW, _W, _B, _READ_DELAY, _WRITE_DELAY = range(len(CHANNELS) + len(DELAYS))


class Core(NamedTuple):
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
    drained: int  # to its last ones
    key_release: int  # from a block's last drained scores to a free K slot
    value_release: int  # from the last step of a PV to a free V slot
    logits: int  # from a group's last drained scores to its logits
    softmax_lanes: int
    softmax_cycles: int  # of a group of C queries
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
    fifo: int  # through a queue
    # Shell.
    paced: bool  # whether a beat of the output may wait


class MemoryPort(NamedTuple):
    """Bursts of all blocks, and the state of the port; times are in cycles."""

    present: bool
    lanes: int  # 32-bit words of a beat
    unit_words: int
    load_tokens: int
    held: int  # units that the lanes hold
    group_units: int  # of load_tokens tokens' rows, and beats that the corner turn makes of them
    block: int
    walk: int  # from a request for a place that is known to the run of its first token
    jump: int  # from one in the grid that is not
    address: int  # from a run to its address
    answer: int  # from an address at the memory to the first beat
    unit: int  # from a beat to the unit that it completes
    turned: int  # from the last unit of a group to its first beat out of the corner turn
    offer: int  # from a descriptor's last unit to its head
    codes: int  # from a head to the run of its codes
    handed_on: int  # from the first unit of codes to their beat
    # int64 [runs, 5]: where the blocks of q, k, v, the descriptor and the codes begin in ``first``.
    tables: np.ndarray
    first_rows: np.ndarray  # int64 [runs]: block of the first queries that are computed
    grid: np.ndarray  # int64 [runs]: tokens of the grid, the first of the head's order
    first: np.ndarray  # int64: index of each block's first burst
    bursts: np.ndarray  # int64 [bursts, 4]: beats, words, first lane, `BlockBursts`
    done: np.ndarray  # int64 [OUTSTANDING]: last beats of the last bursts
    complete: np.ndarray  # int64 [RUNS]: last units of the last runs
    state: np.ndarray  # int64 [12]
    units: np.ndarray  # int64: cycles in which the units of a block come
    # Gaps of the channels, from the first address on, and latencies of the memory.
    generators: np.ndarray  # int64 [CHANNELS + DELAYS, 4]
    latency: int  # the shortest
    latencies: int  # how many there are
    # Writes.
    queued: int  # through a queue
    placed_heads: int  # heads that are begun and not written, at most
    query_units: int
    unit_parts: int  # cycles in which a unit is taken
    part_units: int  # units of a word
    part_words: int  # taken in a cycle
    lane_words: int  # that a lane is sure to take
    split: int  # from a run to its first burst
    gathered: int  # from a burst's last output to its address
    first_beat: int  # from an address to its first beat
    waited: int  # from what a full queue of the memory waits for to its next entry
    written: int  # from a burst's last beat to its answer
    # int64 [runs, 4]: tokens, first lane, cycles from the request for its block to the first token
    # (0: it follows the run before), head.
    output_runs: np.ndarray
    outputs: np.ndarray  # int64 [bursts, 2]: beats, words of all heads until its end
    heads: np.ndarray  # int64 [heads, 2]: first cycle in which a head was offered, all was written
    left: np.ndarray  # int64 [runs that wait, 2]: when the last runs went on, for data, for bursts
    answered: np.ndarray  # int64 [OUTSTANDING]: answers to the last bursts
    queued_beats: np.ndarray  # int64 [the memory's]: when the last beats' addresses were taken
    queued_bursts: np.ndarray  # int64 [the memory's]: when the last bursts were complete there
    begun: np.ndarray  # int64 [bursts that wait for their data]: when the last ones' data had left
    pushed: np.ndarray  # int64 [lanes, 2]: words so far, cycle of the last one
    popped: np.ndarray  # int64 [lanes]: words so far
    pops: np.ndarray  # int64 [lanes, ring]: when the last words left
    writer: np.ndarray  # int64 [17]


class Load(NamedTuple):
    """How the blocks of an operand are loaded."""

    stage: int
    stream: int
    operand: int  # of the memory port
    tokens: int
    beats: int  # for so many tokens
    group_tokens: int  # that the array takes at once


class Pv(NamedTuple):
    """PV of the last blocks, in a ring: its tiles drain at equal distances."""

    first: np.ndarray  # int64: cycle of its first drained words
    shift: np.ndarray  # uint8: log2 of the cycles from a tile to the next


class Output(NamedTuple):
    """State of the reciprocal unit and the normaliser."""

    left: np.ndarray  # int64 [block]: when the last queries left the queue between the two
    sent: np.ndarray  # int64 [queue]: when the last beats left, if the stream has gaps
    # int64 [5]: first free cycle of the reciprocal unit and of the normaliser, queries so far,
    # oldest PV that may still drain, cycles in which a beat was not taken.
    state: np.ndarray


@_compiled
def _step(generator):
    """Take a generator to the next cycle."""
    value = generator[_VALUE]
    value ^= (value << 13) & 0xFFFFFFFF
    value ^= value >> 17
    value ^= (value << 5) & 0xFFFFFFFF
    generator[_VALUE] = value
    generator[_AT] += 1


@_inlined
def _after(generators, stream, cycle):
    """First cycle after this one in which a stream has no gap, if one may begin in this cycle.

    At a source, it may behind a beat; at a sink, always. What is asked for goes on in time.
    """
    generator = generators[stream]
    if generator[_RATE] == 0 or cycle < generator[_START]:
        return cycle + 1
    while generator[_AT] < cycle:
        _step(generator)
    while generator[_VALUE] >> 8 & 0xFF < generator[_RATE]:
        _step(generator)
    return generator[_AT] + 1


@_compiled
def _latency(port, delay, cycle):
    """Latency of what is taken in this cycle."""
    if port.latencies == 1:
        return port.latency
    generator = port.generators[delay]
    while generator[_AT] < cycle:
        _step(generator)
    return port.latency + (generator[_VALUE] >> 8) % port.latencies


@_compiled
def _read_burst(port, accepted, beats, words, lane, stored, unit):
    """Follow a burst, from a lane on, of a run that the reader has accepted.

    ``stored`` words of an incomplete unit are there; ``unit`` is the number of the next one.
    Returns both as they are then.
    """
    state = port.state
    slot = state[_COUNT] % len(port.done)
    # The burst takes the place of one whose last beat has come.
    address = max(accepted + port.address, state[_TAKEN] + 1, port.done[slot] + 2)
    if state[_ADDRESS] < 0:
        # With the first address the generators begin.
        port.generators[:, _AT] = port.generators[:, _START] = address
    state[_BEFORE], state[_ADDRESS] = state[_ADDRESS], address
    state[_COUNT] += 1
    taken = _after(port.generators, _AR, address - 1)
    state[_TAKEN] = taken
    came = max(taken + max(_latency(port, _READ_DELAY, taken), 1), state[_CAME] + 1)
    state[_CAME] = came
    beat = came + port.answer
    for _ in range(beats):
        beat = max(beat, _after(port.generators, _R, state[_BEAT]), state[_UNIT] - port.held)
        now = min(words, port.lanes - lane)
        words -= now
        stored += now
        lane = 0
        while stored >= port.unit_words:
            stored -= port.unit_words
            state[_UNIT] = max(state[_UNIT] + 1, beat + port.unit)
            port.units[unit] = state[_UNIT]
            unit += 1
        state[_BEAT] = beat
        beat += 1
    port.done[slot] = state[_BEAT]
    return stored, unit


@_compiled
def _take_place(port):
    """Place of the next run among those that are not complete."""
    port.state[_RUNS] += 1
    return port.state[_RUNS] % len(port.complete)


@_compiled
def _read_run(port, run, kind, asked):
    """Read a head's descriptor or its first codes; returns the cycles of first and last unit."""
    place, number, accepted = 0, -1, asked - 1
    stored = unit = 0
    at = port.tables[run, kind]
    for index in range(port.first[at], port.first[at + 1]):
        beats, words, lane, part = port.bursts[index]
        if part != number:
            place, number = _take_place(port), part
            accepted = max(accepted + 1, port.complete[place], port.state[_BEFORE] - 1)
        stored, unit = _read_burst(port, accepted, beats, words, lane, stored, unit)
        port.complete[place] = port.state[_UNIT]
    return port.units[0], port.units[unit - 1]


@_compiled
def _placed(port, head):
    """First cycle after a head is offered in which its outputs have a place in their queue."""
    offered = port.heads[head, 0]
    if head < port.placed_heads:
        return offered + 1
    return max(offered, port.heads[head - port.placed_heads, 1] + 1) + 1


@_compiled
def _read_descriptor(port, head, core_idle):
    """Read the next descriptor; returns the cycle in which the head can be taken.

    It is asked for when the core is idle and all that the head before needs has been read, and its
    outputs have a place.
    """
    ended = max(core_idle, port.state[_IDLE], port.state[_BEAT] + 1)
    if head > 0:
        ended = max(ended, _placed(port, head - 1))
    port.state[_BEGAN] = port.state[_ENDED] = -1
    port.heads[head, 0] = _read_run(port, head, _PORT_DESCRIPTOR, ended + 1)[1] + port.offer
    return port.heads[head, 0]


@_compiled
def _read_codes(port, head, started):
    """Read a head's first codes; returns the cycle in which the first are there."""
    return _read_run(port, head, _PORT_CODES, started + port.codes)[0] + port.handed_on


@_compiled
def _read_block(port, run, operand, block, tokens, fetched, group_tokens, there):
    """Read a block.

    Parameters
    ----------
    port : MemoryPort
    run, operand, block : int
        Which.
    tokens : int
        How many it has.
    fetched : int
        Cycle in which the core asks for it; no earlier than the address generator is idle.
    group_tokens : int
        Tokens of a group that ``there`` tells of.
    there : np.ndarray
        Receives the cycle after the last beat of each group.

    Returns
    -------
    int
        Cycle after the block's last beat at the core.
    """
    state = port.state
    begin, end = block * port.block, block * port.block + tokens
    walk = port.jump
    if begin == state[_BEGAN] or begin == state[_ENDED]:
        walk = port.walk
    elif begin == 0 or begin >= port.grid[run]:
        walk = port.walk + 1
    state[_BEGAN], state[_ENDED] = begin, end
    # From here on a token a cycle; a run is offered with its last one.
    now = fetched + walk - 1
    placed, place = -1, 0
    stored = unit = accepted = 0
    at = port.tables[run, operand] + block
    for index in range(port.first[at], port.first[at + 1]):
        beats, words, lane, rows = port.bursts[index]
        # The reader takes a run when the burst before the last one is on its way, and an older run
        # is complete.
        accepted = fetched + 1
        if rows > 0:
            now += rows - max(placed, 0)
            accepted = now
        if rows != placed:
            place, placed = _take_place(port), rows
            accepted = max(accepted, port.complete[place])
        accepted = max(accepted, state[_BEFORE] - 1)
        if rows > 0:
            now = accepted
        stored, unit = _read_burst(port, accepted, beats, words, lane, stored, unit)
        port.complete[place] = state[_UNIT]
    state[_IDLE] = accepted + 1
    if operand == _PORT_V:
        there[:] = port.units[unit - 1] + 1
        return port.units[unit - 1] + 1
    scales = (tokens - 1) // port.load_tokens + 1
    turned = state[_TURNED]
    for group in range(scales):
        last = min(scales + (group + 1) * port.group_units, unit) - 1
        start = max(port.units[last] + port.turned, turned + 1)
        turned = start + port.group_units - 1
        there[group * port.load_tokens // group_tokens] = turned + 1
    there[(scales - 1) * port.load_tokens // group_tokens :] = turned + 1
    state[_TURNED] = turned
    return turned + 1


@_compiled
def _next_run(port):
    """Follow the next run of outputs from its tokens to the writer's queues.

    Returns the first cycle in which its data is taken.
    """
    writer = port.writer
    writer[_RUN] += 1
    run = writer[_RUN]
    tokens, lane, walk, head = port.output_runs[run]
    token = writer[_PLACED]
    if walk > 0:
        # A block's first token.
        request = writer[_TOKEN] + 1
        if run == 0 or port.output_runs[run - 1, _RUN_HEAD] != head:
            # A head's outputs are placed after those of the head before are written.
            request = _placed(port, head) - 1 + port.queued
            if head > 0:
                request = max(request, port.heads[head - 1, 1] + 1)
            request += 1
        token = max(token, request + walk)
    # From here on a token a cycle; a run is offered behind its last one.
    first = max(token + 1, writer[_LAST_RUN])
    writer[_PLACED] = first + tokens - 1
    writer[_TOKEN] = token if tokens == 1 else writer[_PLACED] - 1
    # It is taken when both queues have room.
    left = port.left[run % len(port.left)]
    taken = max(first + tokens, left[0] + 1, left[1] + 1)
    writer[_LAST_RUN] = taken
    left[0] = max(taken + port.queued, writer[_LAST_UNIT])
    left[1] = max(taken + port.queued, writer[_SPLIT])
    writer[_SPLIT] = left[1] + port.split - 1
    writer[_UNITS_LEFT] = tokens * port.query_units
    writer[_LANE] = lane
    return left[0] + 1


@_compiled
def _take_word(port, cycle):
    """First cycle from this one on in which every lane takes a word."""
    while True:
        found = cycle
        for lane in range(port.lanes):
            # What was taken in the cycle before is not counted yet.
            words, last = port.pushed[lane]
            if last == cycle - 1:
                words -= 1
            if words >= port.lane_words:
                left = port.pops[lane, (words - port.lane_words) % port.pops.shape[1]]
                found = max(found, left + 2)
        if found == cycle:
            return cycle
        cycle = found


@_compiled
def _write_burst(port, gathered):
    """Follow a burst whose last words are taken in this cycle to its answer."""
    writer = port.writer
    number = writer[_NEXT_BURST]
    writer[_NEXT_BURST] += 1
    beats, until = port.outputs[number]
    words = until - (port.outputs[number - 1, _BURST_UNTIL] if number > 0 else 0)
    lane = (writer[_LANE] - (writer[_WORDS] - until) - words) % port.lanes
    answered, begun = number % len(port.answered), number % len(port.begun)
    # It is known a cycle before it can be offered, and in the cycle in which the one before is
    # begun at the earliest.
    writer[_SPLIT] = max(writer[_SPLIT], writer[_LAST_ADDRESS] - 1)
    # Its address is offered when the outputs are gathered, a tag is free, the address before is
    # taken and there is room for it among those whose data waits.
    address = max(
        gathered + port.gathered,
        writer[_SPLIT] + 2,
        port.answered[answered] + 1,
        port.begun[begun] + 2,
        writer[_LAST_TAKEN] + 1,
    )
    writer[_LAST_ADDRESS] = address
    # The memory takes some addresses before their data, and some beats before their address.
    queued = number % len(port.queued_bursts)
    offered = max(address, port.queued_bursts[queued] + port.waited)
    writer[_LAST_TAKEN] = _after(port.generators, _AW, offered - 1)
    # Its beats leave the lanes when the beats before have gone.
    leaves = address + port.first_beat - 1
    for _ in range(beats):
        leaves = max(leaves, writer[_LAST_BEAT])
        now = min(words, port.lanes - lane)
        for index in range(lane, lane + now):
            port.pops[index, port.popped[index] % port.pops.shape[1]] = leaves
            port.popped[index] += 1
        words -= now
        lane = 0
        place = writer[_BEATS] % len(port.queued_beats)
        sent = max(leaves + 1, port.queued_beats[place] + port.waited)
        port.queued_beats[place] = writer[_LAST_TAKEN]
        writer[_BEATS] += 1
        writer[_LAST_BEAT] = _after(port.generators, _W, sent - 1)
    port.begun[begun] = leaves
    port.queued_bursts[queued] = max(writer[_LAST_BEAT], writer[_LAST_TAKEN])
    came = port.queued_bursts[queued] + port.written
    out = came + max(_latency(port, _WRITE_DELAY, came), 1)
    out = max(out, writer[_ANSWER_OUT] + 1)
    writer[_ANSWER_OUT] = out
    writer[_LAST_ANSWER] = max(out, _after(port.generators, _B, writer[_LAST_ANSWER]))
    port.answered[answered] = writer[_LAST_ANSWER] + 1
    port.heads[port.output_runs[writer[_RUN], _RUN_HEAD], 1] = writer[_LAST_ANSWER] + 1


@_compiled
def _write_unit(port, offered):
    """Follow a unit that the core offers from then on, and the burst that it completes.

    Returns the cycle in which it is taken.
    """
    writer = port.writer
    now = max(offered, writer[_LAST_UNIT] + 1)
    if writer[_UNITS_LEFT] == 0:
        now = max(now, _next_run(port))
    for _ in range(port.unit_parts):
        now = _take_word(port, now)
        writer[_HALVES] += 1
        if writer[_HALVES] == port.part_units:
            writer[_HALVES] = 0
            for word in range(port.part_words):
                lane = (writer[_LANE] + word) % port.lanes
                port.pushed[lane, 0] += 1
                port.pushed[lane, 1] = now
            writer[_LANE] = (writer[_LANE] + port.part_words) % port.lanes
            writer[_WORDS] += port.part_words
        while (
            writer[_NEXT_BURST] < len(port.outputs)
            and port.outputs[writer[_NEXT_BURST], _BURST_UNTIL] <= writer[_WORDS]
        ):
            _write_burst(port, now)
        now += 1
    writer[_LAST_UNIT] = now - 1
    writer[_UNITS_LEFT] -= 1
    return now - 1


@_inlined
def _stream(gaps, stream, first, beats, group_beats, there):
    """Follow a load's beats from the first one on.

    ``there`` receives the cycle after the last beat of each group; returns that of the load.
    """
    if gaps[stream, _RATE] == 0:
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


@_inlined
def _load(core, gaps, port, stages, load, place, tokens, answer, wanted, free, before, there):
    """Follow a block from its fetch to its last beat.

    Parameters
    ----------
    core : Core
    gaps, port
        See `follow`.
    stages : np.ndarray
        Counts on.
    load : Load
    place : (int, int)
        Run and block of the operand.
    tokens : int
        How many the block has.
    answer : int
        Cycles from the fetch to the first beat, where players have the streams.
    wanted, free : int
        When the scheduler asks for it, when it has a slot.
    before : int
        Cycle after the last beat of the block before.
    there : np.ndarray
        Receives the cycle after the last beat of each group.

    Returns
    -------
    (int, int)
        Cycle in which the fetch is taken, cycle after the last beat.
    """
    fetch = _after(gaps, _FETCH, max(wanted, free) - 1)
    if port.present:
        fetch = max(fetch, port.state[_IDLE])
    offered = max(fetch + core.fifo, before)
    beats = ((tokens - 1) // load.tokens + 1) * load.beats
    if port.present:
        run, block = place
        end = _read_block(port, run, load.operand, block, tokens, fetch, load.group_tokens, there)
    else:
        first = max(fetch + answer, offered, _after(gaps, load.stream, before - 1))
        group_beats = load.group_tokens // load.tokens * load.beats
        end = _stream(gaps, load.stream, first, beats, group_beats, there)
    stages[_SCHEDULER, _BLOCKED] += fetch - wanted
    stages[load.stage, _BUSY] += beats
    stages[load.stage, _STARVED] += end - offered - beats
    return fetch, end


@_inlined
def _take_codes(gaps, stages, scan, beats, there, taken):
    """Follow the scheduler, in cycle ``scan``, to codes some beats further.

    The run's first codes come in cycle ``there``, the last beat was taken in cycle ``taken``;
    returns the scheduler's next cycle, and the one in which the last beat is taken now.
    """
    for _ in range(beats):
        taken = max(scan, there, _after(gaps, _CODES, taken))
        stages[_SCHEDULER, _STARVED] += taken - scan
        scan = taken + 1
    return scan, taken


@_compiled
def _send_row(core, chunk_starts, queries, completion, pv, pv_count, output, gaps, port):
    """Follow a row from its denominators to its last output.

    Parameters
    ----------
    core : Core
    chunk_starts : np.ndarray
        For each group of C queries, when the softmax unit began with it in the row's last block.
    queries : int
        Valid ones of the row.
    completion : np.ndarray
        When the numerators of its first R queries are complete, cycles until the next R are.
    pv : Pv
    pv_count : int
        Number of PVs begun until now.
    output : Output
    gaps : np.ndarray
        See `follow`.
    port : MemoryPort

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
                        if core.paced:
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
                        if core.paced:
                            before = output.sent[(beat - 1) % core.queue]
                            offered = max(now + core.output, before + 1)
                            if port.present:
                                leaves = _write_unit(port, offered)
                            else:
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
    if core.paced:
        return free - 1, output.sent[(count * core.parts - 1) % core.queue]
    return free - 1, free - 1 + core.output


@_inlined
def _multiply_keys(core, stages, now, step, steps, last, loads, there, softmax, chunk_starts):
    """Follow a QK on the array, and its groups of C queries into the softmax unit.

    Parameters
    ----------
    core : Core
    stages : np.ndarray
        Counts on.
    now, step : int
        Cycles in which it is chosen, of the array's last step before it.
    steps : int
        Of a tile.
    last : bool
        Whether it is the last block of its row.
    loads : (int, int)
        Cycles after the last beats of its queries, of its keys.
    there : (np.ndarray, np.ndarray)
        The same of each group.
    softmax : int
        When the softmax unit is free.
    chunk_starts : np.ndarray
        Receives, for each group of a last block, when the softmax unit begins with it.

    Returns
    -------
    (int, int)
        Cycle of the last step, cycle in which the softmax unit is free.
    """
    period = max(steps, core.drain_cycles)
    tiles = core.row_groups * core.query_groups
    stages[_QK, _BUSY] += tiles * steps
    stages[_SOFTMAX, _BUSY] += core.query_groups * core.softmax_cycles
    begin = now + 1
    if max(loads) <= begin and not last:
        # All is loaded: the tiles follow at equal distances.
        step = max(now + steps, step + core.drain_cycles) + (tiles - 1) * period
        stages[_QK, _BLOCKED] += step - now - tiles * steps
        arrives = step + core.drained + core.logits
        first_arrives = arrives - (core.query_groups - 1) * core.row_groups * period
        softmax = max(
            max(softmax, first_arrives) + core.query_groups * core.softmax_cycles,
            arrives + core.softmax_cycles,
        )
        return step, softmax
    query_there, key_there = there
    for group in range(core.query_groups):
        # The tiles of C queries; each waits for its operands while they load.
        ready = query_there[group]
        tiles = core.row_groups
        while tiles > 0:
            at_once = tiles
            if group == 0 and loads[1] > begin:
                # Key groups come one by one.
                at_once = 1
                ready = max(ready, key_there[core.row_groups - tiles])
            ready = max(ready, begin)
            end_step = max(ready + steps - 1, step + core.drain_cycles)
            step = end_step + (at_once - 1) * period
            stages[_QK, _STARVED] += ready - begin
            stages[_QK, _BLOCKED] += step + 1 - ready - at_once * steps
            begin = step + 1
            tiles -= at_once
        # The softmax unit takes the group when it is complete.
        chunk_starts[group] = max(softmax, step + core.drained + core.logits)
        softmax = chunk_starts[group] + core.softmax_cycles
    return step, softmax


@_inlined
def _count_wait(stages, now, idle, qk_from, qk_loaded, pv_loaded, pv_room):
    """Count what the array waited for from cycle ``idle`` to this one, in which it has a choice.

    A QK counts from when the sequencer knows of it (``qk_from``), a PV until then.
    """
    stages[_QK, _STARVED] += max(0, min(now + 1, qk_loaded) - qk_from)
    until = min(now + 1, qk_from)
    stages[_PV, _STARVED] += max(0, min(until, pv_loaded) - idle)
    stages[_PV, _BLOCKED] += max(0, min(until, pv_room) - max(idle, pv_loaded))


@_compiled
def _count_rest(core, stages, output, total, step, idle, steps, period):
    """Complete the counts when all is done; the array's last step, tile and period are given."""
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


@_compiled
def _next_live(codes, column, end):
    while column < end and codes[column] == 0:
        column += 1
    return column


@_compiled
def follow(core, codes, runs, latency, gaps, port):
    """Follow some runs block by block.

    Parameters
    ----------
    core : Core
    codes : np.ndarray
        uint8, of all runs.
    runs : np.ndarray
        int64 [runs, 5]: where a run's codes begin, rows, columns, query tokens, key tokens.
    latency : int
        Of the memory.
    gaps : np.ndarray
        int64 [streams, 4], see `sim.cycles.gaps.generators`; their cycle 0 is that of the first
        command.
    port : MemoryPort
        Where the core's streams come from, if not from players.

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
    load_q = Load(_LOAD_Q, _Q, _PORT_Q, core.load_tokens, core.token_beats, core.cols)
    load_k = Load(_LOAD_K, _K, _PORT_K, core.load_tokens, core.token_beats, core.rows)
    load_v = Load(_LOAD_V, _V, _PORT_V, 1, core.value_beats, core.block)

    # Scheduler: the row that it scans, the block that it has found last.
    run, row, rows_left = -1, -1, 0
    column, end = 0, 0  # of the block in `codes`, and the end of its row
    code, keys, queries = 0, 0, 0
    first, last, more = True, True, True
    query_fetch = key_fetch = key_block = 0
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
    pv_log = Pv(np.zeros(size, np.int64), np.zeros(size, np.uint8))
    output = Output(
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
                value_fetch, value_port = _load(
                    core,
                    gaps,
                    port,
                    stages,
                    load_v,
                    (run, key_block),
                    keys,
                    answer,
                    key_fetch + 1,
                    value_free[slot],
                    value_port,
                    values_there,
                )
                value_full[slot] = value_port
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
                if port.present:
                    command_at = _read_descriptor(port, run, first_idle)
                start = max(first_idle, command_at)
                spans[run, 0] = start
                stages[_SCHEDULER, _STARVED] += start - first_idle + 1
                command_at = max(start + answer, _after(gaps, _COMMAND, start))
                if port.present:
                    codes_at = _read_codes(port, run, start)
                elif run > 0:
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
                query_block = runs[run, 1] - rows_left - 1
                if port.present:
                    query_block += port.first_rows[run]
                query_fetch, query_port = _load(
                    core,
                    gaps,
                    port,
                    stages,
                    load_q,
                    (run, query_block),
                    queries,
                    answer,
                    begin_row,
                    query_free[row % SLOTS],
                    query_port,
                    query_there,
                )
                stages[_LOAD_Q, _BLOCKED] += max(0, query_free[(row + 1) % SLOTS] - query_port)
                row_queries[row % _RING] = queries
                # The scan up to the first live block.
                following = _next_live(codes, row_codes, end)
                beat = (following - row_codes) >> core.beat_shift
                scan, code_taken = _take_codes(
                    gaps, stages, query_fetch + 1, beat + 1, codes_at, code_taken
                )
                first = True
            else:
                scan = value_fetch + 1
                first = False
            # The block is found in this cycle; what follows it is sought in the next ones.
            column = following
            code = codes[column]
            following = _next_live(codes, column + 1, end)
            last = following == end
            keys = core.block
            if column == end - 1:
                keys = (runs[run, 4] - 1) % core.block + 1
            beat = (column - row_codes) >> core.beat_shift
            next_beat = last_beat if last else (following - row_codes) >> core.beat_shift
            scan, code_taken = _take_codes(
                gaps, stages, scan + 1, next_beat - beat, codes_at, code_taken
            )
            slot = qk % SLOTS
            key_block = column - row_codes
            key_fetch, key_port = _load(
                core,
                gaps,
                port,
                stages,
                load_k,
                (run, key_block),
                keys,
                answer,
                scan + 1,
                key_free[slot],
                key_port,
                key_there,
            )
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
                core,
                chunk_starts[at],
                row_queries[at],
                row_complete[at],
                pv_log,
                pv,
                output,
                gaps,
                port,
            )
            if port.present:
                leaves = port.writer[_LAST_ANSWER] + 1
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

        if now > step:
            waiting_qk = max(idle, seen) if room else _NEVER
            _count_wait(stages, now, idle, waiting_qk, loaded, pv_loaded, pv_room)

        if is_qk:
            at = qk % _RING
            block_code[at], block_first[at], block_last[at] = code, first, last
            steps = core.head_dim >> (3 - code)
            period = max(steps, core.drain_cycles)
            step, softmax = _multiply_keys(
                core,
                stages,
                now,
                step,
                steps,
                last,
                (query_port, key_port),
                (query_there, key_there),
                softmax,
                chunk_starts[row % _RING],
            )
            block_weighted[at] = softmax - 1 + core.weights
            key_free[qk % SLOTS] = step + core.drained + core.key_release + 1
            if last:
                query_free[row % SLOTS] = step + core.drained + core.key_release + 1
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
                    end_step + group_cycles - period + core.drained + core.groups + 1
                )
                row_complete[pv_row % _RING, 1] = group_cycles
                pv_row += 1
            pv += 1
        idle = step + 1

    _count_rest(core, stages, output, spans[-1, 1], step, idle, steps, period)
    return spans, row_ends, stages
