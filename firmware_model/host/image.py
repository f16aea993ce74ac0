"""The accelerator's memory as the host fills it: jobs, room for their outputs, their queue."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from firmware_model.choices import ORDERS
from firmware_model.host.buffers import NO_BUFFERS, BufferPlaces, place_buffers
from firmware_model.host.dependences import Access, Accesses, find_waits
from firmware_model.host.jobs import HeadJob, Job, LayerJob
from firmware_model.host.memory import Memory
from firmware_model.host.tasks import (
    SCALES,
    Task,
    check_tasks,
    job_tokens,
    operand_reach,
    row_bytes,
    row_operands,
    row_words,
    word_bytes,
)
from firmware_model.host.vector_job import VectorJob
from paro.config import files
from paro.config.config import HEAD_DIMS, Config, blocks_of
from paro.config.descriptor import ALIGNMENT, pack_descriptor
from paro.config.errors import ParoError
from paro.config.formats import OUT_SHIFTS, SCALE_BYTES, Kind
from paro.config.registers import QUEUE_MAX

__all__ = [
    "Image",
    "PlacedOutput",
    "load_image",
    "order_axes",
    "place_jobs",
    "save_image",
]


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
    mantissas : range
        Addresses of the mantissas that a vector step finds, in the order of ``tokens``.
    """

    o_address: int
    o_row_stride: int
    tokens: np.ndarray
    words: int
    row_words: int
    word_bytes: int
    mantissas: range = range(0)

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
    buffers : BufferPlaces
        Where the buffers lie that jobs share.
    """

    base: int
    data: bytes
    queue_base: int
    outputs: list[PlacedOutput]
    digest: str
    buffers: BufferPlaces = NO_BUFFERS

    def bytes(self) -> range:
        """Addresses of all that it has."""
        return range(self.base, self.base + len(self.data))

    def output_bytes(self) -> range:
        """Addresses from the first byte that is written to the last one; none without outputs."""
        spans = [placed.bytes() for placed in self.outputs] or [range(0)]
        spans += [placed.mantissas for placed in self.outputs if placed.mantissas]
        return range(min(span.start for span in spans), max(span.stop for span in spans))


def order_axes(grid: tuple[int, int, int], order: int) -> tuple[list[int], list[int]]:
    """Extents and strides, in tokens, of the outer, middle and inner axis of an order."""
    _, height, width = grid
    strides = (height * width, width, 1)
    axes = ["FHW".index(axis) for axis in ORDERS[order]]
    return [grid[axis] for axis in axes], [strides[axis] for axis in axes]


def place_jobs(
    config: Config,
    jobs: Sequence[Job | VectorJob | Task],
    base: int,
    *,
    interleaved: bool = False,
    alignment: int = 64,
    misalign: Sequence[int] = (0,),
    row_padding: int = 0,
    fill: int = 0xA5,
    shared: bool = False,
    reuse: bool = True,
) -> Image:
    """Lay out jobs, room for their outputs and the queue of their descriptors in memory.

    Parameters
    ----------
    config : Config
        The accelerator.
    jobs : sequence of Job, VectorJob or Task
        Heads, layers and vector steps to compute, in the sequence of the queue. Each waits for
        those before it whose bytes in buffers it reads or writes anew, or that read what it writes.
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
    shared : bool
        Equal operands, scales, tables, codes and programs of several jobs are there once.
    reuse : bool
        Buffers take the places of those that no later job uses.

    Raises
    ------
    ParoError
        If jobs, codes, configuration and layout do not fit each other.
    """
    _check_layout(base, alignment, misalign, row_padding, fill)
    if not 1 <= len(jobs) <= QUEUE_MAX:
        raise ParoError(f"a queue of {len(jobs)} jobs is not legal; legal: 1 to {QUEUE_MAX}")
    tasks = [job if isinstance(job, Task) else Task(job) for job in jobs]
    check_tasks(config, tasks)
    in_one = range(len(tasks)) if interleaved else range(0)
    _check_interleaved([tasks[i] for i in in_one])

    memory = Memory(base, alignment, cycle(misalign), fill, shared)
    buffers = place_buffers(config, tasks, memory, reuse=reuse)
    fields: list[dict[str, int]] = [{} for _ in tasks]
    for group in [in_one] if interleaved else [range(i, i + 1) for i in range(len(tasks))]:
        _place_rows(config, [(tasks[i], fields[i]) for i in group], memory, buffers, row_padding)
    for task, values in zip(tasks, fields, strict=True):
        values |= _shape_fields(config, task) | _place_small(config, task, memory, buffers)
    placed = [
        _placed_output(config, task, values) for task, values in zip(tasks, fields, strict=True)
    ]
    accesses = [
        _accesses(config, task, values, output, buffers)
        for task, values, output in zip(tasks, fields, placed, strict=True)
    ]
    for values, wait in zip(fields, find_waits(accesses), strict=True):
        values |= vars(wait)
    queue = b"".join(pack_descriptor(**values) for values in fields)
    queue_base = memory.place(np.frombuffer(queue, np.uint8))
    return Image(base, memory.contents(), queue_base, placed, config.digest(), buffers)


def _place_rows(
    config: Config,
    members: Sequence[tuple[Task, dict[str, int]]],
    memory: Memory,
    buffers: BufferPlaces,
    row_padding: int,
) -> None:
    """Place operands and outputs of tasks, those that are not in buffers side by side."""
    for operand in row_operands(members[0][0].job):
        own = []
        for task, values in members:
            columns = task.columns(operand)
            if columns is None:
                own.append((task, values))
            else:
                values |= {
                    f"{operand}_address": buffers.addresses[columns.buffer.name] + columns.offset,
                    f"{operand}_row_stride": columns.buffer.row_bytes,
                }
        if not own:
            continue
        rows = [_natural_rows(task, operand, config, memory.fill) for task, _ in own]
        array = np.concatenate(rows, axis=1)
        array = np.pad(array, ((0, 0), (0, row_padding)), constant_values=memory.fill)
        address = memory.place(array) if operand == "o" else memory.constant(array)
        for (_, values), row in zip(own, rows, strict=True):
            values |= {
                f"{operand}_address": address,
                f"{operand}_row_stride": array.shape[1],
            }
            address += row.shape[1]


def _shape_fields(config: Config, task: Task) -> dict[str, int]:
    """Fields of a descriptor that are no places."""
    job = task.job
    values = {"block": config.block, "head_dim": config.head_dim, "out_cut": task.out_cut}
    if isinstance(job, LayerJob):
        return values | {
            "kind": Kind.LINEAR,
            "key_tokens": job.outputs,
            "query_tokens": job.tokens,
            "chunks": job.codes.shape[1],
            "sum_shift": job.sum_shift,
            "out_shift": OUT_SHIFTS.index(job.out_shift),
        }
    if isinstance(job, VectorJob):
        first, count, order = 0, job.tokens, job.order
        values |= {"kind": Kind.VECTOR, "chunks": job.channels // config.head_dim}
    else:
        queries = job.queries(config)
        first, count, order = queries.start // config.block, len(queries), job.head.order
    values |= {
        "key_tokens": job_tokens(job),
        "first_block_row": first,
        "query_tokens": count,
        "prefix_tokens": job.prefix_tokens,
        "suffix_tokens": job.suffix_tokens,
    }
    extents, strides = order_axes(job.grid, order)
    for axis, extent, stride in zip(("outer", "middle", "inner"), extents, strides, strict=True):
        values |= {f"{axis}_extent": extent, f"{axis}_stride": stride}
    return values


def _place_small(
    config: Config, task: Task, memory: Memory, buffers: BufferPlaces
) -> dict[str, int]:
    """Place scales and codes of a job, or tables and program; returns their fields."""
    job = task.job
    if isinstance(job, VectorJob):
        return _place_step(config, task, job, memory, buffers)
    if isinstance(job, LayerJob):
        scales = dict(zip(SCALES, (job.mx, job.device_weight_scales()), strict=True))
    else:
        scales = dict(zip(SCALES, (job.head.mq, job.head.mk), strict=True))
    fields = {}
    for name, values in scales.items():
        columns = task.inputs.get(name)
        fields[f"{name}_address"] = (
            memory.constant(values.astype("<u4"), config.load_bytes)
            if columns is None
            else buffers.addresses[columns.buffer.name] + columns.offset
        )
    # Codes of all cores lie one after the other, each in room for the most that one has.
    words = job.cluster_code_words(config)
    units = blocks_of(max(map(len, words)), config.load_tokens)
    room = np.full((len(words), units * config.load_tokens), memory.fill_word(), np.uint32)
    for of_core, given in zip(room, words, strict=True):
        of_core[: len(given)] = given
    return fields | {
        "codes_address": memory.constant(room.astype("<u4")),
        "codes_stride": room.shape[1] if len(words) > 1 else 0,
    }


def _place_step(
    config: Config, task: Task, job: VectorJob, memory: Memory, buffers: BufferPlaces
) -> dict[str, int]:
    """Place tables, program and mantissas of a vector step; returns their fields."""
    program = np.frombuffer(job.program(), np.uint8)
    fields = {"k_address": 0, "q_scales_address": 0, "codes_address": memory.constant(program)}
    if len(job.tables):
        fields["k_address"] = memory.constant(job.tables.astype("<i2"))
    if not job.seconds:
        fields |= {"v_address": 0, "v_row_stride": HEAD_DIMS[0]}
    if task.mantissas is not None:
        own = task.mantissas
        fields["q_scales_address"] = buffers.addresses[own.buffer.name] + own.offset
    elif job.finds_mantissas:
        room = np.full(_mantissa_bytes(config, job), memory.fill, np.uint8)
        fields["q_scales_address"] = memory.place(room)
    return fields


def _mantissa_bytes(config: Config, job: VectorJob) -> int:
    """Bytes that a vector step writes of mantissas: whole beats of outputs."""
    unit = config.output_bytes
    return blocks_of(SCALE_BYTES * job.tokens, unit) * unit


def _placed_output(config: Config, task: Task, values: Mapping[str, int]) -> PlacedOutput:
    job = task.job
    mantissas = range(0)
    if isinstance(job, LayerJob):
        tokens, words = np.arange(job.tokens), job.outputs
    elif isinstance(job, VectorJob):
        tokens, words = job.permutation, job.channels
        if job.finds_mantissas:
            start = values["q_scales_address"]
            mantissas = range(start, start + _mantissa_bytes(config, job))
    else:
        tokens, words = job.head.permutation[list(job.queries(config))], config.head_dim
    return PlacedOutput(
        o_address=values["o_address"],
        o_row_stride=values["o_row_stride"],
        tokens=tokens,
        words=words,
        row_words=row_words(config, job),
        word_bytes=word_bytes(task, "o"),
        mantissas=mantissas,
    )


def _accesses(
    config: Config,
    task: Task,
    values: Mapping[str, int],
    output: PlacedOutput,
    buffers: BufferPlaces,
) -> Accesses:
    """Bytes of buffers that a job reads and writes; all else is the job's own, or never written."""
    reads = []
    for operand in task.inputs:
        tokens = operand_reach(config, task.job, operand)
        start, width = values[f"{operand}_address"], row_bytes(config, task, operand)
        if operand in SCALES:
            reads.append(Access(start, tokens * width, 1, tokens * width))
        else:
            reads.append(Access(start, values[f"{operand}_row_stride"], tokens, width))
    written = output.bytes()
    width = output.row_words * output.word_bytes
    rows = 1 + (len(written) - width) // output.o_row_stride
    writes = [Access(written.start, output.o_row_stride, rows, width)]
    if output.mantissas:
        found = output.mantissas
        writes.append(Access(found.start, len(found), 1, len(found)))
    return Accesses(tuple(reads), tuple(own for own in writes if own.start in buffers.used))


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
    if len({job_tokens(task.job) for task in tasks}) > 1:
        raise ParoError("interleaved heads have different numbers of tokens; legal: one number")
    if any(not isinstance(task.job, HeadJob) for task in tasks):
        raise ParoError(
            "a layer or vector step cannot be interleaved with others; legal: heads alone"
        )


