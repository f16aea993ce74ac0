"""Memory port of the accelerator, burst by burst, for the cycle model.

Blocks are followed from the address generator through bursts, beats and units to the beats of the
core's streams, outputs through bursts to the answers. What is left out: reads of codes behind a
head's first, and a core that does not take what it has asked for.
"""

from typing import Any

import numpy as np

from firmware_model.driver import Image
from paro_config import Config, formats
from paro_config.descriptor import DESCRIPTOR_BYTES
from rtl import write_master
from rtl.axi import WORD_BYTES
from rtl.code_reader import WAITING_UNITS, CodeReader
from rtl.corner_turn import CornerTurn
from rtl.head_queue import HeadQueue
from rtl.read_master import DEPTH, OUTSTANDING, RUNS, ReadMaster
from rtl.stream_fifo import StreamFIFO
from rtl.token_runs import TokenRuns
from rtl.token_walker import TokenWalker
from rtl.write_master import WriteMaster
from sim.bursts import block_bursts, head_fields, output_bursts
from sim.cycle_kernel import MemoryPort
from sim.gaps import CHANNELS, DELAYS, generators
from sim.memory import Memory

__all__ = ["memory_port", "no_port"]

#: The memory of `cocotbext.axi`: cycles from an address to the first beat of a read, from address
#: and last beat to the answer of a write (the harness adds its latency to both), beats that it
#: takes before their address, cycles from the address to the next one.
ANSWER = WRITE_ANSWER = 2
EARLY_BEATS, EARLY_WAIT = 2, 2


def no_port() -> MemoryPort:
    """Stand-in where the core's streams come from elsewhere."""
    none = np.zeros(0, np.int64)
    numbers: Any = [0] * len(MemoryPort._fields)
    return MemoryPort(*numbers)._replace(
        present=False,
        tables=none.reshape(0, 3),
        first_rows=none,
        grid=none,
        first=none,
        bursts=none.reshape(0, 3),
        done=none,
        complete=none,
        state=none,
        units=none,
        generators=none.reshape(0, 4),
        outputs=none.reshape(0, 2),
        answered=none,
        sent=none,
        writer=none,
    )


def memory_port(config: Config, image: Image, memory: Memory) -> MemoryPort:
    """Port to a memory that holds an image."""
    tables, first_rows, grid, first, bursts = [], [], [], [], []
    outputs, written = [], 0
    burst_count = first_count = 0
    for head in range(len(image.heads)):
        fields = head_fields(image, head)
        first_rows.append(fields["first_block_row"])
        grid.append(fields["key_tokens"] - fields["prefix_tokens"] - fields["suffix_tokens"])
        bursts_out = output_bursts(config, image, head)
        outputs.append(bursts_out[:, 1:] + [0, written])
        written += bursts_out[-1, 2]
        row = []
        for operand in block_bursts(config, image, head).values():
            row.append(first_count)
            first.append(operand.first + burst_count)
            bursts.append(operand.bursts[:, 1:])
            first_count += len(operand.first)
            burst_count += len(operand.bursts)
        tables.append(row)
    output_bytes = formats.OUT_BITS // 8 * config.output_words
    held_outputs = write_master.DEPTH * config.axi_bits // 8 // output_bytes
    lanes, unit_words = config.axi_bits // 8 // WORD_BYTES, config.load_bytes // WORD_BYTES
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
        codes_ahead=WAITING_UNITS,
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
        gathered=WriteMaster.ADDRESS_LATENCY,
        first_beat=WriteMaster.BEAT_LATENCY - WriteMaster.ADDRESS_LATENCY,
        early=EARLY_BEATS,
        waited=EARLY_WAIT,
        written=WRITE_ANSWER,
        # A beat of the stream is written with the burst that takes its last byte.
        outputs=-(-np.concatenate(outputs) // [1, output_bytes]),
        answered=np.full(write_master.OUTSTANDING, -1),
        sent=np.full(held_outputs, -1),
        writer=np.array([0, -1, 0, 0, -1, -1, -1]),
    )
