"""Cache of compiled code for later runs of any command, in one folder for each user.

An entry is a folder whose name is made from all that it depends on. The file ``complete`` in it
says that it is whole; its time is that of the last use. A lock lies beside it: those that use the
entry share it, the one that makes or removes it holds it alone.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs

from paro.config import ParoError, files

__all__ = ["CACHE_VARIABLE", "LIMIT", "cache_folder", "cache_size", "entry_name", "kept", "present"]

#: Environment variable that names another folder.
CACHE_VARIABLE = "PARO_CACHE_DIR"
#: Bytes beyond which the entries that were not used for the longest time are removed.
LIMIT = 2 << 30

_COMPLETE = "complete"
_ENTRY = re.compile(r"[a-z-]+-[0-9a-f]{16}")


def cache_folder() -> Path:
    """Return the folder of this user.

    Raises
    ------
    ParoError
        If it cannot be written.
    """
    named = os.environ.get(CACHE_VARIABLE)
    folder = Path(named).absolute() if named else platformdirs.user_cache_path("paro", False)
    try:
        files.check_folder(folder)
    except ParoError as error:
        raise _unfit(str(error)) from None
    return folder


def cache_size(folder: Path) -> int:
    """Bytes of all entries."""
    return sum(_size(entry) for entry in _entries(folder))


def entry_name(kind: str, *parts: Any) -> str:
    """Name of an entry of a kind; ``parts``, which JSON can hold, are all that it depends on."""
    return f"{kind}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"


@contextmanager
def kept(folder: Path, name: str, make: Callable[[Path], object]) -> Iterator[Path]:
    """Find an entry, or make it; it stays as it is during the body.

    If several processes want the same one at a time, one makes it and the others wait.

    Parameters
    ----------
    folder : Path
        That holds all entries, see `cache_folder`.
    name : str
        See `entry_name`.
    make : callable
        Called with the entry's folder, which is empty.

    Raises
    ------
    ParoError
        If the folder cannot be written.
    """
    entry = folder / name
    while True:
        with present(folder, name) as found:
            if found is not None:
                yield found
                return
        with _locked(entry, fcntl.LOCK_EX):
            if not (entry / _COMPLETE).exists():
                try:
                    shutil.rmtree(entry, ignore_errors=True)
                    entry.mkdir()
                    make(entry)
                    (entry / _COMPLETE).touch()
                except OSError as error:
                    raise _unfit(f"cannot write {entry}: {error.strerror or error}") from error
        _trim(folder, entry)


@contextmanager
def present(folder: Path, name: str) -> Iterator[Path | None]:
    """Find an entry, which then stays as it is during the body; ``None`` if there is none."""
    entry = folder / name
    with _locked(entry, fcntl.LOCK_SH):
        complete = (entry / _COMPLETE).exists()
        if complete:
            os.utime(entry / _COMPLETE)
        yield entry if complete else None


@contextmanager
def _locked(entry: Path, how: int) -> Iterator[None]:
    """Hold an entry's lock."""
    path = _lock_path(entry)
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _unfit(f"cannot write {path}: {error.strerror or error}") from error
        try:
            fcntl.flock(handle, how)
            # Whoever removes an entry removes its lock: this one may be no more.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                yield
                return
        finally:
            os.close(handle)


def _lock_path(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}.lock")


def _entries(folder: Path) -> list[Path]:
    """All entries, whole or not; nothing else that may lie in the folder."""
    return [p.with_suffix("") for p in folder.glob("*.lock") if _ENTRY.fullmatch(p.stem)]


def _size(entry: Path) -> int:
    size = 0
    for path in entry.rglob("*"):
        with suppress(OSError):
            size += path.lstat().st_size
    return size


def _last_use(entry: Path) -> float:
    """Time of the last use; 0 of an entry that is not whole."""
    try:
        return (entry / _COMPLETE).stat().st_mtime
    except OSError:
        return 0.0


def _trim(folder: Path, spared: Path) -> None:
    """Remove entries that are not whole and, beyond `LIMIT`, those that were unused the longest.

    An entry that a process uses or makes is left alone.
    """
    sizes = {entry: _size(entry) for entry in _entries(folder)}
    total = sum(sizes.values())
    for entry in sorted(sizes, key=_last_use):
        if entry == spared or (_last_use(entry) and total <= LIMIT):
            continue
        with suppress(BlockingIOError), _locked(entry, fcntl.LOCK_EX | fcntl.LOCK_NB):
            (entry / _COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(entry, ignore_errors=True)
            _lock_path(entry).unlink(missing_ok=True)
            total -= sizes[entry]


def _unfit(sentence: str) -> ParoError:
    return ParoError(f"{sentence}; {CACHE_VARIABLE} names another folder for what is compiled")
