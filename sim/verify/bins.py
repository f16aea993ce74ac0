"""Functional bins: what random cases must meet, in which combinations, and what a case has met.

A cross has a bin for every combination of the values of its features, but for those that cannot
be. Its subject, such as a head, is looked at in every case. `CROSSES` are all of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import Any, get_args

from firmware_model.choices import ORDERS
from firmware_model.host.jobs import HeadJob, LayerJob
from firmware_model.host.tasks import Task
from firmware_model.host.vector_job import VectorJob
from paro.config import Config
from paro.config.formats import CODE_BITS, CODES_PER_WORD, OUT_SHIFTS
from paro.config.registers import Cause
from paro.config.vector_program import (
    PASSES_MAX,
    SECONDS_MAX,
    TABLES_MAX,
    Added,
    Left,
    Partner,
    Reduce,
    Right,
)
from sim.verify.cases import Case
from sim.verify.faults import FAULT_CLASSES, FAULT_KINDS
from sim.verify.heads import SKIPS, VALUES, WIDTHS, HeadShape
from sim.verify.layers import LAYER_VALUES, LayerShape
from sim.verify.queues import ChainShape

__all__ = ["CROSSES", "Cross", "all_bins", "hit_bins", "summary"]

Features = Mapping[str, Any]

_BOTH = (False, True)
_TARGETS = ("core", "accelerator")
_CLASSES = ("none", *FAULT_CLASSES)
#: What a failing read, a failing write moved.
_READ = ("descriptor", "codes", "q", "k", "v", "q_scales", "k_scales", "program", "tables")
_WRITTEN = ("o", "mantissas")


@dataclass(frozen=True)
class Cross:
    """Combinations of features of a subject.

    Parameters
    ----------
    subject : str
        What has the features.
    features : dict of str to sequence
        All values of each.
    cannot : callable, optional
        Whether a combination cannot be.
    reason : str
        Why.
    """

    subject: str
    features: Mapping[str, Sequence[Any]]
    cannot: Callable[[Features], bool] | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """Subject and features."""
        return f"{self.subject}: {' x '.join(self.features)}"

    def bins(self) -> Iterator[str]:
        """Every combination that can be."""
        for values in product(*self.features.values()):
            combined = dict(zip(self.features, values, strict=True))
            if self.cannot is None or not self.cannot(combined):
                yield self.bin(combined)

    def bin(self, found: Features) -> str:
        """Return the bin of a subject with some features."""
        return f"{self.subject}: " + ", ".join(
            f"{name} {_said(found[name])}" for name in self.features
        )


def _said(value: Any) -> str:
    """Return the word for a value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.name.lower() if isinstance(value, Enum) else str(value)


def _core_with_faults(found: Features) -> bool:
    return found["target"] == "core" and found["fault"] in ("bus error", "refused")


_CORE_FAULTS = "a core alone has no bus, and refuses nothing"
#: Fields of configurations whose legal values are few.
_FIELDS = [name for name, field in Config.model_fields.items() if get_args(field.annotation)]

