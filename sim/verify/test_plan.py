"""The test plan: features of the hardware, and the tests that show each; their results."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pydantic import BaseModel, ConfigDict

from paro.config import ParoError, files

__all__ = [
    "Block",
    "Feature",
    "FeatureResult",
    "Stage",
    "TestResult",
    "load_plan",
    "read_results",
    "results",
]

_PLAN = Path(__file__).parent / "data" / "test_plan.toml"


class Stage(Enum):
    """How far the verification of a feature, or of a device, goes; each has those before it."""

    #: It does what it exists for.
    V1 = "V1"
    #: All that it does, with stalls, faults and odd sizes.
    V2 = "V2"
    #: Larger configurations, proofs, both simulators, netlists, mutants.
    V3 = "V3"

    def holds(self, other: "Stage") -> bool:
        """Whether this stage has the other one in it."""
        return other.value <= self.value


class Feature(BaseModel):
    """Something that a block does.

    Parameters
    ----------
    name : str
        What.
    stage : Stage
        The first stage that shows it.
    tests : list of str
        Files of tests, from the checkout's root, or ``FILE::NAME`` of one test in them with all its
        parameters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    stage: Stage
    tests: list[str]


class Block(BaseModel):
    """A part of the hardware.

    Parameters
    ----------
    name : str
        What it is.
    modules : list of str
        Its files; every file of the hardware is in one block.
    feature : list of Feature
        What it does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    modules: list[str]
    feature: list[Feature]


@dataclass(frozen=True)
class TestResult:
    """One run of one test.

    Parameters
    ----------
    test : str
        ``FILE::NAME``, without parameters.
    outcome : str
        ``passed``, ``failed`` or ``skipped``.
    message : str
        First line of what failed.
    """

    __test__ = False  # no test, for pytest

    test: str
    outcome: str
    message: str = ""


@dataclass(frozen=True)
class FeatureResult:
    """What was seen of a feature.

    Parameters
    ----------
    block, name, stage : str
        Which one.
    tests : list of str
        As in the plan.
    passed, failed, skipped : int
        Runs of its tests.
    failures : list of str
        Tests that failed, with their message.
    """

    block: str
    name: str
    stage: str
    tests: list[str]
    passed: int
    failed: int
    skipped: int
    failures: list[str]

    @property
    def holds(self) -> bool:
        """Whether something ran, and nothing failed."""
        return self.passed > 0 and not self.failed


def load_plan() -> list[Block]:
    """Return the plan of the project."""
    return [Block(**block) for block in tomllib.loads(_PLAN.read_text())["block"]]


def read_results(path: Path) -> list[TestResult]:
    """Results that ``pytest --junitxml`` wrote.

    Raises
    ------
    ParoError
        If the file is none of pytest's.
    """
    files.check_file(path, "results of tests")
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (ElementTree.ParseError, OSError, UnicodeDecodeError) as error:
        raise ParoError(f"{path}: not the XML of pytest --junitxml: {error}") from None
    if not cases:
        raise ParoError(f"{path}: no result of a test; make it with: pytest --junitxml FILE")
    return [_result(case) for case in cases]


def _result(case: ElementTree.Element) -> TestResult:
    file = case.get("classname", "").replace(".", "/") + ".py"
    test = f"{file}::{case.get('name', '').partition('[')[0]}"
    for part in case:
        if part.tag in ("failure", "error"):
            return TestResult(test, "failed", part.get("message", "").partition("\n")[0])
        if part.tag == "skipped":
            return TestResult(test, "skipped", part.get("message", ""))
    return TestResult(test, "passed")


def results(plan: Iterable[Block], runs: Iterable[TestResult]) -> list[FeatureResult]:
    """Join a plan with what was run."""
    by_test: dict[str, list[TestResult]] = {}
    for run in runs:
        for name in (run.test, run.test.partition("::")[0]):
            by_test.setdefault(name, []).append(run)
    return [_feature(block, feature, by_test) for block in plan for feature in block.feature]


def _feature(block: Block, feature: Feature, by_test: dict[str, list[TestResult]]) -> FeatureResult:
    runs = [run for test in feature.tests for run in by_test.get(test, [])]
    counts: dict[str, Any] = {
        outcome: sum(run.outcome == outcome for run in runs)
        for outcome in ("passed", "failed", "skipped")
    }
    failures = [f"{run.test}: {run.message}" for run in runs if run.outcome == "failed"]
    return FeatureResult(
        block=block.name,
        name=feature.name,
        stage=feature.stage.value,
        tests=feature.tests,
        failures=failures,
        **counts,
    )
