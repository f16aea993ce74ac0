"""Memory port of the accelerator, burst by burst, for the cycle model.

Blocks are followed from the address generator through bursts, beats and units to the beats of the
core's streams, outputs through bursts to the answers. What is left out: reads of codes behind a
head's first, and a core that does not take what it has asked for.
"""

from typing import Any

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
from rtl.bus import write_master
from rtl.bus.axi import WORD_BYTES
from rtl.bus.burst_splitter import BurstSplitter
from rtl.bus.read_master import DEPTH, OUTSTANDING, RUNS, ReadMaster
from rtl.bus.write_master import WriteMaster
from rtl.lib.stream_fifo import StreamFIFO
from sim.cycles.bursts import block_bursts, head_fields, head_outputs
from sim.cycles.cycle_kernel import MemoryPort
from sim.cycles.gaps import CHANNELS, DELAYS, generators
from sim.cycles.memory import Memory

__all__ = ["memory_port", "no_port"]

#: The memory of `cocotbext.axi`: cycles from an address to the first beat of a read, from address
#: and last beat to the answer of a write (the harness adds its latency to both); beats that it
#: takes before their address, bursts that it takes before the first one's data is complete, cycles
#: from the end of such a wait to what comes next.
ANSWER = WRITE_ANSWER = 2
QUEUED_BEATS, QUEUED_BURSTS, QUEUE_WAIT = 2, 3, 2


def no_port() -> MemoryPort:
    """Stand-in where the core's streams come from elsewhere."""
    none = np.zeros(0, np.int64)
    numbers: Any = [0] * len(MemoryPort._fields)
    return MemoryPort(*numbers)._replace(
        present=False,
        tables=none.reshape(0, 5),
        first_rows=none,
        grid=none,
        first=none,
        bursts=none.reshape(0, 4),
        done=none,
        complete=none,
        state=none,
        units=none,
        generators=none.reshape(0, 4),
        output_runs=none.reshape(0, 4),
        outputs=none.reshape(0, 2),
        heads=none.reshape(0, 2),
        left=none.reshape(0, 2),
        answered=none,
        queued_beats=none,
        queued_bursts=none,
        begun=none,
        pushed=none.reshape(0, 2),
        popped=none,
        pops=none.reshape(0, 0),
        writer=none,
    )


def memory_port(config: Config, image: Image, memory: Memory) -> MemoryPort:
    """Port to a memory that holds an image."""
    tables, first_rows, grid, first, bursts = [], [], [], [], []
    lanes, unit_words = config.axi_bits // 8 // WORD_BYTES, config.load_bytes // WORD_BYTES
    output_bytes = formats.OUT_BITS // 8 * config.output_words
    output_words = max(1, output_bytes // WORD_BYTES)
    output_runs, outputs, words = [], [], 0
    burst_count = first_count = 0
    jump = TokenWalker.jump_cycles(config)
    for head in range(len(image.heads)):
        fields = head_fields(image, head)
        first_rows.append(fields["first_block_row"])
        grid.append(fields["key_tokens"] - fields["prefix_tokens"] - fields["suffix_tokens"])
        written = head_outputs(config, image, head)
        lane = written.runs[:, 1] // WORD_BYTES % lanes
        walk = written.runs[:, 2].copy()
        position = first_rows[-1] * config.block
        walk[0] = jump if 0 < position < grid[-1] else 2
        output_runs.append(np.stack([written.runs[:, 0], lane, walk, np.full_like(lane, head)], 1))
        outputs.append(written.bursts[:, 1:] + [0, words])
        words = outputs[-1][-1, 1]
        row = []
        for operand in block_bursts(config, image, head).values():
            row.append(first_count)
            first.append(operand.first + burst_count)
            bursts.append(operand.bursts[:, 1:])
            first_count += len(operand.first)
            burst_count += len(operand.bursts)
        tables.append(row)
    units = config.block // config.load_tokens + config.block * config.head_dim // config.load_bytes
    return MemoryPort(
        present=True,
        lanes=lanes,
        unit_words=unit_words,
        load_tokens=config.load_tokens,
        held=(DEPTH - 1) * lanes // unit_words,
        group_units=config.head_dim // formats.LANES,
        block=config.block,
        walk=1 + TokenRuns.LATENCY,
        jump=TokenWalker.jump_cycles(config) + TokenRuns.LATENCY,
        address=ReadMaster.ADDRESS_LATENCY,
        answer=ANSWER,
        unit=ReadMaster.UNIT_LATENCY,
        turned=CornerTurn.LATENCY,
        offer=HeadQueue.OFFER_LATENCY,
        codes=CodeReader.REQUEST_LATENCY,
        handed_on=StreamFIFO.LATENCY,
        tables=np.array(tables),
        first_rows=np.array(first_rows),
        grid=np.array(grid),
        first=np.concatenate(first),
        bursts=np.concatenate(bursts),
        done=np.full(OUTSTANDING, -1),
        complete=np.full(RUNS, -1),
        state=np.full(12, -1),
        units=np.zeros(
            max(units, WAITING_UNITS, DESCRIPTOR_BYTES // config.load_bytes) + 1, np.int64
        ),
        generators=generators(memory.stall_seed, (*CHANNELS, *DELAYS)),
        latency=memory.latency[0],
        latencies=memory.latency[1] - memory.latency[0] + 1,
        queued=StreamFIFO.LATENCY,
        placed_heads=PLACED_HEADS,
        query_units=config.head_dim // config.output_words,
        unit_parts=max(1, output_words // lanes),
        part_units=max(1, WORD_BYTES // output_bytes),
        part_words=min(output_words, lanes),
        lane_words=write_master.DEPTH - 1,
        split=BurstSplitter.LATENCY,
        gathered=WriteMaster.ADDRESS_LATENCY,
        first_beat=WriteMaster.BEAT_LATENCY - WriteMaster.ADDRESS_LATENCY,
        waited=QUEUE_WAIT,
        written=WRITE_ANSWER,
        output_runs=np.concatenate(output_runs),
        outputs=np.concatenate(outputs),
        heads=np.full((len(image.heads), 2), -1),
        left=np.full((write_master.WAITING_RUNS, 2), -1),
        answered=np.full(write_master.OUTSTANDING, -1),
        queued_beats=np.full(QUEUED_BEATS, -QUEUE_WAIT),
        queued_bursts=np.full(QUEUED_BURSTS, -QUEUE_WAIT),
        begun=np.full(write_master.BEGUN, -1),
        pushed=np.tile(np.array([0, -1]), (lanes, 1)),
        popped=np.zeros(lanes, np.int64),
        pops=np.full((lanes, 2 * write_master.DEPTH), -1),
        writer=np.array([0, *[-1] * 6, *[0] * 5, *[-1] * 4, 0]),
    )
