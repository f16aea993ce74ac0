"""The accelerator's memory port in the cycle model, compiled: reads and writes, burst by burst.

`sim.cycles.cycle_kernel` calls it, never the other way round. The cycle of an event is -1 before
the first such event.
"""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from paro.config.formats import Operand
from sim.cycles.records import compiled
from sim.cycles.stall_kernel import advance, unstalled

__all__ = [
    "NEVER",
    "HeadAtPort",
    "Lane",
    "MemoryBehaviour",
    "MemoryPort",
    "OutputBurst",
    "OutputRun",
    "QueuedRow",
    "ReadBurst",
    "ReadKind",
    "ReadPort",
    "Reader",
    "WaitingRun",
    "WritePort",
    "Writer",
    "begins_when",
    "follow_runs",
    "outputs_begin",
    "queue_row",
    "read_block",
    "read_codes",
    "read_descriptor",
    "write_beat",
]

#: A time that does not come, or is not known yet.
NEVER = 1 << 60


class ReadKind(IntEnum):
    """Data of a head that is read."""

    Q = Operand.Q
    K = Operand.K
    V = Operand.V
    DESCRIPTOR = 3
    CODES = 4  # the first ones of a core


class ReadBurst(NamedTuple):
    """Record of a burst that is read."""

    address: int  # of the first beat
    beats: int
    words: int  # 32-bit words of the beats that are wanted
    lane: int  # of the first word
    # Of operands: tokens of the block whose rows must be placed before the burst is known, 0 for
    # scales. Of descriptor and codes: number of the run.
    part: int


class Reader(NamedTuple):
    """Record of the state of the reads; cycles of the last events."""

    bursts: int = 0  # so far
    runs: int = 0  # so far
    offered: int = -1  # an address was offered
    offered_before: int = -1  # the address before that one was offered
    taken: int = -1  # an address was taken
    arrived: int = -1  # an address came to the memory
    beat: int = -1  # a beat was taken
    unit: int = -1  # a unit, or the part of one that is taken in a cycle, was complete
    lane: int = 0  # of the next word that leaves its lane
    turned: int = -1  # the last beat of a group of tokens came out of the corner turn
    turned_before: int = -1  # that of the group before it did
    accepted: int = -1  # a run of a descriptor or of codes was accepted
    idle: int = -1  # the address generator became idle
    walk_begin: int = -1  # tokens at which the last block began and ended
    walk_end: int = -1


class Writer(NamedTuple):
    """Record of the state of the writes; cycles of the last events."""

    bursts: int = 0  # so far
    beats: int = 0  # so far
    address_offered: int = -1
    address_taken: int = -1
    beat_taken: int = -1
    answer_offered: int = -1
    answer_taken: int = -1
    rows_queued: int = 0  # rows whose runs are to be made, so far
    rows_walked: int = 0  # of these, rows whose first run was made
    next_run: int = 0  # to be made, of the last row
    last_run: int = 0  # the one after the row's last
    walked: int = 0  # runs that were made
    opened: int = 0  # of these, runs whose outputs may come
    walk_end: int = -1  # token at which the last row ended
    head: int = -1  # of the last row
    run: int = -1  # whose outputs come
    run_open: int = -1  # the first of them is taken
    run_words: int = 0  # of the run so far
    burst: int = 0  # of the run, that its next words belong to
    units_left: int = 0  # of the run
    burst_known: int = 0  # the next burst of the run was known
    lane: int = 0  # of the next word
    word_units: int = 0  # units that are there of the next word
    unit_taken: int = -1
    run_taken: int = -1
    cut_free: int = -1  # the output cut takes a beat
    cut_beats: int = 0  # that it has taken
    placed: int = -1  # a row was placed
    token_known: int = -1  # the token of that row was known


class HeadAtPort(NamedTuple):
    """Record of a head, or layer, in the queue."""

    first_row: int  # block of the first queries that are computed
    grid_tokens: int  # of the grid, which are the first in the head's order
    first_output: int  # its first block row of outputs, among those of all heads
    rows: int  # block rows of outputs
    rows_left: int  # of these, rows that are not written
    waits: int = 0  # whether it begins when the outputs of those before it are written
    cut: int = 0  # whether its words have 8 bits
    alone: int = 0  # whether a row's runs are made when those of the row before have left
    there: int = -1  # cycle in which it can be offered, where its descriptor is read ahead
    offered: int = -1  # cycle in which the head was offered to the core
    written: int = -1  # cycle in which its last output was written


