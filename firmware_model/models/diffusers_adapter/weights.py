"""Weights of a pipeline's components: the files that hold them, and their identity."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from paro.config.errors import ParoError, first_line
from paro.config.files import read_json

#: Name of a file of weights: plain, of a variant such as fp16, and each of them whole or a shard.
_FILE = re.compile(r"[^.]+?(\.(?P<variant>[^.]+?))?(-\d{5}-of-\d{5})?\.safetensors")
_WHOLE = "diffusion_pytorch_model"
_CHUNK_BYTES = 1 << 20


class _Tensor(NamedTuple):
    """Where a tensor lies; sorts as the identity takes them."""

    component: str
    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def choose_variants(folder: Path, main: Iterable[str], variant: str | None) -> dict[str, str]:
    """Choose which weights to load of each component of a pipeline.

    Parameters
    ----------
    folder : Path
        Of the pipeline.
    main : iterable of str
        Components that must have weights, in that variant if one is asked for.
    variant : str, optional
        Variant that the user asks for, such as "fp16". By default the plain weights of each
        component, or its only variant where it has no plain ones.

    Returns
    -------
    dict of str to str
        For each component that has weights its variant, "" the plain one.

    Raises
    ------
    ParoError
        If a component of ``main`` has no such weights, or one has no plain weights and several
        variants.
    """
    found = {path.name: _variants(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    for name in main:
        if not found.get(name):
            raise ParoError(f"{folder / name} has no weights; legal: one or more safetensors files")
        if variant is not None and variant not in found[name]:
            legal = ", ".join(repr(other) for other in sorted(found[name] - {""}))
            raise ParoError(
                f"variant = {variant!r} is not legal: {folder / name} has no such weights; legal: "
                + (legal or "none, as there are only plain ones")
            )
    chosen = {}
    for name, variants in found.items():
        legal = [variants & {variant}, variants & {""}, variants]
        fitting = sorted(next((some for some in legal if some), set()))
        if len(fitting) > 1:
            raise ParoError(
                f"{folder / name} has several variants of its weights and no plain ones; legal: "
                f"--variant, one of {', '.join(fitting)}"
            )
        if fitting:
            chosen[name] = fitting[0]
    return chosen


def _variants(component: Path) -> set[str]:
    matches = (_FILE.fullmatch(path.name) for path in component.iterdir())
    return {match["variant"] or "" for match in matches if match}


def weights_identity(folder: Path, components: dict[str, str]) -> str:
    """Identity of the weights of some components.

    The identity depends on name, type, shape and bytes of each tensor, and not on how the tensors
    are spread over files. Weights in another precision are others.

    Parameters
    ----------
    folder : Path
        Of the pipeline.
    components : dict of str to str
        Their names and variants, as `choose_variants` returns them.

    Returns
    -------
    str
        SHA-256, hexadecimal.

    Raises
    ------
    ParoError
        If a file cannot be read.
    """
    tensors = sorted(
        tensor
        for name, variant in components.items()
        for path in _files(folder / name, variant)
        for tensor in _tensors(name, path)
    )
    digest = hashlib.sha256()
    for tensor in tensors:
        # Type and shape settle the number of bytes that follow.
        head = [tensor.component, tensor.name, tensor.dtype, tensor.shape]
        digest.update(json.dumps(head).encode() + b"\n")
        try:
            with tensor.path.open("rb") as stream:
                stream.seek(tensor.begin)
                left = tensor.end - tensor.begin
                while left:
                    chunk = stream.read(min(left, _CHUNK_BYTES))
                    if not chunk:
                        raise ParoError(f"{tensor.path} ends within tensor {tensor.name!r}")
                    digest.update(chunk)
                    left -= len(chunk)
        except OSError as error:
            raise _unreadable(tensor.path, error) from error
    return digest.hexdigest()


def _files(component: Path, variant: str) -> list[Path]:
    """Files that the library loads: those of an index, else the whole one."""
    middle = f".{variant}" if variant else ""
    whole = component / f"{_WHOLE}{middle}.safetensors"
    for name in (f"index{middle}", f"{variant}.index" if variant else "index"):
        index = component / f"{_WHOLE}.safetensors.{name}.json"
        if index.is_file():
            content = read_json(index, "the index of weights")
            try:
                return sorted(_shards(component, content["weight_map"]))
            except (LookupError, TypeError, AttributeError, OSError):
                raise ParoError(
                    f"{index} does not tell which files hold the weights; legal: weight_map, for "
                    "each tensor the name of a file beside it"
                ) from None
    return [whole]


def _shards(component: Path, weight_map: dict[str, str]) -> set[Path]:
    """Files of a map from tensors to their names; LookupError or OSError if one is not there."""
    found = {component / shard for shard in weight_map.values()}
    if not all(path.parent == component and path.is_file() for path in found):
        raise LookupError
    return found


def _tensors(component: str, path: Path) -> list[_Tensor]:
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(size))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    try:
        return [
            _Tensor(
                component,
                name,
                path,
                entry["dtype"],
                tuple(entry["shape"]),
                *_place(entry["data_offsets"], 8 + size, path.stat().st_size),
            )
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except (LookupError, TypeError, AttributeError, ValueError):
        raise ParoError(f"{path} is damaged: its header does not tell where tensors lie") from None


def _place(offsets: Iterable[int], start: int, end: int) -> tuple[int, int]:
    """Bytes of a file of ``end`` bytes between two offsets."""
    first, last = (start + offset for offset in offsets)
    if not start <= first <= last <= end:
        raise ValueError("it lies outside of the file")
    return first, last


def _unreadable(path: Path, error: Exception) -> ParoError:
    return ParoError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}")
