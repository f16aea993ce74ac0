"""The cycle model's one pass over the blocks, compiled.

Latencies of the RTL are arguments. Imported constants are frozen in the machine code, which
`sim.cycles.compilation` keeps until this file or a module that it imports changes.
"""

from typing import Any, NamedTuple

import numpy as np

from paro.config.formats import Operand, Operation, Stage
from rtl.core.blocks import SLOTS
from rtl.core.layer_output import PAGES
from rtl.interfaces import CODES_PER_BEAT, Activity
from sim.cycles.port_kernel import (
    MemoryPort,
    code_word_there,
    read_block,
    read_codes,
    read_descriptor,
    write_beat,
)
from sim.cycles.records import compiled, inlined, new_record, new_records, record_dtype
from sim.cycles.stall_kernel import unstalled

__all__ = ["Command", "CoreTiming", "Model", "new_model", "predict_cycles"]

#: A time that does not come, one before all.
_NEVER, _ALWAYS = 1 << 60, -(1 << 60)
#: Blocks between QK and PV of which something is remembered, a power of two.
_BLOCKS = 4 * SLOTS
#: Codes in a beat, from which the scheduler of superblocks takes columns.
_GROUP = CODES_PER_BEAT
#: Memory that no PV writes to.
_NO_MEMORY = -1
#: Cycles of each stage, by `Activity`.
_STAGES = record_dtype(
    tuple(stage.name.lower() for stage in Stage), record_dtype(tuple(Activity.as_shape().members))
)


class CoreTiming(NamedTuple):
    """Numbers of a configuration; times are in cycles."""

    query_rows: int  # of a superblock
    row_slots: int  # of queries and of outputs
    key_slots: int  # of K and of V
    block: int
    rows: int
    cols: int
    head_dim: int
    row_groups: int  # groups of R tokens in a block
    query_groups: int  # groups of C queries in a block
    channel_groups: int  # groups of C channels
    layer_tokens: int  # tokens of a layer that share a block
    layer_groups: int  # groups of C of them
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
    words: int  # of a read
    swapped: int  # whether outputs of a layer are read in the order 0, 2, 1, 3
    layer_output: int  # from the last read of so many tokens of a layer to the read of their beats
    queue: int  # beats that the output queue holds, those that are read for it included
    fifo: int  # through a queue
    # Shell.
    paced: bool  # whether a beat of the output may wait


class Command(NamedTuple):
    """Record of a command: some rows of a head, or a layer."""

    codes: int  # index of its first code
    rows: int
    columns: int
    query_tokens: int
    key_tokens: int
    linear: int = 0  # whether it is a layer
    key_blocks: int = 0  # of a layer: rows of each block of tokens


class Span(NamedTuple):
    """Record of the cycles of a command."""

    start: int = 0  # in which the command is taken
    end: int = 0  # of its last output


class Scheduler(NamedTuple):
    """Record of the scheduler: the row that it scans, the block that it has found last."""

    more: int = 1  # whether there are more blocks
    waits: int = 0  # whether the next command waits for all that was begun
    waits_for: int = 0  # rows whose outputs the next command waits for, if they are not followed
    command: int = -1
    command_there: int = 0  # first cycle in which the next command is there
    rows_left: int = 0  # of the command
    rows: int = 0  # that have begun, of all commands
    row: int = -1  # the block's one among them
    first_row: int = 0  # rows of all commands before this one
    row_begin: int = 0  # index of the row's first code
    row_end: int = 0  # index after its last code
    codes_there: int = 0  # first cycle in which codes of the command are there
    codes_taken: int = -1  # cycle in which the last beat of codes was taken
    code_words: int = 0  # beats of codes of the command that were taken, with superblocks
    code: int = 0  # of the block
    column: int = 0
    keys: int = 0
    first: int = 1  # whether it is the first live block of its row
    last: int = 1  # whether it is the last one
    following: int = 0  # index of the next live block's code
    linear: int = 0  # whether it is one of a layer
    place: int = -1  # of its row in the superblock
    group_end: int = 0  # column after the last one whose codes were taken
    loads: int = 0  # whether K, and V, are asked for with it
    releases: int = 1  # whether K and V serve no block after it
    following_state: int = 0  # cycle of the superblock scheduler's next state
    query_loads: int = 0  # blocks of queries, of keys, of values that were asked for
    key_loads: int = 0
    value_loads: int = 0
    key_fetch: int = 0  # cycle in which its K was asked for
    value_fetch: int = -2  # cycle in which V of the block before was asked for
    known: int = _NEVER  # first cycle in which the sequencer knows of it
    loaded: int = _NEVER  # first cycle in which its QK may begin


class Array(NamedTuple):
    """Record of the array and the softmax unit."""

    step: int  # cycle of the array's last step
    idle: int = 0  # first cycle after the last product
    steps: int = 1  # of a tile of that product
    period: int = 1  # cycles from a tile of it to the next
    qk: int = 0  # blocks whose QK has begun
    pv: int = 0  # blocks whose PV has begun, and all of layers
    layer_tiles: int = 0  # tiles of layers that have begun
    begun_rows: int = 0  # rows whose first PV, or first block of a layer, has begun
    ended_rows: int = 0  # rows whose last one has
    query_releases: int = 0  # slots of queries, keys, values that were released
    key_releases: int = 0
    value_releases: int = 0
    softmax_free: int = 0  # first cycle in which the softmax unit is free


class Block(NamedTuple):
    """Record of a block between its QK and its PV."""

    code: int = 0
    row: int = 0  # its row, see `Scheduler`
    first: int = 0
    last: int = 0
    releases: int = 0
    weighted: int = 0  # first cycle in which its weights are there
    values_there: int = 0  # first cycle in which its V is there


class Row(NamedTuple):
    """Record of a row between its scan and its output."""

    number: int = 0  # of all commands' rows
    command: int = 0
    queries: int = 0
    linear: int = 0
    told: int = -1  # with superblocks, cycle in which the outside was told that it leaves next
    complete: int = 0  # cycle in which the numerators of its first R queries are complete
    complete_step: int = 0  # cycles until those of the next R queries are


class Place(NamedTuple):
    """Record of a row in the superblock that is scanned."""

    last: int = -1  # its last live column
    begun: int = 0
    row: int = 0  # see `Scheduler`