CROSSES: tuple[Cross, ...] = (
    Cross(
        "head",
        {
            "order": ORDERS,
            "width": WIDTHS,
            "partial": _BOTH,
            "prefix": _BOTH,
            "skips": SKIPS,
            "stalls": _BOTH,
            "fault": _CLASSES,
            "target": _TARGETS,
        },
        _core_with_faults,
        _CORE_FAULTS,
    ),
    Cross("head", {"order": ORDERS, "suffix": _BOTH, "prefix": _BOTH, "partial": _BOTH}),
    Cross("head", {"values": VALUES, "width": WIDTHS, "target": _TARGETS}),
    Cross("head", {"values": VALUES, "stalls": _BOTH}),
    Cross("head", {"columns": ("1", "2 to 16", "more"), "target": _TARGETS}),
    Cross("head", {"rows": ("all", "some"), "order": ORDERS, "target": _TARGETS}),
    Cross("head", {"last row": ("whole", "part"), "rows": ("all", "some"), "target": _TARGETS}),
    Cross("head", {"cut": tuple(range(9)), "stalls": _BOTH}),
    Cross("head", {"waves": ("part of one", "one", "more"), "target": _TARGETS}),
    Cross("head", {"channels": ("all", "some"), "width": WIDTHS}),
    Cross(
        "layer",
        {
            "code": ("mixed", *CODE_BITS),
            "partial tokens": _BOTH,
            "partial outputs": _BOTH,
            "partial inputs": _BOTH,
            "bias": _BOTH,
            "stalls": _BOTH,
            "target": _TARGETS,
        },
    ),
    Cross("layer", {"values": LAYER_VALUES, "out_shift": OUT_SHIFTS, "target": _TARGETS}),
    Cross(
        "layer",
        {"fault": _CLASSES, "stalls": _BOTH, "target": _TARGETS},
        _core_with_faults,
        _CORE_FAULTS,
    ),
    Cross("layer", {"dead outputs": _BOTH, "partial outputs": _BOTH}),
    Cross("layer", {"cut": tuple(range(9))}),
    Cross("layer", {"chunks": ("1", "2 to 16", "more")}),
    Cross("step", {"order": ORDERS, "stalls": _BOTH}),
    Cross("step", {"passes": tuple(range(1, PASSES_MAX + 1)), "bytes": _BOTH}),
    Cross("step", {"seconds": tuple(range(SECONDS_MAX + 1)), "mantissas": _BOTH}),
    Cross("step", {"tables": tuple(range(TABLES_MAX + 1))}),
    Cross("step", {"fault": _CLASSES, "stalls": _BOTH}),
    Cross(
        "pass",
        {"left": tuple(Left), "right": tuple(Right)},
        lambda found: found["left"] == Left.TABLE and found["right"] != Right.TABLE,
        "a table is left with its slopes right: beyond its end its words mean nothing",
    ),
    Cross("pass", {"right": tuple(Right), "added": tuple(Added)}),
    Cross("pass", {"partner": tuple(Partner), "added": tuple(Added), "keeps": _BOTH}),
    Cross(
        "pass",
        {"reduce": tuple(Reduce), "right": tuple(Right), "keeps": _BOTH},
        lambda found: found["reduce"] == Reduce.SQUARES and found["right"] != Right.ITSELF,
        "squares are of a factor with itself",
    ),
    Cross(
        "pass",
        {"groups": ("1", "more"), "reduce": tuple(Reduce)},
        lambda found: found["groups"] == "more" and found["reduce"] == Reduce.LARGEST,
        "mantissas are of whole rows",
    ),
    Cross("pass", {"silu": _BOTH, "fraction": tuple(range(4, 13))}),
    Cross(
        "fault",
        {"kind": FAULT_KINDS, "stalls": _BOTH, "target": _TARGETS},
        lambda found: found["target"] == "core" and found["kind"] != "hard reset",
        _CORE_FAULTS,
    ),
    Cross(
        "error",
        {"cause": tuple(c.name for c in Cause if c != Cause.NONE), "stalls": _BOTH},
    ),
    Cross("burst", {"moved": (*_READ, *_WRITTEN), "response": ("SLVERR", "DECERR")}),
    Cross("case", {"latency": ("none", "fixed", "random"), "stalls": _BOTH}),
    Cross("case", {"bandwidth": ("of the port", "less")}),
    Cross("case", {"interleaved": _BOTH, "misaligned": _BOTH, "padded": _BOTH}),
    Cross("case", {"shared": _BOTH}),
    Cross(
        "case",
        {"chain": _BOTH, "again": _BOTH, "stalls": _BOTH},
        lambda found: found["chain"] and not found["again"],
        "chains are played twice",
    ),
    Cross("case", {"simulator": ("verilator", "icarus"), "stalls": _BOTH, "target": _TARGETS}),
    *(
        Cross("configuration", {name: get_args(Config.model_fields[name].annotation)})
        for name in _FIELDS
    ),
)


def all_bins() -> set[str]:
    """Every bin that there is."""
    return {name for cross in CROSSES for name in cross.bins()}


def hit_bins(case: Case, tasks: Sequence[Task], struck: Iterable[str]) -> set[str]:
    """Bins that a case has met.

    Parameters
    ----------
    case : Case
        The case.
    tasks : sequence of Task
        Its jobs.
    struck : iterable of str
        See `sim.verify.plays.Outcome`.
    """
    found = list(_subjects(case, tasks, struck))
    return {
        cross.bin(features)
        for cross in CROSSES
        for subject, features in found
        if subject == cross.subject and cross.features.keys() <= features.keys()
    }


def summary(hit: set[str]) -> dict[str, Any]:
    """How many bins there are and were met, for each cross; those that were not by name."""
    crosses = {}
    for cross in CROSSES:
        bins = set(cross.bins())
        crosses[cross.name] = [len(bins & hit), len(bins)]
    bins = all_bins()
    return {
        "all": len(bins),
        "hit": len(bins & hit),
        "crosses": crosses,
        "missed": sorted(bins - hit),
    }


