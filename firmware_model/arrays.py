"""Captures from arrays: those of a running network, or of files that numpy and torch write."""

import math
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch

from firmware_model.capture import DTYPES, Capture
from firmware_model.choices import ARRAY_FILES
from paro.config.config import HEAD_DIMS
from paro.config.errors import ParoError
from paro.config.files import check_file

__all__ = ["Tokens", "as_tensor", "capture_of", "read_arrays"]

#: Names of arrays that a message lists at most.
_NAMED = 8


@dataclass(frozen=True)
class Tokens:
    """What the tokens of a network are.

    Parameters
    ----------
    grid : (int, int, int)
        Frames, height, width, width fastest; an image has one frame.
    prefix, suffix : int
        Tokens before and after the grid (class tokens, text).

    Raises
    ------
    ParoError
        If one of them is not legal.
    """

    grid: tuple[int, int, int]
    prefix: int = 0
    suffix: int = 0

    def __post_init__(self) -> None:
        if len(self.grid) != 3 or not all(isinstance(n, int) and n > 0 for n in self.grid):
            raise ParoError(
                f"grid = {self.grid} is not legal; legal: frames, height, width, each 1 or more"
            )
        if min(self.prefix, self.suffix) < 0:
            raise ParoError(
                f"prefix = {self.prefix}, suffix = {self.suffix} are not legal; legal: 0 or more"
            )

    @property
    def count(self) -> int:
        """Tokens in all."""
        return self.prefix + math.prod(self.grid) + self.suffix


def capture_of(
    q: Any,
    k: Any,
    v: Any,
    tokens: Tokens,
    *,
    scale: float | None = None,
    layer: int = 0,
    progress: float = 0.0,
    model: str = "",
    tokens_first: bool = False,
    item: int | None = None,
    source: str = "",
    path: Path | None = None,
) -> Capture:
    """Make a capture of arrays.

    Parameters
    ----------
    q, k, v : np.ndarray or torch.Tensor
        [heads, tokens, channels], or a batch of them; floats, finite. K and V may have fewer heads,
        each of which then serves as many neighbouring heads of Q.
    tokens : Tokens
        What the tokens are: as many as the arrays have.
    scale : float, optional
        Factor of the logits; by default 1 / sqrt(channels).
    layer : int
        Attention layer of the network.
    progress : float
        Share of the denoising steps that were done, below 1.
    model : str
        Tells the network's weights apart from others'.
    tokens_first : bool
        Whether the arrays are [tokens, heads, channels].
    item : int, optional
        Which item of a batch; needed if there are several.
    source : str
        Where they come from, in words.
    path : Path, optional
        Of the capture; by default one that tells the layer.

    Raises
    ------
    ParoError
        If the arrays do not fit each other, the tokens or the hardware.
    """
    q, k, v = (
        _operand(name, values, tokens, tokens_first, item)
        for name, values in (("q", q), ("k", k), ("v", v))
    )
    k, v = (_served(name, values, q) for name, values in (("k", k), ("v", v)))
    channels = q.shape[2]
    factor = channels**-0.5 if scale is None else float(scale)
    if not (math.isfinite(factor) and factor > 0):
        raise ParoError(f"scale = {factor} is not legal; legal: above 0")
    if layer < 0 or not 0 <= progress < 1:
        raise ParoError(
            f"layer = {layer}, progress = {progress} are not legal; legal: 0 or more, progress "
            "below 1"
        )
    return Capture(
        path=Path(f"layer_{layer:02}.safetensors") if path is None else path,
        q=q,
        k=k,
        v=v,
        grid=tokens.grid,
        prefix_tokens=tokens.prefix,
        scale=factor,
        source=source,
        digest="",
        model=model,
        suffix_tokens=tokens.suffix,
        layer=layer,
        progress=progress,
    )


