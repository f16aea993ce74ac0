"""Records that a co-simulation and its bench leave for each other: dataclasses as JSON files."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from paro.config import files

__all__ = ["load_record", "save_record"]

Record = TypeVar("Record")


def save_record(record: Any, path: Path) -> None:
    """Write a dataclass, whole or not at all."""
    files.write_json(path, dataclasses.asdict(record))


def load_record(kind: type[Record], path: Path) -> Record:
    """Read what `save_record` wrote of a dataclass of this kind."""
    return TypeAdapter(kind).validate_json(path.read_bytes())
