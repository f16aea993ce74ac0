"""The house of docs/architecture.md: its table, its picture and the imports of the code agree."""

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.places import ROOT

PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("firmware_model", "fpga", "gen", "paro", "rtl", "sim")
#: What every room may import: it is the ground.
GROUND = "paro.config"


@functools.cache
def rooms() -> dict[str, set[str]]:
    """For each room of the table what it may import."""
    section = PAGE.read_text().split("## The house")[1].split("\n## ")[0]
    table = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            (name,) = re.findall(r"`([\w.]+)`", cells[0])
            table[name] = set(re.findall(r"`([\w.]+)`", cells[2]))
    return table


def arrows() -> set[tuple[str, str]]:
    """Arrows of the picture, from what is imported to what imports it."""
    section = PAGE.read_text().split("## The house")[1].split("\n## ")[0]
    picture = section.split("```mermaid")[1].split("```")[0]
    names = dict(re.findall(r"(\w+)\[\"?`?([\w.]+)", picture))
    found = set()
    for left, right in re.findall(r"^\s*([\w &]+?) --> ([\w &]+?)$", picture, re.MULTILINE):
        for a in left.split(" & "):
            found |= {(names[a], names[b]) for b in right.split(" & ")}
    return found


def sources() -> list[Path]:
    return [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]


def room_of(module: str) -> str:
    """Room of a module: the innermost of the table that holds it."""
    name = module
    while name and name not in rooms():
        name = name.rpartition(".")[0]
    return name


def imports(path: Path) -> set[str]:
    """Modules of the project that a file imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            base = node.module or ""
            if base.partition(".")[0] in PACKAGES:
                modules = {f"{base}.{alias.name}" for alias in node.names}
                found |= {name for name in modules if is_module(name)} or {base}
                if any(not is_module(name) for name in modules):
                    found.add(base)
        elif isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
            assert not {name.partition(".")[0] for name in names} & set(PACKAGES), path
    return found


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@functools.cache
def used() -> dict[str, set[str]]:
    """For each room the other rooms that its code imports."""
    found: dict[str, set[str]] = {name: set() for name in rooms()}
    for path in sources():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        room = room_of(module.removesuffix(".__init__"))
        found[room] |= {room_of(name) for name in imports(path)} - {room, GROUND}
    return found


def test_every_file_has_a_room():
    table = rooms()
    assert len(table) > 15
    folders = {path.parent.relative_to(ROOT) for path in sources()}
    assert len(folders) > 15
    for folder in folders:
        name = ".".join(folder.parts)
        assert room_of(name), f"{name} is no room of {PAGE.name} and in none"


def test_every_room_is_there():
    for name in rooms():
        assert (ROOT.joinpath(*name.split(".")) / "__init__.py").is_file(), name


@pytest.mark.parametrize("room", sorted(rooms()))
def test_imports_are_those_of_the_table(room):
    assert used()[room] == rooms()[room]


def test_no_way_leads_back():
    table = rooms()
    done: set[str] = set()
    while len(done) < len(table):
        free = {name for name, wanted in table.items() if wanted <= done} - done
        assert free, f"a circle among {sorted(set(table) - done)}"
        done |= free


def test_the_picture_shows_the_table():
    """Each arrow is a line of the table, and each line of the table a way along arrows."""
    table, shown = rooms(), arrows()
    assert shown
    for source, user in shown:
        assert source in table[user] | {GROUND}, (source, user)
    above = {name: {source for source, user in shown if user == name} for name in table}
    for user, wanted in table.items():
        reached, pending = set(), [user]
        while pending:
            new = above[pending.pop()] - reached
            reached |= new
            pending += new
        assert wanted <= reached, (user, wanted - reached)
        assert GROUND in reached or user in (GROUND,), user
