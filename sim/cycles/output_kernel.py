"""A core's output in the cycle model, compiled: reads of numerators and sums, beats on their way.

Rows are read one after the other. A beat's place in the queue must be free for it to be read, so
that reads stop where it is not known yet when the beats before leave: others go first.
"""

from rtl.core.layer_output import PAGES
from sim.cycles.port_kernel import NEVER
from sim.cycles.records import compiled, inlined

__all__ = ["follow_reads", "leave", "leaving_row", "next_beat"]

#: Memory that no product writes to.
_NO_MEMORY = -1


@compiled
def _written_memory(core, now):
    """Memory of partial outputs, 0 or 1, that is written to in this cycle, or `_NO_MEMORY`.

    Calls must ask for cycles in ascending order.
    """
    memory = _memory_of_layer(core, now)
    return memory if memory != _NO_MEMORY else _memory_of_pv(core, now)


@compiled
def _memory_of_layer(core, now):
    """Memory that a tile of a layer writes to."""
    timing, drains, output = core.timing, core.layer_drains, core.output
    mask = len(drains.first) - 1
    tiles = core.array.layer_tiles
    while output.oldest_tile < tiles:
        word = now - drains.first[output.oldest_tile & mask]
        if word < 0:
            return _NO_MEMORY
        if word < timing.drain_cycles:
            row = word >> timing.drain_shift
            part = word if timing.drain_shift else drains.odd[output.oldest_tile & mask]
            return (row if timing.parts == 1 else row ^ part) & 1
        output.oldest_tile += 1
    return _NO_MEMORY


@compiled
def _memory_of_pv(core, now):
    """Memory that a PV writes to."""
    timing, drains, output = core.timing, core.pv_drains, core.output
    mask = len(drains.first) - 1
    last_tile = timing.pv_tiles - 1
    products = core.array.begun_pv
    while output.oldest_pv < products:
        place = output.oldest_pv & mask
        if now < drains.first[place] + (last_tile << drains.shift[place]) + timing.drain_cycles:
            break
        output.oldest_pv += 1
    if output.oldest_pv == products:
        return _NO_MEMORY
    place = output.oldest_pv & mask
    since, shift = now - drains.first[place], drains.shift[place]
    if since < 0:
        return _NO_MEMORY
    tile = since >> shift
    word = since - (tile << shift)
    if word >= timing.drain_cycles:
        return _NO_MEMORY
    row = word >> timing.drain_shift
    part = word if timing.drain_shift else tile
    return (row if timing.parts == 1 else row ^ part) & 1


@compiled
def _read(core, now, memory, until):
    """Read from a memory in this cycle or as soon as nothing is written to it.

    The array is known until ``until``. Returns whether the read is made then, as ``output.next``.
    """
    while now <= until and _written_memory(core, now) == memory:
        now += 1
    core.output.next = core.output.read = now
    return now <= until


@compiled
def follow_reads(core, time):
    """Follow the reads of the rows that have ended, as far as is known in this cycle."""
    output = core.output
    until = max(time, core.array.step) + core.timing.drain
    while output.active or _begin_row(core):
        row = core.rows[_place_of(core, output.rows)]
        done = _read_layer_row(core, row, until) if row.linear else _read_row(core, row, until)
        if not done:
            return
        output.linear = row.linear
        output.active = 0
        core.slot_free[output.rows % len(core.slot_free)] = output.normalizer_free
        output.rows += 1
    output.read = NEVER


@compiled
def _place_of(core, number):
    """Place in the ring of the row that leaves the core after so many others."""
    mask = len(core.rows) - 1
    return core.ended[number & mask] & mask


@compiled
def _begin_row(core):
    """Begin to read the next row, if it has ended."""
    output = core.output
    if output.rows == core.array.ended_rows:
        return False
    row = core.rows[_place_of(core, output.rows)]
    if row.linear != output.linear:
        # All beats before must have left.
        if output.rows_left < output.rows:
            return False
        output.normalizer_free = max(output.normalizer_free, output.last_sent + 1)
    output.active = 1
    output.query = output.part = 0
    output.next = output.normalizer_free
    if not row.linear:
        output.complete = row.complete
        _find_query(core, row)
    return True


