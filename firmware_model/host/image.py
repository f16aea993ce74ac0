"""The accelerator's memory as the host fills it: jobs, room for their outputs, their queue."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from firmware_model.choices import ORDERS
from firmware_model.codes import check_codes
from firmware_model.host.jobs import HeadJob, Job, LayerJob
from firmware_model.reorder import token_permutation
from paro.config import files
from paro.config.config import Config, blocks_of
from paro.config.descriptor import ALIGNMENT, pack_descriptor
from paro.config.errors import ParoError
from paro.config.formats import OUT_BYTES, OUT_SHIFTS, SCALE_BYTES, Kind
from paro.config.registers import (
    MEMORY_ADDRESS_BITS,
    QUEUE_MAX,
)

__all__ = [
    "Buffer",
    "Columns",
    "Image",
    "PlacedOutput",
    "Task",
    "load_image",
    "order_axes",
    "place_jobs",
    "save_image",
]


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
        Bytes of a row; a multiple of 4.
    """

    name: str
    tokens: int
    row_bytes: int


@dataclass(frozen=True, eq=False)
class Columns:
    """Part of each row of a buffer, from byte ``first`` on, a multiple of 4."""

    buffer: Buffer
    first: int = 0


@dataclass(frozen=True, eq=False)
class Task:
    """A job in a queue, and the buffers that it shares with others.

    Parameters
    ----------
    job : Job
        Head or layer. Arrays of operands that come from buffers are not placed.
    out_cut : int
        0: output words of 16 bits; else INT8, shifted right by so many bits (`cut_words`).
    output : Columns, optional
        Where its outputs go; room of their own by default.
    inputs : dict of str to Columns
        Operands that earlier jobs of the queue put out: of a head ``q``, ``k``, ``v``; of a layer
        ``q``, its activations.
    """

    job: Job
    out_cut: int = 0
    output: Columns | None = None
    inputs: Mapping[str, Columns] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PlacedOutput:
    """Where the output of a job lies.

    Parameters
    ----------
    o_address, o_row_stride : int
        First token's row, and bytes from one token to the next, in the natural order.
    tokens : np.ndarray
        int64 [rows]: natural token of each row; of a head in the head's order.
    words : int
        Words of a row.
    row_words : int
        Words that are written of a row: of a layer whole blocks.
    word_bytes : int
        Bytes of a word, 2 or 1.
    """

    o_address: int
    o_row_stride: int
    tokens: np.ndarray
    words: int
    row_words: int
    word_bytes: int

    def words_in(self, data: bytes) -> np.ndarray:
        """Words, as `Driver.outputs` gives them, in memory from the first of `bytes` on."""
        first, last = int(self.tokens.min()), int(self.tokens.max())
        shape = (last - first + 1, self.word_bytes * self.words)
        rows = np.lib.stride_tricks.as_strided(
            np.frombuffer(data, np.uint8), shape, (self.o_row_stride, 1), writeable=False
        )
        words = np.ascontiguousarray(rows[self.tokens - first]).view(f"<i{self.word_bytes}")
        return words.astype(np.int16)

    def bytes(self) -> range:
        """Addresses from the first byte that is written to the last one."""
        first, last = int(self.tokens.min()), int(self.tokens.max())
        end = self.o_address + last * self.o_row_stride + self.row_words * self.word_bytes
        return range(self.o_address + first * self.o_row_stride, end)


@dataclass(frozen=True, eq=False)
class Image:
    """A queue of jobs, as bytes for the accelerator's memory.

    Parameters
    ----------
    base : int
        Byte address of the first byte.
    data : bytes
        Operands, scales, codes, room for outputs and the descriptors.
    queue_base : int
        Byte address of the first descriptor.
    outputs : list of PlacedOutput
        Where the outputs will be, in the sequence of the queue.
    digest : str
        Of the configuration that it was made for.
    """

    base: int
    data: bytes
    queue_base: int
    outputs: list[PlacedOutput]
    digest: str

    def bytes(self) -> range:
        """Addresses of all that it has."""
        return range(self.base, self.base + len(self.data))

    def output_bytes(self) -> range:
        """Addresses from the first byte that is written to the last one; none without outputs."""
        spans = [placed.bytes() for placed in self.outputs] or [range(0)]
        return range(min(span.start for span in spans), max(span.stop for span in spans))


def order_axes(grid: tuple[int, int, int], order: int) -> tuple[list[int], list[int]]:
    """Extents and strides, in tokens, of the outer, middle and inner axis of an order."""
    _, height, width = grid
    strides = (height * width, width, 1)
    axes = ["FHW".index(axis) for axis in ORDERS[order]]
    return [grid[axis] for axis in axes], [strides[axis] for axis in axes]


