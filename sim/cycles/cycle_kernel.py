"""The cycle model's events, compiled: fetches, products, reads and rows of all cores, in order.

Latencies of the RTL are arguments. Imported constants are frozen in the machine code, which
`sim.cycles.compilation` keeps until this file or a module that it imports changes.

An event is followed when no other can come before it: a fetch (of a cluster by all cores that take
the block), a product of a core's array, reads of a core's output, a row that leaves a cluster. What
follows from it, however late, is known then: a block from its fetch to its last beat, a product to
its last step, a beat of the output to the answer of its burst.
"""

from typing import Any, NamedTuple

import numpy as np

from paro.config.formats import Operand
from sim.cycles.array_kernel import find_choice, multiply
from sim.cycles.core_records import Cores, Wait, core_of
from sim.cycles.output_kernel import follow_reads, leave, leaving_row, next_beat
from sim.cycles.port_kernel import (
    NEVER,
    MemoryPort,
    begins_when,
    follow_runs,
    outputs_begin,
    queue_row,
    read_block,
    read_codes,
    read_descriptor,
    write_beat,
)
from sim.cycles.records import compiled, new_record, new_records
from sim.cycles.scheduler_kernel import (
    begin_command,
    count_full,
    fetched,
    load_of,
    offer_fetch,
)
from sim.cycles.stall_kernel import unstalled

__all__ = ["Model", "new_model", "predict_cycles"]


class Span(NamedTuple):
    """Record of the cycles of a command."""

    start: int = 0  # in which the command is taken
    end: int = 0  # of its last output


class Engine(NamedTuple):
    """Record of what the cores share, and of the events that are next."""

    command: int = -1  # the last one that began
    # Fetches.
    fetch: int = NEVER  # cycle in which the next one is accepted, as far as is known
    fetch_core: int = -1  # that asks for Q; -1: it is one of K or V
    fetch_free: int = 0  # cycle from which on a cluster accepts another one
    # Rows that leave.
    row: int = NEVER  # cycle in which the next one of a cluster is chosen, as far as is known
    row_core: int = 0  # whose it is
    head: int = 0  # whose rows leave
    wave: int = 0  # of the head
    wave_rows: int = 0  # of the wave that were chosen
    chosen: int = 0  # rows so far
    turns: int = 0  # rows that could begin to leave
    left: int = 0  # rows that have left
    chosen_core: int = 0  # whose row was chosen last
    turn_core: int = 0  # whose row leaves
    turn: int = 0  # cycle from which on it does
    end: int = -1  # cycle of the last beat of the row before


class Model(NamedTuple):
    """Commands that are predicted, the state of cores and port, and the results."""

    cores: Cores
    port: MemoryPort  # the source of the streams where players are not
    engine: Any  # `Engine`
    # Results; also the cores' stages.
    spans: np.ndarray  # `Span` [commands]
    row_ends: np.ndarray  # int64 [rows of all commands]: cycle of the last output


def new_model(cores: Cores, port: MemoryPort, rows: int) -> Model:
    """Model that is before its first cycle; its commands have so many rows together."""
    return Model(
        cores=cores,
        port=port,
        engine=new_record(Engine()),
        spans=new_records(Span, [Span()] * cores.commands.shape[1]),
        row_ends=np.zeros(rows, np.int64),
    )


@compiled
def _begin_commands(model):
    """Begin the next command in all cores that have a share of it, once it is known when."""
    cores, port, engine = model.cores, model.port, model.engine
    number, idle = engine.command + 1, 0
    if number == len(model.spans):
        return
    for scheduler in cores.scheduler:
        if scheduler.waits != Wait.COMMAND:
            return
        idle = max(idle, scheduler.idle)
    if port.present:
        before = begins_when(port, number)
        if before >= 0 and port.heads[before].rows_left > 0:
            return
        start = max(idle, read_descriptor(port, number, idle))
    else:
        start = max(idle, cores.scheduler[0].command_there)
    engine.command = number
    model.spans[number].start = start
    for index in range(len(cores.scheduler)):
        if cores.commands[index, number].rows > 0:
            core = core_of(cores, index)
            if port.present:
                core.scheduler.code_units = read_codes(port, number, index, start, core.code_units)
            begin_command(core, number, start)


