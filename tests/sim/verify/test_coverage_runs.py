"""The runs that coverage is taken from: what they play, and that it covers the source."""

from dataclasses import replace

import pytest

from paro.config import ParoError
from sim.verify import coverage_runs
from sim.verify.coverage import Hits, Point
from sim.verify.coverage_runs import RUNS, measure
from sim.verify.faults import FAULT_KINDS, REFUSED
from sim.verify.plays import Outcome


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_cases_of_their_own(run):
    *batches, own = run.batches()
    assert sum(map(len, batches)) == len(run.seeds)
    assert {case.config for case in own} == {run.config}
    assert {case.target for case in own} == {"accelerator"}
    # A process has one memory.
    assert len({case.memory for case in own}) == 1
    assert {case.fault.cause for case in own if case.fault} >= set(REFUSED)
    faults = [case.fault.kind for batch in [*batches, own] for case in batch if case.fault]
    assert {*FAULT_KINDS} - {"program"} <= {*faults}


def test_what_is_measured(tmp_path, monkeypatch):
    """A case that differs from its model ends it; else each run is told with what it covered."""
    point, objections = Point("rtl/a.py", 1, "line"), []
    monkeypatch.setattr(
        coverage_runs,
        "play_cases",
        lambda cases, _: [Outcome([*objections], words=2, cycles=3) for _ in cases],
    )
    monkeypatch.setattr(coverage_runs, "play_orders", lambda *_: [])
    monkeypatch.setattr(coverage_runs, "read_coverage", lambda _: Hits({point: 1}))
    runs = [replace(RUNS[0], seeds=range(2)), replace(RUNS[1], seeds=range(1))]
    done = []
    report = measure(tmp_path, tmp_path, runs=runs, progress=lambda *now: done.append(now))
    lines = list(report.runs)
    assert len(lines) == 2
    assert lines[0].startswith("accelerator: accelerator 4x4-b16-d32 ")
    assert lines[0].endswith("seeds 0 to 1, 50 words equal, 75 cycles")
    assert done[-1] == (2 + 1 + 2 * 23, 2 + 1 + 2 * 23)
    assert report.hits.counts == {point: 6}

    objections.append("one word differs")
    with pytest.raises(ParoError, match=r"seed 0: .*one word differs"):
        measure(tmp_path, tmp_path, runs=runs)


@pytest.mark.slow
def test_what_is_covered(build_dir, tmp_path):
    """All of the source comes to work, but what is left out with a reason."""
    report = measure(build_dir, tmp_path / "run")
    assert report.failures() == []
