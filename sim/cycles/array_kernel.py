"""A core's array and softmax unit in the cycle model, compiled: choice by choice."""

from paro.config.formats import Operation
from rtl.core.blocks import SLOTS
from sim.cycles.core_records import ALWAYS
from sim.cycles.port_kernel import NEVER
from sim.cycles.records import compiled
from sim.cycles.scheduler_kernel import count_full

__all__ = ["find_choice", "multiply"]


@compiled
def _slot_free(core):
    """First cycle in which the next row's first product has an output slot, if it is known."""
    array, output, slots = core.array, core.output, len(core.slot_free)
    released = array.begun_rows - slots  # number of the row that had the slot before
    if released >= output.rows:
        return NEVER
    return core.slot_free[released % slots] if released >= 0 else ALWAYS


@compiled
def _next_times(core):
    """When the sequencer knows of the next QK, and may begin it; when V is there, and room for PV.

    `NEVER`: there is none, or it is not known yet.
    """
    array, loads = core.array, core.loads
    known = loaded = values_loaded = NEVER
    room = ALWAYS
    if array.qk < core.scheduler.issued:
        block = core.blocks[array.qk & (len(core.blocks) - 1)]
        lead = array.qk - array.pv
        if lead == 0 or (not block.linear and lead < SLOTS):
            known, loaded = block.known, block.loaded
            if block.linear and block.first:
                known = max(known, _slot_free(core))
                loaded = max(loaded, known)
    if array.pv < array.qk:
        block = core.blocks[array.pv & (len(core.blocks) - 1)]
        if block.values < loads.v.state.loads:
            there = loads.v.complete[block.values % len(loads.v.complete)]
            values_loaded = max(block.weighted, there)
        if block.first:
            room = _slot_free(core)
    return known, loaded, values_loaded, room


@compiled
def find_choice(core):
    """Find the sequencer's next choice: the QK or the PV that may begin first."""
    array = core.array
    _, loaded, values_loaded, room = _next_times(core)
    array.choice = max(array.step, min(loaded, max(values_loaded, room)))
    array.operation = Operation.QK if loaded <= array.choice else Operation.PV


@compiled
def multiply(core):
    """Follow the product that the sequencer chooses next."""
    array, stages, now = core.array, core.stages, core.array.choice
    if now > array.step:
        # The array waits for a QK from when the sequencer knows of it, for a PV until then.
        known, loaded, values_loaded, room = _next_times(core)
        known = max(known, array.idle)
        stages.qk.starved += max(0, min(now + 1, loaded) - known)
        until = min(now + 1, known)
        stages.pv.starved += max(0, min(until, values_loaded) - array.idle)
        stages.pv.blocked += max(0, min(until, room) - max(array.idle, values_loaded))
    if array.operation == Operation.PV:
        _multiply_values(core, now)
    else:
        block = core.blocks[array.qk & (len(core.blocks) - 1)]
        if block.linear:
            _multiply_layer(core, now, block)
        else:
            _multiply_keys(core, now, block)
    array.idle = array.step + 1


@compiled
def _multiply_loaded(core, now):
    """Follow the tiles of a QK whose operands are there: they follow at equal distances."""
    timing, array = core.timing, core.array
    tiles = timing.row_groups * timing.query_groups
    first = max(now + array.steps, array.step + timing.drain_cycles)
    array.step = first + (tiles - 1) * array.period
    core.stages.qk.blocked += array.step - now - tiles * array.steps
    arrives = array.step + timing.drained + timing.logits
    first_arrives = arrives - (timing.query_groups - 1) * timing.row_groups * array.period
    array.softmax_free = max(
        max(array.softmax_free, first_arrives) + timing.query_groups * timing.softmax_cycles,
        arrives + timing.softmax_cycles,
    )


@compiled
def _multiply_loading(core, now, queries, keys, loaded, chunk_starts):
    """Follow the tiles of a QK each of which waits for its operands.

    Parameters
    ----------
    core : Core
    now : int
        Cycle of the choice.
    queries, keys : np.ndarray
        int64 [groups]: arrival of each group of the operands.
    loaded : int
        Cycle from which on all keys are there.
    chunk_starts : np.ndarray
        Receives when the softmax unit begins with each group of C queries.
    """
    timing, array, stage = core.timing, core.array, core.stages.qk
    steps, period, step, softmax = array.steps, array.period, array.step, array.softmax_free
    begin = now + 1
    for group in range(timing.query_groups):
        # The tiles of C queries.
        ready = queries[group]
        tiles = timing.row_groups
        while tiles > 0:
            at_once = tiles
            if group == 0 and loaded > begin:
                # Key groups come one by one.
                at_once = 1
                ready = max(ready, keys[timing.row_groups - tiles])
            ready = max(ready, begin)
            end_step = max(ready + steps - 1, step + timing.drain_cycles)
            step = end_step + (at_once - 1) * period
            stage.starved += ready - begin
            stage.blocked += step + 1 - ready - at_once * steps
            begin = step + 1
            tiles -= at_once
        # The softmax unit takes the group when it is complete.
        chunk_starts[group] = max(softmax, step + timing.drained + timing.logits)
        softmax = chunk_starts[group] + timing.softmax_cycles
    array.step = step
    array.softmax_free = softmax