def place_jobs(
    config: Config,
    jobs: Sequence[Job | Task],
    base: int,
    *,
    interleaved: bool = False,
    alignment: int = 64,
    misalign: Sequence[int] = (0,),
    row_padding: int = 0,
    fill: int = 0xA5,
) -> Image:
    """Lay out jobs, room for their outputs and the queue of their descriptors in memory.

    Parameters
    ----------
    config : Config
        The accelerator.
    jobs : sequence of Job or Task
        Heads and layers to compute, in the sequence of the queue. One that reads a buffer waits
        for the outputs of all before it.
    base : int
        Byte address from which on memory may be used; a multiple of ``alignment``.
    interleaved : bool
        Q, K, V and O are each one array [token, head, channel] of all heads, which then need the
        same number of tokens; by default each head has arrays of its own.
    alignment : int
        Every array begins at a multiple of this many bytes; a multiple of 4.
    misalign : sequence of int
        Bytes added to the beginnings of the arrays, taken in turn; multiples of 4.
    row_padding : int
        Bytes added to each row of operands and outputs; a multiple of 4.
    fill : int
        Value of every byte that means nothing.

    Raises
    ------
    ParoError
        If jobs, codes, configuration and layout do not fit each other.
    """
    _check_layout(base, alignment, misalign, row_padding, fill)
    if not 1 <= len(jobs) <= QUEUE_MAX:
        raise ParoError(f"a queue of {len(jobs)} jobs is not legal; legal: 1 to {QUEUE_MAX}")
    tasks = [job if isinstance(job, Task) else Task(job) for job in jobs]
    for index, task in enumerate(tasks):
        _check_task(config, task, index)
    _check_buffers(config, tasks)
    shared = range(len(tasks)) if interleaved else range(0)
    _check_interleaved([tasks[i] for i in shared])

    memory = _Memory(base, alignment, cycle(misalign), fill)
    addresses: dict[str, int] = {}  # of buffers
    fields: list[dict[str, int]] = [{} for _ in tasks]
    for group in [shared] if interleaved else [range(i, i + 1) for i in range(len(tasks))]:
        for operand in _operands(tasks[group[0]].job):
            members = []
            for i in group:
                columns = _columns(tasks[i], operand)
                if columns is None:
                    members.append(i)
                else:
                    fields[i] |= _place_columns(columns, operand, memory, addresses)
            if not members:
                continue
            rows = [_natural_rows(tasks[i], operand, config, fill) for i in members]
            array = np.concatenate(rows, axis=1)
            array = np.pad(array, ((0, 0), (0, row_padding)), constant_values=fill)
            address = memory.place(array)
            for i, row in zip(members, rows, strict=True):
                fields[i] |= {
                    f"{operand}_address": address,
                    f"{operand}_row_stride": array.shape[1],
                }
                address += row.shape[1]
    for task, values in zip(tasks, fields, strict=True):
        values |= _shape_fields(config, task) | _place_small(config, task, memory)
    queue = b"".join(pack_descriptor(**values) for values in fields)
    queue_base = memory.place(np.frombuffer(queue, np.uint8))
    placed = [
        _placed_output(config, task, values) for task, values in zip(tasks, fields, strict=True)
    ]
    return Image(base, memory.contents(), queue_base, placed, config.digest())


def _operands(job: Job) -> str:
    """Letters of the arrays of a job that have a row a token or an output channel."""
    return "qko" if isinstance(job, LayerJob) else "qkvo"


def _columns(task: Task, operand: str) -> Columns | None:
    """Columns of a buffer that an operand has."""
    return task.output if operand == "o" else task.inputs.get(operand)


def _place_columns(
    columns: Columns, operand: str, memory: "_Memory", addresses: dict[str, int]
) -> dict[str, int]:
    """Fields of an operand in a buffer, which is placed when it is first met."""
    buffer = columns.buffer
    if buffer.name not in addresses:
        rows = np.full((buffer.tokens, buffer.row_bytes), memory.fill, np.uint8)
        addresses[buffer.name] = memory.place(rows)
    return {
        f"{operand}_address": addresses[buffer.name] + columns.first,
        f"{operand}_row_stride": buffer.row_bytes,
    }


def _shape_fields(config: Config, task: Task) -> dict[str, int]:
    """Fields of a descriptor that are no places."""
    job = task.job
    values = {
        "block": config.block,
        "head_dim": config.head_dim,
        "out_cut": task.out_cut,
        "after": int(bool(task.inputs)),
    }
    if isinstance(job, LayerJob):
        return values | {
            "kind": Kind.LINEAR,
            "key_tokens": job.outputs,
            "query_tokens": job.tokens,
            "chunks": job.codes.shape[1],
            "sum_shift": job.sum_shift,
            "out_shift": OUT_SHIFTS.index(job.out_shift),
        }
    queries = job.queries(config)
    extents, strides = order_axes(job.grid, job.head.order)
    values |= {
        "key_tokens": job.head.tokens,
        "first_block_row": queries.start // config.block,
        "query_tokens": len(queries),
        "prefix_tokens": job.prefix_tokens,
        "suffix_tokens": job.suffix_tokens,
    }
    for axis, extent, stride in zip(("outer", "middle", "inner"), extents, strides, strict=True):
        values |= {f"{axis}_extent": extent, f"{axis}_stride": stride}
    return values


