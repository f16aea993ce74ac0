"""A core's scheduler in the cycle model, compiled: from its codes to fetches and blocks.

It runs on by itself from one fetch to the next: `begin_command` and `fetched` follow it there.
"""

from paro.config.formats import Operand
from rtl.interfaces import CODES_PER_BEAT
from sim.cycles.core_records import Wait
from sim.cycles.port_kernel import NEVER
from sim.cycles.records import compiled, inlined
from sim.cycles.stall_kernel import unstalled

__all__ = ["begin_command", "count_full", "dealt_row", "fetched", "load_of", "offer_fetch"]

#: Codes in a beat, from which the scheduler of superblocks takes columns.
_GROUP = CODES_PER_BEAT


@inlined
def load_of(core, operand):
    """Loads of an operand."""
    if operand == Operand.Q:
        return core.loads.q
    if operand == Operand.K:
        return core.loads.k
    return core.loads.v


@compiled
def count_full(load, number):
    """Count how long all slots are full after a load, once it and the next release are known."""
    slots = len(load.free)
    following = number + 1
    if number < load.state.loads and slots <= following < load.state.releases + slots:
        complete = load.complete[number % len(load.complete)]
        load.stage.blocked += max(0, load.free[following % slots] - complete)


@compiled
def offer_fetch(core):
    """Find when the scheduler offers the fetch that it waits for, if it is known."""
    scheduler = core.scheduler
    load = load_of(core, scheduler.waits)
    number, slots = load.state.loads, len(load.free)
    scheduler.offer = NEVER
    if number < load.state.releases + slots:
        free = load.free[number % slots]
        scheduler.offer = unstalled(core.stalls.fetch, max(scheduler.wanted, free) - 1)


@compiled
def _want(core, operand, wanted):
    """Wait for a fetch from this cycle on."""
    core.scheduler.waits = operand
    core.scheduler.wanted = wanted
    offer_fetch(core)


@compiled
def _rest(core, idle):
    """Wait for a command from this cycle on."""
    core.scheduler.waits = Wait.COMMAND
    core.scheduler.idle = idle
    core.scheduler.offer = NEVER


@compiled
def _want_queries(core, wanted):
    """Wait for queries of the block's row, of a layer for the inputs of its chunk."""
    timing, scheduler = core.timing, core.scheduler
    row = core.rows[scheduler.row & (len(core.rows) - 1)]
    command = core.commands[scheduler.command]
    scheduler.fetch_block, scheduler.fetch_begin = row.number, row.number * timing.block
    if scheduler.linear:
        token_block = row.number // command.key_blocks
        scheduler.fetch_block = token_block * command.columns + scheduler.column
        scheduler.fetch_begin = token_block * timing.layer_tokens
    scheduler.fetch_tokens = row.queries
    _want(core, Operand.Q, wanted)


@compiled
def _want_keys(core, operand, wanted):
    """Wait for K or V of the block, of a layer for the weights of its tile."""
    scheduler = core.scheduler
    row = core.rows[scheduler.row & (len(core.rows) - 1)]
    columns = core.commands[scheduler.command].columns
    scheduler.fetch_order = 2 * (row.wave * columns + scheduler.column) + (operand == Operand.V)
    scheduler.fetch_block = scheduler.column
    if scheduler.linear:
        scheduler.fetch_block += scheduler.key_block * columns
    scheduler.fetch_begin = scheduler.key_block * core.timing.block
    scheduler.fetch_tokens = scheduler.keys
    _want(core, operand, wanted)


@compiled
def _code_there(core):
    """Cycle from which the next beat of codes is there; those read later are there in time."""
    scheduler = core.scheduler
    if not core.timing.in_memory:
        return scheduler.codes_there
    words, number = core.commands[scheduler.command].code_words, scheduler.code_words
    units = (words - 1) // core.timing.load_tokens + 1
    unit = number // words * units + number % words // core.timing.load_tokens
    return core.code_units[min(unit, scheduler.code_units - 1)]


