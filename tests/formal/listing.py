"""The list of all proofs, from their tests: what is proven of which component, and how deep.

A test of this folder says with the mark ``proof(of, mode, depth)`` whose properties it tries, how,
and to what depth (`tests.formal.prove.check`); with ``mutant=True`` that it must refute them. Its
docstring says what holds.
"""

import importlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Listed", "proofs"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Listed:
    """A test of the properties of a component.

    Parameters
    ----------
    test : str
        As pytest names it, without its parameters.
    component : str
        Class whose properties they are.
    says : str
        What holds, or what is reached or refuted.
    role : str
        ``proof``; ``cover``: what must be possible is reached; ``mutant``: broken copies of the
        component are refuted.
    mode : str
        See `tests.formal.prove.check`.
    depth : int
        Cycles, or the k of an induction.
    unbounded : bool
        It holds in all cycles.
    cases : int
        How many shapes, covers or mutants it goes through.
    slow : bool
        It is left out of ``make test``.
    """

    test: str
    component: str
    says: str
    role: str
    mode: str
    depth: int
    unbounded: bool
    cases: int
    slow: bool


def proofs() -> list[Listed]:
    """All tests of proofs, file by file."""
    found = []
    for path in sorted(_FOLDER.glob("test_*.py")):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        own = getattr(module, "pytestmark", [])
        marks_of_file = own if isinstance(own, list) else [own]
        for name, function in vars(module).items():
            if name.startswith("test_"):
                marks = [*marks_of_file, *getattr(function, "pytestmark", [])]
                found += _listed(f"tests/formal/{path.name}::{name}", function, marks)
    return found


def _listed(test: str, function: Any, marks: list[Any]) -> list[Listed]:
    by_name: dict[str, list[Any]] = {}
    for mark in marks:
        by_name.setdefault(mark.name, []).append(getattr(mark, "mark", mark))
    if "proof" not in by_name:
        return []
    (proof,) = by_name["proof"]
    cases = 1
    for parameters in by_name.get("parametrize", []):
        cases *= len(parameters.args[1])
    mode, is_mutant = proof.kwargs["mode"], proof.kwargs.get("mutant", False)
    return [
        Listed(
            test=test,
            component=proof.kwargs["of"].__name__,
            says=" ".join((function.__doc__ or "").split()),
            role="mutant" if is_mutant else "cover" if mode == "cover" else "proof",
            mode=mode,
            depth=proof.kwargs["depth"],
            unbounded=mode == "prove",
            cases=cases,
            slow="slow" in by_name,
        )
    ]


if __name__ == "__main__":
    print(json.dumps([asdict(each) for each in proofs()], indent=2))