class Output(NamedTuple):
    """Record of the reciprocal unit and the normaliser."""

    rows: int = 0  # so far
    queries: int = 0  # so far
    beats: int = 0  # so far
    linear: int = 0  # whether the last row was one of a layer
    last_sent: int = _ALWAYS  # cycle of its last beat
    slot_free: int = _ALWAYS  # first cycle in which the next row's PV has an output slot
    reciprocal_free: int = 0
    normalizer_free: int = 0
    oldest_pv: int = 0  # that may still drain
    oldest_tile: int = 0  # of a layer, likewise
    pages: int = 0  # of the layers' corner turn that were filled
    turn_read: int = _ALWAYS  # cycle of the last read of a beat from the corner turn
    offered: int = _ALWAYS  # cycle from which on the last beat of a layer was offered
    sent_before: int = _ALWAYS  # cycle of the last beat but one


class LoadState(NamedTuple):
    """Record of the loads of an operand."""

    end: int = 0  # cycle after the last beat of the last block


class Load(NamedTuple):
    """Loads of an operand."""

    operand: int
    tokens: int  # side by side in a beat
    beats: int  # for so many tokens
    group_tokens: int  # that the array takes at once
    free: np.ndarray  # int64 [slots]: first cycle in which the slots released last are free
    complete: np.ndarray  # int64 [slots]: first cycle in which their last loads are there
    arrived: np.ndarray  # int64 [groups]: cycle after the last beat of each group of the last block
    state: Any  # `LoadState`
    stalls: Any  # `Generator` of the stream
    stage: Any  # its record of `Model.stages`


class Loads(NamedTuple):
    """Loads of all operands."""

    q: Load
    k: Load
    v: Load


class PvDrains(NamedTuple):
    """Drains of the last PVs, in a ring: the tiles of each drain at equal distances."""

    first: np.ndarray  # int64: cycle of a PV's first drained words
    shift: np.ndarray  # uint8: log2 of the cycles from a tile to the next


class LayerDrains(NamedTuple):
    """Drains of the last tiles of layers, in a ring."""

    first: np.ndarray  # int64: cycle of a tile's first drained words
    odd: np.ndarray  # uint8: whether its group of tokens is odd


class Model(NamedTuple):
    """Commands that are predicted, the state of the core, and the results."""

    core: CoreTiming
    codes: np.ndarray  # uint8, of all commands
    commands: np.ndarray  # `Command`
    answer: int  # cycles from a fetch to its first beat, where players have the streams
    stalls: Any  # a `Generator` for each of `STREAMS`; cycle 0 is that of the first command
    port: MemoryPort  # the source of the streams where players are not
    scheduler: Any  # `Scheduler`
    loads: Loads
    array: Any  # `Array`
    pv_shifts: np.ndarray  # uint8 [4]: log2 of the cycles from a tile of a PV to the next, by code
    pv_drains: PvDrains
    layer_drains: LayerDrains
    blocks: np.ndarray  # `Block` [ring]
    rows: np.ndarray  # `Row` [ring], as they begin
    ended: np.ndarray  # int64 [ring]: rows as they end
    places: np.ndarray  # `Place` [query_rows]
    # int64 [ring, query_groups]: cycle in which the softmax unit begins with a group of C queries
    # in the last block of a row.
    chunk_starts: np.ndarray
    # int64 [ring, tiles]: first cycle in which the sums of each tile of a layer's row can be read.
    tiles_complete: np.ndarray
    page_free: np.ndarray  # int64: first cycle in which a page of the layers' corner turn is free
    output: Any  # `Output`
    left: np.ndarray  # int64 [block]: cycle in which the last queries left the normaliser's queue
    sent: np.ndarray  # int64 [queue]: cycle in which the last beats left, if the core is paced
    # Results.
    spans: np.ndarray  # `Span` [commands]
    row_ends: np.ndarray  # int64 [rows of all commands]: cycle of the last output
    stages: Any  # cycles of each `Stage`, by `Activity`


