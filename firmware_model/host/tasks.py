"""Tasks of a queue: jobs, and the memory that they share with one another."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from firmware_model.choices import ORDERS
from firmware_model.codes import check_codes
from firmware_model.host.jobs import HeadJob, Job, LayerJob
from firmware_model.host.vector_job import VectorJob
from firmware_model.reorder import token_permutation
from paro.config.config import Config, blocks_of
from paro.config.errors import ParoError
from paro.config.formats import OUT_BYTES, OUT_SHIFTS, SCALE_BYTES

__all__ = [
    "SCALES",
    "Buffer",
    "Columns",
    "Task",
    "check_tasks",
    "job_tokens",
    "operand_reach",
    "row_bytes",
    "row_operands",
    "row_words",
    "word_bytes",
]

#: Inputs that are scales: a word a token, one directly after the other.
SCALES = ("q_scales", "k_scales")


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory between jobs of a queue: some write its rows, others read them.

    Parameters
    ----------
    name : str
        Tells buffers apart.
    tokens : int
        Rows.
    row_bytes : int
        Bytes of a row; a multiple of 4. Of mantissas 4.
    content : np.ndarray, optional
        Rows that the host puts there before the queue begins, [tokens, words of a row].
    kept : bool
        Whether its memory stays its own to the end, as it does with a content.
    """

    name: str
    tokens: int
    row_bytes: int
    content: np.ndarray | None = None
    kept: bool = False


@dataclass(frozen=True, eq=False)
class Columns:
    """Bytes from ``first`` on, a multiple of 4, of the rows of a buffer from ``token`` on."""

    buffer: Buffer
    first: int = 0
    token: int = 0

    @property
    def offset(self) -> int:
        """Bytes of the buffer before it."""
        return self.token * self.buffer.row_bytes + self.first


@dataclass(frozen=True, eq=False)
class Task:
    """A job in a queue, and the buffers that it shares with others.

    Parameters
    ----------
    job : Job or VectorJob
        Head, layer or vector step. Arrays of operands that come from buffers are not placed.
    out_cut : int
        0: output words of 16 bits; else INT8, shifted right by so many bits (`cut_words`).
    output : Columns, optional
        Where its outputs go; room of their own by default.
    inputs : dict of str to Columns
        Operands that earlier jobs of the queue put out: of a head ``q``, ``k``, ``v`` and their
        ``q_scales``, ``k_scales``; of a layer ``q``, its activations, and ``q_scales``; of a vector
        step ``q``, its rows, and ``v``, its second rows. Scales are buffers of mantissas, in the
        order of what reads them.
    mantissas : Columns, optional
        Where the mantissas of a vector step go; room of their own by default.
    """

    job: Job | VectorJob
    out_cut: int = 0
    output: Columns | None = None
    inputs: Mapping[str, Columns] = field(default_factory=dict)
    mantissas: Columns | None = None

    def columns(self, operand: str) -> Columns | None:
        """Columns of a buffer that an operand has, or the output, ``o``."""
        return self.output if operand == "o" else self.inputs.get(operand)

    def buffers(self) -> Iterator[Buffer]:
        """All buffers that it uses."""
        for columns in (*self.inputs.values(), self.output, self.mantissas):
            if columns is not None:
                yield columns.buffer


def job_tokens(job: Job | VectorJob) -> int:
    """Number of tokens of a job."""
    return job.head.tokens if isinstance(job, HeadJob) else job.tokens


def operand_reach(config: Config, job: Job | VectorJob, operand: str) -> int:
    """Rows of an operand, or of the output, ``o``, up to the last that a job uses."""
    return job.reach(config, operand) if isinstance(job, HeadJob) else job.tokens


def row_operands(job: Job | VectorJob) -> str:
    """Letters of the arrays of a job that have a row a token or an output channel."""
    if isinstance(job, VectorJob):
        return "qvo" if job.seconds else "qo"
    return "qko" if isinstance(job, LayerJob) else "qkvo"


def row_words(config: Config, job: Job | VectorJob) -> int:
    """Words that a job writes of each row: of a layer whole blocks."""
    if isinstance(job, LayerJob):
        return config.blocks_of(job.outputs) * config.block
    return job.channels if isinstance(job, VectorJob) else config.head_dim


