"""The runs that coverage is taken from: what they play, and that it covers the source."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sim.verify import coverage_runs
from sim.verify.coverage import GOALS, KINDS, Hits, Point
from sim.verify.coverage_runs import RUNS, measure
from sim.verify.faults import FAULT_KINDS, REFUSED
from sim.verify.plays import Outcome

PUBLISHED = Path(__file__).parents[3] / "docs" / "runs" / "coverage.json"


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
    """Each run is told with what it covered, and cases that differ from their models."""
    point, objections = Point("rtl/a.py", 1, "line"), []
    monkeypatch.setattr(
        coverage_runs,
        "play_cases",
        lambda cases, _: [Outcome([*objections], words=2, cycles=3) for _ in cases],
    )
    monkeypatch.setattr(coverage_runs, "play_orders", lambda *_: [])
    monkeypatch.setattr(coverage_runs, "read_coverage", lambda _: Hits({point: 1}))
    monkeypatch.setattr(coverage_runs, "play_scripts", lambda *_: (Hits({point: 1}), 40))
    runs = [replace(RUNS[0], seeds=range(2)), replace(RUNS[1], seeds=range(1))]
    done = []
    report = measure(tmp_path, tmp_path, runs=runs, progress=lambda *now: done.append(now))
    lines = list(report.runs)
    first, cases = (sum(len(b) for run in some for b in run.batches()) for some in (runs[:1], runs))
    assert len(lines) == 2
    assert lines[0].startswith("accelerator: accelerator 4x4-b16-d32 ")
    assert lines[0].endswith(f"seeds 0 to 1, {2 * first} words equal, {3 * first + 40} cycles")
    assert done[-1] == (cases, cases)
    assert report.hits.counts == {point: 8}

    assert report.objections == []
    assert any(
        line.startswith("rtl/core/core.py:") for line in report.to_dict()["lines_without_points"]
    )

    objections.append("one word differs")
    report = measure(tmp_path, tmp_path, runs=runs)
    assert len(report.objections) == done[-1][0]
    assert report.objections[0].startswith("seed 0: accelerator ")
    assert report.objections[0].endswith(": one word differs")
    assert report.failures()[-1] == report.objections[-1]


@pytest.mark.slow
def test_what_is_covered(build_dir, tmp_path):
    """All goals are reached, as in what is published; nothing that is left out came to work."""
    report = measure(build_dir, tmp_path / "run")
    assert report.failures() == []
    told = report.to_dict()["totals"], json.loads(PUBLISHED.read_text())["totals"]
    for kind in KINDS:
        new, published = (totals[kind]["percent"] for totals in told)
        assert min(new, published) >= GOALS[kind]
        assert abs(new - published) < 0.1
