"""Read port of the accelerator, burst by burst: when what the core asks for reaches it.

A part of the cycle model. It follows each block from the address generator through bursts, beats
and units to the beats of the core's streams. What is left out: reads of codes behind a head's
first, pauses of the bus, and a core that does not take what it has asked for.
"""

from typing import Any

import numpy as np

from firmware_model.driver import Image
from paro_config import Config, formats
from paro_config.descriptor import DESCRIPTOR_BYTES
from rtl.axi import WORD_BYTES
from rtl.code_reader import WAITING_UNITS, CodeReader
from rtl.corner_turn import CornerTurn
from rtl.head_queue import HeadQueue
from rtl.read_master import DEPTH, OUTSTANDING, ReadMaster
from rtl.stream_fifo import StreamFIFO
from rtl.token_runs import TokenRuns
from rtl.token_walker import TokenWalker
from rtl.write_master import WriteMaster
from sim.bursts import block_bursts, head_fields
from sim.cycle_kernel import ReadPort

__all__ = ["no_port", "read_port", "write_cycles"]

#: Cycles from a burst's address to its first beat, and from a write's last beat to its answer, in
#: a memory without latency, as `cocotbext.axi` answers.
READ_ANSWER, WRITE_ANSWER = 3, 2


def no_port() -> ReadPort:
    """Stand-in where the core's streams come from elsewhere."""
    none = np.zeros(0, np.int64)
    numbers: Any = [0] * len(ReadPort._fields)
    return ReadPort(*numbers)._replace(
        present=False,
        tables=none.reshape(0, 3),
        first_rows=none,
        text=none,
        first=none,
        bursts=none.reshape(0, 3),
        done=none,
        state=none,
        units=none,
    )


def read_port(config: Config, image: Image, latency: int) -> ReadPort:
    """Port that reads the heads of an image from a memory with a constant latency."""
    tables, first_rows, text, first, bursts = [], [], [], [], []
    burst_count = first_count = 0
    for head in range(len(image.heads)):
        fields = head_fields(image, head)
        first_rows.append(fields["first_block_row"])
        text.append(fields["prefix_tokens"] + fields["suffix_tokens"])
        row = []
        for operand in block_bursts(config, image, head).values():
            row.append(first_count)
            first.append(operand.first + burst_count)
            bursts.append(operand.bursts[:, 1:])
            first_count += len(operand.first)
            burst_count += len(operand.bursts)
        tables.append(row)
    lanes, unit_words = config.axi_bits // 8 // WORD_BYTES, config.load_bytes // WORD_BYTES
    units = config.block // config.load_tokens + config.block * config.head_dim // config.load_bytes
    return ReadPort(
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
        answer=max(latency, 1) + READ_ANSWER,
        unit=ReadMaster.UNIT_LATENCY,
        turned=CornerTurn.LATENCY,
        offer=HeadQueue.OFFER_LATENCY,
        codes=CodeReader.REQUEST_LATENCY,
        handed_on=StreamFIFO.LATENCY,
        codes_ahead=WAITING_UNITS,
        tables=np.array(tables),
        first_rows=np.array(first_rows),
        text=np.array(text),
        first=np.concatenate(first),
        bursts=np.concatenate(bursts),
        done=np.full(OUTSTANDING, -1),
        state=np.full(9, -1),
        units=np.zeros(
            max(units, WAITING_UNITS, DESCRIPTOR_BYTES // config.load_bytes) + 1, np.int64
        ),
    )


def write_cycles(config: Config, latency: int) -> int:
    """Cycles from a head's last output to the answer to its write."""
    query_bytes = formats.OUT_BITS // 8 * config.head_dim
    beats = -(-query_bytes * 8 // config.axi_bits)
    return WriteMaster.BEAT_LATENCY + beats + max(latency, 1) + WRITE_ANSWER
