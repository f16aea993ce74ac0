"""Records of the cores in the cycle model, and the arrays that hold them; `core_of` is a core's."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from paro.config.formats import Operand, Stage
from rtl.accelerator.code_reader import WAITING_UNITS
from rtl.core.blocks import SLOTS
from rtl.core.layer_output import PAGES
from rtl.interfaces import Activity
from sim.cycles.port_kernel import NEVER
from sim.cycles.records import inlined, new_record, new_records, record_dtype

__all__ = [
    "ALWAYS",
    "Command",
    "Core",
    "CoreTiming",
    "Cores",
    "Load",
    "Wait",
    "core_of",
    "new_cores",
]

#: A time before all.
ALWAYS = -(1 << 60)
#: Cycles of each stage, by `Activity`.
_STAGES = record_dtype(
    tuple(stage.name.lower() for stage in Stage), record_dtype(tuple(Activity.as_shape().members))
)


class Wait(IntEnum):
    """What a scheduler waits for: a fetch of an operand, or a command."""

    Q = Operand.Q
    K = Operand.K
    V = Operand.V
    COMMAND = 3


class CoreTiming(NamedTuple):
    """Record of the numbers of a configuration; times are in cycles."""

    cores: int
    query_rows: int  # of a superblock
    row_slots: int  # of queries and of outputs
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
    # Codes.
    beat_shift: int  # log2 of the codes in a beat
    load_tokens: int  # beats of codes in a unit of the memory port
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
    in_memory: int  # whether codes come from the memory port
    paced: int  # whether a beat of the output may wait
    answer: int  # cycles from a fetch to its first beat, where players have the streams


class Command(NamedTuple):
    """Record of a core's command: some rows of a head, or of a layer."""

    codes: int  # index of its first code
    rows: int  # 0 for a core that has none
    columns: int
    query_tokens: int
    key_tokens: int
    first: int  # rows of all commands of all cores before it
    linear: int = 0  # whether it is a layer
    key_blocks: int = 1  # of a layer: rows of each block of tokens
    code_words: int = 1  # beats of codes, once


class Scheduler(NamedTuple):
    """Record of the scheduler: the row that it scans, the block that it has found last."""

    core: int  # its number
    waits: int = Wait.COMMAND
    idle: int = 0  # cycle from which on it waits for a command
    wanted: int = 0  # cycle from which on it waits for a fetch
    offer: int = NEVER  # cycle from which on it offers that; `NEVER`: not known
    fetch_order: int = 0  # of K and V in a head or layer, the same for all cores
    fetch_block: int = 0  # of the operand; of a layer the number of the block's chunk
    fetch_begin: int = 0  # position of its first token
    fetch_tokens: int = 0
    command: int = -1
    command_there: int = 0  # first cycle in which the next command is there
    rows_left: int = 0  # of the command
    rows: int = 0  # that have begun, of all commands
    row: int = -1  # the block's one among them
    row_begin: int = 0  # index of the row's first code
    row_end: int = 0  # index after its last code
    codes_there: int = 0  # first cycle in which codes of the command are there, from players
    codes_taken: int = -1  # cycle in which the last beat of codes was taken
    code_words: int = 0  # beats of codes of the command that were taken
    code_units: int = 0  # units of codes whose cycle is known
    code: int = 0  # of the block
    column: int = 0
    key_block: int = 0  # its block of keys
    keys: int = 0
    first: int = 1  # whether it is the first live block of its row
    last: int = 1  # whether it is the last one
    following: int = 0  # index of the next live block's code
    linear: int = 0  # whether it is one of a layer
    place: int = -1  # of its row in the superblock
    group_end: int = 0  # column after the last one whose codes were taken
    loads: int = 0  # whether K, and V, are asked for with it
    releases: int = 1  # whether K and V serve no block after it
    issued: int = 0  # blocks so far