def word_bytes(task: Task, operand: str) -> int:
    """Bytes of a word of an operand, or of the output, ``o``."""
    if operand in SCALES:
        return SCALE_BYTES
    job = task.job
    if operand == "o":
        cut = job.sends_bytes if isinstance(job, VectorJob) else task.out_cut
        return 1 if cut else OUT_BYTES
    return OUT_BYTES if isinstance(job, VectorJob) else 1


def row_bytes(config: Config, task: Task, operand: str) -> int:
    """Bytes of a row of an operand, or of the output, ``o``."""
    job, word = task.job, word_bytes(task, operand)
    if operand in SCALES:
        return word
    if operand == "o":
        return word * row_words(config, job)
    if isinstance(job, VectorJob):
        return word * job.channels * (job.seconds if operand == "v" else 1)
    return config.head_dim * (job.codes.shape[1] if isinstance(job, LayerJob) else 1)


def check_tasks(config: Config, tasks: Sequence[Task]) -> None:
    """Check every task, and that what it reads from a buffer is there.

    Raises
    ------
    ParoError
        If jobs, buffers and configuration do not fit each other.
    """
    for index, task in enumerate(tasks):
        _check_task(config, task, index)
    _check_buffers(config, tasks)


def _check_task(config: Config, task: Task, index: int) -> None:
    job = task.job
    if task.out_cut and not config.cuts_outputs:
        raise ParoError(
            f"job {index} of the queue has 8-bit outputs, but a row of this accelerator is not "
            "whole pairs of its output beats; legal: out_cut = 0"
        )
    legal = _LEGAL_INPUTS[type(job)]
    wrong = [name for name in task.inputs if name not in legal]
    if wrong:
        raise ParoError(
            f"job {index} of the queue cannot read {wrong[0]} from a buffer; "
            f"legal: {', '.join(legal)}"
        )
    if task.mantissas is not None and not (isinstance(job, VectorJob) and job.finds_mantissas):
        raise ParoError(
            f"job {index} of the queue finds no mantissas; legal: a buffer for those of a vector "
            "step that does"
        )
    if isinstance(job, VectorJob):
        if task.out_cut:
            raise ParoError(
                f"job {index} of the queue is a vector step with out_cut = {task.out_cut}; legal: 0"
            )
        job.check(config, index)
    elif isinstance(job, LayerJob):
        _check_layer(config, job, index)
    else:
        _check_head(config, job, index)


_LEGAL_INPUTS: Mapping[type, tuple[str, ...]] = {
    HeadJob: ("q", "k", "v", *SCALES),
    LayerJob: ("q", "q_scales"),
    VectorJob: ("q", "v"),
}


def _check_buffers(config: Config, tasks: Sequence[Task]) -> None:
    """Check that rows lie in their buffers, and that what is read was written before, as words."""
    named: dict[str, Buffer] = {}
    written: dict[str, set[int]] = {}  # bytes of the words that are in a buffer, by its name
    for index, task in enumerate(tasks):
        for buffer in task.buffers():
            if named.setdefault(buffer.name, buffer) is not buffer:
                raise ParoError(f"two buffers are named {buffer.name!r}; legal: one")
            if buffer.content is not None:
                _check_content(buffer)
                written.setdefault(buffer.name, {buffer.content.itemsize})
        for operand, columns in task.inputs.items():
            _check_columns(config, task, operand, columns, index)
            name, wanted = columns.buffer.name, word_bytes(task, operand)
            if written.get(name) != {wanted}:
                raise ParoError(
                    f"job {index} of the queue reads {operand} from buffer {name!r}, to which no "
                    f"job before it has written {_WRITTEN[wanted]}"
                )
        if task.output is not None:
            _check_columns(config, task, "o", task.output, index)
            written.setdefault(task.output.buffer.name, set()).add(word_bytes(task, "o"))
        if task.mantissas is not None:
            _check_columns(config, task, "q_scales", task.mantissas, index)
            written.setdefault(task.mantissas.buffer.name, set()).add(SCALE_BYTES)


_WRITTEN = {
    1: "INT8; legal: outputs with out_cut, or INT8 of a vector step",
    OUT_BYTES: "words of 16 bits alone",
    SCALE_BYTES: "mantissas",
}


