"""Results that are kept: under a name made of all that they depend on, our own code included."""

import functools
import hashlib
import json
from collections.abc import Set
from pathlib import Path
from typing import Any

from paro_config import ParoError

__all__ = ["kept_path", "read_kept", "source_digest"]

_PACKAGES = ("paro_config", "firmware_model", "rtl", "sim")


@functools.cache
def source_digest() -> str:
    """Short name of all code and data that results are computed with."""
    content = hashlib.sha256()
    root = Path(__file__).parent.parent
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in (".py", ".toml"):
                content.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return content.hexdigest()[:12]


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
