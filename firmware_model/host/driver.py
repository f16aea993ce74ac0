"""The host driver: puts heads into the accelerator's memory, starts it, reads what came out.

Its methods are coroutines, so that a bench awaits them while the simulation goes on. Where the
registers and the memory are simply there, `run_sync` calls them like functions.
"""

from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from firmware_model.codes import check_codes, checked_query_blocks
from firmware_model.reference.quantize import QuantizedHead
from firmware_model.reorder import ORDERS, token_permutation
from paro.config.config import Config
from paro.config.descriptor import ALIGNMENT, pack_descriptor
from paro.config.errors import ParoError
from paro.config.formats import CODES_PER_WORD, SCALE_BYTES
from paro.config.registers import (
    CAUSES,
    MAGIC,
    MAP_VERSION,
    MEMORY_ADDRESS_BITS,
    QUEUE_MAX,
    REGISTER_BITS,
    STAGES,
    START_CAUSES,
    STATES,
    Cause,
    counter_name,
    find_register,
)

__all__ = [
    "DeviceError",
    "Driver",
    "HeadJob",
    "Image",
    "PlacedHead",
    "Transport",
    "order_axes",
    "place_heads",
    "run_sync",
]

_CODE_BITS = 2
#: Looks at STATUS until an accelerator that gives up its queue must be at rest: more than a memory
#: needs to answer all bursts that may have begun.
_REST_LOOKS = 10_000

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class HeadJob:
    """One head to compute.

    Parameters
    ----------
    head : QuantizedHead
        The head, in its order.
    codes : torch.Tensor
        uint8 [blocks, blocks], of the whole head.
    grid : (int, int, int)
        Frames, height, width.
    prefix_tokens, suffix_tokens : int
        Tokens before and behind the grid.
    query_blocks : range, optional
        Block rows to compute, contiguous; all by default.
    """

    head: QuantizedHead
    codes: torch.Tensor
    grid: tuple[int, int, int]
    prefix_tokens: int
    suffix_tokens: int = 0
    query_blocks: range | None = None

    def queries(self, config: Config) -> range:
        """Positions of the queries, in the head's order."""
        rows = self.rows(config)
        return range(rows.start * config.block, min(rows.stop * config.block, self.head.tokens))

    def rows(self, config: Config) -> range:
        """Block rows to compute."""
        return checked_query_blocks(self.query_blocks, -(-self.head.tokens // config.block))


@dataclass(frozen=True, eq=False)
class PlacedHead:
    """Where the output of a head lies.

    Parameters
    ----------
    o_address, o_row_stride : int
        First token's row, and bytes from one token to the next, in the natural order.
    tokens : torch.Tensor
        int64 [queries]: natural token of each query, in the head's order.
    """

    o_address: int
    o_row_stride: int
    tokens: torch.Tensor


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
        What to compute, in the sequence of the queue.
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
        What stands in every byte that means nothing.

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
            "q_scales_address": memory.place(_words(job.head.mq), group_bytes),
            "k_scales_address": memory.place(_words(job.head.mk), group_bytes),
            "codes_address": memory.place(_code_words(config, job), config.load_bytes),
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
    if not torch.equal(head.permutation, order):
        raise ParoError(
            f"head {index} of the queue does not stand in order {ORDERS[head.order]} of "
            f"{job.prefix_tokens} prefix tokens, grid {job.grid} and {job.suffix_tokens} suffix "
            "tokens"
        )
    if job.rows(config).step != 1:
        raise ParoError(f"head {index} of the queue: query blocks must be contiguous")
    check_codes(job.codes, -(-head.tokens // config.block))


def _natural_rows(job: HeadJob, operand: str, config: Config, fill: int) -> np.ndarray:
    """Bytes of an operand, uint8 [tokens, bytes of a row], in the natural order."""
    head = job.head
    if operand == "o":
        return np.full((head.tokens, 2 * config.head_dim), fill, np.uint8)
    rows = np.empty((head.tokens, config.head_dim), np.uint8)
    rows[head.permutation.numpy()] = getattr(head, f"{operand}8").numpy().view(np.uint8)
    return rows


def _words(values: torch.Tensor) -> np.ndarray:
    return values.numpy().astype("<u4")


def _code_words(config: Config, job: HeadJob) -> np.ndarray:
    rows = job.rows(config)
    codes = job.codes[rows.start : rows.stop].numpy().astype("<u4")
    codes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % CODES_PER_WORD)))
    words = codes.reshape(len(rows), -1, CODES_PER_WORD)
    shifts = np.arange(CODES_PER_WORD, dtype="<u4") * _CODE_BITS
    return (words << shifts).sum(axis=2, dtype="<u4")


class Transport(Protocol):
    """How the driver reaches an accelerator; all addresses in bytes."""

    async def read32(self, address: int) -> int:
        """Read a register."""
        ...

    async def write32(self, address: int, value: int) -> None:
        """Write a register."""
        ...

    async def read(self, address: int, count: int) -> bytes:
        """Read ``count`` bytes of memory."""
        ...

    async def write(self, address: int, data: bytes) -> None:
        """Write bytes to memory."""
        ...


class DeviceError(ParoError):
    """The accelerator reported an error.

    Parameters
    ----------
    cause : Cause
        Why.
    head : int
        Index in the queue of the descriptor at fault; 0 if a start was refused.
    address : int
        Byte address of the burst that failed; 0 for other causes.
    """

    def __init__(self, cause: Cause, head: int, address: int) -> None:
        self.cause, self.head, self.address = cause, head, address
        where = ""
        if cause not in (*START_CAUSES, Cause.NONE):
            where = f" at head {head} of the queue"
        if cause in (Cause.READ_ERROR, Cause.WRITE_ERROR):
            where += f", in the burst at address {address:#x}"
        super().__init__(f"the accelerator reports error {cause.name}{where}: {CAUSES[cause]}")


class Driver:
    """Drives one accelerator.

    Parameters
    ----------
    transport : Transport
        How to reach it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._interrupt_enable = 0

    async def identify(self) -> Config:
        """Read what the accelerator is.

        Raises
        ------
        ParoError
            If none answers, or one that this driver does not know.
        """
        magic = await self._read("IDENT")
        if magic != MAGIC:
            raise ParoError(
                f"no PARO accelerator answers: IDENT reads {magic:#010x}; legal: {MAGIC:#010x}"
            )
        major = await self._read("VERSION", "major")
        if major != MAP_VERSION[0]:
            raise ParoError(
                f"the accelerator's registers have version {major}; legal: {MAP_VERSION[0]}"
            )
        values = {name: await self._read(name.upper()) for name in Config.model_fields}
        config = Config(**values)
        digest = f"{await self._read_pair('DIGEST'):012x}"
        if digest != config.digest():
            raise ParoError(
                f"the accelerator has configuration {digest}, but what it tells of it gives "
                f"{config.digest()}; it was generated by another version of this project"
            )
        return config

    async def load(self, image: Image) -> None:
        """Write heads and descriptors to memory."""
        await self._transport.write(image.base, image.data)

    async def start(self, image: Image, *, interrupt: bool = False) -> None:
        """Start work on a loaded queue; the interrupt is enabled if asked for.

        What the accelerator reported before is cleared. If it refuses, `wait` says why.
        """
        await self._write_pair("QUEUE_BASE", image.queue_base)
        await self._write("QUEUE_COUNT", value=len(image.heads))
        self._interrupt_enable = int(interrupt)
        await self._write("CONTROL", start=1, interrupt_enable=self._interrupt_enable)

    async def reset(self) -> None:
        """Make the accelerator give up its queue; it can be started when this returns.

        Raises
        ------
        ParoError
            If it does not come to rest: a burst is not answered.
        """
        await self._write("CONTROL", reset=1, interrupt_enable=self._interrupt_enable)
        await self._rest()
        await self._write("STATUS", done=1, error=1)

    async def wait(
        self, interrupt: Awaitable[Any] | None = None, *, polls: int | None = None
    ) -> None:
        """Wait until the queue is done.

        After an error the accelerator is at rest, but for BUSY: it goes on with its queue, which
        can be waited for again.

        Parameters
        ----------
        interrupt : awaitable, optional
            Awaited before STATUS is looked at for the first time.
        polls : int, optional
            How often to look at STATUS at most; without a limit by default.

        Raises
        ------
        DeviceError
            If the accelerator reports an error.
        ParoError
            If the queue is not done after ``polls`` looks, or the accelerator does not come to rest
            after an error.
        """
        if interrupt is not None:
            await interrupt
        looks = 0
        while polls is None or looks < polls:
            looks += 1
            status = await self._transport.read32(find_register("STATUS").offset)
            if _field(status, "STATUS", "error"):
                error = await self._device_error(status)
                # Not done as well: the queue for which a start was refused may be done by now.
                await self._write("STATUS", error=1)
                if _field(status, "STATUS", "cause") != Cause.BUSY:
                    await self._rest(f"{error}; then ")
                raise error
            if _field(status, "STATUS", "done"):
                await self._write("STATUS", done=1)
                return
        raise ParoError(
            f"the accelerator is not done after {looks} looks at STATUS; "
            f"{await self._read('HEADS_DONE')} heads are"
        )

    async def busy(self) -> bool:
        """Whether a queue is being worked on or given up."""
        return bool(await self._read("STATUS", "busy"))

    async def progress(self) -> dict[str, int]:
        """How far the queue is: ``heads_done``, and beats moved on the memory port."""
        names = ("HEADS_DONE", "READ_BEATS", "WRITE_BEATS")
        return {name.lower(): await self._read(name) for name in names}

    async def outputs(self, image: Image) -> list[torch.Tensor]:
        """Read the outputs of a queue that is done.

        Returns
        -------
        list of torch.Tensor
            For each head int16 [queries, head_dim], in its order, as
            `firmware_model.reference.integer.integer_attention` gives them.
        """
        return [await self._output(head, image.head_dim) for head in image.heads]

    async def run(
        self, image: Image, interrupt: Awaitable[Any] | None = None
    ) -> list[torch.Tensor]:
        """Load a queue, work on it and return its outputs; see `wait` and `outputs`."""
        await self.load(image)
        await self.start(image, interrupt=interrupt is not None)
        await self.wait(interrupt)
        return await self.outputs(image)

    async def counters(self) -> dict[str, Any]:
        """Read all counters of the last queue.

        Returns
        -------
        dict
            ``cycles``, ``heads_done``, ``read_bursts``, ``read_beats``, ``write_bursts``,
            ``write_beats`` and ``stages``: for each stage the clocks in each state.
        """
        names = ("HEADS_DONE", "READ_BURSTS", "READ_BEATS", "WRITE_BURSTS", "WRITE_BEATS")
        return {
            "cycles": await self._read_pair("CYCLES"),
            **{name.lower(): await self._read(name) for name in names},
            "stages": {
                stage: {state: await self._read(counter_name(stage, state)) for state in STATES}
                for stage in STAGES
            },
        }

    async def _output(self, head: PlacedHead, head_dim: int) -> torch.Tensor:
        first, last = int(head.tokens.min()), int(head.tokens.max())
        row_bytes = 2 * head_dim
        address = head.o_address + first * head.o_row_stride
        count = (last - first) * head.o_row_stride + row_bytes
        data = await self._transport.read(address, count)
        memory = np.frombuffer(data, np.uint8)
        rows = np.lib.stride_tricks.as_strided(
            memory, (last - first + 1, row_bytes), (head.o_row_stride, 1), writeable=False
        )
        words = np.ascontiguousarray(rows[(head.tokens - first).numpy()]).view("<i2")
        return torch.from_numpy(words.astype(np.int16))

    async def _device_error(self, status: int) -> ParoError:
        value = _field(status, "STATUS", "cause")
        if value not in list(Cause):
            return ParoError(f"the accelerator reports an error of the unknown cause {value}")
        cause = Cause(value)
        head = address = 0
        if cause not in START_CAUSES:
            head = await self._read("ERROR_HEAD")
        if cause in (Cause.READ_ERROR, Cause.WRITE_ERROR):
            address = await self._read_pair("ERROR_ADDRESS")
        return DeviceError(cause, head, address)

    async def _rest(self, before: str = "") -> None:
        """Wait until no queue is being worked on or given up."""
        for _ in range(_REST_LOOKS):
            if not await self.busy():
                return
        raise ParoError(
            f"{before}the accelerator is not at rest after {_REST_LOOKS} looks at STATUS; a burst "
            "of its memory port is not answered"
        )

    async def _read(self, name: str, field_name: str = "value") -> int:
        register = find_register(name)
        word = await self._transport.read32(register.offset)
        return register.field(field_name).extract(word)

    async def _read_pair(self, name: str) -> int:
        """Read a value in two registers that may change meanwhile."""
        high = await self._read(f"{name}_HI")
        while True:
            low, before = await self._read(f"{name}_LO"), high
            high = await self._read(f"{name}_HI")
            if high == before:
                return high << REGISTER_BITS | low

    async def _write(self, name: str, **values: int) -> None:
        register = find_register(name)
        word = sum(value << register.field(part).low for part, value in values.items())
        await self._transport.write32(register.offset, word)

    async def _write_pair(self, name: str, value: int) -> None:
        await self._write(f"{name}_LO", value=value % 2**REGISTER_BITS)
        await self._write(f"{name}_HI", value=value >> REGISTER_BITS)


def _field(word: int, register: str, name: str) -> int:
    return find_register(register).field(name).extract(word)


def run_sync(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine of a `Driver` whose transport never really waits.

    Raises
    ------
    RuntimeError
        If it waits for something.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("the transport waits for something: await the driver instead of run_sync")
