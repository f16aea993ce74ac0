"""Files: inputs that must be there, and outputs that are written whole or not at all."""

import json
import os
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paro.config.errors import ParoError, first_line, quoted


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` produce a temporary neighbour of ``path``, then rename it into place.

    Parameters
    ----------
    path : Path
        Final path; its folder is made when missing.
    write : callable
        Called with the temporary path; if it raises, no file is left.

    Raises
    ------
    ParoError
        If the folder or the file cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise ParoError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_file(path: Path, kind: str) -> None:
    """Raise ParoError, which calls it ``kind``, unless ``path`` is a file."""
    try:
        if not path.is_file():
            problem = "is not a file" if path.exists() else "does not exist"
            raise ParoError(f"{kind} {path} {problem}")
    except OSError as error:
        raise ParoError(f"{kind} {quoted(str(path))}: {error.strerror or error}") from None


def read_json(path: Path, kind: str) -> Any:
    """Content of a JSON file; `ParoError`, which calls it ``kind``, if it cannot be read."""
    return _parsed(path, kind, json.loads)


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """Content of a TOML file; errors as of `read_json`."""
    return _parsed(path, kind, tomllib.loads)


def _parsed(path: Path, kind: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParoError(f"cannot read {kind} {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ParoError(f"cannot read {kind} {path}: {first_line(error)}") from error
    except RecursionError:
        raise ParoError(f"cannot read {kind} {path}: it nests too deep") from None


def check_folder(folder: Path) -> None:
    """Raise ParoError if a folder cannot be made, or not be written; nothing is made."""
    try:
        str(folder).encode()
        # The files to write have names, too.
        there = folder.absolute() / ("x" * 64)
        while not there.exists():
            there = there.parent
    except UnicodeEncodeError:
        raise ParoError(f"cannot write {str(folder)!a}: its name is not text") from None
    except OSError as error:
        raise ParoError(f"cannot write {folder}: {error.strerror or error}") from error
    if not there.is_dir():
        raise ParoError(f"cannot write {folder}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ParoError(f"cannot write {folder}: {there} is read-only")


def remove_files(*paths: Path) -> None:
    """Remove files, if they are there; `ParoError` if one cannot be removed."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ParoError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text))


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON to ``path``, whole or not at all."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")
