"""Coverage points of a design: registers that say which of its statements and choices came to work.

What is covered must be told of the source, which is Python: the Verilog that is made of it has its
choices as multiplexers, several for one ``If``. So the points are put in before that, where a
statement still knows its line. Each is a register of one bit, 1 in the cycle after one in which

* an assignment was in force (kind ``line``: one point for each line of the source that has any);
* an arm of an ``If``, ``Switch`` or ``FSM`` was taken, or no arm (kind ``branch``);
* the value of an arm of a ``Mux`` or of an element of an ``Array`` was chosen by an assignment
  that was in force (kind ``branch`` too).

A cycle of reset does not count. A coverage tool that counts rising bits counts the points. A point
has in its attribute ``src`` the place in the source, and in its name the rest, see `split_name`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import amaranth
from amaranth.hdl import Fragment, ResetSignal, Signal, Value
from amaranth.hdl import _ast as hdl_ast

__all__ = ["LINE", "PointName", "add_points", "split_name"]

#: Kinds of points.
LINE, BRANCH = "line", "branch"
#: What the name of a point begins with.
_PREFIX = "covered"
_LIBRARY = Path(amaranth.__file__).parent
#: Statements and values, whose types are wrong in what is published of them.
_AST: Any = hdl_ast
#: Widest test whose values are counted out to learn whether its cases are all that can be.
_COUNTED_BITS = 12
#: A place in the source: file and line.
_Place = tuple[str, int]
#: Statements that mark points.
_Marks = list[Any]


class PointName(NamedTuple):
    """What the name of a point says.

    Parameters
    ----------
    kind : str
        ``line`` or ``branch``.
    arm : str
        Of a branch: ``then``, ``else``, ``case=``, ``none``, ``value=`` with what they stand for.
    copy : int
        Of several branches from one line of the source, such as those of a loop, which.
    """

    kind: str
    arm: str = ""
    copy: int = 0


def split_name(name: str) -> PointName | None:
    """Read the name of a register; ``None`` if it is no point."""
    prefix, *parts = name.split(":")
    if prefix != _PREFIX or len(parts) != len(PointName._fields):
        return None
    return PointName(parts[0], parts[1], int(parts[2].partition("$")[0]))


def add_points(fragment: Any) -> None:
    """Put points into a design that is elaborated, with all its submodules of the source."""
    for part, _, _ in fragment.subfragments:
        add_points(part)
    if type(fragment) is not Fragment:
        return  # a memory or an instance
    marker = _Marker()
    statements: Any = fragment.statements  # pyright: ignore[reportAttributeAccessIssue]
    marks = [mark for part in statements.values() for mark in marker.of(part)]
    if not marker.points:
        return
    fragment.add_statements("comb", *marks)
    running = ~ResetSignal("sync", allow_reset_less=True)
    for (place, said), taken in marker.points.items():
        name = ":".join(map(str, (_PREFIX, *said)))
        point: Any = Signal(name=name, reset_less=True, attrs={"keep": True})
        point.src_loc = place
        fragment.add_statements("sync", point.eq(taken & running))


class _Marker:
    """Statements that set a bit for each point of a module."""

    def __init__(self) -> None:
        self.points: dict[tuple[_Place, PointName], Signal] = {}
        #: For each arm of a line the choices that have it, in their order.
        self._copies: dict[tuple[_Place, str], list[int]] = {}

    def of(self, statements: Any) -> _Marks:
        """Marks of the statements of a domain."""
        self._switches: dict[tuple[_Place, str], int] = {}
        return self._of(statements)

    def _of(self, statements: Any) -> _Marks:
        marks: _Marks = []
        for statement in statements:
            if isinstance(statement, _AST.Assign):
                marks += self._mark(statement.src_loc, PointName(LINE))
                marks += self._values(statement.rhs, set())
            elif isinstance(statement, _AST.Switch):
                marks += self._values(statement.test, set())
                marks += self._choice(statement)
        return marks

    def _choice(self, switch: Any) -> _Marks:
        """Marks of an ``If``, a ``Switch`` or an ``FSM``."""
        is_if = all(
            patterns is None or patterns == (_pattern_of_if(index, len(switch.test)),)
            for index, (patterns, _, _) in enumerate(switch.cases)
        )
        cases: list[Any] = []
        for patterns, statements, place in switch.cases:
            if patterns is None:
                arm = "else" if is_if else "default"
            else:
                arm = "then" if is_if else f"case={_written(patterns)}"
            marks = self._branch(place or switch.src_loc, arm)
            cases.append((patterns, [*marks, *self._of(statements)], place))
        if not _is_complete([patterns for patterns, _, _ in switch.cases], len(switch.test)):
            marks = self._branch(switch.src_loc, "else" if is_if else "none")
            cases.append((None, marks, None))
        return [_AST.Switch(switch.test, cases, src_loc=switch.src_loc)]

    def _branch(self, place: Any, arm: str) -> _Marks:
        """Mark of an arm; those of one line are told apart by their order in their domain."""
        copy = self._switches.get((place, arm), 0)
        self._switches[place, arm] = copy + 1
        return self._mark(place, PointName(BRANCH, arm, copy))

    def _values(self, value: Any, seen: set[int]) -> _Marks:
        """Marks of the choices in a value, each once."""
        if id(value) in seen:
            return []
        seen.add(id(value))
        if not isinstance(value, _AST.SwitchValue):
            return [mark for part in _parts(value) for mark in self._values(part, seen)]
        marks = self._values(value.test, seen)
        cases: list[Any] = []
        for patterns, chosen in value.cases:
            arm = f"value={_written(patterns)}"
            objects = self._copies.setdefault((value.src_loc, arm), [])
            if id(value) not in objects:
                objects.append(id(value))
            name = PointName(BRANCH, arm, objects.index(id(value)))
            inner = [*self._mark(value.src_loc, name), *self._values(chosen, seen)]
            cases.append((patterns, inner, None))
        return [*marks, _AST.Switch(value.test, cases, src_loc=value.src_loc)]

    def _mark(self, place: Any, name: PointName) -> _Marks:
        if place is None or Path(place[0]).is_relative_to(_LIBRARY):
            return []  # of Amaranth
        taken = self.points.get((place, name))
        if taken is None:
            taken = self.points[place, name] = Signal(name="taken")
        return [taken.eq(1)]


def _pattern_of_if(index: int, width: int) -> str:
    """Pattern with which Amaranth takes the arm of that number of an ``If``."""
    return "-" * (width - 1 - index) + "1" + "-" * index


def _written(patterns: tuple[str, ...] | None) -> str:
    """Patterns as a word: numbers, where they have no free bits."""
    if patterns is None:
        return "default"
    return ",".join(p if "-" in p else str(int(p or "0", 2)) for p in patterns)


def _is_complete(cases: list[tuple[str, ...] | None], width: int) -> bool:
    """Whether a case is taken for every value of the test; not if that is more than can be told."""
    if None in cases:
        return True
    patterns = [pattern for case in cases if case is not None for pattern in case]
    if all("-" not in pattern for pattern in patterns):
        return len(set(patterns)) == 1 << width
    if width > _COUNTED_BITS:
        return False
    return all(
        any(all(p in ("-", b) for p, b in zip(pattern, value, strict=True)) for pattern in patterns)
        for value in (format(number, f"0{width}b") for number in range(1 << width))
    )


def _parts(value: Any) -> Iterator[Value]:
    """Values that a value is made of."""
    if isinstance(value, _AST.Operator):
        yield from value.operands
    elif isinstance(value, _AST.Slice):
        yield value.value
    elif isinstance(value, _AST.Part):
        yield value.value
        yield value.offset
    elif isinstance(value, _AST.Concat):
        yield from value.parts
