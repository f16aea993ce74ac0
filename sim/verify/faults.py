"""What disturbs a queue, and how it must then end."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from rtl.bus.axi_lite import Response
from sim.cosim.accelerator_scenario import Disturbance, Step
from sim.cycles.bursts import head_fields
from sim.verify.images import changed, changed_bytes, with_empty_row

__all__ = [
    "FAULT_CLASSES",
    "FAULT_KINDS",
    "Ending",
    "Fault",
    "FaultKind",
    "Sizes",
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
_DISTURBANCES: Mapping[str, Disturbance] = {
    "read error": "read_error",
    "write error": "write_error",
    "control reset": "control_reset",
    "hard reset": "hard_reset",
    "second start": "start_again",
}
#: Cycles that the registers need at most, with stalls, until a second start arrives.
_START_CYCLES = 1500


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
    """

    kind: FaultKind
    share: float = 0.5
    response: Response = Response.SLVERR
    seed: int = 0

    @property
    def line(self) -> str:
        """All of it in a few words."""
        answer = f" {self.response.name}" if self.kind in FAULT_CLASSES["bus error"] else ""
        return f"{self.kind}{answer} at {self.share:.2f}"


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


@dataclass(frozen=True)
class Sizes:
    """How long a queue is at least: cycles, beats that are read, bursts that are written."""

    cycles: int
    read_beats: int
    write_bursts: int


def disturbed(
    config: Config, tasks: list[Task], image: Image, sizes: Sizes, fault: Fault
) -> tuple[Image, Step, Ending]:
    """Image and step of a queue with a fault, and how it must end.

    What cannot be of this queue, such as a program without a vector step, becomes a fault that can.
    """
    chance = random.Random(fault.seed)
    index = min(int(fault.share * len(tasks)), len(tasks) - 1)
    kind = _possible(tasks[index], fault.kind)
    if kind in _DISTURBANCES:
        return image, *_timed(kind, sizes, fault)
    if kind == "descriptor":
        values, cause = _bad_fields(config, head_fields(image, index), chance)
        return changed(image, index, **values), Step(), Ending(cause.name, index, False)
    if kind == "outside":
        values, cause = _outside(image, tasks[index], chance)
        return changed(image, index, **values), Step(), Ending(cause.name, index, False)
    if kind == "empty row":
        rows = _code_rows(config, tasks[index])
        wrong = with_empty_row(config, image, tasks[index], index, chance.randrange(rows))
        return wrong, Step(), Ending(Cause.EMPTY_ROW.name, index, False)
    if kind == "program":
        return *_bad_program(config, image, index, chance), Ending("BAD_PROGRAM", index, False)
    if chance.random() < 0.5:
        return replace(image, outputs=[]), Step(), Ending(Cause.EMPTY_QUEUE.name, 0, False)
    base = image.queue_base + chance.randrange(1, ALIGNMENT)
    wrong = replace(image, queue_base=base)
    return wrong, Step(), Ending(Cause.BAD_QUEUE_BASE.name, 0, False)


def _possible(task: Task, kind: FaultKind) -> FaultKind:
    """Return the kind itself, or one that the job can have."""
    is_step = isinstance(task.job, VectorJob)
    if kind == "empty row" and is_step:
        return "program"
    if kind == "program" and not is_step:
        return "empty row"
    return kind


def _timed(kind: FaultKind, sizes: Sizes, fault: Fault) -> tuple[Step, Ending]:
    """What comes at some time of the work."""
    if kind == "second start":
        # It must arrive before the queue is done.
        last = max(sizes.cycles - _START_CYCLES, 1)
        ending = Ending(Cause.BUSY.name, 0, certain=sizes.cycles > _START_CYCLES)
    elif kind in FAULT_CLASSES["reset"]:
        last, ending = sizes.cycles, Ending(outputs=False)
    else:
        last = sizes.read_beats if kind == "read error" else sizes.write_bursts
        ending = Ending(kind.upper().replace(" ", "_"), None, False, certain=False)
    after = 1 + min(int(fault.share * last), last - 1)
    step = Step(disturb=_DISTURBANCES[kind], after=after, response=fault.response)
    return step, ending


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
        or fields["first_block_row"] * config.block + queries > keys
        or fields["prefix_tokens"] + fields["suffix_tokens"] >= keys
    )


def _bad_fields(
    config: Config, fields: Mapping[str, int], chance: random.Random
) -> tuple[dict[str, int], Cause]:
    """Another value of one field, with which the descriptor must be refused."""
    while True:
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
        if cause is not None:
            return {field.name: value}, cause


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
    name = chance.choice((*reads, *writes))
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


def _bad_program(
    config: Config, image: Image, index: int, chance: random.Random
) -> tuple[Image, Step]:
    """A vector step whose program has no header, or whose rows are too wide."""
    fields = head_fields(image, index)
    if chance.random() < 0.5:
        wrong = changed_bytes(image, fields["codes_address"], bytes([chance.randrange(86)]))
        return wrong, Step()
    chunks = config.vector_channels // config.head_dim
    beyond = chance.randrange(chunks + 1, max(config.chunks_max, chunks + 1) + 1)
    return changed(image, index, chunks=beyond), Step()