class Array(NamedTuple):
    """Record of the array and the softmax unit."""

    step: int  # cycle of the array's last step
    choice: int = NEVER  # cycle of the sequencer's next choice, as far as is known
    operation: int = 0  # that it chooses then
    idle: int = 0  # first cycle after the last product
    steps: int = 1  # of a tile of that product
    period: int = 1  # cycles from a tile of it to the next
    qk: int = 0  # blocks whose QK has begun
    pv: int = 0  # blocks whose PV has begun, and all of layers
    begun_pv: int = 0  # blocks whose PV has begun
    layer_tiles: int = 0  # tiles of layers that have begun
    begun_rows: int = 0  # rows whose first PV, or first block of a layer, has begun
    ended_rows: int = 0  # rows whose last one has
    softmax_free: int = 0  # first cycle in which the softmax unit is free


class Block(NamedTuple):
    """Record of a block between the scheduler and its PV."""

    code: int = 0
    row: int = 0  # its row, see `Scheduler`
    first: int = 0
    last: int = 0
    releases: int = 0
    linear: int = 0
    queries: int = 0  # loads of its operands, by their number
    keys: int = 0
    values: int = 0
    known: int = 0  # first cycle in which the sequencer knows of it
    loaded: int = 0  # first cycle in which its QK may begin
    weighted: int = 0  # first cycle in which its weights are there


class Row(NamedTuple):
    """Record of a row between its scan and its last output."""

    number: int = 0  # in its head or layer
    command: int = 0
    wave: int = 0  # in its head or layer
    queries: int = 0
    linear: int = 0
    load: int = 0  # of its queries, by its number
    told: int = -1  # with superblocks, cycle in which the outside was told that it leaves next
    complete: int = 0  # cycle in which the numerators of its first R queries are complete
    complete_step: int = 0  # cycles until those of the next R queries are
    sent: int = 0  # cycle of its last beat, if no beat waits


class Place(NamedTuple):
    """Record of a row in the superblock that is scanned."""

    last: int = -1  # its last live column
    begun: int = 0
    row: int = 0  # see `Scheduler`


class Output(NamedTuple):
    """Record of the reciprocal unit, the normaliser and the layers' corner turn."""

    read: int = NEVER  # cycle in which the next read is tried, as far as is known
    next: int = 0  # cycle of the next read at the earliest
    active: int = 0  # whether a row is being read
    rows: int = 0  # that were read
    queries: int = 0  # that were read
    query: int = 0  # of the row; of a layer an output channel
    part: int = 0  # of the query; of a layer a group of tokens
    beats: int = 0  # so far
    linear: int = 0  # whether the last row was one of a layer
    complete: int = 0  # cycle in which the query's numerators are complete
    reciprocal_free: int = 0
    normalizer_free: int = 0
    oldest_pv: int = 0  # that may still drain
    oldest_tile: int = 0  # of a layer, likewise
    # Beats on their way out.
    beats_ready: int = 0  # of attention, that were read
    beats_left: int = 0  # of attention, that left
    rows_left: int = 0  # rows all of whose beats have left
    row_beats: int = 0  # beats of the next row that have left
    chosen: int = 0  # whether that row is on its way out of a cluster
    last_sent: int = ALWAYS  # cycle of the last beat
    sent_before: int = ALWAYS  # of a layer: cycle of the last beat but one
    offered: int = ALWAYS  # of a layer: cycle from which on the last beat was offered
    # The layers' corner turn.
    pages: int = 0  # that were filled
    turned: int = 0  # pages whose last beat was read
    turn_beats: int = 0  # of the page, that were read
    turn_read: int = ALWAYS  # cycle of the last read of a beat
    turn_waits: int = 0  # beats that were read and have not left


class LoadState(NamedTuple):
    """Record of the loads of an operand."""

    tokens: int  # side by side in a beat
    beats: int  # for so many tokens
    group_tokens: int  # that the array takes at once
    loads: int = 0  # that were asked for
    releases: int = 0  # slots that were released
    end: int = 0  # cycle after the last beat of the last block


class Load(NamedTuple):
    """Loads of an operand."""

    state: Any  # `LoadState`
    free: np.ndarray  # int64 [slots]: first cycle in which the slots released last are free
    complete: np.ndarray  # int64 [ring]: first cycle in which the last loads are there
    arrived: np.ndarray  # int64 [ring, groups]: cycle after the last beat of each of their groups
    stalls: Any  # `Generator` of the stream
    stage: Any  # its record of `Core.stages`


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


