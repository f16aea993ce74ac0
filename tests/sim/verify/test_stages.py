"""Stages: which checks they have, and what those make of what they find."""

import json

import pytest

from paro.config import PRESETS, ParoError
from sim.verify import stages
from sim.verify.coverage import CoverageReport, Hits, Point
from sim.verify.stages import Settings, kinds_of
from sim.verify.test_plan import Stage


def names(stage: Stage, *only: str) -> list[str]:
    return [kind.name for kind in kinds_of(stage, only)]


def test_stages_hold_one_another():
    assert names(Stage.V1) == names(Stage.V2)[: len(names(Stage.V1))]
    assert names(Stage.V2) == names(Stage.V3)[: len(names(Stage.V2))]
    assert "coverage" in names(Stage.V3)


def test_some_checks_alone():
    assert names(Stage.V3, "coverage", "lint") == ["lint", "coverage"]
    with pytest.raises(ParoError, match=r"V1 has no check 'coverage'; legal: 'lint', .*cases'$"):
        kinds_of(Stage.V1, ["lint", "coverage"])


@pytest.mark.parametrize(
    ("counts", "failure"),
    [((3, 1), None), ((0, 1), "line: 0.0 % "), ((1, 0), "toggle: 0.0 % ")],
)
def test_coverage(tmp_path, monkeypatch, counts, failure):
    points = Point("rtl/a.py", 1, "line"), Point("rtl/a.py", 0, "toggle", "a.x[0] rises")
    report = CoverageReport({"a run": Hits(dict(zip(points, counts, strict=True)))})
    monkeypatch.setattr(stages, "measure", lambda *_, **__: report)
    (kind,) = kinds_of(Stage.V3, ["coverage"])
    settings = Settings(PRESETS["tiny"], Stage.V3, 1, None, None, tmp_path, tmp_path)
    check = kind.check(settings, lambda *_: None)
    assert check.holds is (failure is None)
    assert (check.done, check.total) == (sum(n > 0 for n in counts), 2)
    assert failure is None or [told.startswith(failure) for told in check.failures] == [True]
    told = json.loads((tmp_path / "coverage.json").read_text())
    assert told["runs"][0]["run"] == "a run"
