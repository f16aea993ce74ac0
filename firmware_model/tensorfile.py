"""Read and write safetensors files with one sentence for every failure."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import safe_open

from paro.config.errors import ParoError, first_line
from paro.config.files import check_file, write_atomically

#: Bytes of a file before its header: the header's length, little endian.
_LENGTH_BYTES = 8
#: What messages on files of some kinds advise.
_ADVICE = {"capture": "; `paro convert` makes captures of npz, pt and other safetensors files"}


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
    with _opened(path, kind, names) as content:
        tensors = {name: content.get_tensor(name) for name in names}
        metadata = content.metadata() or {}
    return TensorFile(tensors, metadata, file_digest(path, kind))


@contextmanager
def _opened(path: Path, kind: str, names: tuple[str, ...]) -> Iterator[Any]:
    """Open a file that holds ``names``; errors as `read_tensors`."""
    check_file(path, kind)
    try:
        with safe_open(path, framework="pt") as content:
            stored = set(content.keys())
            missing = [name for name in names if name not in stored]
            if missing:
                raise ParoError(
                    f"{kind} {path} has no tensor {missing[0]!r}; needed: {', '.join(names)}"
                    f"{_ADVICE.get(kind, '')}"
                )
            yield content
    except OSError as error:
        raise ParoError(f"cannot read {kind} {path}: {error.strerror or error}") from error
    except ParoError:
        raise
    # safetensors raises errors of several unrelated classes on malformed headers.
    except Exception as error:
        raise ParoError(
            f"{kind} {path} is truncated or not a safetensors file ({first_line(error)})"
            f"{_ADVICE.get(kind, '')}"
        ) from error


def read_header(
    path: Path, kind: str, names: tuple[str, ...]
) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Shapes of the named tensors of a file, and its metadata, without reading any tensor.

    Errors as `read_tensors`.
    """
    with _opened(path, kind, names) as content:
        shapes = {name: list(content.get_slice(name).get_shape()) for name in names}
        return shapes, content.metadata() or {}


def file_digest(path: Path, kind: str) -> str:
    """SHA-256 of a file's bytes, hexadecimal; ParoError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ParoError(f"cannot read {kind} {path}: {error.strerror or error}") from error


def tensor_names(path: Path, kind: str) -> tuple[str, ...]:
    """Names of the tensors of a file; ParoError, which calls it ``kind``, if it is none such."""
    try:
        with safe_open(path, framework="pt") as content:
            return tuple(content.keys())
    # safetensors raises errors of several unrelated classes on malformed headers.
    except Exception as error:
        raise ParoError(
            f"{kind} {path} is truncated or not a safetensors file ({first_line(error)})"
        ) from error


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    Raises
    ------
    ParoError
        If the file cannot be written.
    """
    content = serialize_tensors(tensors, metadata)
    write_atomically(path, lambda temporary: _write_bytes(temporary, content))


def serialize_tensors(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> bytes:
    """Content of a safetensors file, the same bytes for the same input.

    The library alone writes metadata in another sequence in each process.
    """
    content = safetensors.torch.save(tensors, metadata)
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES:start])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Tensors begin at a multiple of eight bytes.
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + content[start:]


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def parse_integers(text: str) -> tuple[int, ...] | None:
    """Comma-separated non-negative decimal integers; ``None`` if ``text`` is anything else."""
    fields = [field.strip() for field in text.split(",")]
    if not all(field.isascii() and field.isdigit() and len(field) <= 9 for field in fields):
        return None
    return tuple(int(field) for field in fields)
