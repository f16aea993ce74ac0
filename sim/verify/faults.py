"""What disturbs a queue, and how it must then end."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, get_args

from firmware_model.host.image import Image
from firmware_model.host.jobs import HeadJob, LayerJob
from firmware_model.host.tasks import Task
from firmware_model.host.vector_job import VectorJob
from paro.config import Config
from paro.config.descriptor import (
    ALIGNMENT,
    DESCRIPTOR,
    OUT_CUT_MAX,
    ROW_STRIDE_BITS,
)
from paro.config.formats import SUM_SHIFT_MAX, Kind
from paro.config.registers import MEMORY_ADDRESS_BITS, PAGE_BYTES, Cause
from paro.config.vector_program import PROGRAM_MAGIC
from rtl.bus.axi_lite import Response
from sim.cosim.accelerator_scenario import Disturbance, Step
from sim.cycles.bursts import head_fields
from sim.verify.images import changed, changed_bytes, regions, with_empty_row

__all__ = [
    "FAULT_CLASSES",
    "FAULT_KINDS",
    "REFUSED",
    "Ending",
    "Fault",
    "FaultKind",
    "disturbed",
    "refusal",
]

FaultKind = Literal[
    "read error",
    "write error",
    "control reset",
    "hard reset",
    "second start",
    "descriptor",
    "outside",
    "empty row",
    "program",
    "queue",
]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
#: Kinds of faults by what becomes of the queue.
FAULT_CLASSES: Mapping[str, tuple[FaultKind, ...]] = {
    "bus error": ("read error", "write error"),
    "reset": ("control reset", "hard reset"),
    "refused": ("second start", "descriptor", "outside", "empty row", "program", "queue"),
}
#: Causes for which a descriptor alone is refused.
REFUSED = (
    Cause.BAD_DESCRIPTOR,
    Cause.BAD_SHAPE,
    Cause.BAD_TOKENS,
    Cause.BAD_ALIGNMENT,
    Cause.BAD_KIND,
    Cause.BAD_LAYER,
)
_DISTURBANCES: Mapping[str, Disturbance] = {
    "read error": "read_error",
    "write error": "write_error",
    "control reset": "control_reset",
    "hard reset": "hard_reset",
    "second start": "start_again",
}
#: Cycles that the registers need at most, with stalls, until a second start arrives.
_START_CYCLES = 1500
#: Changes to try until a descriptor is refused for the cause that is wanted.
_ATTEMPTS = 5000


@dataclass(frozen=True)
class Fault:
    """One fault of a queue.

    Parameters
    ----------
    kind : FaultKind
        Which.
    share : float
        Where, 0 to 1, of the queue's cycles, beats or jobs.
    response : Response
        Of an error of the bus.
    seed : int
        Of what is wrong, where there is a choice.
    cause : Cause, optional
        Of a descriptor: why it must be refused; any by default.
    """

    kind: FaultKind
    share: float = 0.5
    response: Response = Response.SLVERR
    seed: int = 0
    cause: Cause | None = None

    @property
    def line(self) -> str:
        """All of it in a few words."""
        answer = f" {self.response.name}" if self.kind in FAULT_CLASSES["bus error"] else ""
        cause = f" {self.cause.name}" if self.cause else ""
        return f"{self.kind}{answer}{cause} at {self.share:.2f}"


@dataclass(frozen=True)
class Ending:
    """How a step must end.

    Parameters
    ----------
    cause : str, optional
        Name of the error that must be reported; none by default.
    head : int, optional
        Which job it must be of; by default the one whose burst failed.
    outputs : bool
        Whether the queue ends all the same, with its outputs.
    certain : bool
        Whether the error must come; else the queue may be over before, and then has its outputs.
    """

    cause: str | None = None
    head: int | None = None
    outputs: bool = True
    certain: bool = True


def disturbed(
    config: Config, tasks: list[Task], image: Image, cycles: int, fault: Fault
) -> tuple[Image, Step, Ending]:
    """Image and step of a queue with a fault, and how it must end.

    What cannot be of this queue, such as a program without a vector step, becomes a fault that can.

    Parameters
    ----------
    config : Config
        The accelerator.
    tasks : list of Task
        The queue.
    image : Image
        The queue in memory.
    cycles : int
        That it takes at least.
    fault : Fault
        What is wrong.
    """
    chance, kind = random.Random(fault.seed), fault.kind
    if kind in FAULT_CLASSES["bus error"]:
        return image, *_failing_burst(config, tasks, image, fault, chance)
    if kind in _DISTURBANCES:
        return image, *_timed(kind, cycles, fault)
    if kind == "queue":
        return _bad_queue(image, chance)
    able = [number for number, task in enumerate(tasks) if _can_have(task, kind)]
    if not able:
        able, kind = list(range(len(tasks))), "descriptor"
    index = able[min(int(fault.share * len(able)), len(able) - 1)]
    if kind == "descriptor":
        values, cause = _bad_fields(config, head_fields(image, index), fault.cause, chance)
        wrong = changed(image, index, **values)
    elif kind == "outside":
        values, cause = _outside(image, tasks[index], chance)
        wrong = changed(image, index, **values)
    elif kind == "program":
        wrong, cause = _bad_program(config, image, index, chance), Cause.BAD_PROGRAM
    else:
        row = chance.randrange(_code_rows(config, tasks[index]))
        wrong, cause = with_empty_row(config, image, tasks[index], index, row), Cause.EMPTY_ROW
    return wrong, Step(), Ending(cause.name, index, False)


def _can_have(task: Task, kind: FaultKind) -> bool:
    """Whether a job has what is wrong."""
    is_step = isinstance(task.job, VectorJob)
    return {"empty row": not is_step, "program": is_step}.get(kind, True)


def _failing_burst(
    config: Config, tasks: list[Task], image: Image, fault: Fault, chance: random.Random
) -> tuple[Step, Ending]:
    """An error of a beat, or of a response, of something that the queue reads or writes."""
    direction = fault.kind.removesuffix(" error")
    found = [r for r in regions(config, image, tasks) if r.direction == direction]
    name = chance.choice(sorted({region.name for region in found}))
    found = [region for region in found if region.name == name]
    region = found[min(int(fault.share * len(found)), len(found) - 1)]
    row, place = chance.randrange(region.rows), chance.randrange(region.width)
    step = Step(
        disturb=_DISTURBANCES[fault.kind],
        after=1,
        response=fault.response,
        address=region.start + row * region.stride + place,
    )
    return step, Ending(f"{direction}_error".upper(), None, False)


def _timed(kind: FaultKind, cycles: int, fault: Fault) -> tuple[Step, Ending]:
    """What comes at some time of the work."""
    ending = Ending(outputs=False)
    if kind == "second start":
        # It must arrive before the queue is done.
        ending = Ending(Cause.BUSY.name, 0, certain=cycles > _START_CYCLES)
        cycles = max(cycles - _START_CYCLES, 1)
    after = 1 + min(int(fault.share * cycles), cycles - 1)
    return Step(disturb=_DISTURBANCES[kind], after=after), ending


def _bad_queue(image: Image, chance: random.Random) -> tuple[Image, Step, Ending]:
    """A queue of no jobs, or one between words."""
    if chance.random() < 0.5:
        return replace(image, outputs=[]), Step(), Ending(Cause.EMPTY_QUEUE.name, 0, False)
    wrong = replace(image, queue_base=image.queue_base + chance.randrange(1, ALIGNMENT))
    return wrong, Step(), Ending(Cause.BAD_QUEUE_BASE.name, 0, False)


def refusal(config: Config, fields: Mapping[str, int]) -> Cause | None:
    """Why a descriptor must be refused, by what `paro.config.registers.CAUSES` says; else None.

    The first of several causes is told.
    """
    kind, constants = fields["kind"], {f.name: f.constant for f in DESCRIPTOR}
    last_kind = Kind.VECTOR if config.vector_channels else Kind.LINEAR
    strides = [fields[f"{operand}_row_stride"] for operand in "qkvo"]
    places = strides + [value for name, value in fields.items() if name.endswith("_address")]
    most_cut = OUT_CUT_MAX if config.cuts_outputs else 0
    chunks = fields["chunks"]
    found = {
        Cause.BAD_DESCRIPTOR: any(fields[name] != constants[name] for name in ("magic", "version")),
        Cause.BAD_SHAPE: (fields["block"], fields["head_dim"]) != (config.block, config.head_dim),
        Cause.BAD_TOKENS: _wrong_tokens(config, fields),
        Cause.BAD_ALIGNMENT: any(place % ALIGNMENT for place in places)
        or any(stride >> ROW_STRIDE_BITS for stride in strides),
        Cause.BAD_KIND: kind > last_kind,
        Cause.BAD_LAYER: fields["out_cut"] > most_cut
        or (
            kind != Kind.ATTENTION
            and (not 1 <= chunks <= config.chunks_max or fields["sum_shift"] > SUM_SHIFT_MAX)
        ),
    }
    return next((cause for cause in Cause if found.get(cause)), None)


def _wrong_tokens(config: Config, fields: Mapping[str, int]) -> bool:
    keys, queries = fields["key_tokens"], fields["query_tokens"]
    if not keys or not queries or keys > config.max_tokens:
        return True
    kind = fields["kind"]
    if kind == Kind.LINEAR or (kind != Kind.ATTENTION and not config.vector_channels):
        return queries > config.max_tokens
    extents = (fields[f"{axis}_extent"] for axis in ("outer", "middle", "inner"))
    return (
        not all(extents)
        or (kind != Kind.ATTENTION and fields["first_block_row"] > 0)
        or fields["first_block_row"] * config.block + queries > keys
        or fields["prefix_tokens"] + fields["suffix_tokens"] >= keys
    )


def _bad_fields(
    config: Config, fields: Mapping[str, int], wanted: Cause | None, chance: random.Random
) -> tuple[dict[str, int], Cause]:
    """Another value of one field, with which the descriptor must be refused, and why.

    Where no field alone leads to the cause that is wanted, it is another one.
    """
    for attempt in count():
        field = chance.choice(DESCRIPTOR)
        mask = (1 << field.width) - 1
        old = fields[field.name]
        beyond = {"key_tokens": config.max_tokens, "query_tokens": config.max_tokens}
        value = chance.choice(
            (
                0,
                mask,
                (old + 1) & mask,
                old ^ 1 << chance.randrange(field.width),
                min(beyond.get(field.name, old) + 1, mask),
                chance.randrange(mask + 1),
            )
        )
        cause = refusal(config, {**fields, field.name: value})
        if cause is not None and (wanted in (None, cause) or attempt > _ATTEMPTS):
            return {field.name: value}, cause
    raise AssertionError


def _outside(image: Image, task: Task, chance: random.Random) -> tuple[dict[str, int], Cause]:
    """An address in a descriptor that lies in no window."""
    job = task.job
    reads = ["q_address", "codes_address"]
    writes = ["o_address"]
    if isinstance(job, VectorJob):
        reads += ["v_address"] * bool(job.seconds) + ["k_address"] * bool(len(job.tables))
        writes += ["q_scales_address"] * job.finds_mantissas
    else:
        reads += ["k_address", "q_scales_address", "k_scales_address"]
        reads += ["v_address"] * isinstance(job, HeadJob)
    name = chance.choice(reads if chance.random() < 0.6 else writes)
    end = -(-image.bytes().stop // PAGE_BYTES) * PAGE_BYTES
    top = (1 << MEMORY_ADDRESS_BITS) - ALIGNMENT
    value = chance.choice((end, end + PAGE_BYTES * chance.randrange(1000), top))
    return {name: value}, Cause.WRITE_OUTSIDE if name in writes else Cause.READ_OUTSIDE


def _code_rows(config: Config, task: Task) -> int:
    """Rows of codes of a head or layer."""
    job = task.job
    if isinstance(job, HeadJob):
        return len(job.rows(config))
    return len(job.codes) if isinstance(job, LayerJob) else 0


def _bad_program(config: Config, image: Image, index: int, chance: random.Random) -> Image:
    """A vector step whose program has no header, or whose rows are too wide."""
    fields = head_fields(image, index)
    chunks = config.vector_channels // config.head_dim
    if chunks < config.chunks_max and chance.random() < 0.5:
        return changed(image, index, chunks=chance.randrange(chunks + 1, config.chunks_max + 1))
    other = bytes([chance.randrange(PROGRAM_MAGIC % 256)])
    return changed_bytes(image, fields["codes_address"], other)
