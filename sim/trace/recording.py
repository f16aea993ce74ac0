"""Recordings: what `sim.trace.recorder` wrote while a run was simulated."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

__all__ = ["Activity", "Recording", "read_recording"]


@dataclass(frozen=True, eq=False)
class Activity:
    """Activity of a source: a value holds from its cycle until the next one's.

    Parameters
    ----------
    cycles, values : np.ndarray
        int64 [changes].
    """

    cycles: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Recording:
    """Events since the last reset, in order.

    Parameters
    ----------
    activities : dict of int to Activity
        By source.
    events : dict of int to list of (str, int, int)
        By source: kind, cycle and payload of all others.
    last_cycle : int
        Cycle of the last event.
    """

    activities: dict[int, Activity] = field(default_factory=dict)
    events: dict[int, list[tuple[str, int, int]]] = field(default_factory=dict)
    last_cycle: int = 0

    def activity(self, source: int) -> Activity:
        """Activity of a source, empty if it never changed."""
        return self.activities.get(source, Activity(*np.zeros((2, 0), np.int64)))

    def cycles(self, kind: str, source: int = 0) -> np.ndarray:
        """Cycles of all events of a kind, int64."""
        found = [cycle for name, cycle, _ in self.events.get(source, ()) if name == kind]
        return np.array(found, np.int64)


def read_recording(path: Path) -> Recording:
    """Read a recording; the simulator may have left its last line incomplete."""
    text = path.read_text()
    activities: dict[int, list[tuple[int, int]]] = defaultdict(list)
    events: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    last = 0
    for line in text[: text.rfind("\n") + 1].splitlines():
        kind, source, cycle, payload = line.split()
        last = int(cycle)
        if kind == "a":
            activities[int(source)].append((last, int(payload, 16)))
        elif kind == "r":
            activities.clear()
            events.clear()
        else:
            events[int(source)].append((kind, last, int(payload, 16)))
    return Recording(
        {
            source: Activity(*np.array(changes, np.int64).T)
            for source, changes in activities.items()
        },
        dict(events),
        last,
    )
