"""Memory port of the accelerator, burst by burst, for the cycle model.

Blocks are followed from the address generator through bursts, beats and units to the beats of the
cores' streams, outputs through bursts to the answers. Two things are left out: reads of codes after
a head's first ones, and a core that does not take the beats that it has asked for. So cycles are
right to the last one if all codes of a head, or of a core's share of it, fit `CodeReader`, which
reads them when the head begins. Later reads keep those of operands waiting for a few cycles each,
and come in between them: they are asked for when the scheduler takes codes, while a block is
followed as a whole. With superblocks the scheduler, which takes S + 1 words at once, may itself
wait for them a little.
"""

import numpy as np

from firmware_model.host.image import Image
from paro.config import Config, formats
from paro.config.descriptor import DESCRIPTOR_BYTES
from rtl.accelerator.code_reader import WAITING_UNITS, CodeReader
from rtl.accelerator.corner_turn import CornerTurn
from rtl.accelerator.engine import PLACED_HEADS
from rtl.accelerator.head_queue import HeadQueue
from rtl.accelerator.token_runs import TokenRuns
from rtl.accelerator.token_walker import TokenWalker
from rtl.bus import read_master, write_master
from rtl.bus.axi import WORD_BYTES
from rtl.bus.burst_splitter import BurstSplitter
from rtl.bus.read_master import ReadMaster
from rtl.bus.write_master import WriteMaster
from rtl.core.normalizer import Normalizer
from rtl.lib.stream_fifo import StreamFIFO
from sim.cycles.bursts import (
    BlockBursts,
    HeadOutputs,
    block_bursts,
    head_fields,
    head_outputs,
)
from sim.cycles.memory import Memory
from sim.cycles.port_kernel import (
    HeadAtPort,
    Lane,
    MemoryBehaviour,
    MemoryPort,
    OutputBurst,
    OutputRun,
    QueuedRow,
    ReadBurst,
    Reader,
    ReadKind,
    ReadPort,
    WaitingRun,
    WritePort,
    Writer,
)
from sim.cycles.records import new_record, new_records, record_dtype
from sim.cycles.stall_kernel import generators
from sim.cycles.stalls import CHANNELS, DELAYS

__all__ = ["memory_port", "no_port"]

#: Rows that are about to leave and not written, at most: those whose beats wait in a core.
_QUEUED_ROWS = 2 * Normalizer.QUEUE


def no_port(config: Config) -> MemoryPort:
    """Stand-in where the core's streams come from elsewhere."""
    return _port(config, Memory(), [], [], [])._replace(present=False)


def memory_port(config: Config, image: Image, memory: Memory) -> MemoryPort:
    """Port to a memory that holds an image."""
    heads, reads, outputs, cut, rows = [], [], [], 0, 0
    for head in range(len(image.outputs)):
        fields = head_fields(image, head)
        linear = fields["kind"] == formats.Kind.LINEAR
        text_tokens = fields["prefix_tokens"] + fields["suffix_tokens"]
        grid_tokens = 0 if linear else fields["key_tokens"] - text_tokens
        waits = head > 0 and (fields["after"] or fields["out_cut"] != cut)
        cut = fields["out_cut"]
        reads.append(block_bursts(config, image, head))
        outputs.append(head_outputs(config, image, head))
        own_rows = len(outputs[-1].rows) - 1
        heads.append(
            HeadAtPort(
                first_row=fields["first_block_row"],
                grid_tokens=grid_tokens,
                first_output=rows,
                rows=own_rows,
                rows_left=own_rows,
                waits=int(waits),
                cut=int(cut != 0),
                alone=int(linear),
            )
        )
        rows += own_rows
    return _port(config, memory, heads, reads, outputs)


def _port(
    config: Config,
    memory: Memory,
    heads: list[HeadAtPort],
    reads: list[dict[ReadKind, BlockBursts]],
    outputs: list[HeadOutputs],
) -> MemoryPort:
    lanes = config.axi_bits // 8 // WORD_BYTES
    return MemoryPort(
        present=True,
        ahead=config.vector_channels > 0,
        lanes=lanes,
        fifo=StreamFIFO.LATENCY,
        placed_heads=PLACED_HEADS,
        heads=new_records(HeadAtPort, heads),
        memory=MemoryBehaviour(
            stalls=generators(
                memory.stall_seed, (*CHANNELS, *DELAYS), rates=memory.stall_rates(config)
            ),
            shortest=memory.latency[0],
            latencies=memory.latency[1] - memory.latency[0] + 1,
            read_answer=Memory.READ_ANSWER,
            write_answer=Memory.WRITE_ANSWER,
            queue_wait=Memory.QUEUE_WAIT,
        ),
        reads=_read_port(config, lanes, reads),
        writes=_write_port(config, lanes, outputs),
    )