def _subjects(
    case: Case, tasks: Sequence[Task], struck: Iterable[str]
) -> Iterator[tuple[str, Features]]:
    """Everything that crosses are about, with its features."""
    fault, memory, layout = case.fault, case.memory, case.layout
    stalls = memory.stall_seed is not None or memory.bandwidth is not None
    kind = fault.kind if fault else None
    shared = {
        "stalls": stalls,
        "target": case.target,
        "fault": next((name for name, kinds in FAULT_CLASSES.items() if kind in kinds), "none"),
    }
    low, high = memory.latency
    chains = any(isinstance(item.shape, ChainShape) for item in case.items)
    yield (
        "case",
        {
            **shared,
            "latency": "random" if low < high else "fixed" if low else "none",
            "bandwidth": "less" if memory.bandwidth is not None else "of the port",
            "interleaved": layout.interleaved,
            "misaligned": any(layout.misalign),
            "padded": layout.row_padding > 0,
            "shared": layout.shared,
            "chain": chains,
            "again": case.again,
            "simulator": case.simulator,
        },
    )
    yield "configuration", case.config.model_dump()
    if fault is not None:
        yield "fault", {**shared, "kind": fault.kind}
    for told in struck:
        cause, _, moved = told.partition(" ")
        yield "error", {**shared, "cause": cause}
        if moved and fault is not None:
            yield "burst", {"moved": moved, "response": fault.response.name}
    yield from _job_subjects(case, tasks, shared, chains)


def _job_subjects(
    case: Case, tasks: Sequence[Task], shared: Features, chains: bool
) -> Iterator[tuple[str, Features]]:
    config = case.config
    # Jobs of a chain have no shapes; they come last.
    shapes = [item.shape for item in case.items if not isinstance(item.shape, ChainShape)]
    for number, task in enumerate(tasks):
        job, shape = task.job, shapes[number] if number < len(shapes) else None
        own = {**shared, "cut": task.out_cut}
        if isinstance(job, HeadJob):
            values = {"values": shape.values} if isinstance(shape, HeadShape) else {}
            yield "head", {**own, **values, **_head_features(config, job)}
        elif isinstance(job, LayerJob):
            values = {"values": shape.values} if isinstance(shape, LayerShape) else {}
            yield "layer", {**own, **values, **_layer_features(config, job)}
        else:
            yield "step", {**own, **_step_features(job)}
            for fields in job.passes:
                yield "pass", _pass_features(job, fields)


def _head_features(config: Config, job: HeadJob) -> Features:
    rows = job.rows(config)
    codes = job.codes[list(rows)]
    live = codes != 0
    widths = set(codes[live].tolist())
    skips = "some"
    if live.all():
        skips = "none"
    elif (live.sum(axis=1) == 1).all():
        skips = "all but one"
    wave, columns = config.wave_rows, codes.shape[1]
    return {
        "order": ORDERS[job.head.order],
        "width": str(CODE_BITS[widths.pop()]) if len(widths) == 1 else "mixed",
        "partial": job.head.tokens % config.block != 0,
        "prefix": job.prefix_tokens > 0,
        "suffix": job.suffix_tokens > 0,
        "skips": skips,
        "columns": _count(columns),
        "rows": "all" if len(rows) == len(job.codes) else "some",
        "last row": "whole" if job.query_tokens is None else "part",
        "waves": "part of one" if len(rows) < wave else "one" if len(rows) == wave else "more",
        "channels": "all" if job.head.k8[:, -1].any() else "some",
    }


def _layer_features(config: Config, job: LayerJob) -> Features:
    codes = set(job.codes.ravel().tolist())
    return {
        "code": CODE_BITS[codes.pop()] if len(codes) == 1 else "mixed",
        "partial tokens": job.tokens % config.layer_tokens != 0,
        "partial outputs": job.outputs % config.block != 0,
        "partial inputs": job.x8.shape[1] % config.head_dim != 0,
        "bias": bool(job.bias.any()),
        "out_shift": job.out_shift,
        "dead outputs": not job.codes.any(axis=1).all(),
        "chunks": _count(job.codes.shape[1]),
    }


def _count(number: int) -> str:
    """Words of codes that so many of them are: a part of one, or more than one."""
    return "1" if number == 1 else "2 to 16" if number <= CODES_PER_WORD else "more"


def _step_features(job: VectorJob) -> Features:
    return {
        "order": ORDERS[job.order],
        "passes": len(job.passes),
        "bytes": job.sends_bytes,
        "seconds": job.seconds,
        "mantissas": job.finds_mantissas,
        "tables": len(job.tables),
    }


def _pass_features(job: VectorJob, own: Mapping[str, int]) -> Features:
    found = {
        "left": Left(own.get("left", 0)),
        "right": Right(own.get("right", 0)),
        "added": Added(own.get("added", 0)),
        "partner": Partner(own.get("partner", 0)),
        "reduce": Reduce(own.get("reduce", 0)),
        "keeps": bool(own.get("keeps")),
        "groups": "1" if own["group"] == job.channels else "more",
    }
    if found["left"] == Left.TABLE or found["right"] == Right.TABLE:
        found |= {"silu": bool(own["silu"]), "fraction": own["fraction"]}
    return found