@compiled
def _find_fetch(model):
    """Find the next fetch: of a cluster one of Q, else one of K or V that no core is behind of."""
    engine, schedulers = model.engine, model.cores.scheduler
    queries = keys = NEVER
    latest = engine.fetch_free
    known = True
    for scheduler in schedulers:
        if scheduler.waits == Operand.Q:
            queries = min(queries, scheduler.offer)
            known = False
        elif scheduler.waits == Wait.COMMAND:
            latest = max(latest, scheduler.idle)
        else:
            latest = max(latest, scheduler.offer)
            keys = min(keys, scheduler.offer)
    engine.fetch = NEVER
    if queries < NEVER:
        engine.fetch = max(engine.fetch_free, queries)
        engine.fetch_core = 0
        while (
            schedulers[engine.fetch_core].waits != Operand.Q
            or schedulers[engine.fetch_core].offer > engine.fetch
        ):
            engine.fetch_core += 1
    elif known and keys < NEVER:
        engine.fetch = latest
        engine.fetch_core = -1
    if len(schedulers) == 1 and model.port.present:
        engine.fetch = max(engine.fetch, model.port.reads.state.idle)


@compiled
def _take_fetch(model):
    """Follow the next fetch to all cores that take the block."""
    cores, port, engine = model.cores, model.port, model.engine
    fetch = asked = engine.fetch
    if len(cores.scheduler) > 1:
        # Merged fetches wait for the address generator in a register.
        asked = fetch + 1
        if port.present:
            asked = max(asked, port.reads.state.idle)
        engine.fetch_free = asked
    if engine.fetch_core >= 0:
        core = core_of(cores, engine.fetch_core)
        _load(model, core, core, fetch, asked)
        return
    order = NEVER
    for scheduler in cores.scheduler:
        if scheduler.waits != Wait.COMMAND:
            order = min(order, scheduler.fetch_order)
    first = -1
    for index in range(len(cores.scheduler)):
        scheduler = cores.scheduler[index]
        if scheduler.waits != Wait.COMMAND and scheduler.fetch_order == order:
            if first < 0:
                first = index
            _load(model, core_of(cores, index), core_of(cores, first), fetch, asked)