def as_tensor(name: str, values: Any) -> torch.Tensor:
    """Return an array as a tensor on the CPU; ParoError, which names it, if it is no array."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "biuf":
            raise ParoError(f"{name} has {values.dtype}; legal: numbers")
        native = values.dtype.newbyteorder("=")
        return torch.from_numpy(np.ascontiguousarray(values, dtype=native))
    if not isinstance(values, torch.Tensor):
        raise ParoError(f"{name} is a {type(values).__name__}; legal: numpy arrays, torch tensors")
    if values.layout != torch.strided:
        raise ParoError(f"{name} has layout {values.layout}; legal: dense tensors")
    return values.detach().cpu()


def _operand(
    name: str, values: Any, tokens: Tokens, tokens_first: bool, item: int | None
) -> torch.Tensor:
    """Return one of Q, K and V as [heads, tokens, channels], checked."""
    tensor = as_tensor(name, values)
    if tensor.ndim == 4:
        tensor = tensor[_item(name, len(tensor), item)]
    elif item:
        raise ParoError(f"{name} has shape {list(tensor.shape)}, no batch; legal: item 0")
    shape, layout = list(tensor.shape), "[tokens, heads, channels]"
    if tensor.ndim != 3 or 0 in shape:
        raise ParoError(
            f"{name} has shape {shape}; legal: [heads, tokens, channels], or a batch of them, none "
            "of them 0"
        )
    if not tokens_first:
        layout = "[heads, tokens, channels]"
        if shape[1] != tokens.count and shape[0] == tokens.count:
            raise ParoError(
                f"{name} has shape {shape}, with {tokens.count} tokens first; legal: {layout}, or "
                "tokens first where you say so (--tokens-first, tokens_first=True)"
            )
    else:
        tensor = tensor.transpose(0, 1)
    if tensor.shape[1] != tokens.count:
        raise ParoError(
            f"{name} has shape {shape}, {tensor.shape[1]} tokens as {layout}; legal: "
            f"{tokens.count}, those of prefix {tokens.prefix}, grid {tokens.grid} and suffix "
            f"{tokens.suffix} (attention of a grid over itself)"
        )
    if shape[2] > HEAD_DIMS[-1]:
        raise ParoError(f"{name} has {shape[2]} channels a head; legal: 1 to {HEAD_DIMS[-1]}")
    if not tensor.is_floating_point():
        raise ParoError(f"{name} has {tensor.dtype}; legal: floats")
    tensor = tensor if tensor.dtype in DTYPES else tensor.float()
    if not tensor.isfinite().all():
        raise ParoError(f"{name} has values that are not finite, or beyond float32; legal: finite")
    return tensor


def _item(name: str, items: int, item: int | None) -> int:
    if item is None and items == 1:
        return 0
    if item is None or not 0 <= item < items:
        asked = "" if item is None else f", none of them {item}"
        raise ParoError(
            f"{name} has a batch of {items} items{asked}; legal: one, by its number (--item N, "
            f"item=N), 0 to {items - 1}"
        )
    return item


def _served(name: str, values: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Repeat heads of K or V for the heads of Q that they serve."""
    heads, own = q.shape[0], values.shape[0]
    if values.shape[2] != q.shape[2] or heads % own:
        raise ParoError(
            f"{name} has {own} heads of {values.shape[2]} channels, q {heads} of {q.shape[2]}; "
            "legal: the channels of q, and its number of heads or one that divides it"
        )
    return values.repeat_interleave(heads // own, 0)


def read_arrays(path: Path, names: Sequence[str]) -> list[torch.Tensor]:
    """Read arrays of a file of numpy (.npz), torch (.pt, .pth) or safetensors, by name.

    Parameters
    ----------
    path : Path
        Nothing in it is executed: arrays and plain containers of tensors alone are read. What a
        list or tuple holds is named by its position: 0, 1, ...
    names : sequence of str

    Raises
    ------
    ParoError
        If it is no such file, or lacks one of the names.
    """
    path = Path(path)
    check_file(path, "file")
    if path.suffix not in ARRAY_FILES:
        raise ParoError(f"file {path} is of no known kind; legal: {', '.join(ARRAY_FILES)}")
    try:
        stream = path.open("rb")
    except OSError as error:
        raise ParoError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with stream:
            found = _READERS[path.suffix](stream, names)
        missing = [name for name in names if name not in found]
        if not missing:
            return [as_tensor(name, found[name]) for name in names]
    except ParoError as error:
        raise ParoError(f"file {path}: {error}") from error
    # Damaged files raise errors of many unrelated classes.
    except Exception as error:
        raise ParoError(
            f"file {path} is truncated, or holds more than {ARRAY_FILES[path.suffix]}"
        ) from error
    there = ", ".join(map(str, list(found)[:_NAMED])) + (", ..." if len(found) > _NAMED else "")
    raise ParoError(f"file {path} has no array {missing[0]!r}; it has {there or 'none'}")


def _numpy(stream: BinaryIO, names: Sequence[str]) -> Mapping[str, Any]:
    content = np.load(stream, allow_pickle=False)
    if not isinstance(content, np.lib.npyio.NpzFile):
        raise zipfile.BadZipFile
    return {name: content[name] if name in names else None for name in content}


def _torch(stream: BinaryIO, _names: Sequence[str]) -> Mapping[str, Any]:
    with warnings.catch_warnings():
        # What torch says of old files is no matter of ours; what it cannot read it refuses.
        warnings.simplefilter("ignore")
        content = torch.load(stream, map_location="cpu", weights_only=True)
    if isinstance(content, (list, tuple)):
        return {str(index): values for index, values in enumerate(content)}
    if not isinstance(content, Mapping):
        raise ParoError(f"it holds a {type(content).__name__}; legal: a dict of tensors by name")
    return content


def _safetensors(stream: BinaryIO, _names: Sequence[str]) -> Mapping[str, Any]:
    return safetensors.torch.load(stream.read())


_READERS = {".npz": _numpy, ".pt": _torch, ".pth": _torch, ".safetensors": _safetensors}
