"""Code coverage: what of the source came to work in simulations, and why the rest did not.

A run with `sim.cosim.simulators.CoverageVerilator` counts the rising and falling bits of all
signals of the Verilog, of which some are the points of `gen.cover_points`. Here they are read as
points of the Python source:

* ``line``: a line with assignments, of which one was in force (``m.next`` is none: its arm is);
* ``branch``: an arm that was taken, or a value that was chosen;
* ``toggle``: a bit of a signal that rose, and that fell; one that never fell has not risen, since
  it may be 1 from the beginning. Signals of Amaranth's own modules, and memories, are not counted.

A point is covered if it came to work in any configuration. Bits that Yosys finds constant cannot
toggle and are left out by that rule, all else by `Exclusion`.
"""

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gen.cover_points import BRANCH, LINE, split_name
from paro.config import ParoError, files
from sim.cosim.session import Session
from sim.cosim.simulators import COVERAGE_FILE, CoverageVerilator
from sim.cosim.verilog import kept_verilog
from sim.verify.source_signals import SourceSignal, read_signals

__all__ = [
    "EXCLUSIONS",
    "GOALS",
    "KINDS",
    "CoverageReport",
    "Exclusion",
    "Hits",
    "Point",
    "coverage_session",
    "lines_without_points",
    "load_exclusions",
    "merge",
    "read_coverage",
]

TOGGLE = "toggle"
#: Kinds of points.
KINDS = (LINE, BRANCH, TOGGLE)
#: Per cent of the points that must be covered, of those that are not left out.
GOALS: Mapping[str, float] = {LINE: 100, BRANCH: 100, TOGGLE: 97.5}
#: What is left out of our own source, and why.
EXCLUSIONS = Path(__file__).parent / "data" / "exclusions.toml"
#: Folder of the packages.
_ROOT = Path(__file__).parents[2]
_ENTRY = re.compile(r"C '(.*)' (\d+)")
_RISES, _FALLS = " rises", " falls"
_TOGGLE = re.compile(rf"(.*?)(\(\d+\))?\[(\d+)\]({_RISES}|{_FALLS})")
_CHANGE = re.compile(r".*?(?:\[(\d+)\])?:(0->1|1->0)")


@dataclass(frozen=True, order=True)
class Point:
    """What is covered or not.

    Parameters
    ----------
    file : str
        Of the source, from the folder of its packages; of a toggle that of the module.
    line : int
        In it; of a toggle where the signal is declared, or 0 if that is in another file.
    kind : str
        One of `KINDS`.
    name : str
        Which of those of the line: the arm and its copy; module, signal, bit and ``rises`` or
        ``falls``.
    """

    file: str
    line: int
    kind: str
    name: str = ""


@dataclass(frozen=True)
class Hits:
    """What one run or several had.

    Parameters
    ----------
    counts : dict of Point to int
        How often each point came to work.
    constant : set of Point
        Those that Yosys finds constant in every configuration that has them.
    """

    counts: Mapping[Point, int]
    constant: frozenset[Point] = frozenset()


def coverage_session(build_dir: Path, run_dir: Path) -> Session:
    """Session whose simulations leave `COVERAGE_FILE` in ``run_dir``.

    Raises
    ------
    ParoError
        If Verilator is missing.
    """
    verilog = partial(kept_verilog, contracts=False, points=True)
    return Session(CoverageVerilator(), build_dir, run_dir, make_verilog=verilog)


def merge(hits: Iterable[Hits]) -> Hits:
    """Join what several runs had."""
    counts: dict[Point, int] = {}
    constant: set[Point] = set()
    for one in hits:
        constant = {
            point
            for point in constant | one.constant
            if (point in constant or point not in counts)
            and (point in one.constant or point not in one.counts)
        }
        for point, count in one.counts.items():
            counts[point] = counts.get(point, 0) + count
    return Hits(counts, frozenset(constant))


def read_coverage(run_dir: Path) -> Hits:
    """Read what a run left, while the folder of its build is there.

    Parameters
    ----------
    run_dir : Path
        Of a session as of `coverage_session`.

    Raises
    ------
    ParoError
        If there is none, or its Verilog is no more.
    """
    path = run_dir / COVERAGE_FILE
    files.check_file(path, "coverage")
    counts: dict[Point, int] = {}
    constant: set[Point] = set()
    for line in path.read_text(errors="replace").splitlines():
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            continue
        fields = dict(part.split("\2", 1) for part in entry[1].split("\1")[1:])
        signal = read_signals(Path(fields["f"])).get(int(fields["l"]))
        change = _CHANGE.fullmatch(fields["o"])
        if signal is None or change is None:
            continue
        bit, rises = int(change[1] or 0), change[2] == "0->1"
        point = _point(signal, bit, rises=rises)
        if point is None:
            continue
        counts[point] = counts.get(point, 0) + int(entry[2])
        if bit in signal.constant:
            constant.add(point)
    for point in counts:
        if point.name.endswith(_RISES):
            fall = replace(point, name=point.name.removesuffix(_RISES) + _FALLS)
            counts[point] *= counts[fall] > 0
    return Hits(counts, frozenset(constant))


