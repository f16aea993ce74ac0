"""What must hold of a queue that was simulated; what does not is told in sentences."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from math import sqrt

import numpy as np

from firmware_model.host.image import Image
from firmware_model.host.jobs import Job, LayerJob
from paro.config import Config
from paro.config.config import blocks_of
from paro.config.formats import CODE_DIGITS, LANES
from rtl.accelerator.accelerator import Accelerator
from rtl.accelerator.code_reader import RUN_UNITS, WAITING_UNITS
from sim.cosim.accelerator import ACCELERATOR_TOLERANCE
from sim.cosim.accelerator_scenario import StepResult
from sim.cosim.work import job_work, wanted_bytes
from sim.cycles.bursts import head_outputs
from sim.cycles.cycle_model import Prediction, predict_accelerator
from sim.cycles.memory import Memory
from sim.verify.images import written_bytes

__all__ = [
    "array_cycles",
    "at_once",
    "counters_wrong",
    "cycles_wrong",
    "predicted_writes",
    "words_wrong",
]

#: Difference of a stage's busy cycles from the model's, as a part of them; with a vector unit.
_STAGE_TOLERANCE, _VECTOR_STAGE_TOLERANCE = 0.01, 0.02
#: Cycles by which a job may begin sooner or later in a device with a vector unit.
_BEGINS_TOLERANCE = 8
#: Reads of a job of which each waits for the one before: descriptor, codes, Q, K.
_READS_IN_TURN = 4
_STAGES = ("qk", "pv", "softmax", "load_q", "load_k", "load_v")


def words_wrong(name: str, got: np.ndarray, expected: np.ndarray) -> Iterator[str]:
    """Differences of the words of a job."""
    if got.shape != expected.shape:
        yield f"{name}: {list(got.shape)} words instead of {list(expected.shape)}"
        return
    wrong = np.argwhere(got != expected)
    if len(wrong):
        first = tuple(wrong[0].tolist())
        yield (
            f"{name}: {len(wrong)} of {expected.size} words differ, at {first} "
            f"{int(got[first])} instead of {int(expected[first])}"
        )


def array_cycles(config: Config, job: Job) -> np.ndarray:
    """Cycles in which arrays work for a job, int64 [blocks of its tokens]; all blocks are whole."""
    digits = np.array(CODE_DIGITS)
    if isinstance(job, LayerJob):
        blocks = blocks_of(job.tokens, config.layer_tokens)
        work = np.full(blocks, digits[job.device_codes()].sum())
        work *= config.block * config.layer_tokens * config.head_dim
    else:
        codes = job.codes[list(job.rows(config))]
        work = 2 * digits[codes].sum(axis=1) * config.block**2 * config.head_dim
    return work // (LANES * config.rows * config.cols)


def counters_wrong(
    config: Config, image: Image, jobs: Sequence[Job], step: StepResult
) -> Iterator[str]:
    """Counters of a queue against its work, and against the bursts that the memory saw.

    Parameters
    ----------
    config : Config
        The accelerator.
    image : Image
        The queue in memory.
    jobs : sequence of Job
        Its heads and layers.
    step : StepResult
        What the bench saw, with all bursts.
    """
    counters, beat_bytes = step.counters, config.axi_bits // 8
    if counters is None:
        yield "there are no counters"
        return
    if counters.heads_done != len(image.outputs):
        yield f"HEADS_DONE is {counters.heads_done} instead of {len(image.outputs)}"
    moved, bursts = {}, {}
    for direction in ("read", "write"):
        seen = step.bursts[direction]
        bursts[direction] = getattr(counters, f"{direction}_bursts")
        beats = getattr(counters, f"{direction}_beats")
        moved[direction] = beats * beat_bytes
        if (bursts[direction], beats) != (len(seen), sum(count for _, count in seen)):
            yield f"{direction}: counters do not tell what the memory saw"
    wanted = wanted_bytes(config, jobs)["read"]
    if moved["read"] < wanted:
        yield f"{moved['read']} bytes were read, and {wanted} wanted"
    written = written_bytes(image)
    if not written <= moved["write"] <= written + 2 * beat_bytes * bursts["write"]:
        yield f"beats of {moved['write']} bytes were written for {written}"
    for number, core in enumerate(counters.cores):
        longest = max(sum(stage.values()) for stage in core.values())
        if longest > counters.cycles:
            yield f"a stage of core {number} counts {longest} of {counters.cycles} cycles"
    stages = counters.stages
    array = stages["qk"]["busy"] + stages["pv"]["busy"]
    work = [array_cycles(config, job) for job in jobs]
    expected = sum(int(cycles.sum()) for cycles in work)
    # When the last outputs are written it may still work for tokens that are none.
    left = int(work[-1][-1]) if jobs and _ends_partial(config, jobs[-1]) else 0
    if not expected - left <= array <= expected:
        yield f"the array works in {array} cycles instead of {expected}"


def _ends_partial(config: Config, job: Job) -> bool:
    """Whether the last block of a job's tokens is not whole."""
    if isinstance(job, LayerJob):
        return job.tokens % config.layer_tokens != 0
    return len(job.queries(config)) % config.block != 0