@compiled
def _take_codes(core, scan, beats):
    """Follow the scheduler, in cycle ``scan``, over some beats of codes.

    Returns the scheduler's next cycle.
    """
    scheduler = core.scheduler
    for _ in range(beats):
        taken = unstalled(core.stalls.codes, scheduler.codes_taken)
        taken = max(scan, _code_there(core), taken)
        core.stages.scheduler.starved += taken - scan
        scheduler.codes_taken = taken
        scheduler.code_words += 1
        scan = taken + 1
    return scan


@compiled
def begin_command(core, number, start):
    """Follow the scheduler from a command, taken in this cycle, to its first fetch."""
    timing, scheduler = core.timing, core.scheduler
    command = core.commands[number]
    core.stages.scheduler.starved += start - scheduler.idle + 1
    following = unstalled(core.stalls.command, start)
    scheduler.command_there = max(start + timing.answer, following)
    if number > 0:
        scheduler.codes_there = scheduler.codes_taken + timing.answer
    scheduler.command = number
    scheduler.code_words = 0
    scheduler.rows_left = command.rows
    scheduler.linear = command.linear
    if timing.query_rows == 1:
        _next_row(core, start + 1)
    else:
        now = _seek_column(core, _begin_superblock(core, start + 1))
        _choose_block(core, now, _next_place(core, scheduler.column, 0))


@compiled
def fetched(core, fetch):
    """Follow the scheduler from the fetch that it waited for, accepted in this cycle."""
    timing, scheduler = core.timing, core.scheduler
    waits = scheduler.waits
    if waits == Operand.K:
        _issue(core, fetch + timing.fifo)
    if waits == Operand.K and not scheduler.linear:
        _want_keys(core, Operand.V, fetch + 1)
    elif waits == Operand.Q and (scheduler.linear or timing.query_rows > 1):
        if scheduler.loads:
            _want_keys(core, Operand.K, fetch + 1)
        else:
            _issue(core, fetch + 1 + timing.fifo)
            _go_on(core, fetch + 2)
    elif waits == Operand.Q:
        _scan_row(core, fetch)
    elif timing.query_rows > 1:
        scheduler.loads = 0
        _go_on(core, fetch + 1)
    elif not scheduler.last:
        _next_block(core, fetch + 1)
    elif scheduler.rows_left > 0:
        _next_row(core, fetch + 2)
    else:
        _rest(core, fetch + 2)


@compiled
def dealt_row(timing, core, row):
    """Row of the head, or block of tokens of a layer, that is a core's ``row``: see `deal`."""
    wave, place = row // timing.query_rows, row % timing.query_rows
    return row * timing.cores + ((core ^ place ^ wave) & (timing.cores - 1))


@compiled
def _begin_row(core, own, output_block):
    """Begin a row of the command.

    That is the core's own row ``own``; of a layer an output block of its own block of tokens.
    """
    timing, scheduler = core.timing, core.scheduler
    command = core.commands[scheduler.command]
    scheduler.row = scheduler.rows
    scheduler.rows += 1
    row = core.rows[scheduler.row & (len(core.rows) - 1)]
    tokens = timing.layer_tokens if command.linear else timing.block
    row.number = dealt_row(timing, scheduler.core, own) * command.key_blocks + output_block
    row.wave = own // timing.query_rows * command.key_blocks + output_block
    row.command = scheduler.command
    row.linear = command.linear
    row.queries = min(tokens, command.query_tokens - own * tokens)
    row.told = -1


@compiled
def _issue(core, known):
    """Issue the block, of which the sequencer knows from this cycle on."""
    timing, scheduler, loads = core.timing, core.scheduler, core.loads
    block = core.blocks[scheduler.issued & (len(core.blocks) - 1)]
    row = core.rows[scheduler.row & (len(core.rows) - 1)]
    block.code = scheduler.code
    block.row = scheduler.row
    block.first = scheduler.first
    block.last = scheduler.last
    block.releases = scheduler.releases
    block.linear = scheduler.linear
    if scheduler.first or scheduler.linear:
        row.load = loads.q.state.loads - 1
    block.queries = row.load
    block.keys = loads.k.state.loads - 1
    block.values = loads.v.state.loads - 1 + scheduler.loads
    block.known = known
    arrived = max(
        loads.k.arrived[block.keys % len(loads.k.complete), 0],
        loads.q.arrived[block.queries % len(loads.q.complete), 0],
    )
    block.loaded = max(known, arrived + timing.begun)
    if scheduler.last and timing.query_rows > 1:
        row.told = known
    scheduler.issued += 1