@compiled
def _release(load, free):
    """Release the slot of an operand that was loaded first, which is free from this cycle on."""
    slots = len(load.free)
    load.free[load.state.releases % slots] = free
    load.state.releases += 1
    count_full(load, load.state.releases + slots - 2)


@compiled
def _release_keys(core, block):
    """Release the keys of a block once it has drained, and queries that no other block needs."""
    timing = core.timing
    released = core.array.step + timing.drained + timing.key_release + 1
    if block.releases:
        _release(core.loads.k, released)
    if block.last or block.linear:
        _release(core.loads.q, released)


@compiled
def _end_row(core, row):
    """Note that a row's last PV, or last block of a layer, has begun."""
    array = core.array
    core.ended[array.ended_rows & (len(core.rows) - 1)] = row
    array.ended_rows += 1


@compiled
def _multiply_layer(core, now, block):
    """Follow a block of a layer, chosen in this cycle, whose tiles wait for their operands."""
    timing, array, drains, loads = core.timing, core.array, core.layer_drains, core.loads
    queries = loads.q.arrived[block.queries % len(loads.q.complete)]
    keys = loads.k.arrived[block.keys % len(loads.k.complete)]
    steps = timing.head_dim >> (3 - block.code)
    array.steps = steps
    array.period = max(steps, timing.drain_cycles)
    stage = core.stages.qk
    stage.busy += timing.row_groups * timing.layer_groups * steps
    complete = core.tiles_complete[block.row & (len(core.rows) - 1)]
    mask = len(drains.first) - 1
    step, begin, tile = array.step, now + 1, 0
    for group in range(timing.layer_groups):
        for row_group in range(timing.row_groups):
            ready = max(begin, queries[group], keys[row_group])
            step = max(ready + steps - 1, step + timing.drain_cycles)
            stage.starved += ready - begin
            stage.blocked += step + 1 - ready - steps
            begin = step + 1
            place = array.layer_tiles & mask
            drains.first[place] = step + timing.drain
            drains.odd[place] = group & 1
            array.layer_tiles += 1
            complete[tile] = step + timing.drained + timing.groups + 1
            tile += 1
    array.step = step
    _release_keys(core, block)
    array.begun_rows += block.first
    if block.last:
        _end_row(core, block.row)
    array.qk += 1
    array.pv += 1


@compiled
def _multiply_keys(core, now, block):
    """Follow a QK, chosen in this cycle, and its groups of C queries into the softmax unit."""
    timing, array, loads = core.timing, core.array, core.loads
    array.steps = timing.head_dim >> (3 - block.code)
    array.period = max(array.steps, timing.drain_cycles)
    core.stages.qk.busy += timing.row_groups * timing.query_groups * array.steps
    core.stages.softmax.busy += timing.query_groups * timing.softmax_cycles
    queries, keys = block.queries % len(loads.q.complete), block.keys % len(loads.k.complete)
    loaded = loads.k.complete[keys]
    if max(loads.q.complete[queries], loaded) <= now + 1 and not block.last:
        _multiply_loaded(core, now)
    else:
        _multiply_loading(
            core,
            now,
            loads.q.arrived[queries],
            loads.k.arrived[keys],
            loaded,
            core.chunk_starts[block.row & (len(core.rows) - 1)],
        )
    _release_keys(core, block)
    block.weighted = array.softmax_free - 1 + timing.weights
    array.qk += 1


@compiled
def _multiply_values(core, now):
    """Follow a PV, chosen in this cycle."""
    timing, array, drains = core.timing, core.array, core.pv_drains
    block = core.blocks[array.pv & (len(core.blocks) - 1)]
    shift = core.pv_shifts[block.code]
    array.steps = timing.block >> (3 - block.code)
    array.period = 1 << shift
    first = max(now + array.steps, array.step + timing.drain_cycles)
    array.step = first + (timing.pv_tiles - 1) * array.period
    stage = core.stages.pv
    stage.busy += timing.pv_tiles * array.steps
    stage.blocked += array.step - now - timing.pv_tiles * array.steps
    place = array.begun_pv & (len(drains.first) - 1)
    drains.first[place] = first + timing.drain
    drains.shift[place] = shift
    if block.releases:
        _release(core.loads.v, array.step + timing.value_release + 1)
    array.begun_rows += block.first
    if block.last:
        row = core.rows[block.row & (len(core.rows) - 1)]
        row.complete_step = timing.channel_groups * array.period
        first_group = first + row.complete_step - array.period
        row.complete = first_group + timing.drained + timing.groups + 1
        _end_row(core, block.row)
    array.pv += 1
    array.begun_pv += 1