def at_once(config: Config, job: Job) -> bool:
    """Whether a job's codes are all read when it begins, for each superblock of a layer."""
    words = max(map(len, job.cluster_code_words(config)))
    units = blocks_of(words, config.load_tokens)
    if isinstance(job, LayerJob) and job.superblocks(config) > 1:
        return units * job.superblocks(config) <= WAITING_UNITS - RUN_UNITS
    return units <= WAITING_UNITS


def predicted_writes(config: Config, image: Image, prediction: Prediction) -> list[tuple[int, int]]:
    """Address and beats of each burst that is written, as the cycle model has it.

    Rows come in the order in which they end.
    """
    bursts = []
    for head, ends in enumerate(prediction.row_ends):
        outputs = head_outputs(config, image, head)
        for row in np.argsort(ends).tolist():
            bursts += outputs.row_bursts(row)
    return bursts


def cycles_wrong(
    config: Config,
    image: Image,
    jobs: Sequence[Job],
    memory: Memory,
    step: StepResult,
) -> Iterator[str]:
    """Cycles and writes of a queue, begun from a reset, against the cycle model.

    Cycles are those of the model, all of them unless codes are read later, or there is a vector
    unit: its device ends jobs, and arbitrates each run that is written, some cycles later. Where a
    memory draws its latencies, each of them is another one then, and many of them deviate from the
    mean as random sums do. Each core of a cluster works as long as predicted. Parameters are those
    of `counters_wrong`.
    """
    works = [job_work(config, job) for job in jobs]
    exact = not config.vector_channels and all(map(at_once, repeat(config), jobs))
    prediction = predict_accelerator(config, works, image, memory)
    counters = step.counters
    if counters is None:
        yield "there are no counters"
        return
    if (exact or config.cores == 1) and step.bursts["write"] != predicted_writes(
        config, image, prediction
    ):
        yield "bursts are not written in the order of the cycle model"
    tolerance = 0.0 if exact else ACCELERATOR_TOLERANCE * prediction.total_cycles
    # At the end an array may work for tokens that are none.
    share, least = _STAGE_TOLERANCE, Accelerator.DONE_LATENCY
    if config.vector_channels:
        begins = _BEGINS_TOLERANCE * len(jobs)
        low, high = memory.latency
        tolerance += begins + len(step.bursts["write"])
        tolerance += 2 * (high - low) * sqrt(_READS_IN_TURN * len(jobs))
        share, least = _VECTOR_STAGE_TOLERANCE, least + begins
    if abs(counters.cycles - prediction.total_cycles) > tolerance:
        yield f"{counters.cycles} cycles instead of {prediction.total_cycles}"
    for number, (found, expected) in enumerate(zip(counters.cores, prediction.cores, strict=True)):
        for stage in _STAGES:
            busy, wanted = found[stage]["busy"], expected[stage]["busy"]
            if abs(busy - wanted) > max(share * wanted, least):
                yield f"{stage} of core {number} is busy in {busy} cycles instead of {wanted}"