def _place_small(config: Config, task: Task, memory: "_Memory") -> dict[str, int]:
    """Place scales and codes of a job; returns their fields."""
    job = task.job
    if isinstance(job, LayerJob):
        of_queries, of_keys = job.mx, job.device_weight_scales()
    else:
        of_queries, of_keys = job.head.mq, job.head.mk
    group_bytes = config.load_tokens * SCALE_BYTES
    # Codes of all cores lie one after the other, each in room for the most that one has.
    words = job.cluster_code_words(config)
    units = blocks_of(max(map(len, words)), config.load_tokens)
    room = np.full((len(words), units * config.load_tokens), memory.fill_word(), np.uint32)
    for of_core, given in zip(room, words, strict=True):
        of_core[: len(given)] = given
    return {
        "q_scales_address": memory.place(of_queries.astype("<u4"), group_bytes),
        "k_scales_address": memory.place(of_keys.astype("<u4"), group_bytes),
        "codes_address": memory.place(room.astype("<u4")),
        "codes_stride": room.shape[1] if len(words) > 1 else 0,
    }


def _placed_output(config: Config, task: Task, values: dict[str, int]) -> PlacedOutput:
    job = task.job
    if isinstance(job, LayerJob):
        tokens, words = np.arange(job.tokens), job.outputs
    else:
        tokens, words = job.head.permutation[list(job.queries(config))], config.head_dim
    return PlacedOutput(
        o_address=values["o_address"],
        o_row_stride=values["o_row_stride"],
        tokens=tokens,
        words=words,
        row_words=_row_words(config, job),
        word_bytes=1 if task.out_cut else OUT_BYTES,
    )


def _row_words(config: Config, job: Job) -> int:
    """Words that a job writes of each row: of a layer whole blocks."""
    if isinstance(job, LayerJob):
        return config.blocks_of(job.outputs) * config.block
    return config.head_dim


@dataclass
class _Memory:
    """Bytes that grow from ``base`` on."""

    base: int
    alignment: int
    misalign: Iterator[int]
    fill: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def fill_word(self) -> int:
        """Word of four bytes that mean nothing."""
        return int.from_bytes(bytes([self.fill]) * 4, "little")

    def place(self, values: np.ndarray, unit: int = 1) -> int:
        """Append an array, filled up to whole units of bytes; return its address."""
        gap = -(self.base + self.size) % self.alignment + next(self.misalign)
        self._append(bytes([self.fill]) * gap)
        address = self.base + self.size
        self._append(values.tobytes())
        self._append(bytes([self.fill]) * (-values.nbytes % unit))
        return address

    def _append(self, part: bytes) -> None:
        self.parts.append(part)
        self.size += len(part)
        if self.base + self.size > 2**MEMORY_ADDRESS_BITS:
            raise ParoError(
                f"jobs placed from {self.base:#x} on leave the memory; "
                f"legal: addresses below {2**MEMORY_ADDRESS_BITS:#x}"
            )

    def contents(self) -> bytes:
        return b"".join(self.parts)


def _check_layout(
    base: int, alignment: int, misalign: Sequence[int], row_padding: int, fill: int
) -> None:
    if alignment < ALIGNMENT or alignment % ALIGNMENT:
        raise ParoError(f"alignment = {alignment} is not legal; legal: multiples of {ALIGNMENT}")
    if base < 0 or base % alignment:
        raise ParoError(
            f"base = {base:#x} is not legal; legal: multiples of the alignment, {alignment}"
        )
    for name, values in (("misalign", misalign), ("row_padding", (row_padding,))):
        if not values or any(value < 0 or value % ALIGNMENT for value in values):
            raise ParoError(
                f"{name} = {', '.join(map(str, values)) or 'nothing'} is not legal; "
                f"legal: multiples of {ALIGNMENT}, 0 or more"
            )
    if not 0 <= fill <= 255:
        raise ParoError(f"fill = {fill} is not legal; legal: a byte, 0 to 255")


def _check_interleaved(tasks: list[Task]) -> None:
    if len({_tokens(task.job) for task in tasks}) > 1:
        raise ParoError("interleaved heads have different numbers of tokens; legal: one number")
    if any(isinstance(task.job, LayerJob) for task in tasks):
        raise ParoError("a layer cannot be interleaved with others; legal: heads alone")


def _tokens(job: Job) -> int:
    return job.tokens if isinstance(job, LayerJob) else job.head.tokens