def _natural_rows(task: Task, operand: str, config: Config, fill: int) -> np.ndarray:
    """Bytes of an operand, uint8 [tokens, bytes of a row], in the natural order."""
    job = task.job
    if operand == "o":
        return np.full((job_tokens(job), row_bytes(config, task, operand)), fill, np.uint8)
    if isinstance(job, LayerJob):
        values = job.device_inputs(config) if operand == "q" else job.device_weights(config)
        return values.view(np.uint8)
    if isinstance(job, VectorJob):
        words = job.rows if operand == "q" or job.second is None else job.second
        return np.ascontiguousarray(words.astype("<i2")).view(np.uint8)
    rows = np.empty((job.head.tokens, config.head_dim), np.uint8)
    rows[job.head.permutation] = getattr(job.head, f"{operand}8").view(np.uint8)
    return rows


def save_image(image: Image, path: Path) -> None:
    """Write an image as ``path``, safetensors, and a JSON file beside it."""
    tensors = {f"tokens_{i}": output.tokens for i, output in enumerate(image.outputs)}
    tensors["data"] = np.frombuffer(image.data, np.uint8)
    outputs = [
        {name: value for name, value in vars(output).items() if name != "tokens"}
        | {"mantissas": [output.mantissas.start, output.mantissas.stop]}
        for output in image.outputs
    ]
    used = image.buffers.used
    save_file(tensors, path)
    facts = {
        "base": image.base,
        "queue_base": image.queue_base,
        "outputs": outputs,
        "digest": image.digest,
        "buffers": vars(image.buffers) | {"used": [used.start, used.stop]},
    }
    files.write_json(path.with_suffix(".json"), facts)


def load_image(path: Path) -> Image:
    """Read what `save_image` wrote."""
    tensors, facts = load_file(path), json.loads(path.with_suffix(".json").read_text())
    outputs = [
        PlacedOutput(
            tokens=tensors[f"tokens_{i}"], **(output | {"mantissas": range(*output["mantissas"])})
        )
        for i, output in enumerate(facts.pop("outputs"))
    ]
    buffers = facts.pop("buffers")
    places = BufferPlaces(**(buffers | {"used": range(*buffers["used"])}))
    return Image(data=tensors["data"].tobytes(), outputs=outputs, buffers=places, **facts)
