"""Names of models: whether a path is one. Nothing here needs torch."""

from pathlib import Path

from safetensors import safe_open

from firmware_model import DATA
from paro.config import files

__all__ = ["CHECKPOINT_FORMAT", "OWN_CHECKPOINT", "OWN_MODEL", "check_model", "is_model"]

#: Name of the model that comes with the project, and its checkpoint.
OWN_MODEL = "moving-digits"
OWN_CHECKPOINT = DATA / "moving_digits.safetensors"
#: Version of the checkpoints of `firmware_model.models.video`.
CHECKPOINT_FORMAT = "paro-video-1"


def is_model(path: Path) -> bool:
    """Whether ``path`` names a model, and not a capture."""
    if not path.exists():
        return str(path) == OWN_MODEL
    if path.is_dir():
        return (path / "model_index.json").is_file()
    return _metadata(path).get("format") == CHECKPOINT_FORMAT


def check_model(path: Path) -> None:
    """Raise ParoError if ``path`` is neither a file nor a folder nor `OWN_MODEL`."""
    if str(path) != OWN_MODEL and not path.is_dir():
        files.check_file(path, "model")


def _metadata(path: Path) -> dict[str, str]:
    """String metadata of a safetensors file, read from its header; empty for any other file."""
    try:
        with safe_open(path, framework="numpy") as content:
            return content.metadata() or {}
    # safetensors raises errors of several unrelated classes on malformed headers.
    except Exception:
        return {}