def _read_port(config: Config, lanes: int, heads: list[dict[ReadKind, BlockBursts]]) -> ReadPort:
    blocks = np.zeros((len(heads), len(ReadKind)), np.int64)
    first, bursts = [np.zeros(0, np.int64)], [new_records(ReadBurst, [])]
    block_count = burst_count = 0
    for number, head in enumerate(heads):
        for kind in ReadKind:
            blocks[number, kind] = block_count
            first.append(head[kind].first + burst_count)
            bursts.append(head[kind].bursts)
            block_count += len(head[kind].first)
            burst_count += len(head[kind].bursts)
    unit_words = config.load_bytes // WORD_BYTES
    units = config.block // config.load_tokens + config.block * config.head_dim // config.load_bytes
    units = max(units, WAITING_UNITS, DESCRIPTOR_BYTES // config.load_bytes)
    return ReadPort(
        unit_words=unit_words,
        part_words=min(unit_words, lanes),
        lane_words=read_master.DEPTH - 1,
        load_tokens=config.load_tokens,
        group_units=config.head_dim // formats.LANES,
        walk=1 + TokenRuns.LATENCY,
        jump=TokenWalker.jump_cycles(config) + TokenRuns.LATENCY,
        to_address=ReadMaster.ADDRESS_LATENCY,
        to_unit=ReadMaster.UNIT_LATENCY,
        to_turned=CornerTurn.LATENCY,
        to_head=HeadQueue.OFFER_LATENCY,
        to_codes=CodeReader.REQUEST_LATENCY,
        blocks=blocks,
        first=np.concatenate(first),
        bursts=np.concatenate(bursts, dtype=record_dtype(ReadBurst._fields)),
        state=new_record(Reader()),
        done=np.full(read_master.OUTSTANDING, -1),
        complete=np.full(read_master.RUNS, -1),
        units=np.zeros(units + 1, np.int64),
        groups=np.zeros(config.block // config.load_tokens, np.int64),
        lanes=new_records(Lane, [Lane()] * lanes),
        pops=np.full((lanes, 2 * read_master.DEPTH), -1),
    )


def _write_port(config: Config, lanes: int, outputs: list[HeadOutputs]) -> WritePort:
    rows, runs, bursts, burst_count = [], [], [new_records(OutputBurst, [])], 0
    for head, written in enumerate(outputs):
        rows.append(written.rows[:-1] + len(runs))
        runs += [
            OutputRun(
                tokens, address // WORD_BYTES % lanes, units, head, begin, end, first + burst_count
            )
            for tokens, address, units, begin, end, first in written.runs[:-1].tolist()
        ]
        bursts.append(written.bursts)
        burst_count += len(written.bursts)
    rows.append(np.array([len(runs)]))
    runs.append(OutputRun(0, 0, 0, -1, -1, -1, burst_count))
    output_bytes = config.output_bytes
    output_words = max(1, output_bytes // WORD_BYTES)
    return WritePort(
        unit_parts=max(1, output_words // lanes),
        part_units=max(1, WORD_BYTES // output_bytes),
        part_words=min(output_words, lanes),
        lane_words=write_master.DEPTH - 1,
        to_split=BurstSplitter.LATENCY,
        to_address=WriteMaster.ADDRESS_LATENCY,
        to_beat=WriteMaster.BEAT_LATENCY - WriteMaster.ADDRESS_LATENCY,
        jump=TokenWalker.jump_cycles(config),
        rows=np.concatenate(rows),
        queued=new_records(QueuedRow, [QueuedRow()] * _QUEUED_ROWS),
        runs=new_records(OutputRun, runs),
        bursts=np.concatenate(bursts, dtype=record_dtype(OutputBurst._fields)),
        state=new_record(Writer()),
        waiting=new_records(WaitingRun, [WaitingRun()] * write_master.WAITING_RUNS),
        answered=np.full(write_master.OUTSTANDING, -1),
        begun=np.full(write_master.BEGUN, -1),
        early_beats=np.full(Memory.EARLY_BEATS, -Memory.QUEUE_WAIT),
        open_bursts=np.full(Memory.OPEN_BURSTS, -Memory.QUEUE_WAIT),
        lanes=new_records(Lane, [Lane()] * lanes),
        pops=np.full((lanes, 2 * write_master.DEPTH), -1),
    )
