"""A verification's report: what holds, the file, the page."""

import json
import re

import pytest

from paro.config import PRESETS
from sim.verify.report import PAGE_FILE, REPORT_FILE, Check, Report, Table, write_report
from sim.verify.test_plan import FeatureResult


def check(holds: bool = True, **more) -> Check:
    return Check(
        name="some check",
        holds=holds,
        done=3 if holds else 2,
        total=3,
        unit="things",
        goal="all of them",
        seconds=1.5,
        **more,
    )


def feature(stage: str, passed: int, failed: int = 0) -> FeatureResult:
    return FeatureResult(
        block="array",
        name=f"<{stage}>",
        stage=stage,
        tests=["tests/a.py"],
        passed=passed,
        failed=failed,
        skipped=0,
        failures=["tests/a.py::test_b: 1 < 2"] * failed,
    )


def report(checks: list[Check], features: list[FeatureResult], stage: str = "V2") -> Report:
    return Report(PRESETS["tiny"], stage, 7, "paro 1", {"tool": "2"}, checks, features)


@pytest.mark.parametrize(
    ("checks", "features", "holds"),
    [
        ([check()], [], True),
        ([check(), check(holds=False)], [], False),
        ([check()], [feature("V1", 1), feature("V2", 2)], True),
        ([check()], [feature("V1", 1), feature("V2", 0)], False),
        ([check()], [feature("V1", 1), feature("V3", 0)], True),
        ([check()], [feature("V1", 1, failed=1)], False),
    ],
)
def test_what_holds(checks, features, holds):
    assert report(checks, features).holds is holds


def test_file_and_page(tmp_path):
    table = Table("rows", ("name", "count"), [("<b>", 12345)])
    failed = check(holds=False, failures=["a < b"], facts={"fact": 0.5}, tables=[table])
    made = report([check(), failed], [feature("V1", 1, failed=1)])
    write_report(made, tmp_path)
    read = json.loads((tmp_path / REPORT_FILE).read_text())
    assert read["holds"] is False
    assert [each["holds"] for each in read["checks"]] == [True, False]
    assert read["features"][0]["holds"] is False
    assert read["config"] == PRESETS["tiny"].model_dump()
    page = (tmp_path / PAGE_FILE).read_text()
    for text in ("some check", "a &lt; b", "12,345", "&lt;b&gt;", "&lt;V1&gt;", "1 &lt; 2"):
        assert text in page, text
    assert not re.search(r"https?://", page)
    assert "<b>" not in page