def _point(signal: SourceSignal, bit: int, *, rises: bool) -> Point | None:
    """Point of a bit that rises or falls; None if it is none."""
    covered = split_name(signal.name)
    if covered is None:
        change = _RISES if rises else _FALLS
        return Point(signal.file, signal.line, TOGGLE, f"{signal.where}[{bit}]{change}")
    if not rises:
        return None
    name = f"{covered.arm} {covered.copy}" if covered.kind == BRANCH else ""
    return Point(signal.file, signal.line, covered.kind, name)


@dataclass(frozen=True)
class Exclusion:
    """Points that nothing can, or need, bring to work.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    file : str
        As of a point, or with ``*`` those of several files.
    reason : str
        Why.
    source : str, optional
        What the line of the source contains.
    name : str
        Pattern of the names; of toggles of the name without its number and bit.
    bits : sequence of (int, int), optional
        Of toggles, first and last of bits that follow one another.
    word : int, optional
        The bits are those of each word of so many bits.
    """

    kind: str
    file: str
    reason: str
    source: str = ""
    name: str = ".*"
    bits: tuple[tuple[int, int], ...] | None = None
    word: int | None = None

    def holds(self, point: Point) -> bool:
        """Whether it leaves out a point of its kind and of a file that it names."""
        name = point.name
        if toggle := _TOGGLE.fullmatch(name):
            name, bit = toggle[1] + toggle[4], int(toggle[3])
            bit = bit % self.word if self.word else bit
            if self.bits is not None and not any(low <= bit <= high for low, high in self.bits):
                return False
        return re.fullmatch(self.name, name) is not None and self.source in source_line(point)


def load_exclusions(path: Path = EXCLUSIONS) -> list[Exclusion]:
    """Read a list of exclusions, TOML.

    Raises
    ------
    ParoError
        If there is no such file or if something in it is not legal.
    """
    files.check_file(path, "list of exclusions")
    try:
        entries = tomllib.loads(path.read_text()).get("exclusion", [])
        return TypeAdapter(list[Exclusion]).validate_python(entries)
    except ValidationError as error:
        first = error.errors()[0]
        number, *place = first["loc"]
        reason = f"exclusion {number}, {' '.join(map(str, place))}: {first['msg']}"
    except ValueError as error:
        reason = str(error)
    raise ParoError(f"cannot read the list of exclusions {path}: {reason}")


def source_line(point: Point) -> str:
    """Line of the source that a point is of, without the space around it; "" if there is none."""
    lines = _source(point.file)
    return lines[point.line - 1].strip() if 0 < point.line <= len(lines) else ""


@cache
def _source(file: str) -> list[str]:
    path = _ROOT / file
    return path.read_text().splitlines() if path.is_file() else []