class OutputRun(NamedTuple):
    """Record of a run of outputs whose rows follow each other in memory."""

    tokens: int
    lane: int  # of the first word
    units: int  # of a token
    head: int
    begin: int  # positions of the first token of its block row and of the one after the last
    end: int
    bursts: int  # its first one; a run after the last one tells the end


class OutputBurst(NamedTuple):
    """Record of a burst of outputs."""

    address: int  # of the first beat
    beats: int
    words_end: int  # words of its run up to its end


class QueuedRow(NamedTuple):
    """Record of a block row of outputs that leaves a core."""

    row: int = 0  # among those of all heads
    told: int = -1  # cycle in which it was known that it is the next one
    taken: int = -1  # cycle in which its first run was asked for


class WaitingRun(NamedTuple):
    """Record of a run in the writer's queues: the cycles in which it came and left."""

    run: int = 0
    taken: int = -1
    for_data: int = -1
    for_bursts: int = -1


class Lane(NamedTuple):
    """Record of a lane of the reader or of the writer."""

    pushed: int = 0  # words so far
    push_cycle: int = -1  # of the last one
    popped: int = 0  # words so far


class MemoryBehaviour(NamedTuple):
    """Behaviour of the memory; times are in cycles."""

    stalls: Any  # a `Generator` for each of `CHANNELS` and `DELAYS`; they begin with an address
    shortest: int  # latency
    latencies: int  # how many there are, from the shortest on
    read_answer: int  # from an address at the memory to the first beat
    write_answer: int  # from a burst's last beat to its answer
    queue_wait: int  # from the end of a wait for a full queue to the next entry


class ReadPort(NamedTuple):
    """Bursts that are read, and their state; times are in cycles."""

    load_tokens: int
    unit_words: int
    part_words: int  # of a unit, taken in a cycle
    lane_words: int  # that a lane is sure to take
    group_units: int  # of load_tokens tokens' rows; the corner turn makes as many beats of them
    walk: int  # from a request for a place that is known to the run of its first token
    jump: int  # from a request for a place in the grid that is not
    to_address: int  # from a run to its address
    to_unit: int  # from a beat to the unit that it completes
    to_turned: int  # from the last unit of a group to its first beat out of the corner turn
    to_head: int  # from a descriptor's last unit to its head
    to_codes: int  # from a head to the run of its codes
    blocks: np.ndarray  # int64 [heads, ReadKind]: where their blocks begin in ``first``
    first: np.ndarray  # int64: index of each block's first burst
    bursts: np.ndarray  # `ReadBurst`
    state: Any  # `Reader`
    done: np.ndarray  # int64 [OUTSTANDING]: last beats of the last bursts
    complete: np.ndarray  # int64 [RUNS]: last units of the last runs
    units: np.ndarray  # int64: cycles in which the units of a block come
    groups: np.ndarray  # int64: last beats of a block's groups out of the corner turn
    lanes: np.ndarray  # `Lane`
    pops: np.ndarray  # int64 [lanes, ring]: when the last words left


class WritePort(NamedTuple):
    """Runs and bursts of outputs, and their state; times are in cycles."""

    unit_parts: int  # cycles in which a unit is taken
    part_units: int  # units of a word
    part_words: int  # taken in a cycle
    lane_words: int  # that a lane is sure to take
    to_split: int  # from a run to its first burst
    to_address: int  # from a burst's last output to its address
    to_beat: int  # from an address to its first beat
    jump: int  # from a request for a place in the grid that is not known to its first token
    rows: np.ndarray  # int64 [block rows of all heads + 1]: index of a row's first run
    queued: np.ndarray  # `QueuedRow` [ring]
    runs: np.ndarray  # `OutputRun`
    bursts: np.ndarray  # `OutputBurst`
    state: Any  # `Writer`
    waiting: np.ndarray  # `WaitingRun` [WAITING_RUNS]: the last runs
    answered: np.ndarray  # int64 [OUTSTANDING]: answers to the last bursts
    begun: np.ndarray  # int64 [BEGUN]: when the data of the last bursts had left
    early_beats: np.ndarray  # int64 [Memory.EARLY_BEATS]: addresses of the last beats were taken
    open_bursts: np.ndarray  # int64 [Memory.OPEN_BURSTS]: the last bursts were complete
    lanes: np.ndarray  # `Lane`
    pops: np.ndarray  # int64 [lanes, ring]: when the last words left


