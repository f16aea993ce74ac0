"""Images of queues, changed and read: descriptors, codes, programs, and whose bytes are where."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from firmware_model.host import superblocks
from firmware_model.host.image import Image
from firmware_model.host.jobs import HeadJob, Job, LayerJob
from firmware_model.host.tasks import Task, job_tokens, row_bytes, row_operands
from firmware_model.host.vector_job import VectorJob
from paro.config import Config
from paro.config.config import blocks_of
from paro.config.descriptor import DESCRIPTOR, DESCRIPTOR_BYTES
from paro.config.formats import CODE_WORD_BYTES, OUT_BYTES, SCALE_BYTES
from paro.config.vector_program import PROGRAM_BYTES
from sim.cycles.bursts import head_fields

__all__ = [
    "Region",
    "changed",
    "changed_bytes",
    "descriptor_at",
    "owners",
    "regions",
    "with_empty_row",
    "written_bytes",
]


def descriptor_at(image: Image, index: int) -> int:
    """Offset of a descriptor in the image's bytes."""
    return image.queue_base - image.base + index * DESCRIPTOR_BYTES


def changed_bytes(image: Image, address: int, data: bytes) -> Image:
    """Image with other bytes at an address."""
    content, start = bytearray(image.data), address - image.base
    content[start : start + len(data)] = data
    return replace(image, data=bytes(content))


def changed(image: Image, index: int, **values: int) -> Image:
    """Image with other values in a descriptor, legal or not."""
    start = descriptor_at(image, index)
    word = int.from_bytes(image.data[start : start + DESCRIPTOR_BYTES], "little")
    for field in DESCRIPTOR:
        if field.name in values:
            mask = (1 << field.width) - 1
            word = word & ~(mask << field.offset) | (values[field.name] & mask) << field.offset
    data = word.to_bytes(DESCRIPTOR_BYTES, "little")
    return changed_bytes(image, image.base + start, data)


def with_empty_row(config: Config, image: Image, task: Task, index: int, row: int) -> Image:
    """Image in which a computed row of a head, or an output block of a layer, has no live block."""
    job, fields = task.job, head_fields(image, index)
    if isinstance(job, HeadJob):
        codes = job.codes.copy()
        codes[job.rows(config)[row]] = 0
        parts = replace(job, codes=codes).cluster_code_words(config)
    elif isinstance(job, LayerJob):
        codes = job.device_codes()
        codes[row] = 0
        parts = [superblocks.shared_code_words(codes, config)]
    else:
        raise ValueError("a vector step has no codes")
    for core, words in enumerate(parts):
        address = fields["codes_address"] + core * fields["codes_stride"] * CODE_WORD_BYTES
        image = changed_bytes(image, address, words.astype("<u4").tobytes())
    return image


@dataclass(frozen=True)
class Region:
    """Rows of bytes that a job reads or writes.

    Parameters
    ----------
    job : int
        Index in the queue.
    name : str
        What it is: ``descriptor``, ``codes``, an operand, its scales, ``program``, ``tables``; of
        what is written ``o`` or ``mantissas``.
    start, stride, rows, width : int
        First address, bytes from row to row, rows, bytes of a row.
    """

    job: int
    name: str
    start: int
    stride: int
    rows: int
    width: int

    @property
    def direction(self) -> str:
        """``read`` or ``write``."""
        return "write" if self.name in ("o", "mantissas") else "read"

    def meets(self, first: int, count: int) -> bool:
        """Whether some of so many bytes are among them, at most those of a row."""
        # The last row that begins before their end.
        row = min((first + count - 1 - self.start) // self.stride, self.rows - 1)
        return row >= 0 and self.start + row * self.stride + self.width > first


def owners(
    config: Config, image: Image, tasks: list[Task], address: int, direction: str
) -> dict[int, str]:
    """Jobs that a burst may be of, by its first beat, and what each moves with it.

    Parameters
    ----------
    config : Config
        The accelerator.
    image : Image
        Where the jobs lie.
    tasks : list of Task
        What they are.
    address : int
        Of the burst.
    direction : str
        ``read`` or ``write``.
    """
    beat_bytes = config.axi_bits // 8
    first = address // beat_bytes * beat_bytes
    found: dict[int, str] = {}
    for region in regions(config, image, tasks):
        if region.direction == direction and region.meets(first, beat_bytes):
            found.setdefault(region.job, region.name)
    return found


def regions(config: Config, image: Image, tasks: list[Task]) -> Iterator[Region]:
    """All that the jobs of a queue read and write."""
    for index, task in enumerate(tasks):
        job, fields = task.job, head_fields(image, index)
        at = image.queue_base + index * DESCRIPTOR_BYTES
        yield Region(index, "descriptor", at, DESCRIPTOR_BYTES, 1, DESCRIPTOR_BYTES)
        for operand in row_operands(job):
            # A layer's weights have a row an output.
            rows = job.outputs if isinstance(job, LayerJob) and operand == "k" else job_tokens(job)
            start, stride = fields[f"{operand}_address"], fields[f"{operand}_row_stride"]
            yield Region(index, operand, start, stride, rows, row_bytes(config, task, operand))
        if isinstance(job, VectorJob):
            yield from _step_regions(image, index, job, fields)
        else:
            yield from _core_regions(config, index, job, fields)


def _step_regions(
    image: Image, index: int, job: VectorJob, fields: Mapping[str, int]
) -> Iterator[Region]:
    tables = OUT_BYTES * job.channels * len(job.tables)
    mantissas = image.outputs[index].mantissas
    for name, start, count in (
        ("program", fields["codes_address"], PROGRAM_BYTES),
        ("tables", fields["k_address"], tables),
        ("mantissas", mantissas.start, len(mantissas)),
    ):
        if count:
            yield Region(index, name, start, count, 1, count)


def _core_regions(
    config: Config, index: int, job: Job, fields: Mapping[str, int]
) -> Iterator[Region]:
    unit = config.load_bytes
    keys = job.outputs if isinstance(job, LayerJob) else job_tokens(job)
    for name, count in (("q_scales", job_tokens(job)), ("k_scales", keys)):
        width = blocks_of(SCALE_BYTES * count, unit) * unit
        yield Region(index, name, fields[f"{name}_address"], width, 1, width)
    parts = job.cluster_code_words(config)
    width = blocks_of(CODE_WORD_BYTES * max(map(len, parts)), unit) * unit
    stride = fields["codes_stride"] * CODE_WORD_BYTES or width
    yield Region(index, "codes", fields["codes_address"], stride, len(parts), width)


def written_bytes(image: Image) -> int:
    """Bytes that the jobs of an image write."""
    return int(
        sum(
            len(placed.tokens) * placed.row_words * placed.word_bytes + len(placed.mantissas)
            for placed in image.outputs
        )
    )
