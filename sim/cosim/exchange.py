"""Dataclasses that a co-simulation and its bench leave for each other as JSON files."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from paro.config import files

__all__ = ["load_dataclass", "save_dataclass"]

Kind = TypeVar("Kind")


def save_dataclass(value: Any, path: Path) -> None:
    """Write a dataclass, whole or not at all."""
    files.write_json(path, dataclasses.asdict(value))


def load_dataclass(kind: type[Kind], path: Path) -> Kind:
    """Read a dataclass of this kind that `save_dataclass` wrote; its types are checked."""
    return TypeAdapter(kind).validate_json(path.read_bytes())
