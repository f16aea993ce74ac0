"""A trace as a page that replays the run: one HTML file that needs nothing else."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from paro.config.files import write_text
from paro.config.formats import CODE_BITS
from paro.config.registers import STAGES, STATES
from sim.trace.trace import PORTS, Trace, Track

__all__ = ["write_page"]

#: Most spans of a track that the page has one by one; else it has its shares of equal parts.
SPANS_MAX = 60_000
#: How many of these.
PARTS = 20_000
_MEANINGS = {
    **STAGES,
    **{name: f"Memory port: {name}s, a beat of the bus a cycle." for name in PORTS},
}


def write_page(path: Path, trace: Trace, labels: Sequence[str], report: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    path : Path
        HTML file.
    trace : Trace
        The run.
    labels : sequence of str
        Names of its jobs.
    report : mapping
        Content of the run's ``report.json``, see `sim.cosim.report.Report`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    content = json.dumps(_content(trace, labels, report["config"]), separators=(",", ":"))
    text = environment.get_template("replay.html").render(
        title=f"{report['capture']}: {labels[0]}" if len(labels) == 1 else report["capture"],
        report=report,
        cores=max(1, len(report["cores"] or ())),
        bits=CODE_BITS,
        data=base64.b64encode(zlib.compress(content.encode(), 9)).decode(),
    )
    write_text(path, text)


def _content(trace: Trace, labels: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's script reads."""
    return {
        "cycles": trace.cycles,
        "rows": config["rows"],
        "cols": config["cols"],
        "block": config["block"],
        "bits": CODE_BITS,
        "states": list(STATES),
        "tracks": [
            {"core": track.core, "name": track.name, "meaning": _MEANINGS[track.name]}
            | _spans(track)
            for track in trace.tracks
        ],
        "maps": [
            {"label": label, **asdict(each)} for label, each in zip(labels, trace.maps, strict=True)
        ],
        "blocks": {name: trace.blocks[name].tolist() for name in trace.blocks.dtype.names or ()},
    }


def _spans(track: Track) -> dict[str, Any]:
    """Lengths of a track's spans, and the cycles of each in each state."""
    edges = np.append(track.starts, track.end)
    exact = len(track.starts) <= SPANS_MAX
    if not exact:
        edges = np.unique(np.linspace(0, track.end, PARTS + 1).astype(np.int64))
    counts = np.diff(track.counts_until(edges), axis=1)
    return {"exact": exact, "lengths": np.diff(edges).tolist(), "counts": counts.tolist()}