class MemoryPort(NamedTuple):
    """The port, or a stand-in where the core's streams come from elsewhere."""

    present: bool
    ahead: bool  # a descriptor is read when the head before begins
    lanes: int  # 32-bit words of a beat
    fifo: int  # cycles through a queue
    placed_heads: int  # heads that are begun and not written, at most
    heads: np.ndarray  # `HeadAtPort`
    memory: MemoryBehaviour
    reads: ReadPort
    writes: WritePort


@compiled
def _latency(memory, generator, cycle):
    """Latency of an address or an answer of this cycle."""
    if memory.latencies == 1:
        return memory.shortest
    advance(generator, cycle)
    return memory.shortest + (generator.value >> 8) % memory.latencies


@compiled
def _begin_stalls(stalls, cycle):
    """Let all generators begin in this cycle."""
    for generator in (
        stalls.ar,
        stalls.r,
        stalls.aw,
        stalls.w,
        stalls.b,
        stalls.read_delay,
        stalls.write_delay,
    ):
        generator.cycle = generator.start = cycle


@compiled
def _read_address(port, accepted, done):
    """Follow the address of a burst of a run that the reader has accepted.

    The last beat of the burst whose place it takes came in cycle ``done``. Returns the cycle in
    which the memory offers the first beat.
    """
    memory, reader = port.memory, port.reads.state
    address = max(accepted + port.reads.to_address, reader.taken + 1, done + 2)
    if reader.offered < 0:
        _begin_stalls(memory.stalls, address)
    reader.offered_before = reader.offered
    reader.offered = address
    reader.taken = unstalled(memory.stalls.ar, address - 1)
    latency = max(_latency(memory, memory.stalls.read_delay, reader.taken), 1)
    reader.arrived = max(reader.taken + latency, reader.arrived + 1)
    return reader.arrived + memory.read_answer


@compiled
def _lanes_take(lanes, pops, lane_words, cycle):
    """First cycle from this one on in which every lane takes a word."""
    while True:
        found = cycle
        for index in range(len(lanes)):
            lane = lanes[index]
            words = lane.pushed
            if lane.push_cycle == cycle - 1:
                # This word is not counted yet.
                words -= 1
            if words >= lane_words:
                left = pops[index, (words - lane_words) % pops.shape[1]]
                found = max(found, left + 2)
        if found == cycle:
            return cycle
        cycle = found


@compiled
def _pop_words(port, cycle):
    """Take the words of a part of a unit out of the reader's lanes in this cycle."""
    reads, reader = port.reads, port.reads.state
    for word in range(reads.part_words):
        index = (reader.lane + word) % port.lanes
        lane = reads.lanes[index]
        reads.pops[index, lane.popped % reads.pops.shape[1]] = cycle
        lane.popped += 1
    reader.lane = (reader.lane + reads.part_words) % port.lanes