def _check_task(config: Config, task: Task, index: int) -> None:
    if task.out_cut and not config.cuts_outputs:
        raise ParoError(
            f"job {index} of the queue has 8-bit outputs, but a row of this accelerator is not "
            "whole pairs of its output beats; legal: out_cut = 0"
        )
    legal = "q" if isinstance(task.job, LayerJob) else "qkv"
    wrong = [name for name in task.inputs if name not in legal]
    if wrong:
        raise ParoError(
            f"job {index} of the queue cannot read {wrong[0]} from a buffer; "
            f"legal: {', '.join(legal)}"
        )
    if isinstance(task.job, LayerJob):
        _check_layer(config, task.job, index)
    else:
        _check_head(config, task.job, index)


def _check_buffers(config: Config, tasks: Sequence[Task]) -> None:
    """Check that rows lie in their buffers, and that what is read was written before, as INT8."""
    named: dict[str, Buffer] = {}
    written: dict[str, int] = {}  # last cut of those that wrote a buffer, by its name
    for index, task in enumerate(tasks):
        for operand, columns in task.inputs.items():
            _check_columns(config, task, operand, columns, index)
            buffer = columns.buffer
            if not written.get(buffer.name):
                raise ParoError(
                    f"job {index} of the queue reads {operand} from buffer {buffer.name!r}, to "
                    "which no job before it has written INT8; legal: outputs with out_cut"
                )
        if task.output is not None:
            _check_columns(config, task, "o", task.output, index)
            name = task.output.buffer.name
            written[name] = min(written.get(name, task.out_cut), task.out_cut)
        for columns in (*task.inputs.values(), *([task.output] if task.output else [])):
            if named.setdefault(columns.buffer.name, columns.buffer) is not columns.buffer:
                raise ParoError(f"two buffers are named {columns.buffer.name!r}; legal: one")


def _check_columns(config: Config, task: Task, operand: str, columns: Columns, index: int) -> None:
    """Check that a task's rows of an operand lie in their buffer."""
    job, buffer = task.job, columns.buffer
    row_bytes = config.head_dim
    if operand == "o":
        row_bytes = _row_words(config, job) * (1 if task.out_cut else OUT_BYTES)
    elif isinstance(job, LayerJob):
        row_bytes *= job.codes.shape[1]
    end = columns.first + row_bytes
    if columns.first < 0 or end > buffer.row_bytes:
        raise ParoError(
            f"job {index} of the queue has {operand} in bytes {columns.first} to {end - 1} of a "
            f"row of buffer {buffer.name!r}; legal: 0 to {buffer.row_bytes - 1}"
        )
    if _tokens(job) > buffer.tokens:
        raise ParoError(
            f"job {index} of the queue has {_tokens(job)} tokens; "
            f"legal: up to those of buffer {buffer.name!r}, {buffer.tokens}"
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
    if job.rows(config).step != 1:
        raise ParoError(f"head {index} of the queue: query blocks must be contiguous")
    check_codes(job.codes, config.blocks_of(head.tokens))


def _natural_rows(task: Task, operand: str, config: Config, fill: int) -> np.ndarray:
    """Bytes of an operand, uint8 [tokens, bytes of a row], in the natural order."""
    job = task.job
    if operand == "o":
        width = _row_words(config, job) * (1 if task.out_cut else OUT_BYTES)
        return np.full((_tokens(job), width), fill, np.uint8)
    if isinstance(job, LayerJob):
        values = job.device_inputs(config) if operand == "q" else job.device_weights(config)
        return values.view(np.uint8)
    rows = np.empty((job.head.tokens, config.head_dim), np.uint8)
    rows[job.head.permutation] = getattr(job.head, f"{operand}8").view(np.uint8)
    return rows


def save_image(image: Image, path: Path) -> None:
    """Write an image as ``path``, safetensors, and a JSON file beside it."""
    tensors = {f"tokens_{i}": output.tokens for i, output in enumerate(image.outputs)}
    tensors["data"] = np.frombuffer(image.data, np.uint8)
    outputs = [
        {name: value for name, value in vars(output).items() if name != "tokens"}
        for output in image.outputs
    ]
    save_file(tensors, path)
    facts = {
        "base": image.base,
        "queue_base": image.queue_base,
        "outputs": outputs,
        "digest": image.digest,
    }
    files.write_json(path.with_suffix(".json"), facts)


def load_image(path: Path) -> Image:
    """Read what `save_image` wrote."""
    tensors, facts = load_file(path), json.loads(path.with_suffix(".json").read_text())
    outputs = [
        PlacedOutput(tokens=tensors[f"tokens_{i}"], **output)
        for i, output in enumerate(facts.pop("outputs"))
    ]
    return Image(data=tensors["data"].tobytes(), outputs=outputs, **facts)
