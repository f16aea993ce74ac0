"""The accelerator's memory as the host fills it: heads, room for their outputs, their queue."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from firmware_model.choices import ORDERS
from firmware_model.codes import check_codes, pack_codes
from firmware_model.host.jobs import HeadJob
from firmware_model.reorder import token_permutation
from paro.config import files
from paro.config.config import Config
from paro.config.descriptor import ALIGNMENT, pack_descriptor
from paro.config.errors import ParoError
from paro.config.formats import CODES_PER_WORD, OUT_BYTES, SCALE_BYTES
from paro.config.registers import (
    MEMORY_ADDRESS_BITS,
    QUEUE_MAX,
)

__all__ = [
    "Image",
    "PlacedHead",
    "load_image",
    "order_axes",
    "place_heads",
    "save_image",
]


@dataclass(frozen=True, eq=False)
class PlacedHead:
    """Where the output of a head lies.

    Parameters
    ----------
    o_address, o_row_stride : int
        First token's row, and bytes from one token to the next, in the natural order.
    tokens : np.ndarray
        int64 [queries]: natural token of each query, in the head's order.
    """

    o_address: int
    o_row_stride: int
    tokens: np.ndarray


@dataclass(frozen=True, eq=False)
class Image:
    """A queue of heads, as bytes for the accelerator's memory.

    Parameters
    ----------
    base : int
        Byte address of the first byte.
    data : bytes
        Q, K, V, scales, codes, room for O and the descriptors.
    queue_base : int
        Byte address of the first descriptor.
    heads : list of PlacedHead
        Where the outputs will be, in the sequence of the queue.
    head_dim : int
        Channels of a head.
    """

    base: int
    data: bytes
    queue_base: int
    heads: list[PlacedHead]
    head_dim: int


def order_axes(grid: tuple[int, int, int], order: int) -> tuple[list[int], list[int]]:
    """Extents and strides, in tokens, of the outer, middle and inner axis of an order."""
    _, height, width = grid
    strides = (height * width, width, 1)
    axes = ["FHW".index(axis) for axis in ORDERS[order]]
    return [grid[axis] for axis in axes], [strides[axis] for axis in axes]


def place_heads(
    config: Config,
    jobs: Sequence[HeadJob],
    base: int,
    *,
    interleaved: bool = False,
    alignment: int = 64,
    misalign: Sequence[int] = (0,),
    row_padding: int = 0,
    fill: int = 0xA5,
) -> Image:
    """Lay out heads, room for their outputs and the queue of their descriptors in memory.

    Parameters
    ----------
    config : Config
        The accelerator.
    jobs : sequence of HeadJob
        Heads to compute, in the sequence of the queue.
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
        Bytes added to each row of Q, K, V and O; a multiple of 4.
    fill : int
        Value of every byte that means nothing.

    Raises
    ------
    ParoError
        If heads, codes, configuration and layout do not fit each other.
    """
    _check_layout(base, alignment, misalign, row_padding, fill)
    if not 1 <= len(jobs) <= QUEUE_MAX:
        raise ParoError(f"a queue of {len(jobs)} heads is not legal; legal: 1 to {QUEUE_MAX}")
    for index, job in enumerate(jobs):
        _check_job(config, job, index)
    if interleaved and len({job.head.tokens for job in jobs}) > 1:
        raise ParoError("interleaved heads have different numbers of tokens; legal: one number")

    memory = _Memory(base, alignment, cycle(misalign), fill)
    fields: list[dict[str, int]] = [{} for _ in jobs]
    members = range(len(jobs))
    for group in [members] if interleaved else [range(i, i + 1) for i in members]:
        for operand in "qkvo":
            rows = [_natural_rows(jobs[i], operand, config, fill) for i in group]
            array = np.concatenate(rows, axis=1)
            array = np.pad(array, ((0, 0), (0, row_padding)), constant_values=fill)
            address = memory.place(array)
            for i, row in zip(group, rows, strict=True):
                fields[i] |= {
                    f"{operand}_address": address,
                    f"{operand}_row_stride": array.shape[1],
                }
                address += row.shape[1]
    for job, values in zip(jobs, fields, strict=True):
        queries = job.queries(config)
        extents, strides = order_axes(job.grid, job.head.order)
        group_bytes = config.load_tokens * SCALE_BYTES
        values |= {
            "block": config.block,
            "head_dim": config.head_dim,
            "key_tokens": job.head.tokens,
            "first_block_row": queries.start // config.block,
            "query_tokens": len(queries),
            "prefix_tokens": job.prefix_tokens,
            "suffix_tokens": job.suffix_tokens,
            "q_scales_address": memory.place(job.head.mq.astype("<u4"), group_bytes),
            "k_scales_address": memory.place(job.head.mk.astype("<u4"), group_bytes),
            "codes_address": memory.place(_code_bytes(config, job), config.load_bytes),
        }
        for axis, extent, stride in zip(
            ("outer", "middle", "inner"), extents, strides, strict=True
        ):
            values |= {f"{axis}_extent": extent, f"{axis}_stride": stride}
    queue = b"".join(pack_descriptor(**values) for values in fields)
    queue_base = memory.place(np.frombuffer(queue, np.uint8))
    placed = [
        PlacedHead(
            o_address=values["o_address"],
            o_row_stride=values["o_row_stride"],
            tokens=job.head.permutation[list(job.queries(config))],
        )
        for job, values in zip(jobs, fields, strict=True)
    ]
    return Image(base, memory.contents(), queue_base, placed, config.head_dim)


@dataclass
class _Memory:
    """Bytes that grow from ``base`` on."""

    base: int
    alignment: int
    misalign: Iterator[int]
    fill: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0

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
                f"heads placed from {self.base:#x} on leave the memory; "
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


def _check_job(config: Config, job: HeadJob, index: int) -> None:
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


def _natural_rows(job: HeadJob, operand: str, config: Config, fill: int) -> np.ndarray:
    """Bytes of an operand, uint8 [tokens, bytes of a row], in the natural order."""
    head = job.head
    if operand == "o":
        return np.full((head.tokens, OUT_BYTES * config.head_dim), fill, np.uint8)
    rows = np.empty((head.tokens, config.head_dim), np.uint8)
    rows[head.permutation] = getattr(head, f"{operand}8").view(np.uint8)
    return rows


def _code_bytes(config: Config, job: HeadJob) -> np.ndarray:
    """Codes of the rows to compute; each row fills whole words."""
    rows = job.rows(config)
    codes = job.codes[rows.start : rows.stop]
    return pack_codes(np.pad(codes, ((0, 0), (0, -codes.shape[1] % CODES_PER_WORD))))


def save_image(image: Image, path: Path) -> None:
    """Write an image as ``path``, safetensors, and a JSON file beside it."""
    tensors = {f"tokens_{i}": head.tokens for i, head in enumerate(image.heads)}
    tensors["data"] = np.frombuffer(image.data, np.uint8)
    places = [(head.o_address, head.o_row_stride) for head in image.heads]
    facts = {
        "base": image.base,
        "queue_base": image.queue_base,
        "head_dim": image.head_dim,
        "places": places,
    }
    save_file(tensors, path)
    files.write_json(path.with_suffix(".json"), facts)


def load_image(path: Path) -> Image:
    """Read what `save_image` wrote."""
    tensors, facts = load_file(path), json.loads(path.with_suffix(".json").read_text())
    heads = [
        PlacedHead(address, stride, tensors[f"tokens_{i}"])
        for i, (address, stride) in enumerate(facts.pop("places"))
    ]
    return Image(data=tensors["data"].tobytes(), heads=heads, **facts)