@compiled
def _turn_unit(reads, row_unit, last):
    """Follow a unit of Q or K into the corner turn, once its group may be written there.

    ``row_unit`` counts the units after the block's scales; the scales themselves are below 0.
    """
    reader = reads.state
    if row_unit >= 0 and row_unit % reads.group_units == 0:
        # Two groups are there at most: the one before the last must have been read.
        reader.unit = max(reader.unit, reader.turned_before - reads.to_turned + 2)
    if row_unit >= 0 and ((row_unit + 1) % reads.group_units == 0 or row_unit == last):
        first = max(reader.unit + reads.to_turned, reader.turned + 1)
        reader.turned_before = reader.turned
        reader.turned = first + reads.group_units - 1
        reads.groups[row_unit // reads.group_units] = reader.turned


@compiled
def _read_burst(port, accepted, burst, stored, unit, scales, last):
    """Follow a burst of a run that the reader has accepted.

    Of a block of Q or K the first ``scales`` units are scales, and unit ``last`` is the last one;
    elsewhere ``scales`` is -1.

    ``stored`` words of an incomplete unit have come; ``unit`` is the number of the next one.
    Returns both as they are after the burst.
    """
    reads, reader = port.reads, port.reads.state
    place = reader.bursts % len(reads.done)
    reader.bursts += 1
    beat = _read_address(port, accepted, reads.done[place])
    words, lane = burst.words, burst.lane
    parts = stored // reads.part_words
    if stored % reads.part_words == 0:
        reader.lane = lane
    for _ in range(burst.beats):
        free = unstalled(port.memory.stalls.r, reader.beat)
        beat = _lanes_take(reads.lanes, reads.pops, reads.lane_words, max(beat, free))
        now = min(words, port.lanes - lane)
        for index in range(lane, lane + now):
            reads.lanes[index].pushed += 1
            reads.lanes[index].push_cycle = beat
        words -= now
        lane = 0
        for _ in range((stored % reads.part_words + now) // reads.part_words):
            reader.unit = max(reader.unit + 1, beat + reads.to_unit)
            _pop_words(port, reader.unit - 1)
            parts += 1
            if parts * reads.part_words == reads.unit_words:
                parts = 0
                if scales >= 0:
                    _turn_unit(reads, unit - scales, last)
                reads.units[unit] = reader.unit
                unit += 1
        stored = (stored + now) % reads.unit_words
        reader.beat = beat
        beat += 1
    reads.done[place] = reader.beat
    return stored, unit


@compiled
def _next_place(reads):
    """Place of the next run among those that are not complete."""
    reads.state.runs += 1
    return reads.state.runs % len(reads.complete)


@compiled
def _read_runs(port, head, kind, block, asked):
    """Read a descriptor or first codes, asked for in this cycle; returns how many units."""
    reads = port.reads
    place, run, accepted = 0, -1, max(asked - 1, reads.state.accepted)
    stored = unit = 0
    block += reads.blocks[head, kind]
    for index in range(reads.first[block], reads.first[block + 1]):
        burst = reads.bursts[index]
        if burst.part != run:
            place, run = _next_place(reads), burst.part
            accepted = max(accepted + 1, reads.complete[place], reads.state.offered_before - 1)
        stored, unit = _read_burst(port, accepted, burst, stored, unit, -1, -1)
        reads.complete[place] = reads.state.unit
    reads.state.accepted = accepted
    return unit


@compiled
def _placed(port, head):
    """First cycle after a head is offered in which its outputs have a place in their queue."""
    offered = port.heads[head].offered
    if head < port.placed_heads:
        return offered + 1
    return max(offered, port.heads[head - port.placed_heads].written + 1) + 1


@compiled
def begins_when(port, head):
    """Last head whose outputs must be written before the descriptor of this one is read, or -1."""
    if port.heads[head].waits:
        return head - 1
    return max(head - 1 - port.placed_heads, -1)


@compiled
def read_descriptor(port, head, core_idle):
    """Read the next descriptor; returns the cycle in which the head can be taken.

    The descriptor is asked for when the cores are idle, all that the head before needs has been
    read, and that head's outputs have a place; if it is read ahead, the head is offered then.
    """
    reader = port.reads.state
    ended = max(core_idle, reader.idle, reader.beat + 1)
    if head > 0:
        ended = max(ended, _placed(port, head - 1))
    reader.walk_begin = reader.walk_end = -1
    if port.ahead and head > 0:
        offered = max(ended + 1, port.heads[head].there)
    else:
        offered = _descriptor_there(port, head, ended + 1)
    if port.heads[head].waits:
        offered = max(offered, port.heads[head - 1].written + 1)
    if port.ahead:
        offered += 1
        if head + 1 < len(port.heads):
            port.heads[head + 1].there = _descriptor_there(port, head + 1, offered)
    port.heads[head].offered = offered
    return offered


@compiled
def _descriptor_there(port, head, asked):
    """Read a descriptor, asked for in this cycle; returns that in which its head can be offered."""
    units = _read_runs(port, head, ReadKind.DESCRIPTOR, 0, asked)
    return port.reads.units[units - 1] + port.reads.to_head


@compiled
def read_codes(port, head, core, started, there):
    """Read the first codes of a head's core; ``there`` receives when each unit can be taken.

    Returns how many units these are.
    """
    units = _read_runs(port, head, ReadKind.CODES, core, started + port.reads.to_codes)
    for unit in range(units):
        there[unit] = port.reads.units[unit] + port.fifo
    return units


@compiled
def _walk_to(port, head, begin, end):
    """Go to a block from token ``begin`` to ``end``; returns the cycles to its first run."""
    reads, reader = port.reads, port.reads.state
    cycles = reads.jump
    if begin == reader.walk_begin or begin == reader.walk_end:
        cycles = reads.walk
    elif begin == 0 or begin >= port.heads[head].grid_tokens:
        cycles = reads.walk + 1
    reader.walk_begin = begin
    reader.walk_end = end
    return cycles


@compiled
def _turn_corner(reads, groups, group_tokens, arrived):
    """Follow the groups of a block of Q or K out of the corner turn; see `read_block`."""
    for group in range(groups):
        arrived[group * reads.load_tokens // group_tokens] = reads.groups[group] + 1
    arrived[(groups - 1) * reads.load_tokens // group_tokens :] = reads.state.turned + 1
    return reads.state.turned + 1


@compiled
def read_block(port, head, operand, block, begin, tokens, fetched, group_tokens, arrived):
    """Read a block.

    Parameters
    ----------
    port : MemoryPort
    head : int
    operand : Operand
    block : int
        Number of the block, of a layer of the block's chunk.
    begin : int
        Position of its first token.
    tokens : int
        How many the block has.
    fetched : int
        Cycle in which the core asks for it; no earlier than the address generator is idle.
    group_tokens : int
        Tokens of a group that ``arrived`` counts.
    arrived : np.ndarray
        int64 [groups]: receives the cycle after the last beat of each group.

    Returns
    -------
    int
        Cycle after the block's last beat at the core.
    """
    reads, reader = port.reads, port.reads.state
    # From here on a token a cycle; a run is offered with its last one.
    now = fetched + _walk_to(port, head, begin, begin + tokens) - 1
    placed, place = -1, 0
    stored = unit = accepted = 0
    scales = last = -1
    if operand != Operand.V:  # a unit of scales for each group
        scales = (tokens - 1) // reads.load_tokens + 1
        last = tokens * reads.group_units // reads.load_tokens - 1
    at = reads.blocks[head, operand] + block
    for index in range(reads.first[at], reads.first[at + 1]):
        burst = reads.bursts[index]
        if burst.part != placed:
            # The reader takes a run when the burst before the last one is on its way, and an older
            # run is complete. The address generator goes on then, whatever bursts the run is cut
            # into.
            place = _next_place(reads)
            accepted = max(fetched, reader.accepted) + 1
            if burst.part > 0:
                now += burst.part - max(placed, 0)
                accepted = now
            accepted = max(accepted, reads.complete[place], reader.offered_before - 1)
            if burst.part > 0:
                now = accepted
            placed = burst.part
        stored, unit = _read_burst(port, accepted, burst, stored, unit, scales, last)
        reads.complete[place] = reader.unit
    reader.idle = accepted + 1
    if operand == Operand.V:
        arrived[:] = reads.units[unit - 1] + 1
        return reads.units[unit - 1] + 1
    return _turn_corner(reads, scales, group_tokens, arrived)


@compiled
def outputs_begin(port, head):
    """First cycle in which a block row of a head's outputs may be asked for; `NEVER`: not known.

    That is after those of the head before are written.
    """
    if port.heads[head].offered < 0 or (head > 0 and port.heads[head - 1].rows_left > 0):
        return NEVER
    begin = _placed(port, head) - 1 + port.fifo
    if head > 0:
        begin = max(begin, port.heads[head - 1].written + 1)
    return begin + 1


@compiled
def queue_row(port, head, row, told):
    """Let a block row of a head's outputs follow those before, as is known in this cycle."""
    writes = port.writes
    queued = writes.queued[writes.state.rows_queued % len(writes.queued)]
    queued.row = port.heads[head].first_output + row
    queued.told = told
    queued.taken = NEVER
    writes.state.rows_queued += 1


@compiled
def _begin_row(port, queued):
    """Ask for the first run of a row; returns whether it is known when."""
    writes, writer = port.writes, port.writes.state
    first = writes.rows[queued.row]
    run = writes.runs[first]
    if run.head != writer.head:
        request = outputs_begin(port, run.head)
        if request == NEVER:
            return False
        writer.walk_end = -1
    else:
        request = writer.token_known + 1
        if port.heads[run.head].alone:
            request = max(request, writer.run_taken + 1)
    queued.taken = max(request, queued.told)
    walk = 2
    if run.begin == writer.walk_end:
        walk = 1
    elif 0 < run.begin < port.heads[run.head].grid_tokens:
        walk = writes.jump
    writer.placed = max(writer.placed, queued.taken + walk)
    writer.head = run.head
    writer.walk_end = run.end
    writer.next_run, writer.last_run = first, writes.rows[queued.row + 1]
    writer.rows_walked += 1
    return True


@compiled
def _walk_run(port):
    """Follow the next run from its tokens to the writer's queues; returns whether there is one."""
    writes, writer = port.writes, port.writes.state
    if writer.walked - writer.opened == len(writes.waiting):
        return False
    if writer.next_run == writer.last_run and (
        writer.rows_walked == writer.rows_queued
        or not _begin_row(port, writes.queued[writer.rows_walked % len(writes.queued)])
    ):
        return False
    run = writes.runs[writer.next_run]
    # A token a cycle; a run is offered after its last one.
    token = writer.placed
    first = max(token + 1, writer.run_taken)
    writer.placed = first + run.tokens - 1
    writer.token_known = token if run.tokens == 1 else writer.placed - 1
    # It is taken when both queues have room.
    place = writes.waiting[writer.walked % len(writes.waiting)]
    writer.run_taken = max(first + run.tokens, place.for_data + 1, place.for_bursts + 1)
    place.run = writer.next_run
    place.taken = writer.run_taken
    writer.next_run += 1
    writer.walked += 1
    return True


@compiled
def _open_run(port):
    """Let the outputs of the next run come, if those before have; returns whether it can be."""
    writes, writer = port.writes, port.writes.state
    if writer.units_left > 0 or writer.opened == writer.walked:
        return False
    place = writes.waiting[writer.opened % len(writes.waiting)]
    run = writes.runs[place.run]
    place.for_data = max(place.taken + port.fifo, writer.unit_taken)
    place.for_bursts = max(place.taken + port.fifo, writer.burst_known)
    writer.burst_known = place.for_bursts + writes.to_split - 1
    writer.run = place.run
    writer.run_open = place.for_data + 1
    writer.run_words = 0
    writer.burst = run.bursts
    writer.units_left = run.tokens * run.units
    writer.lane = run.lane
    writer.opened += 1
    return True


@compiled
def follow_runs(port):
    """Follow the runs of outputs as far as they are known."""
    while _open_run(port) or _walk_run(port):
        pass


@compiled
def _write_address(port, gathered):
    """Follow the address of a burst whose outputs are gathered in this cycle."""
    writes, writer, memory = port.writes, port.writes.state, port.memory
    number = writer.bursts
    # The burst is known a cycle before it can be offered, and no earlier than in the cycle in which
    # the one before is begun.
    writer.burst_known = max(writer.burst_known, writer.address_offered - 1)
    # Its address is offered when the outputs are gathered, a tag is free, the address before is
    # taken and there is room for it among those whose data waits.
    writer.address_offered = max(
        gathered + writes.to_address,
        writer.burst_known + 2,
        writes.answered[number % len(writes.answered)] + 1,
        writes.begun[number % len(writes.begun)] + 2,
        writer.address_taken + 1,
    )
    room = writes.open_bursts[number % len(writes.open_bursts)] + memory.queue_wait
    writer.address_taken = unstalled(memory.stalls.aw, max(writer.address_offered, room) - 1)


@compiled
def _write_beats(port, beats, words, lane):
    """Follow the beats of a burst out of the lanes; returns the cycle in which the last leaves."""
    writes, writer, memory = port.writes, port.writes.state, port.memory
    leaves = writer.address_offered + writes.to_beat - 1
    for _ in range(beats):
        # A beat leaves when the one before has gone.
        leaves = max(leaves, writer.beat_taken)
        now = min(words, port.lanes - lane)
        for index in range(lane, lane + now):
            taker = writes.lanes[index]
            writes.pops[index, taker.popped % writes.pops.shape[1]] = leaves
            taker.popped += 1
        words -= now
        lane = 0
        place = writer.beats % len(writes.early_beats)
        sent = max(leaves + 1, writes.early_beats[place] + memory.queue_wait)
        writes.early_beats[place] = writer.address_taken
        writer.beats += 1
        writer.beat_taken = unstalled(memory.stalls.w, sent - 1)
    return leaves


@compiled
def _write_answer(port, complete):
    """Follow the answer to a burst that is complete at the memory in this cycle."""
    writer, memory = port.writes.state, port.memory
    arrived = complete + memory.write_answer
    offered = arrived + max(_latency(memory, memory.stalls.write_delay, arrived), 1)
    writer.answer_offered = max(offered, writer.answer_offered + 1)
    free = unstalled(memory.stalls.b, writer.answer_taken)
    writer.answer_taken = max(writer.answer_offered, free)


@compiled
def _write_burst(port, gathered):
    """Follow a burst whose last words are taken in this cycle to its answer."""
    writes, writer = port.writes, port.writes.state
    number = writer.bursts
    run, burst = writes.runs[writer.run], writes.bursts[writer.burst]
    begin = writes.bursts[writer.burst - 1].words_end if writer.burst > run.bursts else 0
    words = burst.words_end - begin
    lane = (run.lane + begin) % port.lanes
    _write_address(port, gathered)
    leaves = _write_beats(port, burst.beats, words, lane)
    complete = max(writer.beat_taken, writer.address_taken)
    _write_answer(port, complete)
    writes.begun[number % len(writes.begun)] = leaves
    writes.open_bursts[number % len(writes.open_bursts)] = complete
    writes.answered[number % len(writes.answered)] = writer.answer_taken + 1
    port.heads[run.head].written = writer.answer_taken + 1
    writer.bursts += 1
    writer.burst += 1


@compiled
def _push_words(port, cycle):
    """Put the words of a part of a unit into their lanes."""
    writes, writer = port.writes, port.writes.state
    for word in range(writes.part_words):
        lane = writes.lanes[(writer.lane + word) % port.lanes]
        lane.pushed += 1
        lane.push_cycle = cycle
    writer.lane = (writer.lane + writes.part_words) % port.lanes
    writer.run_words += writes.part_words


@compiled
def write_unit(port, offered):
    """Follow a unit that is offered from a cycle on, and the bursts that it completes.

    Its row must be queued, and be the next one. Returns the cycle in which it is taken.
    """
    writes, writer = port.writes, port.writes.state
    if writer.units_left == 0:
        follow_runs(port)
    now = max(offered, writer.unit_taken + 1, writer.run_open)
    for _ in range(writes.unit_parts):
        now = _lanes_take(writes.lanes, writes.pops, writes.lane_words, now)
        writer.word_units += 1
        if writer.word_units == writes.part_units:
            writer.word_units = 0
            _push_words(port, now)
        while (
            writer.burst < writes.runs[writer.run + 1].bursts
            and writes.bursts[writer.burst].words_end <= writer.run_words
        ):
            _write_burst(port, now)
        now += 1
    writer.unit_taken = now - 1
    writer.units_left -= 1
    return now - 1


@compiled
def write_beat(port, head, offered):
    """Follow a beat of a head's outputs, that a core offers from a cycle on, to `write_unit`.

    Returns the cycle in which it is taken.
    """
    writer = port.writes.state
    if not port.heads[head].cut:
        return write_unit(port, offered)
    taken = max(offered, writer.cut_free)
    writer.cut_beats += 1
    if writer.cut_beats % 2 == 0:
        writer.cut_free = write_unit(port, taken + 1)
    return taken
