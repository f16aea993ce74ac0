"""A trace in the Trace Event Format, which Perfetto and Chrome open; a cycle is a microsecond."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from paro.config.files import write_atomically
from paro.config.formats import CODE_BITS
from paro.config.registers import STATES
from sim.trace.trace import Trace

__all__ = ["write_events"]

#: Number of the thread with a core's blocks; its stages follow.
_BLOCKS = 0


def write_events(path: Path, trace: Trace, labels: Sequence[str]) -> None:
    """Write a trace, whole or not at all.

    Each core is a process, and so is the memory port. Each stage is a thread, whose slices are its
    states; in the cycles between it has nothing to do. The first thread of a core has the blocks
    that its array works on; an arrow leads from QK of a block to its PV.

    Parameters
    ----------
    path : Path
        JSON file.
    trace : Trace
        What to write.
    labels : sequence of str
        Names of the jobs.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w") as file:
            file.write('{"displayTimeUnit":"ns","otherData":{"1 us":"one clock cycle"},\n')
            file.write('"traceEvents":[\n')
            for number, event in enumerate(_events(trace, labels)):
                file.write(",\n" if number else "")
                file.write(json.dumps(event, separators=(",", ":")))
            file.write("\n]}\n")

    write_atomically(path, write)


def _events(trace: Trace, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    cores = sorted({track.core for track in trace.tracks if track.core is not None})
    for core in cores:
        yield _name("process", core + 1, 0, f"core {core}")
        yield _name("thread", core + 1, _BLOCKS, "blocks in the array")
    threads: dict[int, int] = {}
    for track in trace.tracks:
        process = len(cores) + 1 if track.core is None else track.core + 1
        if track.core is None and process not in threads:
            yield _name("process", process, 0, "memory port")
        thread = threads[process] = threads.get(process, _BLOCKS) + 1
        yield _name("thread", process, thread, track.name.replace("_", " "))
        where = {"cat": "stage", "ph": "X", "pid": process, "tid": thread}
        spans = zip(
            track.starts.tolist(), track.lengths.tolist(), track.states.tolist(), strict=True
        )
        for start, length, state in spans:
            if state:
                yield {"name": _STATES[state], **where, "ts": start, "dur": length}
    for number, block in enumerate(trace.blocks):
        yield from _turns(number, block, labels)


def _turns(number: int, block: Any, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Slices of a block in the array, and the arrow between them."""
    values = dict(zip(block.dtype.names, block.tolist(), strict=True))
    where = {"pid": values["core"] + 1, "tid": _BLOCKS}
    bits = CODE_BITS[values["code"]]
    arguments = {
        "job": labels[values["job"]],
        **{name: values[name] for name in ("row", "column", "visit", "issued")},
        "bits": bits,
    }
    for operation in ("qk", "pv"):
        start = values[operation]
        if start < 0:
            continue
        yield {
            "name": f"{operation.upper()} {bits} bit ({values['row']}, {values['column']})",
            "cat": "block",
            "ph": "X",
            **where,
            "ts": start,
            "dur": values[f"{operation}_end"] - start,
            "args": arguments,
        }
    if values["pv"] >= 0:
        arrow = {"name": "block", "cat": "block", "id": number, **where}
        yield {**arrow, "ph": "s", "ts": values["qk"]}
        yield {**arrow, "ph": "f", "bp": "e", "ts": values["pv"]}


_STATES = ("idle", *STATES)


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    """Metadata that names a process or a thread."""
    return {
        "name": f"{kind}_name",
        "ph": "M",
        "pid": process,
        "tid": thread,
        "args": {"name": name},
    }
