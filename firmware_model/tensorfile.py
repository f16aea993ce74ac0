"""Read and write safetensors files with every failure told in one sentence."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import safe_open

from paro_config.errors import ParoError
from paro_config.files import write_atomically


class TensorFile(NamedTuple):
    """Content of one safetensors file."""

    #: Tensors by name, on the CPU.
    tensors: dict[str, torch.Tensor]
    #: String metadata; empty if the file has none.
    metadata: dict[str, str]
    #: SHA-256 of the file's bytes, hexadecimal.
    digest: str


def read_tensors(path: Path, kind: str, names: tuple[str, ...]) -> TensorFile:
    """Read the named tensors of a file.

    Parameters
    ----------
    path : Path
        The safetensors file.
    kind : str
        What the file is, for messages ("capture", "plan").
    names : tuple of str
        Tensors to read; others are ignored.

    Raises
    ------
    ParoError
        If the file is missing, unreadable, truncated, not safetensors or lacks one of ``names``.
    """
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise ParoError(f"{kind} {path} {problem}")
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        with safe_open(path, framework="pt") as content:
            stored = set(content.keys())
            missing = [name for name in names if name not in stored]
            if missing:
                raise ParoError(
                    f"{kind} {path} has no tensor {missing[0]!r}; needed: {', '.join(names)}"
                )
            tensors = {name: content.get_tensor(name) for name in names}
            metadata = content.metadata() or {}
    except OSError as error:
        raise ParoError(f"cannot read {kind} {path}: {error.strerror or error}") from error
    except ParoError:
        raise
    # safetensors raises errors of several unrelated classes on malformed headers.
    except Exception as error:
        raise ParoError(
            f"{kind} {path} is truncated or not a safetensors file ({error})"
        ) from error
    return TensorFile(tensors, metadata, digest)


def tensor_names(path: Path, kind: str) -> tuple[str, ...]:
    """Names of the tensors of a file; ParoError, which calls it ``kind``, if it is none such."""
    try:
        with safe_open(path, framework="pt") as content:
            return tuple(content.keys())
    # safetensors raises errors of several unrelated classes on malformed headers.
    except Exception as error:
        raise ParoError(
            f"{kind} {path} is truncated or not a safetensors file ({error})"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """String metadata of a file, of which only the header is read; empty if it is none such."""
    try:
        with safe_open(path, framework="pt") as content:
            return content.metadata() or {}
    # safetensors raises errors of several unrelated classes on malformed headers.
    except Exception:
        return {}


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    Raises
    ------
    ParoError
        If the file cannot be written.
    """
    content = safetensors.torch.save(tensors, metadata)
    write_atomically(path, lambda temporary: _write_bytes(temporary, content))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def parse_integers(text: str) -> tuple[int, ...] | None:
    """Comma-separated non-negative decimal integers; ``None`` if ``text`` is anything else."""
    fields = [field.strip() for field in text.split(",")]
    if not all(field.isascii() and field.isdigit() and len(field) <= 9 for field in fields):
        return None
    return tuple(int(field) for field in fields)
