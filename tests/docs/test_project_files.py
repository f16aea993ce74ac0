"""Files for those who host, cite and release the project."""

import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml

from tests.places import ROOT

WORKFLOW = ".github/workflows/ci.yml"
SCHEMAS = {
    "CITATION.cff": "citation-file-format",
    WORKFLOW: "github-workflows",
    ".github/ISSUE_TEMPLATE/bug.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
    ".github/ISSUE_TEMPLATE/wish.yml": "github-issue-forms",
}


def validate(schema: str, path) -> subprocess.CompletedProcess:
    options = ["--builtin-schema", f"vendor.{schema}", "--default-filetype", "yaml"]
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *options, path], capture_output=True, text=True
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_files_are_valid(name):
    done = validate(SCHEMAS[name], ROOT / name)
    assert done.returncode == 0, done.stdout


def test_a_file_that_is_not_valid_is_refused(tmp_path):
    text = (ROOT / "CITATION.cff").read_text().replace("title:", "titel:")
    (tmp_path / "CITATION.cff").write_text(text)
    done = validate("citation-file-format", tmp_path / "CITATION.cff")
    assert done.returncode == 1
    assert "title" in done.stdout


def test_all_of_them_are_checked():
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / ".github").rglob("*.yml")}
    assert found == set(SCHEMAS) - {"CITATION.cff"}


def test_hosted_ci_does_what_ci_run_does():
    steps = yaml.safe_load((ROOT / WORKFLOW).read_text())["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    (python,) = [step["with"] for step in steps if "setup-python" in step.get("uses", "")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={python['python-version']}"


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"] == metadata.version(project["name"])
    assert citation["license"] == project["license"]
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()