def new_model(
    core: CoreTiming,
    codes: np.ndarray,
    commands: np.ndarray,
    latency: int,
    stalls: Any,
    port: MemoryPort,
) -> Model:
    """Model that is before its first cycle.

    Parameters
    ----------
    core : CoreTiming
    codes : np.ndarray
        uint8, of all commands.
    commands : np.ndarray
        `Command` records.
    latency : int
        Of the memory.
    stalls : np.record
        See `sim.cycles.stall_kernel.generators`.
    port : MemoryPort
    """
    stages = np.zeros(1, _STAGES)[0]

    def load(operand: Operand, tokens: int, beats: int, group_tokens: int, slots: int) -> Load:
        name = operand.name.lower()
        return Load(
            operand=int(operand),
            tokens=tokens,
            beats=beats,
            group_tokens=group_tokens,
            free=np.full(slots, _ALWAYS),
            complete=np.full(slots, _ALWAYS),
            arrived=np.zeros(core.block // group_tokens, np.int64),
            state=new_record(LoadState()),
            stalls=stalls[name],
            stage=stages[f"load_{name}"],
        )

    tile_cycles = [max(core.block >> 3 - code, core.drain_cycles) for code in range(4)]
    # Rows under way: those in progress, those with an output slot.
    ring = _power_of_two(4 * core.row_slots)
    drains = _power_of_two(ring * int(commands["columns"].max()))
    layers = commands[commands["linear"] != 0]
    tiles = core.row_groups * core.layer_groups if len(layers) else 1
    # Rows of all output slots, and those in progress.
    rows = core.row_slots + core.query_rows
    layer_drains = _power_of_two(rows * tiles * max(layers["columns"], default=1))
    return Model(
        core=core,
        codes=codes,
        commands=commands,
        # A beat is there in the cycle after it was asked for at the earliest.
        answer=max(latency, 1),
        stalls=stalls,
        port=port,
        scheduler=new_record(Scheduler()),
        loads=Loads(
            load(Operand.Q, core.load_tokens, core.token_beats, core.cols, core.row_slots),
            load(Operand.K, core.load_tokens, core.token_beats, core.rows, core.key_slots),
            load(Operand.V, 1, core.value_beats, core.block, core.key_slots),
        ),
        array=new_record(Array(step=-core.drain_cycles)),
        pv_shifts=np.array([(cycles - 1).bit_length() for cycles in tile_cycles], np.uint8),
        pv_drains=PvDrains(np.zeros(drains, np.int64), np.zeros(drains, np.uint8)),
        layer_drains=LayerDrains(
            np.zeros(layer_drains, np.int64), np.zeros(layer_drains, np.uint8)
        ),
        blocks=new_records(Block, [Block()] * _BLOCKS),
        rows=new_records(Row, [Row()] * ring),
        ended=np.zeros(ring, np.int64),
        places=new_records(Place, [Place()] * core.query_rows),
        chunk_starts=np.zeros((ring, core.query_groups), np.int64),
        tiles_complete=np.zeros((ring, tiles), np.int64),
        page_free=np.full(PAGES, _ALWAYS),
        output=new_record(Output()),
        left=np.full(core.block, _ALWAYS),
        sent=np.full(core.queue, _ALWAYS),
        spans=new_records(Span, [Span()] * len(commands)),
        row_ends=np.empty(commands["rows"].sum(), np.int64),
        stages=stages,
    )


def _power_of_two(least: int) -> int:
    return 1 << (int(least) - 1).bit_length()


@inlined
def _stream(load, first, beats):
    """Follow a load's beats, if players have the streams, from the first one on.

    Returns the cycle after the last beat.
    """
    group_beats = load.group_tokens // load.tokens * load.beats
    if load.stalls.rate == 0:
        for group in range(len(load.arrived)):
            load.arrived[group] = first + min(beats, (group + 1) * group_beats)
        return first + beats
    group = 0
    now = first
    for beat in range(1, beats + 1):
        if beat == (group + 1) * group_beats:
            load.arrived[group] = now + 1
            group += 1
        if beat < beats:
            now = unstalled(load.stalls, now)
    load.arrived[group:] = now + 1
    return now + 1


@inlined
def _load(model, load, block, begin, tokens, wanted, free):
    """Follow a block from its fetch to its last beat.

    Parameters
    ----------
    model : Model
    load : Load
    block : int
        Of the operand; of a layer the number of the block's chunk.
    begin : int
        Position of its first token.
    tokens : int
        How many the block has.
    wanted, free : int
        When the scheduler asks for it, when it has a slot.

    Returns
    -------
    int
        Cycle in which the fetch is taken.
    """
    port, before = model.port, load.state.end
    fetch = unstalled(model.stalls.fetch, max(wanted, free) - 1)
    if port.present:
        fetch = max(fetch, port.reads.state.idle)
    offered = max(fetch + model.core.fifo, before)
    beats = ((tokens - 1) // load.tokens + 1) * load.beats
    if port.present:
        end = read_block(
            port,
            model.scheduler.command,
            load.operand,
            block,
            begin,
            tokens,
            fetch,
            load.group_tokens,
            load.arrived,
        )
    else:
        first = max(fetch + model.answer, offered, unstalled(load.stalls, before - 1))
        end = _stream(load, first, beats)
    load.state.end = end
    load.stage.busy += beats
    load.stage.starved += end - offered - beats
    model.stages.scheduler.blocked += fetch - wanted
    return fetch


@inlined
def _take_codes(model, scan, beats):
    """Follow the scheduler, in cycle ``scan``, to codes some beats further.

    Returns the scheduler's next cycle.
    """
    scheduler = model.scheduler
    for _ in range(beats):
        taken = unstalled(model.stalls.codes, scheduler.codes_taken)
        taken = max(scan, scheduler.codes_there, taken)
        model.stages.scheduler.starved += taken - scan
        scheduler.codes_taken = taken
        scan = taken + 1
    return scan


@compiled
def _next_live(codes, column, end):
    while column < end and codes[column] == 0:
        column += 1
    return column


@inlined
def _load_values(model):
    """Load V of the block whose QK has just begun."""
    scheduler, array, load = model.scheduler, model.array, model.loads.v
    number, slots = scheduler.value_loads, model.core.key_slots
    free = load.free[number % slots]
    scheduler.value_fetch = _load(
        model,
        load,
        scheduler.column,
        scheduler.column * model.core.block,
        scheduler.keys,
        scheduler.key_fetch + 1,
        free,
    )
    load.complete[number % slots] = load.state.end
    scheduler.value_loads += 1
    model.blocks[(array.qk - 1) % _BLOCKS].values_there = load.state.end
    if array.value_releases + slots > scheduler.value_loads:
        load.stage.blocked += max(0, load.free[scheduler.value_loads % slots] - load.state.end)


@inlined
def _next_command(model, idle):
    """Take the next command; ``idle`` is the first cycle in which nothing is left of the last one.

    Returns the scheduler's next cycle.
    """
    scheduler, port = model.scheduler, model.port
    if scheduler.command >= 0:
        scheduler.first_row += model.commands[scheduler.command].rows
    scheduler.command += 1
    number = scheduler.command
    if port.present:
        scheduler.command_there = read_descriptor(port, number, idle)
    start = max(idle, scheduler.command_there)
    model.spans[number].start = start
    model.stages.scheduler.starved += start - idle + 1
    following = unstalled(model.stalls.command, start)
    scheduler.command_there = max(start + model.answer, following)
    if port.present:
        scheduler.codes_there = read_codes(port, number, start)
    elif number > 0:
        scheduler.codes_there = scheduler.codes_taken + model.answer
    scheduler.code_words = 0
    scheduler.row_end = model.commands[number].codes
    scheduler.rows_left = model.commands[number].rows
    scheduler.linear = model.commands[number].linear
    return start + 1


@inlined
def _load_queries(model, row, block, begin, wanted):
    """Load a block of queries for a row; returns the cycle in which the fetch is taken."""
    scheduler, load = model.scheduler, model.loads.q
    free = load.free[scheduler.query_loads % len(load.free)]
    fetch = _load(model, load, block, begin, row.queries, wanted, free)
    scheduler.query_loads += 1
    free = load.free[scheduler.query_loads % len(load.free)]
    load.stage.blocked += max(0, free - load.state.end)
    return fetch


@inlined
def _begin_row(model, number):
    """Begin a row of the command; returns its record."""
    scheduler = model.scheduler
    scheduler.row = scheduler.rows
    scheduler.rows += 1
    row = model.rows[scheduler.row & (len(model.rows) - 1)]
    row.number = scheduler.first_row + number
    row.command = scheduler.command
    row.linear = scheduler.linear
    return row


@inlined
def _next_row(model, begin):
    """Load the queries of the next row, from a cycle on, and scan to its first live block.

    A layer's inputs are loaded with each block. Returns the scheduler's next cycle.
    """
    core, scheduler = model.core, model.scheduler
    command = model.commands[scheduler.command]
    scheduler.rows_left -= 1
    number = command.rows - scheduler.rows_left - 1
    row = _begin_row(model, number)
    fetch = begin
    if command.linear:
        row.queries = core.layer_tokens
        if scheduler.rows_left < command.key_blocks:
            row.queries = (command.query_tokens - 1) % core.layer_tokens + 1
        scheduler.row_begin = command.codes + number % command.key_blocks * command.columns
        scheduler.row_end = scheduler.row_begin + command.columns
    else:
        row.queries = core.block
        if scheduler.rows_left == 0:
            row.queries = (command.query_tokens - 1) % core.block + 1
        scheduler.row_begin = scheduler.row_end
        scheduler.row_end += command.columns
        if model.port.present:
            number += model.port.heads[scheduler.command].first_row
        fetch = _load_queries(model, row, number, number * core.block, begin)
    scheduler.following = _next_live(model.codes, scheduler.row_begin, scheduler.row_end)
    beat = (scheduler.following - scheduler.row_begin) >> core.beat_shift
    return _take_codes(model, fetch + 1, beat + 1)


@inlined
def _load_keys(model, tile, key_block, wanted):
    """Load a block of keys, of a layer a tile; returns the cycle in which the fetch is taken."""
    scheduler, load = model.scheduler, model.loads.k
    free = load.free[scheduler.key_loads % model.core.key_slots]
    begin = key_block * model.core.block
    fetch = _load(model, load, tile, begin, scheduler.keys, wanted, free)
    scheduler.key_loads += 1
    free = load.free[scheduler.key_loads % model.core.key_slots]
    load.stage.blocked += max(0, free - load.state.end)
    return fetch


@inlined
def _next_block(model, scan):
    """Find the next live block in this cycle, seek the one after it, and load the block's keys."""
    core, scheduler = model.core, model.scheduler
    begin, end = scheduler.row_begin, scheduler.row_end
    at = scheduler.following
    scheduler.code = model.codes[at]
    scheduler.column = at - begin
    scheduler.following = _next_live(model.codes, at + 1, end)
    scheduler.first = scheduler.last
    scheduler.last = scheduler.following == end
    command = model.commands[scheduler.command]
    key_block, key_blocks, number, tile = scheduler.column, end - begin, 0, scheduler.column
    if scheduler.linear:
        number = command.rows - scheduler.rows_left - 1
        key_block, key_blocks = number % command.key_blocks, command.key_blocks
    scheduler.keys = core.block
    if key_block == key_blocks - 1:
        scheduler.keys = (command.key_tokens - 1) % core.block + 1
    scanned = min(scheduler.following, end - 1)
    beats = ((scanned - begin) >> core.beat_shift) - (scheduler.column >> core.beat_shift)
    scan = _take_codes(model, scan + 1, beats)
    queries, keys = model.loads.q, model.loads.k
    wanted = scan + 1
    if scheduler.linear:
        row = model.rows[scheduler.row & (len(model.rows) - 1)]
        token_block = number // command.key_blocks
        tile = token_block * command.columns + scheduler.column
        wanted = _load_queries(model, row, tile, token_block * core.layer_tokens, wanted) + 1
        tile = key_block * command.columns + scheduler.column
    scheduler.key_fetch = _load_keys(model, tile, key_block, wanted)
    scheduler.known = scheduler.key_fetch + core.fifo
    scheduler.loaded = max(scheduler.known, keys.arrived[0] + core.begun)
    if scheduler.first or scheduler.linear:
        scheduler.loaded = max(scheduler.loaded, queries.arrived[0] + core.begun)
    if scheduler.linear:
        scheduler.value_fetch = scheduler.key_fetch  # no V is asked for


@inlined
def _schedule_from(model, scan):
    """Follow the scheduler from a cycle on to the next block."""
    scheduler = model.scheduler
    if scheduler.last:
        begin = scan + 1
        if scheduler.rows_left == 0:
            begin = _next_command(model, begin)
        scan = _next_row(model, begin)
    _next_block(model, scan)


@compiled
def _is_live(model, place, column):
    """Whether a row of the superblock has a live block in a column."""
    return model.places[place].last >= column and (
        model.codes[_code_place(model, place, column)] != 0
    )


@compiled
def _code_place(model, place, column):
    """Index of the code of a superblock's row, whose codes are those of all rows of a layer."""
    scheduler = model.scheduler
    row = 0 if scheduler.linear else place
    return scheduler.row_begin + row * model.commands[scheduler.command].columns + column


@compiled
def _next_place(model, column, place):
    """First row of the superblock, from a place on, that is live in a column; -1 for none."""
    for each in range(place, model.core.query_rows):
        if _is_live(model, each, column):
            return each
    return -1


@compiled
def _take_words(model, scan, words):
    """Follow the scheduler of superblocks, in cycle ``scan``, over some words of codes.

    Returns the scheduler's next cycle.
    """
    scheduler, port = model.scheduler, model.port
    for _ in range(words):
        there = scheduler.codes_there
        if port.present:
            there = code_word_there(port, scheduler.command, scheduler.code_words)
        taken = unstalled(model.stalls.codes, scheduler.codes_taken)
        taken = max(scan, there, taken)
        model.stages.scheduler.starved += taken - scan
        scheduler.codes_taken = taken
        scheduler.code_words += 1
        scan = taken + 1
    return scan


@compiled
def _begin_superblock(model, begin):
    """Begin the next superblock in this cycle; returns the cycle of its first scan."""
    core, scheduler = model.core, model.scheduler
    command = model.commands[scheduler.command]
    number = command.rows - scheduler.rows_left
    rows = _rows_together(model)
    scheduler.row_begin = command.codes
    if command.linear:
        scheduler.row_begin += _output_block(model, number) * command.columns
    else:
        scheduler.row_begin += number * command.columns
    for place in range(core.query_rows):
        each = model.places[place]
        each.begun = 0
        each.last = -1
        if place < rows:
            each.last = command.columns - 1
            while model.codes[_code_place(model, place, each.last)] == 0:
                each.last -= 1
    scheduler.column = -1
    scheduler.group_end = _GROUP
    return _take_words(model, begin + 1, 2 if command.linear else 1 + rows)


@compiled
def _rows_together(model):
    """Rows of the superblock that is next."""
    core, scheduler = model.core, model.scheduler
    command = model.commands[scheduler.command]
    if not command.linear:
        return min(core.query_rows, scheduler.rows_left)
    # Rows of a layer: for each superblock of tokens, for each output block, its blocks of tokens.
    token_blocks = command.rows // command.key_blocks
    done = command.rows - scheduler.rows_left
    whole = done // (core.query_rows * command.key_blocks)
    return min(core.query_rows, token_blocks - whole * core.query_rows)


@compiled
def _output_block(model, number):
    """Output block of the superblock that begins with a layer's row."""
    core = model.core
    command = model.commands[model.scheduler.command]
    within = number % (core.query_rows * command.key_blocks)
    return within // _rows_together(model)


@compiled
def _seek_column(model, scan):
    """Follow the scans from a cycle on to the next live column, or to the superblock's end.

    Returns the cycle in which the column's first row is chosen, or that of the end; the column is
    -1 then.
    """
    scheduler = model.scheduler
    command = model.commands[scheduler.command]
    rows = 1 if command.linear else _rows_of_superblock(model)
    column = scheduler.column + 1
    while True:
        until = min(scheduler.group_end, command.columns)
        while column < until and _next_place(model, column, 0) < 0:
            column += 1
        if column < until:
            scheduler.column = column
            scheduler.loads = 1
            return scan + 2
        if scheduler.group_end >= command.columns:
            scheduler.column = -1
            return scan + 1
        scan = _take_words(model, scan + 1, 1 + rows)
        scheduler.group_end += _GROUP


@compiled
def _rows_of_superblock(model):
    """Rows of the superblock in progress."""
    rows = 0
    for place in range(model.core.query_rows):
        if model.places[place].last >= 0:
            rows += 1
    return rows


@compiled
def _choose_block(model, chosen, place):
    """Follow the scheduler from the cycle in which it chooses a row of the column."""
    core, scheduler = model.core, model.scheduler
    command, each = model.commands[scheduler.command], model.places[place]
    column = scheduler.column
    scheduler.place = place
    scheduler.code = model.codes[_code_place(model, place, column)]
    scheduler.first = 1 - each.begun
    scheduler.last = each.last == column
    scheduler.releases = _next_place(model, column, place + 1) < 0
    now = chosen + 1
    number = command.rows - scheduler.rows_left + place
    token_block, key_block, key_blocks, tile = number, column, command.columns, column
    if command.linear:
        before = number - place
        together = core.query_rows * command.key_blocks
        token_block = before // together * core.query_rows + place
        key_block, key_blocks = _output_block(model, before), command.key_blocks
        tile = key_block * command.columns + column
        number = token_block * command.key_blocks + key_block
    if scheduler.first:
        each.begun = 1
        row = _begin_row(model, number)
        each.row = scheduler.row
        tokens = core.layer_tokens if command.linear else core.block
        row.queries = min(tokens, command.query_tokens - token_block * tokens)
    scheduler.row = each.row
    row = model.rows[each.row & (len(model.rows) - 1)]
    if command.linear:
        inputs = token_block * command.columns + column
        now = _load_queries(model, row, inputs, token_block * core.layer_tokens, now) + 1
    elif scheduler.first:
        queries = token_block
        if model.port.present:
            queries += model.port.heads[scheduler.command].first_row
        now = _load_queries(model, row, queries, queries * core.block, now) + 1
    scheduler.keys = core.block
    if key_block == key_blocks - 1:
        scheduler.keys = (command.key_tokens - 1) % core.block + 1
    if scheduler.loads:
        now = scheduler.key_fetch = _load_keys(model, tile, key_block, now)
    scheduler.known = now + core.fifo
    if scheduler.last:
        row.told = scheduler.known
    scheduler.following_state = now + 1
    scheduler.loaded = max(scheduler.known, model.loads.k.arrived[0] + core.begun)
    if scheduler.first or command.linear:
        scheduler.loaded = max(scheduler.loaded, model.loads.q.arrived[0] + core.begun)


@compiled
def _schedule_superblock(model):
    """Follow the scheduler of superblocks to the next block."""
    scheduler = model.scheduler
    now = scheduler.following_state
    if scheduler.command < 0:
        _begin_command(model)
        return
    if scheduler.loads and not scheduler.linear:
        _load_values(model)
        now = scheduler.value_fetch + 1
    scheduler.loads = 0
    place = _next_place(model, scheduler.column, scheduler.place + 1)
    if place < 0:
        now = _seek_column(model, now)
        if scheduler.column < 0:
            scheduler.rows_left -= _rows_of_superblock(model)
            if scheduler.rows_left == 0:
                _end_command(model, now + 1)
                return
            now = _seek_column(model, _begin_superblock(model, now + 1))
        place = _next_place(model, scheduler.column, 0)
    _choose_block(model, now, place)


@compiled
def _begin_command(model):
    """Follow the scheduler of superblocks to the first block of the next command."""
    scheduler = model.scheduler
    begin = _next_command(model, scheduler.following_state)
    now = _seek_column(model, _begin_superblock(model, begin))
    _choose_block(model, now, _next_place(model, scheduler.column, 0))


@compiled
def _end_command(model, idle):
    """Follow the scheduler of superblocks, idle from a cycle on, to the next command's block.

    A command waits if outputs that its descriptor waits for are not followed yet.
    """
    scheduler, port = model.scheduler, model.port
    scheduler.following_state = idle
    scheduler.known = scheduler.loaded = _NEVER
    following = scheduler.command + 1
    if following == len(model.commands):
        scheduler.more = 0
        model.stages.scheduler.starved -= idle
    elif port.present and port.heads[following].waits:
        scheduler.waits = 1
    else:
        scheduler.waits_for = 0
        if port.present and following > port.placed_heads:
            scheduler.waits_for = scheduler.first_row + model.commands[scheduler.command].rows
            for head in range(following - port.placed_heads, following):
                scheduler.waits_for -= model.commands[head].rows
        if scheduler.waits_for <= model.output.rows:
            scheduler.waits_for = 0
            _begin_command(model)


@compiled
def _follow_awaited(model):
    """Follow outputs that the next command waits for, until the array's next PV."""
    scheduler, array, output = model.scheduler, model.array, model.output
    until = _NEVER
    if array.pv < array.qk:
        block = model.blocks[array.pv % _BLOCKS]
        until = max(array.step, block.weighted, block.values_there)
        if block.first:
            until = max(until, output.slot_free)
    while output.rows < scheduler.waits_for:
        row = model.rows[model.ended[output.rows & (len(model.rows) - 1)] & (len(model.rows) - 1)]
        # No earlier are all its numerators read, and is the command there.
        read = output.normalizer_free
        if not row.linear:
            read = max(read, row.complete) + row.queries * model.core.parts
        if read > until:
            return
        _send_next_row(model)
    scheduler.waits_for = 0
    _begin_command(model)


@inlined
def _schedule(model):
    """Follow the scheduler to the next block: of this row, the next one, the next command."""
    if model.core.query_rows > 1:
        _schedule_superblock(model)
    else:
        _schedule_row(model)


@inlined
def _schedule_row(model):
    """Follow the scheduler of single rows to the next block."""
    scheduler = model.scheduler
    if model.array.qk > 0 and not scheduler.linear:
        _load_values(model)
    scan = scheduler.value_fetch + 1
    ended = scheduler.last and scheduler.rows_left == 0
    if ended and scheduler.command + 1 == len(model.commands):
        scheduler.more = 0
        scheduler.known = scheduler.loaded = _NEVER
        model.stages.scheduler.starved -= scan + 1
    elif ended and model.port.present and model.port.heads[scheduler.command + 1].waits:
        scheduler.waits = 1
        scheduler.known = scheduler.loaded = _NEVER
    else:
        _schedule_from(model, scan)


@inlined
def _written_memory(model, now):
    """Memory of partial outputs, 0 or 1, that is written to in this cycle, or `_NO_MEMORY`.

    Calls must ask for cycles in ascending order.
    """
    memory = _memory_of_layer(model, now)
    return memory if memory != _NO_MEMORY else _memory_of_pv(model, now)


@inlined
def _memory_of_layer(model, now):
    """Memory that a tile of a layer writes to."""
    core, drains, output = model.core, model.layer_drains, model.output
    mask = len(drains.first) - 1
    tiles = model.array.layer_tiles
    while output.oldest_tile < tiles:
        word = now - drains.first[output.oldest_tile & mask]
        if word < 0:
            return _NO_MEMORY
        if word < core.drain_cycles:
            row = word >> core.drain_shift
            part = word if core.drain_shift else drains.odd[output.oldest_tile & mask]
            return (row if core.parts == 1 else row ^ part) & 1
        output.oldest_tile += 1
    return _NO_MEMORY


@inlined
def _memory_of_pv(model, now):
    """Memory that a PV writes to."""
    core, drains, output = model.core, model.pv_drains, model.output
    mask = len(drains.first) - 1
    last_tile = core.pv_tiles - 1
    while output.oldest_pv < model.array.pv:
        place = output.oldest_pv & mask
        if now < drains.first[place] + (last_tile << drains.shift[place]) + core.drain_cycles:
            break
        output.oldest_pv += 1
    if output.oldest_pv == model.array.pv:
        return _NO_MEMORY
    place = output.oldest_pv & mask
    since, shift = now - drains.first[place], drains.shift[place]
    if since < 0:
        return _NO_MEMORY
    tile = since >> shift
    word = since - (tile << shift)
    if word >= core.drain_cycles:
        return _NO_MEMORY
    row = word >> core.drain_shift
    part = word if core.drain_shift else tile
    return (row if core.parts == 1 else row ^ part) & 1


@inlined
def _send_beat(model, head, beat, offered):
    """Follow a beat of the output, of all the model's beats, from the cycle in which it is read."""
    core, sent = model.core, model.sent
    offered = max(offered, sent[(beat - 1) % core.queue] + 1)
    sent[beat % core.queue] = _leave(model, head, offered)


@inlined
def _leave(model, head, offered):
    """Cycle in which a beat of a command leaves that is offered from this cycle on."""
    if model.port.present:
        leaves = write_beat(model.port, head, offered)
    else:
        leaves = unstalled(model.stalls.o, offered - 1)
    model.stages.output.blocked += leaves - offered
    return leaves


@inlined
def _read_query(model, head, query, now):
    """Follow the reads of a query's numerators from this cycle on; returns the one after them."""
    core, output = model.core, model.output
    for part in range(core.parts):
        beat = output.queries * core.parts + part
        if core.paced:
            # There is room for the beat.
            now = max(now, model.sent[beat % core.queue] + 1)
        # A memory that takes partial outputs in this cycle cannot be read.
        memory = (query if core.parts == 1 else query ^ part) & 1
        while _written_memory(model, now) == memory:
            now += 1
        if core.paced:
            _send_beat(model, head, beat, now + core.output)
        now += 1
    return now


@compiled
def _send_row(model, row, chunk_starts):
    """Follow a row from its denominators to its last output.

    Parameters
    ----------
    model : Model
    row : np.record
        `Row`.
    chunk_starts : np.ndarray
        For each group of C queries, when the softmax unit began with it in the row's last block.

    Returns
    -------
    int
        Cycle of the row's last beat.
    """
    core, output = model.core, model.output
    complete, free = row.complete, output.normalizer_free
    if output.linear:
        free = max(free, output.last_sent + 1)
    reciprocal = output.reciprocal_free
    for query in range(core.block):
        if query & (core.softmax_lanes - 1) == 0:
            chunk = (query & (core.cols - 1)) // core.softmax_lanes
            last_key = chunk_starts[query // core.cols] + (chunk + 1) * core.block - 1
            reciprocal = max(reciprocal, last_key + core.denominators)
        if query & (core.reciprocal_lanes - 1) == 0:
            reciprocal += core.reciprocal
        if query < row.queries:
            # The queue holds as many queries as a block.
            place = output.queries & (core.block - 1)
            reciprocal = max(reciprocal, model.left[place] + 1)
            if query & (core.rows - 1) == 0 and query > 0:
                complete += row.complete_step
            start = max(free, reciprocal + core.fifo, complete)
            free = _read_query(model, row.command, query, start)
            model.left[place] = free - 1
            output.queries += 1
        reciprocal += 1
    output.reciprocal_free = reciprocal
    output.normalizer_free = free
    output.beats += row.queries * core.parts
    output.linear = 0
    output.last_sent = free - 1 + core.output
    if core.paced:
        output.last_sent = model.sent[(output.queries * core.parts - 1) % core.queue]
    return output.last_sent


@inlined
def _turn_beats(model, head, ready, beats):
    """Follow beats of a layer out of the corner turn, whose words are there from a cycle on.

    Reads of the corner turn and beats that were read move on together, `BEAT_LATENCY` = 2 of them
    at once, unless a beat is offered and does not leave. Returns the cycle of the last read.
    """
    core, output = model.core, model.output
    read = ready
    for _ in range(beats):
        read = max(read, output.turn_read + 1, output.sent_before)
        if output.offered <= read:
            read = max(read, output.last_sent)
        output.offered = max(read + 1, output.last_sent) + 1
        output.sent_before = output.last_sent
        output.last_sent = output.offered
        if core.paced:
            output.last_sent = _leave(model, head, output.offered)
        output.turn_read = read
    return read


@compiled
def _send_layer_row(model, row, complete):
    """Follow a row of a layer from its sums to its last output.

    Parameters
    ----------
    model : Model
    row : np.record
        `Row`.
    complete : np.ndarray
        For each tile of the row, the first cycle in which its sums can be read.

    Returns
    -------
    int
        Cycle of the row's last beat.
    """
    core, output = model.core, model.output
    now = output.normalizer_free
    if not output.linear:
        now = max(now, output.last_sent + 1)
    for part in range((row.queries - 1) // core.words + 1):
        group = part * core.words // core.cols
        page = output.pages % PAGES
        now = max(now, model.page_free[page])
        for channel in range(core.block):
            now = max(now, complete[group * core.row_groups + channel // core.rows])
            turn = channel >> core.swapped
            memory = (turn if core.parts == 1 else turn ^ part) & 1
            while _written_memory(model, now) == memory:
                now += 1
            now += 1
        tokens = min(core.words, row.queries - part * core.words)
        beats = tokens * (core.block // core.words)
        last = _turn_beats(model, row.command, now - 1 + core.layer_output, beats)
        model.page_free[page] = last + 1
        output.pages += 1
        output.beats += beats
    output.normalizer_free = now
    output.linear = 1
    return output.last_sent


@compiled
def _send_next_row(model):
    """Follow the row that leaves the core next to its last output."""
    output, port = model.output, model.port
    mask = len(model.rows) - 1
    place = model.ended[output.rows & mask] & mask
    row = model.rows[place]
    if port.present:
        port.writes.state.told = row.told
    if row.linear:
        end = _send_layer_row(model, row, model.tiles_complete[place])
    else:
        end = _send_row(model, row, model.chunk_starts[place])
    if port.present:
        end = port.writes.state.answer_taken + 1
    model.row_ends[row.number] = end
    model.spans[row.command].end = end
    output.slot_free = output.normalizer_free
    output.rows += 1


@inlined
def _send_due_rows(model):
    """Follow the rows that must have left the core before the array's next product.

    A row's first PV needs the output slot of the row before the last one. At the end, all rows are
    due.
    """
    array, output, scheduler = model.array, model.output, model.scheduler
    due = 0
    if array.pv < array.qk:
        if model.blocks[array.pv % _BLOCKS].first:
            due = array.begun_rows + 1 - model.core.row_slots
    elif not scheduler.more:
        due = len(model.row_ends)
    elif scheduler.waits:
        due = array.ended_rows
    elif scheduler.linear and scheduler.first:
        due = array.begun_rows + 1 - model.core.row_slots
    while output.rows < due:
        _send_next_row(model)


@inlined
def _count_wait(model, now, known, loaded, values_loaded, room):
    """Count the array's wait until this cycle, in which it has a choice, by its reason.

    It waits for a QK from when the sequencer knows of it (``known``), for a PV until then.
    """
    idle, qk, pv = model.array.idle, model.stages.qk, model.stages.pv
    known = max(known, idle)
    qk.starved += max(0, min(now + 1, loaded) - known)
    until = min(now + 1, known)
    pv.starved += max(0, min(until, values_loaded) - idle)
    pv.blocked += max(0, min(until, room) - max(idle, values_loaded))


@inlined
def _choose(model):
    """Follow the array to the sequencer's next choice.

    Returns the operation that it chooses and the cycle in which it does.
    """
    scheduler, array = model.scheduler, model.array
    known = loaded = values_loaded = _NEVER
    room = _ALWAYS
    lead = array.qk - array.pv
    if scheduler.more and (lead == 0 if scheduler.linear else lead < SLOTS):
        known, loaded = scheduler.known, scheduler.loaded
        if scheduler.linear and scheduler.first:
            known = max(known, model.output.slot_free)
            loaded = max(loaded, known)
    if array.pv < array.qk:
        block = model.blocks[array.pv % _BLOCKS]
        values_loaded = max(block.weighted, block.values_there)
        if block.first:
            room = model.output.slot_free
    now = max(array.step, min(loaded, max(values_loaded, room)))
    if now > array.step:
        _count_wait(model, now, known, loaded, values_loaded, room)
    return (Operation.QK if loaded <= now else Operation.PV), now


@inlined
def _multiply_loaded(model, now):
    """Follow the tiles of a QK whose operands are there: they follow at equal distances."""
    core, array = model.core, model.array
    tiles = core.row_groups * core.query_groups
    first = max(now + array.steps, array.step + core.drain_cycles)
    array.step = first + (tiles - 1) * array.period
    model.stages.qk.blocked += array.step - now - tiles * array.steps
    arrives = array.step + core.drained + core.logits
    first_arrives = arrives - (core.query_groups - 1) * core.row_groups * array.period
    array.softmax_free = max(
        max(array.softmax_free, first_arrives) + core.query_groups * core.softmax_cycles,
        arrives + core.softmax_cycles,
    )


@inlined
def _multiply_loading(model, now, chunk_starts):
    """Follow the tiles of a QK each of which waits for its operands.

    ``chunk_starts`` receives when the softmax unit begins with each group of C queries.
    """
    core, array, queries, keys = model.core, model.array, model.loads.q, model.loads.k
    steps, period, step, softmax = array.steps, array.period, array.step, array.softmax_free
    begin = now + 1
    for group in range(core.query_groups):
        # The tiles of C queries.
        ready = queries.arrived[group]
        tiles = core.row_groups
        while tiles > 0:
            at_once = tiles
            if group == 0 and keys.state.end > begin:
                # Key groups come one by one.
                at_once = 1
                ready = max(ready, keys.arrived[core.row_groups - tiles])
            ready = max(ready, begin)
            end_step = max(ready + steps - 1, step + core.drain_cycles)
            step = end_step + (at_once - 1) * period
            model.stages.qk.starved += ready - begin
            model.stages.qk.blocked += step + 1 - ready - at_once * steps
            begin = step + 1
            tiles -= at_once
        # The softmax unit takes the group when it is complete.
        chunk_starts[group] = max(softmax, step + core.drained + core.logits)
        softmax = chunk_starts[group] + core.softmax_cycles
    array.step = step
    array.softmax_free = softmax


@inlined
def _release_keys(model):
    """Release the keys of a block once it has drained, and queries that no other block needs."""
    core, scheduler, array = model.core, model.scheduler, model.array
    released = array.step + core.drained + core.key_release + 1
    if scheduler.releases:
        model.loads.k.free[array.key_releases % model.core.key_slots] = released
        array.key_releases += 1
    if scheduler.last or scheduler.linear:
        free = model.loads.q.free
        free[array.query_releases % len(free)] = released
        array.query_releases += 1


@inlined
def _end_row(model, row):
    """Note that a row's last PV, or last block of a layer, has begun."""
    array = model.array
    model.ended[array.ended_rows & (len(model.rows) - 1)] = row
    array.ended_rows += 1


@inlined
def _multiply_layer(model, now):
    """Follow a block of a layer, chosen in this cycle, whose tiles wait for their operands."""
    core, scheduler, array, drains = model.core, model.scheduler, model.array, model.layer_drains
    queries, keys = model.loads.q, model.loads.k
    steps = core.head_dim >> (3 - scheduler.code)
    array.steps = steps
    array.period = max(steps, core.drain_cycles)
    stage = model.stages.qk
    stage.busy += core.row_groups * core.layer_groups * steps
    complete = model.tiles_complete[scheduler.row & (len(model.rows) - 1)]
    mask = len(drains.first) - 1
    step, begin, tile = array.step, now + 1, 0
    for group in range(core.layer_groups):
        for row_group in range(core.row_groups):
            ready = max(begin, queries.arrived[group], keys.arrived[row_group])
            step = max(ready + steps - 1, step + core.drain_cycles)
            stage.starved += ready - begin
            stage.blocked += step + 1 - ready - steps
            begin = step + 1
            place = array.layer_tiles & mask
            drains.first[place] = step + core.drain
            drains.odd[place] = group & 1
            array.layer_tiles += 1
            complete[tile] = step + core.drained + core.groups + 1
            tile += 1
    array.step = step
    _release_keys(model)
    array.begun_rows += scheduler.first
    if scheduler.last:
        _end_row(model, scheduler.row)
    array.qk += 1
    array.pv += 1


@inlined
def _multiply_keys(model, now):
    """Follow a QK, chosen in this cycle, and its groups of C queries into the softmax unit."""
    core, scheduler, array = model.core, model.scheduler, model.array
    queries, keys = model.loads.q, model.loads.k
    array.steps = core.head_dim >> (3 - scheduler.code)
    array.period = max(array.steps, core.drain_cycles)
    model.stages.qk.busy += core.row_groups * core.query_groups * array.steps
    model.stages.softmax.busy += core.query_groups * core.softmax_cycles
    if max(queries.state.end, keys.state.end) <= now + 1 and not scheduler.last:
        _multiply_loaded(model, now)
    else:
        _multiply_loading(model, now, model.chunk_starts[scheduler.row & (len(model.rows) - 1)])
    _release_keys(model)
    block = model.blocks[array.qk % _BLOCKS]
    block.code = scheduler.code
    block.row = scheduler.row
    block.first = scheduler.first
    block.last = scheduler.last
    block.releases = scheduler.releases
    block.values_there = model.loads.v.state.end
    block.weighted = array.softmax_free - 1 + core.weights
    array.qk += 1


@inlined
def _multiply_values(model, now):
    """Follow a PV, chosen in this cycle."""
    core, array, load, drains = model.core, model.array, model.loads.v, model.pv_drains
    block = model.blocks[array.pv % _BLOCKS]
    shift = model.pv_shifts[block.code]
    array.steps = core.block >> (3 - block.code)
    array.period = 1 << shift
    first = max(now + array.steps, array.step + core.drain_cycles)
    array.step = first + (core.pv_tiles - 1) * array.period
    model.stages.pv.busy += core.pv_tiles * array.steps
    model.stages.pv.blocked += array.step - now - core.pv_tiles * array.steps
    place = array.pv & (len(drains.first) - 1)
    drains.first[place] = first + core.drain
    drains.shift[place] = shift
    if block.releases:
        free = array.step + core.value_release + 1
        slots = model.core.key_slots
        load.free[array.value_releases % slots] = free
        if array.value_releases + slots <= model.scheduler.value_loads:
            # The load before the one that waits for this slot has been made already.
            last = load.complete[(array.value_releases - 1) % slots]
            load.stage.blocked += max(0, free - last)
        array.value_releases += 1
    array.begun_rows += block.first
    if block.last:
        row = model.rows[block.row & (len(model.rows) - 1)]
        row.complete_step = core.channel_groups * array.period
        first_group = first + row.complete_step - array.period
        row.complete = first_group + core.drained + core.groups + 1
        _end_row(model, block.row)
    array.pv += 1


@compiled
def _count_rest(model):
    """Complete the counts when all is done."""
    core, array, stages = model.core, model.array, model.stages
    total, step = model.spans[-1].end, array.step
    # The array may still work for queries, or tokens of a layer, that are none.
    stage, tiles = stages.pv, core.pv_tiles
    if model.output.linear:
        stage, tiles = stages.qk, core.row_groups * core.layer_groups
    for _ in range(tiles):
        after = min(step + 1 - total, array.period)
        if after > 0:
            blocked = min(after - 1, array.period - array.steps)
            stage.busy -= after - blocked
            stage.blocked -= blocked
            step -= array.period
    stages.pv.starved += max(0, total - array.idle)
    stages.scheduler.starved += total
    stages.scheduler.busy = total - stages.scheduler.starved - stages.scheduler.blocked
    stages.softmax.starved = total - stages.softmax.busy
    stages.output.busy = model.output.beats - 1
    stages.output.starved = total - stages.output.busy - stages.output.blocked


@compiled
def predict_cycles(model):
    """Follow all commands of a new model, block by block, which leaves the results in it."""
    array = model.array
    operation = Operation.QK
    while True:
        if operation == Operation.QK:
            # The array has taken a block, or is at the start.
            _schedule(model)
        _send_due_rows(model)
        if array.pv == array.qk and model.scheduler.waits:
            model.scheduler.waits = 0
            if model.core.query_rows > 1:
                _begin_command(model)
            else:
                _schedule_from(model, model.scheduler.value_fetch + 1)
        if model.scheduler.waits_for > 0:
            _follow_awaited(model)
        if array.pv == array.qk and not model.scheduler.more:
            break
        operation, now = _choose(model)
        if operation == Operation.QK and model.scheduler.linear:
            _multiply_layer(model, now)
        elif operation == Operation.QK:
            _multiply_keys(model, now)
        else:
            _multiply_values(model, now)
        array.idle = array.step + 1
    _count_rest(model)
