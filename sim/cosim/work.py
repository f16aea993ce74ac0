"""Work that a job is to core and memory."""

from collections.abc import Sequence
from math import ceil

import numpy as np

from firmware_model.host.jobs import HeadJob, Job, LayerJob
from firmware_model.host.superblocks import superblock_count
from paro.config import Config
from paro.config.config import blocks_of
from paro.config.formats import (
    CODE_DIGITS,
    CODE_WORD_BYTES,
    LANES,
    OUT_BYTES,
    SCALE_BYTES,
)
from sim.cycles import attention_time
from sim.cycles.cycle_model import CoreWork, LayerWork, Work

__all__ = ["ideal_cycles", "job_work", "wanted_bytes"]


def job_work(config: Config, job: Job) -> Work:
    """A job as the cycle model takes it."""
    if isinstance(job, LayerJob):
        return LayerWork(job.device_codes(), job.tokens, job.outputs)
    return CoreWork(_computed_codes(config, job), len(job.queries(config)), job.head.tokens)


def ideal_cycles(config: Config, job: Job) -> int:
    """Cycles of a job if every lane of the array worked in every one, on valid tokens only.

    Of a layer, on valid outputs only too, and not on tiles of code 0.
    """
    if isinstance(job, LayerJob):
        digits = np.array(CODE_DIGITS)[job.codes].repeat(config.block, 0)[: job.outputs]
        products = job.tokens * int(digits.sum()) * config.head_dim
        return ceil(products / (LANES * config.rows * config.cols))
    codes = _computed_codes(config, job)[None]
    cycles = attention_time.ideal_cycles(config, codes, job.head.tokens, job.queries(config))
    return ceil(cycles[0])


def wanted_bytes(config: Config, jobs: Sequence[Job]) -> dict[str, int]:
    """Bytes that some jobs must read and write: live blocks with their scales, codes, outputs."""
    read, written = 0.0, 0
    for job in jobs:
        if isinstance(job, LayerJob):
            read += _layer_bytes(config, job)
            written += OUT_BYTES * job.tokens * job.outputs
            continue
        codes = _computed_codes(config, job)[None]
        through_port, _ = attention_time.read_bytes(
            config, codes, job.head.tokens, job.queries(config)
        )
        read += through_port[0]
        written += attention_time.written_bytes(config, len(job.queries(config)))
    return {"read": int(read), "write": written}


def _layer_bytes(config: Config, job: LayerJob) -> int:
    """Bytes that a layer reads: inputs and weights of each live tile, with their scales; codes.

    Weights are read for each wave of tokens, codes for each superblock of it.
    """
    codes = job.device_codes()
    live = np.count_nonzero(codes, axis=1)
    outputs = np.full(len(codes), config.block)
    outputs[-1] = job.outputs - (len(codes) - 1) * config.block
    rows = job.waves(config) * int(live @ outputs) + job.tokens * int(live.sum())
    passes = superblock_count(blocks_of(job.tokens, config.layer_tokens), config)
    code_bytes = passes * len(job.code_words(config)) * CODE_WORD_BYTES
    return rows * (config.head_dim + SCALE_BYTES) + code_bytes


def _computed_codes(config: Config, job: HeadJob) -> np.ndarray:
    """uint8 [rows, blocks] of the block rows to compute."""
    return job.codes[list(job.rows(config))]
