"""Output files that are written whole or not at all."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paro_config.errors import ParoError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` produce a temporary neighbour of ``path``, then rename it into place.

    Parameters
    ----------
    path : Path
        Final path; its folder is made when missing.
    write : callable
        Called with the temporary path; if it raises, nothing is left behind.

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


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text))


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON to ``path``, whole or not at all."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")