@compiled
def _load(model, core, first, fetch, asked):
    """Load the block that a core waits for.

    Parameters
    ----------
    model : Model
    core, first : Core
        The first of those that take the block has it from memory, the others from that one.
    fetch, asked : int
        Cycles in which the fetch is accepted, and the memory port asked for the block.
    """
    scheduler, timing = core.scheduler, core.timing
    load = load_of(core, scheduler.waits)
    state, number = load.state, load.state.loads
    place = number % len(load.complete)
    arrived = load.arrived[place]
    before = state.end
    offered = max(fetch + timing.fifo, before)
    beats = ((scheduler.fetch_tokens - 1) // state.tokens + 1) * state.beats
    if not model.port.present:
        start = max(asked + timing.answer, offered, unstalled(load.stalls, before - 1))
        end = _stream(load, arrived, start, beats)
    elif first.scheduler.core == scheduler.core:
        end = _read_block(model.port, core, state, asked, arrived)
    else:
        given = load_of(first, scheduler.waits)
        last = (given.state.loads - 1) % len(given.complete)
        end = given.complete[last]
        for group in range(len(arrived)):
            arrived[group] = given.arrived[last, group]
    load.complete[place] = end
    state.end = end
    state.loads += 1
    load.stage.busy += beats
    load.stage.starved += end - offered - beats
    core.stages.scheduler.blocked += fetch - scheduler.wanted
    count_full(load, number)
    fetched(core, fetch)
    find_choice(core)


@compiled
def _stream(load, arrived, first, beats):
    """Follow a load's beats, if players have the streams, from the first one on.

    Returns the cycle after the last beat.
    """
    group_beats = load.state.group_tokens // load.state.tokens * load.state.beats
    if load.stalls.rate == 0:
        for group in range(len(arrived)):
            arrived[group] = first + min(beats, (group + 1) * group_beats)
        return first + beats
    group = 0
    now = first
    for beat in range(1, beats + 1):
        if beat == (group + 1) * group_beats:
            arrived[group] = now + 1
            group += 1
        if beat < beats:
            now = unstalled(load.stalls, now)
    arrived[group:] = now + 1
    return now + 1


@compiled
def _read_block(port, core, load, asked, arrived):
    """Read the block that a core waits for; returns the cycle after its last beat."""
    scheduler = core.scheduler
    block, begin = scheduler.fetch_block, scheduler.fetch_begin
    if scheduler.waits == Operand.Q and not scheduler.linear:
        # The core counts from the first row that is computed.
        skipped = port.heads[scheduler.command].first_row
        block += skipped
        begin += skipped * core.timing.block
    return read_block(
        port,
        scheduler.command,
        scheduler.waits,
        block,
        begin,
        scheduler.fetch_tokens,
        asked,
        load.group_tokens,
        arrived,
    )


@compiled
def _find_row(model):
    """Find the row that leaves a cluster next: of the wave in progress, the first that is there."""
    cores, port, engine = model.cores, model.port, model.engine
    engine.row = NEVER
    alone = len(cores.output) == 1 or not port.present
    if alone or engine.turns < engine.chosen or engine.head == len(model.spans):
        return
    begin = engine.turn
    if engine.wave == 0 and engine.wave_rows == 0:
        begin = max(begin, outputs_begin(port, engine.head))
    for chooses in range(2):
        for index in range(len(cores.output)):
            there = _row_there(model, index)
            if not chooses:
                engine.row = min(engine.row, there)
            elif there <= engine.row:
                engine.row_core = index
                return
        if engine.row == NEVER or begin == NEVER:
            engine.row = NEVER
            return
        engine.row = max(engine.row, begin)


@compiled
def _row_there(model, index):
    """Cycle from which on a core's row of the wave in progress may leave, or `NEVER`."""
    engine, core = model.engine, core_of(model.cores, index)
    beat = next_beat(core)
    if beat == NEVER or core.output.chosen:
        return NEVER
    row = leaving_row(core)
    if row.command != engine.head or row.wave != engine.wave:
        return NEVER
    return max(beat, row.told)


@compiled
def _choose_row(model):
    """Follow the choice of the row that leaves next."""
    cores, port, engine = model.cores, model.port, model.engine
    index = engine.row_core
    row = leaving_row(core_of(cores, index))
    queue_row(port, engine.head, row.number, engine.row + 1)
    cores.output[index].chosen = 1
    engine.chosen_core = index
    engine.chosen += 1
    # Of a layer, each output block of a wave of tokens is a wave.
    parts = cores.commands[index, engine.head].key_blocks
    whole = cores.timing.cores * cores.timing.query_rows
    left = port.heads[engine.head].rows // parts - engine.wave // parts * whole
    engine.wave_rows += 1
    if engine.wave_rows == min(whole, left):
        engine.wave_rows = 0
        engine.wave += 1
        if left <= whole and engine.wave % parts == 0:
            engine.wave = 0
            engine.head += 1


@compiled
def _give_turn(model):
    """Let the row that was chosen leave, once the one before has; returns whether a row leaves."""
    engine, writes = model.engine, model.port.writes
    follow_runs(model.port)
    if engine.left == engine.turns and engine.turns < engine.chosen:
        taken = writes.queued[engine.turns % len(writes.queued)].taken
        if taken < NEVER:
            engine.turn = max(taken + model.port.fifo, engine.end + 1)
            engine.turn_core = engine.chosen_core
            engine.turns += 1
    return engine.left < engine.turns


@compiled
def _end_row(model, core, row):
    """Note that the last beat of a row has left."""
    end = core.output.last_sent
    if model.port.present:
        end = model.port.writes.state.answer_taken + 1
        model.port.heads[row.command].rows_left -= 1
    model.row_ends[core.commands[row.command].first + row.number] = end
    model.spans[row.command].end = max(model.spans[row.command].end, end)


@compiled
def _send(model, core, begin):
    """Let beats of a core's next row leave from a cycle on; returns whether the row has left."""
    while True:
        offered = next_beat(core)
        if offered == NEVER:
            return False
        row = leaving_row(core)
        leaves = max(offered, begin)
        if model.port.present:
            leaves = write_beat(model.port, row.command, leaves)
        elif core.timing.paced:
            leaves = unstalled(core.stalls.o, leaves - 1)
        if leave(core, leaves):
            _end_row(model, core, row)
            return True


@compiled
def _send_rows(model, core):
    """Let beats of a core that no other keeps waiting leave; returns whether any does."""
    engine, output, before = model.engine, core.output, core.output.last_sent
    while output.rows_left < output.rows + output.active:
        row = leaving_row(core)
        if core.timing.paced or row.linear:
            if model.port.present and engine.chosen == output.rows_left:
                queue_row(model.port, row.command, row.number, row.told)
                engine.chosen += 1
            if not _send(model, core, 0):
                break
        elif output.rows_left < output.rows:
            output.last_sent = row.sent
            output.rows_left += 1
            _end_row(model, core, row)
        else:
            break
    return output.last_sent > before


@compiled
def _send_merged_rows(model):
    """Let beats of a cluster leave as far as they are known; returns whether any does."""
    engine, moved = model.engine, False
    while _give_turn(model):
        core = core_of(model.cores, engine.turn_core)
        before = core.output.last_sent
        ended = _send(model, core, engine.turn)
        moved = moved or core.output.last_sent > before
        if not ended:
            break
        core.output.chosen = 0
        engine.end = core.output.last_sent
        engine.left += 1
    return moved


@compiled
def _follow_outputs(model, time):
    """Follow reads and beats of all cores as far as they are known in this cycle."""
    cores, moved = model.cores, True
    while moved:
        for index in range(len(cores.output)):
            if cores.output[index].read == NEVER:
                follow_reads(core_of(cores, index), time)
        if len(cores.output) > 1 and model.port.present:
            moved = _send_merged_rows(model)
            continue
        moved = False
        for index in range(len(cores.output)):
            sends = _send_rows(model, core_of(cores, index))
            moved = moved or sends
    for index in range(len(cores.output)):
        find_choice(core_of(cores, index))


@compiled
def _follow_product(model, index):
    """Follow the next product of a core."""
    core = core_of(model.cores, index)
    time, ended = core.array.choice, core.array.ended_rows
    multiply(core)
    find_choice(core)
    if core.scheduler.waits != Wait.COMMAND and core.scheduler.offer == NEVER:
        offer_fetch(core)
    if core.array.ended_rows > ended and core.output.read == NEVER:
        _follow_outputs(model, time)


@compiled
def _count_rest(core, total, alone):
    """Complete the counts of a core when all is done."""
    timing, array, stages, output = core.timing, core.array, core.stages, core.output
    step = array.step
    # The array may still work for queries, or tokens of a layer, that are none.
    stage, tiles = stages.pv, timing.pv_tiles
    if output.linear:
        stage, tiles = stages.qk, timing.row_groups * timing.layer_groups
    for _ in range(tiles):
        after = min(step + 1 - total, array.period)
        if after > 0:
            blocked = min(after - 1, array.period - array.steps)
            stage.busy -= after - blocked
            stage.blocked -= blocked
            step -= array.period
    stages.pv.starved += max(0, total - array.idle)
    stages.scheduler.starved += total - core.scheduler.idle
    stages.scheduler.busy = total - stages.scheduler.starved - stages.scheduler.blocked
    stages.softmax.starved = total - stages.softmax.busy
    # Alone, the count ends with the last beat.
    stages.output.busy = output.beats - alone
    stages.output.starved = total - stages.output.busy - stages.output.blocked


@compiled
def _first_product(cores):
    """Core whose array makes the next choice."""
    first = 0
    for index in range(1, len(cores.array)):
        if cores.array[index].choice < cores.array[first].choice:
            first = index
    return first


@compiled
def _first_read(cores):
    """Core whose output reads next."""
    first = 0
    for index in range(1, len(cores.output)):
        if cores.output[index].read < cores.output[first].read:
            first = index
    return first


@compiled
def predict_cycles(model):
    """Follow all commands of a new model, event by event, which leaves the results in it."""
    cores, engine = model.cores, model.engine
    while True:
        _begin_commands(model)
        _find_fetch(model)
        _find_row(model)
        product, read = _first_product(cores), _first_read(cores)
        choice, reads = cores.array[product].choice, cores.output[read].read
        shared = min(engine.fetch, engine.row)
        if min(choice, reads, shared) == NEVER:
            break
        if choice < min(reads, shared):
            _follow_product(model, product)
        elif reads < shared:
            follow_reads(core_of(cores, read), reads)
            _follow_outputs(model, reads)
        elif engine.row <= engine.fetch:
            _choose_row(model)
            _follow_outputs(model, shared)
        else:
            _take_fetch(model)
    for index in range(len(cores.scheduler)):
        _count_rest(core_of(cores, index), model.spans[-1].end, len(cores.scheduler) == 1)