class Core(NamedTuple):
    """A core: its commands, its state, its counters."""

    timing: Any  # `CoreTiming`
    codes: np.ndarray  # uint8, of all commands of all cores
    commands: np.ndarray  # `Command`
    stalls: Any  # a `Generator` for each of `STREAMS`; cycle 0 is that of the first command
    scheduler: Any  # `Scheduler`
    loads: Loads
    array: Any  # `Array`
    output: Any  # `Output`
    stages: Any  # cycles of each `Stage`, by `Activity`
    pv_shifts: np.ndarray  # uint8 [4]: log2 of the cycles from a tile of a PV to the next, by code
    pv_drains: PvDrains
    layer_drains: LayerDrains
    blocks: np.ndarray  # `Block` [ring]
    rows: np.ndarray  # `Row` [ring], as they begin
    ended: np.ndarray  # int64 [ring]: rows as they end
    places: np.ndarray  # `Place` [query_rows]
    code_units: np.ndarray  # int64 [units]: first cycle in which the first units of codes are there
    # int64 [ring, query_groups]: cycle in which the softmax unit begins with a group of C queries
    # in the last block of a row.
    chunk_starts: np.ndarray
    # int64 [ring, tiles]: first cycle in which the sums of each tile of a layer's row can be read.
    tiles_complete: np.ndarray
    slot_free: np.ndarray  # int64 [row_slots]: first cycle in which the last output slots are free
    left: np.ndarray  # int64 [block]: cycle in which the last queries left the normaliser's queue
    ready: np.ndarray  # int64 [queue]: cycle from which on the last beats may be offered
    sent: np.ndarray  # int64 [queue]: cycle in which the last beats left, if the core is paced
    page_free: np.ndarray  # int64: first cycle in which a page of the layers' corner turn is free
    page_ready: np.ndarray  # int64: first cycle in which a page's beats may be read
    page_beats: np.ndarray  # int64: how many these are


class Cores(NamedTuple):
    """All cores: fields as of `Core`, whose arrays have the core as their first index."""

    timing: Any
    codes: np.ndarray
    commands: np.ndarray
    stalls: Any
    scheduler: np.ndarray
    loads: Loads  # without streams and stages
    array: np.ndarray
    output: np.ndarray
    stages: np.ndarray
    pv_shifts: np.ndarray  # [4]
    pv_drains: PvDrains
    layer_drains: LayerDrains
    blocks: np.ndarray
    rows: np.ndarray
    ended: np.ndarray
    places: np.ndarray
    code_units: np.ndarray
    chunk_starts: np.ndarray
    tiles_complete: np.ndarray
    slot_free: np.ndarray
    left: np.ndarray
    ready: np.ndarray
    sent: np.ndarray
    page_free: np.ndarray
    page_ready: np.ndarray
    page_beats: np.ndarray


