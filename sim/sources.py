"""Results that are kept: under a name made of all that they depend on, our own code included."""

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any

from paro.config import ParoError

__all__ = ["imported_files", "kept_path", "module_digest", "read_kept", "source_digest"]

#: Before the names of the folders: nothing in a checkout, ``paro.`` where the project is installed.
_PREFIX = __name__.removesuffix("sim.sources")
#: Folder of the packages that have no other above them.
_ROOT = Path(__file__).parents[1 + _PREFIX.count(".")]
#: What results are computed with.
_COMPUTING = ("paro.config", *(f"{_PREFIX}{name}" for name in ("firmware_model", "rtl", "sim")))
#: All of the project: other packages may lie beside them.
_PROJECT = tuple(
    f"{name}."
    for name in (
        "paro",
        *(_PREFIX + folder for folder in ("firmware_model", "rtl", "sim", "gen", "fpga")),
    )
)


@functools.cache
def source_digest() -> str:
    """Short name of all code and data that results are computed with."""
    content = hashlib.sha256()
    for package in _COMPUTING:
        for path in sorted(_ROOT.joinpath(*package.split(".")).rglob("*")):
            if path.suffix in (".py", ".toml"):
                content.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes())
    return content.hexdigest()[:12]


@functools.cache
def module_digest(module: str) -> str:
    """Short name of the code of a module and of all that it imports of the project."""
    content = hashlib.sha256()
    for name, path in sorted(imported_files(module, _ROOT).items()):
        content.update(f"{name}\0".encode() + path.read_bytes())
    return content.hexdigest()[:16]


def imported_files(module: str, root: Path) -> dict[str, Path]:
    """Files, by module, of a module of the project below ``root`` and of all that it imports there.

    Their packages count, and imports within functions.
    """
    found: dict[str, Path] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        path = _module_file(name, root)
        if name in found or path is None:
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        pending += [name.rpartition(".")[0], *_imports(path, package)]
    return found


def _module_file(name: str, root: Path) -> Path | None:
    """File of a module of the project; ``None`` if there is none."""
    if not f"{name}.".startswith(_PROJECT):
        return None
    path = root.joinpath(*name.split("."))
    files = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _imports(path: Path, package: str) -> tuple[str, ...]:
    """All names that a file may import modules by."""
    names: list[str] = []
    for node in _statements(ast.parse(path.read_bytes()).body):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names += (base, *(f"{base}.{alias.name}" for alias in node.names))
    return tuple(names)


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Statements and all within them, but no expressions: these import nothing, and are many."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, part, ()))


def kept_path(folder: Path, *inputs: Any) -> Path:
    """Place of a JSON result of these inputs, which JSON must be able to hold."""
    content = json.dumps([source_digest(), *inputs], sort_keys=True)
    return folder / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"


def read_kept(path: Path, names: Set[str]) -> dict[str, Any]:
    """Read a result; `ParoError` if it cannot be read or lacks one of these names."""
    try:
        result = json.loads(path.read_text())
        if not isinstance(result, dict) or not names <= result.keys():
            raise ValueError(f"it lacks one of {', '.join(sorted(names))}")
    except (OSError, ValueError) as error:
        raise ParoError(
            f"cannot read result {path}: {error}; delete it to compute it anew"
        ) from None
    return result