# Single rows.


@compiled
def _next_live(codes, column, end):
    while column < end and codes[column] == 0:
        column += 1
    return column


@compiled
def _next_row(core, begin):
    """Begin the next row in this cycle: its queries are loaded first, a layer's with each block."""
    scheduler = core.scheduler
    command = core.commands[scheduler.command]
    number = command.rows - scheduler.rows_left
    scheduler.rows_left -= 1
    _begin_row(core, number // command.key_blocks, number % command.key_blocks)
    codes = number
    if command.linear:
        codes = number % command.key_blocks
    scheduler.row_begin = command.codes + codes * command.columns
    scheduler.row_end = scheduler.row_begin + command.columns
    scheduler.loads = 1
    scheduler.last = 1
    if command.linear:
        _scan_row(core, begin)
    else:
        _want_queries(core, begin)


@compiled
def _scan_row(core, begin):
    """Scan the row, which begins in this cycle, to its first live block."""
    scheduler = core.scheduler
    scheduler.following = _next_live(core.codes, scheduler.row_begin, scheduler.row_end)
    beat = (scheduler.following - scheduler.row_begin) >> core.timing.beat_shift
    _next_block(core, _take_codes(core, begin + 1, beat + 1))


@compiled
def _next_block(core, scan):
    """Find the next live block in this cycle, seek the one after it, and ask for its operands."""
    timing, scheduler = core.timing, core.scheduler
    begin, end = scheduler.row_begin, scheduler.row_end
    at = scheduler.following
    scheduler.code = core.codes[at]
    scheduler.column = at - begin
    scheduler.following = _next_live(core.codes, at + 1, end)
    scheduler.first = scheduler.last
    scheduler.last = scheduler.following == end
    _find_keys(core)
    scanned = min(scheduler.following, end - 1)
    beats = ((scanned - begin) >> timing.beat_shift) - (scheduler.column >> timing.beat_shift)
    scan = _take_codes(core, scan + 1, beats)
    if scheduler.linear:
        _want_queries(core, scan + 1)
    else:
        _want_keys(core, Operand.K, scan + 1)


@compiled
def _find_keys(core):
    """Find the block of keys that the block needs, and how many they are."""
    scheduler = core.scheduler
    command = core.commands[scheduler.command]
    scheduler.key_block, key_blocks = scheduler.column, command.columns
    if scheduler.linear:
        row = core.rows[scheduler.row & (len(core.rows) - 1)]
        scheduler.key_block, key_blocks = row.number % command.key_blocks, command.key_blocks
    scheduler.keys = core.timing.block
    if scheduler.key_block == key_blocks - 1:
        scheduler.keys = (command.key_tokens - 1) % core.timing.block + 1


# Superblocks.


@compiled
def _is_live(core, place, column):
    """Whether a row of the superblock has a live block in a column."""
    return core.places[place].last >= column and core.codes[_code_place(core, place, column)] != 0


@compiled
def _code_place(core, place, column):
    """Index of the code of a superblock's row, whose codes are those of all rows of a layer."""
    scheduler = core.scheduler
    row = 0 if scheduler.linear else place
    return scheduler.row_begin + row * core.commands[scheduler.command].columns + column


@compiled
def _next_place(core, column, place):
    """First row of the superblock, from a place on, that is live in a column; -1 for none."""
    for each in range(place, core.timing.query_rows):
        if _is_live(core, each, column):
            return each
    return -1


@compiled
def _begin_superblock(core, begin):
    """Begin the next superblock in this cycle; returns the cycle of its first scan."""
    scheduler = core.scheduler
    command = core.commands[scheduler.command]
    number = command.rows - scheduler.rows_left
    rows = _rows_together(core)
    codes = number
    if command.linear:
        codes = _output_block(core, number)
    scheduler.row_begin = command.codes + codes * command.columns
    for place in range(core.timing.query_rows):
        each = core.places[place]
        each.begun = 0
        each.last = -1
        if place < rows:
            each.last = command.columns - 1
            while core.codes[_code_place(core, place, each.last)] == 0:
                each.last -= 1
    scheduler.column = -1
    scheduler.group_end = _GROUP
    return _take_codes(core, begin + 1, 2 if command.linear else 1 + rows)


@compiled
def _rows_together(core):
    """Rows of the superblock that is next."""
    scheduler = core.scheduler
    command = core.commands[scheduler.command]
    # Rows of a layer: for each superblock of tokens, for each output block, its blocks of tokens.
    token_blocks = command.rows // command.key_blocks
    done = command.rows - scheduler.rows_left
    whole = done // (core.timing.query_rows * command.key_blocks)
    return min(core.timing.query_rows, token_blocks - whole * core.timing.query_rows)


@compiled
def _output_block(core, number):
    """Output block of the superblock that begins with a layer's row."""
    command = core.commands[core.scheduler.command]
    within = number % (core.timing.query_rows * command.key_blocks)
    return within // _rows_together(core)


@compiled
def _rows_of_superblock(core):
    """Rows of the superblock in progress."""
    rows = 0
    for place in range(core.timing.query_rows):
        if core.places[place].last >= 0:
            rows += 1
    return rows


@compiled
def _seek_column(core, scan):
    """Follow the scans from a cycle on to the next live column, or to the superblock's end.

    Returns the cycle in which the column's first row is chosen, or that of the end; the column is
    -1 then.
    """
    scheduler = core.scheduler
    command = core.commands[scheduler.command]
    rows = 1 if command.linear else _rows_of_superblock(core)
    column = scheduler.column + 1
    while True:
        until = min(scheduler.group_end, command.columns)
        while column < until and _next_place(core, column, 0) < 0:
            column += 1
        if column < until:
            scheduler.column = column
            scheduler.loads = 1
            return scan + 2
        if scheduler.group_end >= command.columns:
            scheduler.column = -1
            return scan + 1
        scan = _take_codes(core, scan + 1, 1 + rows)
        scheduler.group_end += _GROUP


@compiled
def _go_on(core, now):
    """Follow the scheduler, which chooses in this cycle, to the next fetch or the command's end."""
    scheduler = core.scheduler
    while True:
        place = _next_place(core, scheduler.column, scheduler.place + 1)
        if place < 0:
            now = _seek_column(core, now)
            if scheduler.column < 0:
                scheduler.rows_left -= _rows_of_superblock(core)
                if scheduler.rows_left == 0:
                    _rest(core, now + 1)
                    return
                now = _seek_column(core, _begin_superblock(core, now + 1))
            place = _next_place(core, scheduler.column, 0)
        if _choose_block(core, now, place):
            return
        _issue(core, now + 1 + core.timing.fifo)
        now += 2


@compiled
def _choose_block(core, chosen, place):
    """Follow the scheduler from the cycle in which it chooses a row of the column.

    Returns whether it waits for a fetch.
    """
    scheduler = core.scheduler
    command, each = core.commands[scheduler.command], core.places[place]
    column = scheduler.column
    scheduler.place = place
    scheduler.code = core.codes[_code_place(core, place, column)]
    scheduler.first = 1 - each.begun
    scheduler.last = each.last == column
    scheduler.releases = _next_place(core, column, place + 1) < 0
    if scheduler.first:
        each.begun = 1
        begun = command.rows - scheduler.rows_left
        own, output_block = begun + place, 0
        if command.linear:
            superblock = begun // (core.timing.query_rows * command.key_blocks)
            own = superblock * core.timing.query_rows + place
            output_block = _output_block(core, begun)
        _begin_row(core, own, output_block)
        each.row = scheduler.row
    scheduler.row = each.row
    _find_keys(core)
    if scheduler.first or command.linear:
        _want_queries(core, chosen + 1)
    elif scheduler.loads:
        _want_keys(core, Operand.K, chosen + 1)
    else:
        return False
    return True