def new_cores(
    timing: CoreTiming,
    loads: Sequence[LoadState],
    slots: Sequence[int],
    codes: np.ndarray,
    commands: np.ndarray,
    stalls: Any,
) -> Cores:
    """Cores that are before their first cycle.

    Parameters
    ----------
    timing : CoreTiming
    loads : sequence of LoadState
        Of Q, K and V.
    slots : sequence of int
        Likewise.
    codes : np.ndarray
        uint8, of all commands.
    commands : np.ndarray
        `Command` records [cores, commands].
    stalls : np.record
        See `sim.cycles.stall_kernel.generators`.
    """
    cores, columns = len(commands), int(commands["columns"].max())
    key_slots = slots[Operand.K]
    # Blocks that the slots of K serve, and those between QK and PV.
    blocks = _power_of_two(key_slots * timing.query_rows + 2 * SLOTS)
    # Rows of these, those in progress, those with an output slot, those whose beats have not left.
    ring = _power_of_two(blocks + 2 * timing.row_slots + timing.queue + PAGES)
    drains = _power_of_two(4 * timing.row_slots * columns)
    layers = commands[commands["linear"] != 0]
    tiles = timing.row_groups * timing.layer_groups if len(layers) else 1
    # Rows of all output slots, and those in progress.
    rows = timing.row_slots + timing.query_rows
    layer_drains = _power_of_two(rows * tiles * max(layers["columns"], default=1))

    def each(kind: Any, *first: Any) -> np.ndarray:
        return new_records(kind, [kind(*first)] * cores)

    def ring_of(kind: Any, length: int) -> np.ndarray:
        return new_records(kind, [kind()] * (cores * length)).reshape(cores, length)

    def load(operand: Operand) -> Load:
        count, groups = slots[operand], timing.block // loads[operand].group_tokens
        # Slots of Q are not released in the order of their loads, but superblock by superblock.
        ring = 2 * count if operand == Operand.Q else count
        return Load(
            state=new_records(LoadState, [loads[operand]] * cores),
            free=np.full((cores, count), ALWAYS),
            complete=np.full((cores, ring), ALWAYS),
            arrived=np.zeros((cores, ring, groups), np.int64),
            stalls=None,
            stage=None,
        )

    tile_cycles = [max(timing.block >> 3 - code, timing.drain_cycles) for code in range(4)]
    return Cores(
        timing=new_record(timing),
        codes=codes,
        commands=commands,
        stalls=stalls,
        scheduler=new_records(Scheduler, [Scheduler(core) for core in range(cores)]),
        loads=Loads(load(Operand.Q), load(Operand.K), load(Operand.V)),
        array=each(Array, -timing.drain_cycles),
        output=each(Output),
        stages=np.zeros(cores, _STAGES),
        pv_shifts=np.array([(cycles - 1).bit_length() for cycles in tile_cycles], np.uint8),
        pv_drains=PvDrains(
            np.zeros((cores, drains), np.int64), np.zeros((cores, drains), np.uint8)
        ),
        layer_drains=LayerDrains(
            np.zeros((cores, layer_drains), np.int64), np.zeros((cores, layer_drains), np.uint8)
        ),
        blocks=ring_of(Block, blocks),
        rows=ring_of(Row, ring),
        ended=np.zeros((cores, ring), np.int64),
        places=ring_of(Place, timing.query_rows),
        code_units=np.zeros((cores, WAITING_UNITS), np.int64),
        chunk_starts=np.zeros((cores, ring, timing.query_groups), np.int64),
        tiles_complete=np.zeros((cores, ring, tiles), np.int64),
        slot_free=np.full((cores, timing.row_slots), ALWAYS),
        left=np.full((cores, timing.block), ALWAYS),
        ready=np.full((cores, timing.queue), ALWAYS),
        sent=np.full((cores, timing.queue), ALWAYS),
        page_free=np.full((cores, PAGES), ALWAYS),
        page_ready=np.zeros((cores, PAGES), np.int64),
        page_beats=np.zeros((cores, PAGES), np.int64),
    )


def _power_of_two(least: int) -> int:
    return 1 << (int(least) - 1).bit_length()


@inlined
def _load_of(load, core, stalls, stage):
    return Load(
        load.state[core],
        load.free[core],
        load.complete[core],
        load.arrived[core],
        stalls,
        stage,
    )


@inlined
def core_of(cores, core):
    """One of the cores."""
    stages, loads = cores.stages[core], cores.loads
    return Core(
        cores.timing,
        cores.codes,
        cores.commands[core],
        cores.stalls,
        cores.scheduler[core],
        Loads(
            _load_of(loads.q, core, cores.stalls.q, stages.load_q),
            _load_of(loads.k, core, cores.stalls.k, stages.load_k),
            _load_of(loads.v, core, cores.stalls.v, stages.load_v),
        ),
        cores.array[core],
        cores.output[core],
        stages,
        cores.pv_shifts,
        PvDrains(cores.pv_drains.first[core], cores.pv_drains.shift[core]),
        LayerDrains(cores.layer_drains.first[core], cores.layer_drains.odd[core]),
        cores.blocks[core],
        cores.rows[core],
        cores.ended[core],
        cores.places[core],
        cores.code_units[core],
        cores.chunk_starts[core],
        cores.tiles_complete[core],
        cores.slot_free[core],
        cores.left[core],
        cores.ready[core],
        cores.sent[core],
        cores.page_free[core],
        cores.page_ready[core],
        cores.page_beats[core],
    )
