"""Work that a job is to core and memory."""

from collections.abc import Sequence
from math import ceil

import numpy as np

from firmware_model.host.jobs import HeadJob, Job, LayerJob
from paro.config import Config
from paro.config.formats import CODE_DIGITS, LANES
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
    cycles = attention_time.ideal_cycles(config, codes, job.head.tokens, job.rows(config))
    return ceil(cycles[0])


def wanted_bytes(config: Config, jobs: Sequence[HeadJob]) -> dict[str, int]:
    """Bytes that some jobs must read and write: live blocks with their scales, codes, outputs."""
    read = 0.0
    for job in jobs:
        codes = _computed_codes(config, job)[None]
        through_port, _ = attention_time.read_bytes(
            config, codes, job.head.tokens, job.rows(config)
        )
        read += through_port[0]
    queries = sum(len(job.queries(config)) for job in jobs)
    return {"read": int(read), "write": attention_time.written_bytes(config, queries)}


def _computed_codes(config: Config, job: HeadJob) -> np.ndarray:
    """uint8 [rows, blocks] of the block rows to compute."""
    return job.codes[list(job.rows(config))]