@compiled
def _find_query(core, row):
    """Find when the next query's reciprocal and numerators are there."""
    timing, output = core.timing, core.output
    query, reciprocal = output.query, output.reciprocal_free
    if query & (timing.softmax_lanes - 1) == 0:
        starts = core.chunk_starts[_place_of(core, output.rows)]
        chunk = (query & (timing.cols - 1)) // timing.softmax_lanes
        last_key = starts[query // timing.cols] + (chunk + 1) * timing.block - 1
        reciprocal = max(reciprocal, last_key + timing.denominators)
    if query & (timing.reciprocal_lanes - 1) == 0:
        reciprocal += timing.reciprocal
    if query < row.queries:
        # The queue holds as many queries as a block.
        reciprocal = max(reciprocal, core.left[output.queries & (timing.block - 1)] + 1)
        if query & (timing.rows - 1) == 0 and query > 0:
            output.complete += row.complete_step
        output.next = max(output.normalizer_free, reciprocal + timing.fifo, output.complete)
    output.reciprocal_free = reciprocal + 1


@compiled
def _read_row(core, row, until):
    """Read the numerators of a row as far as is known; returns whether that is all of them."""
    timing, output = core.timing, core.output
    while output.query < row.queries:
        now, place = output.next, output.beats_ready % len(core.sent)
        if timing.paced:
            if output.beats_ready - output.beats_left == len(core.sent):
                output.read = NEVER
                return False
            # There is room for the beat.
            now = max(now, core.sent[place] + 1)
        # A memory that takes partial outputs in this cycle cannot be read.
        memory = (output.query if timing.parts == 1 else output.query ^ output.part) & 1
        if not _read(core, now, memory, until):
            return False
        core.ready[place] = output.next + timing.output
        output.beats_ready += timing.paced
        output.next += 1
        output.part += 1
        if output.part == timing.parts:
            core.left[output.queries & (timing.block - 1)] = output.next - 1
            output.normalizer_free = output.next
            output.part = 0
            output.queries += 1
            output.query += 1
            if output.query < timing.block:
                _find_query(core, row)
    # The reciprocal unit goes on over queries that are none.
    while output.query < timing.block - 1:
        output.query += 1
        _find_query(core, row)
    output.beats += row.queries * timing.parts
    row.sent = output.normalizer_free - 1 + timing.output
    return True


@compiled
def _read_layer_row(core, row, until):
    """Read the sums of a layer's row as far as is known; returns whether that is all of them."""
    timing, output = core.timing, core.output
    complete = core.tiles_complete[_place_of(core, output.rows)]
    while output.part * timing.words < row.queries:
        page = output.pages % PAGES
        if output.query == 0:
            if output.pages - output.turned == PAGES:
                output.read = NEVER
                return False
            output.next = max(output.next, core.page_free[page])
        first = output.part * timing.words // timing.cols * timing.row_groups
        while output.query < timing.block:
            now = max(output.next, complete[first + output.query // timing.rows])
            turn = output.query >> timing.swapped
            memory = (turn if timing.parts == 1 else turn ^ output.part) & 1
            if not _read(core, now, memory, until):
                return False
            output.next += 1
            output.query += 1
        tokens = min(timing.words, row.queries - output.part * timing.words)
        core.page_ready[page] = output.next - 1 + timing.layer_output
        core.page_beats[page] = tokens * (timing.block // timing.words)
        output.beats += core.page_beats[page]
        output.pages += 1
        output.query = 0
        output.part += 1
        _turn(core)
    output.normalizer_free = output.next
    return True


@compiled
def _turn(core):
    """Follow the reads of a layer's beats out of the corner turn, as far as they are known.

    Reads of the corner turn and beats that were read move on together, `BEAT_LATENCY` = 2 of them
    at once, unless a beat is offered and does not leave.
    """
    output = core.output
    while output.turned < output.pages and output.turn_waits < 2:
        page = output.turned % PAGES
        read = max(output.turn_read + 1, core.page_ready[page])
        if output.turn_waits == 0:
            read = max(read, output.sent_before)
            if output.offered <= read:
                read = max(read, output.last_sent)
        else:
            read = max(read, output.last_sent)
            if output.offered <= read:
                return  # the beat that is offered must leave first
        output.turn_read = read
        output.turn_waits += 1
        if output.turn_waits == 1:
            output.offered = max(read + 1, output.last_sent) + 1
        output.turn_beats += 1
        if output.turn_beats == core.page_beats[page]:
            core.page_free[page] = read + 1
            output.turn_beats = 0
            output.turned += 1


@inlined
def leaving_row(core):
    """Row whose beats leave next: it may still be in progress."""
    return core.rows[_place_of(core, core.output.rows_left)]


@compiled
def next_beat(core):
    """Cycle from which on the next beat is offered; `NEVER`: there is none, or it is not known."""
    output = core.output
    if output.rows_left == output.rows + output.active:
        return NEVER
    if leaving_row(core).linear:
        return output.offered if output.turn_waits > 0 else NEVER
    if output.beats_left == output.beats_ready:
        return NEVER
    return max(core.ready[output.beats_left % len(core.ready)], output.last_sent + 1)


@compiled
def leave(core, leaves):
    """Let the next beat leave in this cycle; returns whether it is its row's last one."""
    timing, output, row = core.timing, core.output, leaving_row(core)
    core.stages.output.blocked += leaves - next_beat(core)
    beats = row.queries * timing.parts
    if row.linear:
        beats = row.queries * (timing.block // timing.words)
        output.sent_before = output.last_sent
        output.last_sent = leaves
        output.turn_waits -= 1
        if output.turn_waits == 1:
            output.offered = max(output.turn_read + 1, leaves) + 1
        _turn(core)
    else:
        output.last_sent = leaves
        core.sent[output.beats_left % len(core.sent)] = leaves
        output.beats_left += 1
    output.row_beats += 1
    if output.row_beats < beats:
        return False
    output.row_beats = 0
    output.rows_left += 1
    return True
