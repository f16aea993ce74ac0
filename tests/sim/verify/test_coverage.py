"""Coverage of a small component: points of its source, as Verilator counts them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from gen.verilog import convert
from paro.config import ParoError
from sim.cosim.simulators import CoverageVerilator
from sim.verify.coverage import (
    CoverageReport,
    Exclusion,
    Hits,
    Point,
    load_exclusions,
    merge,
    read_coverage,
)
from tests.places import ROOT
from tests.sim.verify.choices import Choices

FILE = "tests/sim/verify/choices.py"
#: Reset, ``a`` and ``flags`` of each cycle.
QUIET = [(1, 15, 3), (0, 0, 1), (0, 8, 1), (0, 8, 0)]
LOUD = [(1, 0, 0), (0, 3, 0), (0, 9, 2), (0, 8, 3), (0, 15, 0), (0, 0, 3)]


def line_of(text: str) -> int:
    (number,) = (
        number
        for number, line in enumerate((ROOT / FILE).read_text().splitlines(), 1)
        if text in line
    )
    return number


@pytest.fixture(scope="module")
def hits(build_dir, tmp_path_factory) -> dict[str, Hits]:
    """What was covered by one list of inputs and by the other."""
    simulator, found = CoverageVerilator(), {}
    sources = {"choices.v": convert(Choices(), "choices", points=True)}
    ports = ["clk", "rst", "a", "flags"]
    with simulator.build(sources, "choices", build_dir, visible=ports) as build:
        for name, inputs in (("quiet", QUIET), ("loud", LOUD)):
            folder: Path = tmp_path_factory.mktemp(name)
            (folder / "inputs.json").write_text(json.dumps(inputs))
            simulator.run(build, "tests.sim.verify.coverage_bench", folder)
            found[name] = read_coverage(folder)
    return found


def arms(hits: Hits, text: str) -> dict[str, bool]:
    """Arms of the branches of a line, and whether each was taken."""
    return {
        point.name: count > 0
        for point, count in hits.counts.items()
        if point.kind == "branch" and (point.file, point.line) == (FILE, line_of(text))
    }


def lines(hits: Hits) -> dict[int, bool]:
    return {p.line: n > 0 for p, n in hits.counts.items() if p.kind == "line"}


def toggles(hits: Hits, signal: str) -> dict[str, bool]:
    pattern = re.compile(rf"\.{signal}\[(.*)")
    found = {match[1]: n > 0 for p, n in hits.counts.items() if (match := pattern.search(p.name))}
    return {name.replace("]", ""): hit for name, hit in found.items()}


def test_arms_of_an_if(hits):
    quiet, loud = hits["quiet"], hits["loud"]
    assert arms(quiet, "m.If(self.a == 3)") == {"then 0": False, "else 0": True}
    assert arms(loud, "m.If(self.a == 3)") == {"then 0": True, "else 0": True}
    assert arms(quiet, "m.Elif(self.a[3])") == {"then 0": True}


def test_what_happens_in_a_reset_does_not_count(hits):
    assert arms(hits["quiet"], "m.If(self.a == 15)") == {"then 0": False, "else 0": True}


def test_values_of_a_choice_count_where_they_are_used(hits):
    text = "self.z.eq(Mux(self.flags[0]"
    # Two on one line; the inner one is asked only where the outer one chooses it.
    outer = {"value=0 0": True, "value=default 0": True}
    assert arms(hits["quiet"], text) == {**outer, "value=0 1": True, "value=default 1": False}
    assert arms(hits["loud"], text)["value=default 1"]


def test_cases_and_none_of_them(hits):
    assert arms(hits["quiet"], "m.Case(0)") == {"case=0 0": True}
    assert arms(hits["quiet"], "m.Case(2)") == {"case=2 0": False}
    assert arms(hits["quiet"], "m.Switch(self.flags)") == {"none 0": True}


def test_copies_of_a_loop_are_told_apart(hits):
    text = "with m.If(flag)"
    taken = {"then 0": True, "then 1": False, "else 0": True, "else 1": True}
    assert arms(hits["quiet"], text) == taken
    assert all(arms(hits["loud"], text).values())


def test_lines_are_those_with_assignments(hits):
    source = (ROOT / FILE).read_text().splitlines()
    wanted = {n for n, line in enumerate(source, 1) if ".eq(" in line}
    assert lines(hits["loud"]).keys() == wanted
    assert all(lines(hits["loud"]).values())
    assert not lines(hits["quiet"])[line_of("self.y.eq(self.y + 1)")]
    assert lines(hits["quiet"])[line_of("self.y.eq(Mux")]


def test_bits_that_rise_and_fall(hits):
    changes = toggles(hits["quiet"], "y")
    assert len(changes) == 8
    assert not any(changes.values())  # y[1] rises, but never falls
    assert all(toggles(merge(hits.values()), "flags").values())


def test_constant_bits_are_left_out(hits):
    constant = {point.name for point in hits["loud"].constant}
    names = {f"choices.never[{bit}] {change}" for bit in (0, 2) for change in ("rises", "falls")}
    assert names <= constant
    assert not {f"choices.never[1] {change}" for change in ("rises", "falls")} & constant
    assert not CoverageReport({"loud": hits["loud"]}).lies()


def test_runs_are_joined(hits):
    quiet, loud = hits["quiet"], hits["loud"]
    both = merge([quiet, loud])
    for point, count in both.counts.items():
        assert count == quiet.counts[point] + loud.counts[point]
    point = Point("a.py", 1, "toggle", "x[0] rises")
    # Constant only if it is so wherever it is.
    assert merge([Hits({point: 0}, frozenset({point})), Hits({point: 0})]).constant == set()
    assert merge([Hits({point: 0}, frozenset({point})), quiet]).constant >= {point}


def test_the_report_says_what_is_missing(hits):
    report = CoverageReport({"quiet": hits["quiet"], "loud": hits["loud"]})
    told = json.loads(json.dumps(report.to_dict()))
    assert [run["run"] for run in told["runs"]] == ["quiet", "loud"]
    quiet, loud = (run["branch"]["covered"] for run in told["runs"])
    assert max(quiet, loud) < told["totals"]["branch"]["covered"]

    report = CoverageReport({"quiet": hits["quiet"]})
    told, places = json.loads(json.dumps([report.to_dict(), report.places()]))
    uncovered = places["uncovered"]
    assert places["files"][FILE] == told["totals"]
    entry = {"file": FILE, "line": line_of("m.Case(2)"), "kind": "branch", "name": "case=2 0"}
    assert {**entry, "source": "with m.Case(2):"} in uncovered
    # Bits of a signal are one.
    (entry,) = (one for one in uncovered if one["name"] == "choices.y rises")
    assert entry["bits"] == [0, 1, 2, 3]  # the others are constant
    figures = told["totals"]["branch"]
    missing = sum(one["kind"] == "branch" for one in uncovered)
    assert figures["covered"] == figures["points"] - missing < figures["points"]
    share = 100 * figures["covered"] / figures["points"]
    assert (
        figures["percent"]
        == figures["percent_without_exclusions"]
        == pytest.approx(share, abs=0.01)
    )


def test_exclusions_leave_out_what_they_name(hits):
    never = Exclusion("branch", FILE, "not tried", source="m.Case(2)")
    report = CoverageReport({"quiet": hits["quiet"]}, [never])
    assert report.lies() == []
    assert not any(point.name == "case=2 0" for point in report.uncovered)
    figures = report.to_dict()["totals"]["branch"]
    assert figures["excluded"] == 1
    assert figures["percent"] > figures["percent_without_exclusions"]


def test_exclusions_that_lie_are_told(hits):
    covered = Exclusion("branch", FILE, "never", source="m.Case(0)")
    gone = replace(covered, source="m.Case(7)")
    lies = CoverageReport({"quiet": hits["quiet"]}, [covered, gone]).lies()
    assert len(lies) == 2
    assert "leaves out what is covered: case=0 0" in lies[0]
    assert "leaves out nothing" in lies[1]


def test_what_changes_is_not_constant():
    point = Point("rtl/a.py", 0, "toggle", "a.x[0] falls")
    for count in (0, 1):
        report = CoverageReport({"a run": Hits({point: count}, frozenset({point}))})
        assert report.to_dict()["totals"]["toggle"]["constant"] == 1 - count
        assert report.wanted == [point] * count


def test_the_list_of_exclusions_is_legal(tmp_path):
    assert all(one.reason.endswith(".") for one in load_exclusions())
    path = tmp_path / "exclusions.toml"
    path.write_text('[[exclusion]]\nkind = "line"\nfile = "a.py"\n')
    with pytest.raises(ParoError, match=r"cannot read the list of exclusions .*reason"):
        load_exclusions(path)
