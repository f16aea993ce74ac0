"""The list of proofs has all of them, and none stands alone."""

import importlib
from pathlib import Path

from tests.formal.listing import proofs

FOLDER = Path(__file__).parent


def test_every_test_of_a_proof_is_listed():
    listed = {each.test for each in proofs()}
    files = [path for path in FOLDER.glob("test_*.py") if path != Path(__file__)]
    assert len(files) > 10
    for path in files:
        module = importlib.import_module(f"tests.formal.{path.stem}")
        tests = {
            f"tests/formal/{path.name}::{name}" for name in vars(module) if name.startswith("test_")
        }
        assert tests
        assert tests <= listed


def test_every_proof_has_a_cover_and_mutants():
    """Of each file: what is proven of its component is reached there, and refuted of mutants."""
    roles: dict[tuple[str, str], set[str]] = {}
    for each in proofs():
        roles.setdefault((each.test.partition("::")[0], each.component), set()).add(each.role)
        assert each.says.endswith("."), each.test
        assert each.unbounded == (each.mode == "prove")
    assert len(roles) > 10
    assert set(map(frozenset, roles.values())) == {frozenset({"proof", "cover", "mutant"})}


def test_most_are_unbounded_and_quick():
    """All components have a proof that is unbounded; of those most run with `make test`."""
    found = [each for each in proofs() if each.role == "proof"]
    unbounded = {each.component for each in found if each.unbounded}
    assert unbounded == {each.component for each in found}
    quick = {each.component for each in found if each.unbounded and not each.slow}
    assert quick == unbounded
