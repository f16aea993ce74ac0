"""A queue played on its bytes: every operand comes from memory, as descriptors tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from firmware_model.host.image import Image, order_axes
from firmware_model.host.jobs import HeadJob, LayerJob
from firmware_model.host.tasks import Task
from firmware_model.host.vector_job import VectorJob
from firmware_model.reference.outputs import model_outputs
from firmware_model.reference.passes import run_passes
from paro.config import Config
from paro.config.descriptor import DESCRIPTOR_BYTES, DescriptorField, unpack_descriptor
from paro.config.vector_program import (
    HEADER,
    PASS,
    SLOT_BYTES,
)


@dataclass(frozen=True, eq=False)
class Step:
    """A vector step that was played: its program, what it read, and what it wrote.

    Rows stand in the order of the walk.
    """

    passes: list[dict[str, int]]
    words: np.ndarray
    tables: np.ndarray
    second: np.ndarray
    outputs: np.ndarray
    mantissas: np.ndarray


class MemoryPlayer:
    """Plays the jobs of a queue one after the other."""

    def __init__(self, config: Config, tasks: Sequence[Task], image: Image) -> None:
        self.config, self.tasks, self.base = config, tasks, image.base
        self.memory = np.frombuffer(image.data, np.uint8).copy()
        start = image.queue_base - image.base
        self.fields = [
            unpack_descriptor(image.data[start + DESCRIPTOR_BYTES * place :])
            for place in range(len(tasks))
        ]
        self.steps: list[Step] = []

    def rows(self, fields: Mapping[str, int], operand: str, shape: tuple[int, int], word: int):
        """View of rows in the natural order, as words."""
        start = fields[f"{operand}_address"] - self.base
        strides = fields[f"{operand}_row_stride"], 1
        data = self.memory[start:]
        assert (shape[0] - 1) * strides[0] + shape[1] * word <= len(data)
        view = np.lib.stride_tricks.as_strided(data, (shape[0], shape[1] * word), strides)
        return view

    def read(self, fields, operand: str, shape: tuple[int, int], word: int) -> np.ndarray:
        rows = np.ascontiguousarray(self.rows(fields, operand, shape, word))
        return rows.view(f"<i{word}")

    def scales(self, fields: Mapping[str, int], name: str, count: int) -> np.ndarray:
        start = fields[f"{name}_address"] - self.base
        return self.memory[start : start + 4 * count].view("<i4").copy()

    def write(self, fields: Mapping[str, int], values: np.ndarray) -> None:
        data = np.ascontiguousarray(values)
        rows = self.rows(fields, "o", data.shape, data.itemsize)
        rows[:] = data.view(np.uint8).reshape(rows.shape)

    def play(self) -> bytes:
        for task, fields in zip(self.tasks, self.fields, strict=True):
            if isinstance(task.job, HeadJob):
                self.head(task.job, fields)
            elif isinstance(task.job, LayerJob):
                self.layer(task.job, fields)
            else:
                self.step(task.job, fields)
        return self.memory.tobytes()

    def walk(self, fields: Mapping[str, int]) -> np.ndarray:
        """Natural token at each position of a walk."""
        axes = [fields[f"{axis}_extent"] for axis in ("outer", "middle", "inner")]
        strides = [fields[f"{axis}_stride"] for axis in ("outer", "middle", "inner")]
        places = np.indices(axes).reshape(3, -1).T @ np.array(strides)
        prefix = fields["prefix_tokens"]
        rest = np.arange(fields["suffix_tokens"]) + prefix + len(places)
        return np.concatenate([places + prefix, np.arange(prefix), rest])

    def head(self, job: HeadJob, fields: Mapping[str, int]) -> None:
        tokens, order = fields["key_tokens"], self.walk(fields)
        assert order.tolist() == job.head.permutation.tolist()
        assert [fields[f"{axis}_extent"] for axis in ("outer", "middle", "inner")] == order_axes(
            job.grid, job.head.order
        )[0]
        operands, scales = {}, {}
        for name in "qkv":
            # Rows behind the last that is read may not be there.
            rows = np.zeros((tokens, self.config.head_dim), np.int8)
            reach = job.reach(self.config, name)
            rows[:reach] = self.read(fields, name, (reach, rows.shape[1]), 1)
            operands[f"{name}8"] = rows[order]
        for name in "qk":
            values = np.zeros(tokens, np.int32)
            reach = job.reach(self.config, f"{name}_scales")
            values[:reach] = self.scales(fields, f"{name}_scales", reach)
            scales[f"m{name}"] = values
        words = model_outputs(
            self.config, replace(job, head=replace(job.head, **operands, **scales))
        )
        written = order[list(job.queries(self.config))]
        shape = job.reach(self.config, "o"), words.shape[1]
        self.rows(fields, "o", shape, words.itemsize)[written] = words.view(np.uint8)

    def layer(self, job: LayerJob, fields: Mapping[str, int]) -> None:
        tokens = fields["query_tokens"]
        x8 = self.read(fields, "q", (tokens, job.x8.shape[1]), 1)
        scales = self.scales(fields, "k_scales", job.outputs)
        given = replace(
            job,
            x8=x8,
            mx=self.scales(fields, "q_scales", tokens),
            w8=self.read(fields, "k", job.w8.shape, 1),
            mw=scales & 255,
            bias=(scales << 8 >> 16).astype(np.int32),
        )
        words = model_outputs(self.config, given)
        whole = self.config.blocks_of(job.outputs) * self.config.block
        # What lies past a layer's outputs means nothing.
        self.write(fields, np.pad(words, ((0, 0), (0, whole - job.outputs)), constant_values=-77))

    def step(self, job: VectorJob, fields: Mapping[str, int]) -> None:
        start = fields["codes_address"] - self.base
        header = _fields(HEADER, self.memory, start)
        passes = [
            _fields(PASS, self.memory, start + SLOT_BYTES * (1 + place))
            for place in range(header["passes"])
        ]
        tokens, channels = fields["key_tokens"], fields["chunks"] * self.config.head_dim
        order = self.walk(fields)
        words = self.read(fields, "q", (tokens, channels), 2)[order]
        count = header["seconds"] * channels
        second = np.zeros((tokens, 0), np.int16)
        if count:
            second = self.read(fields, "v", (tokens, count), 2)[order]
        tables = {"k_address": fields["k_address"], "k_row_stride": 2 * channels}
        table_rows = np.zeros((0, channels), np.int16)
        if header["tables"]:
            table_rows = self.read(tables, "k", (header["tables"], channels), 2)
        sent, mantissas = run_passes(
            passes,
            *(torch.from_numpy(part.astype(np.int64)) for part in (words, table_rows, second)),
        )
        made = sent.numpy().astype(np.int8 if header["int8"] else np.int16)
        assert header["rows"]
        assert (made == sent.numpy()).all()
        assert header["mantissas"] == (mantissas is not None)
        natural = np.empty_like(made)
        natural[order] = made
        self.write(fields, natural)
        found = np.zeros(0, np.int32)
        if mantissas is not None:
            found = mantissas.numpy().astype(np.int32)
            place = fields["q_scales_address"] - self.base
            unit = self.config.output_bytes
            room = -(-4 * tokens // unit) * unit
            self.memory[place : place + room] = 0x55
            self.memory[place : place + 4 * tokens] = found.view(np.uint8)
        self.steps.append(Step(passes, words, table_rows, second, made, found))


def _fields(table: Sequence[DescriptorField], memory: np.ndarray, start: int) -> dict[str, int]:
    """Values of a slot; what may be negative is so."""
    slot = int.from_bytes(memory[start : start + SLOT_BYTES].tobytes(), "little")
    values = {}
    for field in table:
        value = slot >> field.offset & (1 << field.width) - 1
        negative = isinstance(field.legal, range) and field.legal.start < 0
        values[field.name] = (
            value - (1 << field.width) if negative and value >> field.width - 1 else value
        )
    return values