@dataclass(frozen=True)
class CoverageReport:
    """What was covered, and what was not.

    Parameters
    ----------
    runs : dict of str to Hits
        What each run came to, by what was run, in a line.
    exclusions : sequence of Exclusion
        What is left out, beside what is constant.
    objections : sequence of str
        What was wrong in the runs: what wrong hardware covers is worth little.
    folders : sequence of Path
        Of the source, see `lines_without_points`.
    """

    runs: Mapping[str, Hits]
    exclusions: Sequence[Exclusion] = ()
    objections: Sequence[str] = ()
    folders: Sequence[Path] = ()

    @cached_property
    def hits(self) -> Hits:
        """Of all runs; what came to work is not constant, whatever the Verilog looks like."""
        hits = merge(self.runs.values())
        return Hits(hits.counts, frozenset(p for p in hits.constant if not hits.counts[p]))

    @cached_property
    def _excluded(self) -> dict[Exclusion, list[Point]]:
        by_file: dict[tuple[str, str], list[Point]] = {}
        for point in self.hits.counts:
            by_file.setdefault((point.kind, point.file), []).append(point)
        return {
            one: [
                point
                for (kind, file), points in by_file.items()
                if kind == one.kind and fnmatchcase(file, one.file)
                for point in points
                if one.holds(point)
            ]
            for one in self.exclusions
        }

    @cached_property
    def wanted(self) -> list[Point]:
        """Points that are not left out, in the order of the source."""
        out = set(self.hits.constant).union(*self._excluded.values())
        return sorted(point for point in self.hits.counts if point not in out)

    @property
    def uncovered(self) -> list[Point]:
        """Those of them that never came to work."""
        return [point for point in self.wanted if not self.hits.counts[point]]

    def lies(self) -> list[str]:
        """Sentences about what is left out although it came to work, or is not there."""
        lies = []
        for one, points in self._excluded.items():
            told = f"the exclusion of {one.kind} {one.name!r} {one.source!r} in {one.file}"
            covered = [point for point in points if self.hits.counts[point]]
            if covered:
                first = covered[0]
                lies.append(
                    f"{told} leaves out what is covered: {first.name or source_line(first)}"
                )
            elif not points:
                lies.append(f"{told} leaves out nothing")
        return lies

    def failures(self) -> list[str]:
        """Sentences about what is less than `GOALS`, lies and objections."""
        told, missed = self.to_dict(), self.uncovered
        failures = [
            f"{kind}: {told['totals'][kind]['percent']} % of the points are covered, the goal is "
            f"{least} %; the first of {len(points)}: {_placed(points[0])}"
            for kind, least in GOALS.items()
            if (points := [point for point in missed if point.kind == kind])
            and told["totals"][kind]["percent"] < least
        ]
        return [*failures, *told["lies"], *self.objections]

    def to_dict(self) -> dict[str, Any]:
        """All but the single points, as JSON can hold it: figures, and what is left out."""
        counts = self.hits.counts
        return {
            "totals": self._figures(counts, counts),
            "runs": [
                {"run": run, **self._figures(hits.counts, hits.counts)}
                for run, hits in self.runs.items()
            ],
            "exclusions": [
                {**_given(one), "points": len(points)} for one, points in self._excluded.items()
            ],
            "objections": list(self.objections),
            "lies": self.lies(),
            "lines_without_points": lines_without_points(self.hits, self.folders),
        }

    def places(self) -> dict[str, Any]:
        """Figures of each file, and what is not covered, as JSON can hold it."""
        counts = self.hits.counts
        by_file: dict[str, list[Point]] = {}
        for point in sorted(counts):
            by_file.setdefault(point.file, []).append(point)
        return {
            "files": {name: self._figures(points, counts) for name, points in by_file.items()},
            "uncovered": _told(self.uncovered),
        }

    def _figures(
        self, points: Iterable[Point], counts: Mapping[Point, int]
    ) -> dict[str, dict[str, Any]]:
        """For each kind all points, those that are left out, and the covered ones and their share.

        Of what is not left out (``percent``), and of all but what Yosys finds constant.
        """
        all_points, constant, kept, hit, used = (Counter() for _ in range(5))
        for point in points:
            is_constant, is_kept = point in self.hits.constant, point in self._wanted_set
            all_points[point.kind] += 1
            constant[point.kind] += is_constant
            kept[point.kind] += is_kept
            hit[point.kind] += is_kept and counts[point] > 0
            used[point.kind] += not is_constant and counts[point] > 0
        return {
            kind: {
                "points": all_points[kind],
                "constant": constant[kind],
                "excluded": all_points[kind] - kept[kind] - constant[kind],
                "covered": hit[kind],
                "percent": _percent(hit[kind], kept[kind]),
                "percent_without_exclusions": _percent(
                    used[kind], all_points[kind] - constant[kind]
                ),
            }
            for kind in KINDS
            if all_points[kind]
        }

    @cached_property
    def _wanted_set(self) -> set[Point]:
        return set(self.wanted)


def _placed(point: Point) -> str:
    """Point and where it is."""
    words = (f"{point.file}:{point.line}", source_line(point), point.name)
    return ", ".join(word for word in words if word)


def _percent(part: int, whole: int) -> float | None:
    """Rounded down, so that 100 is all."""
    return int(10_000 * part / whole) / 100 if whole else None


def _given(exclusion: Exclusion) -> dict[str, Any]:
    """Fields of an exclusion that are not as by default."""
    plain = {field.name: field.default for field in fields(Exclusion)}
    return {name: value for name, value in asdict(exclusion).items() if value != plain[name]}


def _told(points: Iterable[Point]) -> list[dict[str, Any]]:
    """Points in their order, with their source; the bits of a signal are one."""
    signals: dict[tuple[str, int, str, str], list[int]] = {}
    for point in points:
        toggle = _TOGGLE.fullmatch(point.name)
        name = toggle[1] + (toggle[2] or "") + toggle[4] if toggle else point.name
        bits = signals.setdefault((point.file, point.line, point.kind, name), [])
        bits += [int(toggle[3])] if toggle else []
    return [
        {"file": file, "line": line, "kind": kind, "name": name}
        | {"source": source_line(Point(file, line, kind))}
        | ({"bits": sorted(bits)} if bits else {})
        for (file, line, kind, name), bits in signals.items()
    ]


def lines_without_points(hits: Hits, folders: Iterable[Path]) -> list[str]:
    """Assignments in the source that no run tells of, as ``file:line``.

    They are of structured values, whose place Amaranth does not keep, or no configuration has them.

    Parameters
    ----------
    hits : Hits
        Of all runs.
    folders : iterable of Path
        Whose files are looked through.
    """
    built = {(point.file, point.line) for point in hits.counts if point.kind == LINE}
    return [
        f"{name}:{line}"
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        for name in [str(path.relative_to(_ROOT))]
        for line in _assignments(path)
        if (name, line) not in built
    ]


def _assignments(path: Path) -> list[int]:
    """Lines with a call of ``eq``."""
    return sorted(
        {
            node.lineno
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "eq"
        }
    )