def _check_content(buffer: Buffer) -> None:
    content = buffer.content
    if content is not None and (
        content.ndim != 2 or len(content) != buffer.tokens or content[0].nbytes != buffer.row_bytes
    ):
        raise ParoError(
            f"buffer {buffer.name!r} has a content of shape {content.shape}; legal: "
            f"{buffer.tokens} rows of {buffer.row_bytes} bytes"
        )


def _check_columns(config: Config, task: Task, operand: str, columns: Columns, index: int) -> None:
    """Check that a task's rows of an operand lie in their buffer."""
    job, buffer = task.job, columns.buffer
    end = columns.first + row_bytes(config, task, operand)
    if columns.first < 0 or end > buffer.row_bytes:
        raise ParoError(
            f"job {index} of the queue has {operand} in bytes {columns.first} to {end - 1} of a "
            f"row of buffer {buffer.name!r}; legal: 0 to {buffer.row_bytes - 1}"
        )
    if operand in SCALES and buffer.row_bytes != SCALE_BYTES:
        raise ParoError(
            f"job {index} of the queue has {operand} in buffer {buffer.name!r} of rows of "
            f"{buffer.row_bytes} bytes; legal: {SCALE_BYTES}"
        )
    rest, reach = buffer.tokens - columns.token, operand_reach(config, job, operand)
    if columns.token < 0 or reach > rest:
        raise ParoError(
            f"job {index} of the queue has {reach} tokens; legal: up to those of buffer "
            f"{buffer.name!r}, {rest}" + f" from token {columns.token} on" * (columns.token != 0)
        )


def _check_layer(config: Config, job: LayerJob, index: int) -> None:
    if job.w8.shape[1] != job.x8.shape[1]:
        raise ParoError(
            f"job {index} of the queue has {job.x8.shape[1]} inputs and weights of "
            f"{job.w8.shape[1]}; legal: as many"
        )
    if job.out_shift not in OUT_SHIFTS:
        raise ParoError(
            f"job {index} of the queue has out_shift = {job.out_shift}; "
            f"legal: {', '.join(map(str, OUT_SHIFTS))}"
        )
    shape = (config.blocks_of(job.outputs), blocks_of(job.x8.shape[1], config.head_dim))
    if job.codes.shape != shape or job.codes.max() > 3:
        raise ParoError(
            f"job {index} of the queue has codes of shape {job.codes.shape}; legal: {shape}, 0 to 3"
        )
    for name, count in (("tokens", job.tokens), ("outputs", job.outputs)):
        if not 1 <= count <= config.max_tokens:
            raise ParoError(
                f"job {index} of the queue has {count} {name}; "
                f"legal: 1 to max_tokens = {config.max_tokens}"
            )


def _check_head(config: Config, job: HeadJob, index: int) -> None:
    head = job.head
    if head.q8.shape[1] != config.head_dim:
        raise ParoError(
            f"head {index} of the queue has {head.q8.shape[1]} channels; "
            f"legal: head_dim = {config.head_dim}"
        )
    if head.tokens > config.max_tokens:
        raise ParoError(
            f"head {index} of the queue has {head.tokens} tokens; "
            f"legal: up to max_tokens = {config.max_tokens}"
        )
    order = token_permutation(job.grid, job.prefix_tokens, head.order, job.suffix_tokens)
    if not np.array_equal(head.permutation, order):
        raise ParoError(
            f"head {index} of the queue does not stand in order {ORDERS[head.order]} of "
            f"{job.prefix_tokens} prefix tokens, grid {job.grid} and {job.suffix_tokens} suffix "
            "tokens"
        )
    rows = job.rows(config)
    if rows.step != 1:
        raise ParoError(f"head {index} of the queue: query blocks must be contiguous")
    most = len(replace(job, query_tokens=None).queries(config))
    least = (len(rows) - 1) * config.block + 1
    if job.query_tokens is not None and not least <= job.query_tokens <= most:
        raise ParoError(
            f"head {index} of the queue has {job.query_tokens} queries to compute; legal: {least} "
            f"to {most}, in its last block row some or all"
        )
    check_codes(job.codes, config.blocks_of(head.tokens))
