"""Captured attention inputs of a network: the files every command starts from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from firmware_model.reorder import token_permutation
from firmware_model.tensorfile import (
    file_digest,
    parse_integers,
    read_header,
    read_tensors,
    write_tensors,
)
from paro.config.config import HEAD_DIMS, blocks_of
from paro.config.errors import ParoError, quoted

#: Data types a capture may hold.
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
#: Metadata ``kind`` of a file that holds a linear layer in place of attention (`layer`).
LAYER_KIND = "linear"
#: Tensors of a capture.
_TENSORS = ("q", "k", "v")


class _Layout:
    """What follows from where a capture lies and how its tokens stand."""

    path: Path
    grid: tuple[int, int, int]
    prefix_tokens: int
    suffix_tokens: int

    @property
    def name(self) -> str:
        """File name without its suffix."""
        return self.path.stem

    @property
    def text_tokens(self) -> int:
        """Tokens outside the grid; they come last in every order."""
        return self.prefix_tokens + self.suffix_tokens

    @property
    def grid_tokens(self) -> int:
        """Tokens of the grid."""
        return math.prod(self.grid)

    def blocks(self, block: int) -> int:
        """Blocks of so many tokens on a side of the attention map."""
        return blocks_of(self.grid_tokens + self.text_tokens, block)

    def permutation(self, order: int) -> torch.Tensor:
        """Which token stands at each position of an order: int64 [tokens]."""
        return torch.from_numpy(
            token_permutation(self.grid, self.prefix_tokens, order, self.suffix_tokens)
        )


@dataclass(frozen=True, eq=False)
class Capture(_Layout):
    """Q, K and V of some attention heads, and what the tokens are.

    Parameters
    ----------
    path : Path
        File it was read from.
    q, k, v : torch.Tensor
        [heads, tokens, head_dim], all of one shape; float16, bfloat16 or float32; finite.
        Positional rotation is already in them.
    grid : (int, int, int)
        Frames F, height H, width W of the token grid, W fastest.
    prefix_tokens : int
        Tokens before the grid (text, class tokens).
    scale : float
        Factor of the logits before softmax.
    source : str
        Where the capture comes from, in words; may be empty.
    digest : str
        SHA-256 of the file, hexadecimal; empty if it was not read from one.
    model : str
        Tells the weights that it was taken from apart from any others: what plans belong to. A
        file that does not tell is a model of its own, and this its digest.
    suffix_tokens : int
        Tokens after the grid (text of models that put it last);
        tokens = prefix_tokens + F * H * W + suffix_tokens.
    layer : int
        Attention layer of the model.
    progress : float
        Share of the denoising steps that were done when it was taken, 0 <= progress < 1.
    """

    path: Path
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    grid: tuple[int, int, int]
    prefix_tokens: int
    scale: float
    source: str
    digest: str
    model: str
    suffix_tokens: int = 0
    layer: int = 0
    progress: float = 0.0

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.q.shape[0]

    @property
    def tokens(self) -> int:
        """Number of tokens, prefix included."""
        return self.q.shape[1]

    @property
    def head_dim(self) -> int:
        """Channels of a head, as captured (the hardware pads them to one of `HEAD_DIMS`)."""
        return self.q.shape[2]

    def load(self) -> "Capture":
        """Return the capture itself, as `CaptureFile.load` reads one."""
        return self


@dataclass(frozen=True, eq=False)
class CaptureFile(_Layout):
    """A capture on disk, of which only the header was read; fields as those of `Capture`."""

    path: Path
    heads: int
    tokens: int
    head_dim: int
    grid: tuple[int, int, int]
    prefix_tokens: int
    scale: float
    source: str
    model: str
    suffix_tokens: int
    layer: int
    progress: float

    def load(self) -> Capture:
        """Read and check Q, K and V.

        Raises
        ------
        ParoError
            If the file cannot be read any more or a tensor is not as `Capture` states.
        """
        tensors, _, digest = read_tensors(self.path, "capture", _TENSORS)
        check_values(self.path, "capture", tensors)
        return Capture(
            path=self.path,
            q=tensors["q"],
            k=tensors["k"],
            v=tensors["v"],
            grid=self.grid,
            prefix_tokens=self.prefix_tokens,
            scale=self.scale,
            source=self.source,
            digest=digest,
            model=self.model,
            suffix_tokens=self.suffix_tokens,
            layer=self.layer,
            progress=self.progress,
        )


#: A capture in memory, or one that is read when it is needed.
CaptureSource = Capture | CaptureFile


def load_capture(path: Path) -> Capture:
    """Read and check a capture: `open_capture`, and its tensors; errors of both."""
    return open_capture(path).load()


def open_capture(path: Path) -> CaptureFile:
    """Read and check the header of a capture.

    Parameters
    ----------
    path : Path
        safetensors file with tensors ``q``, ``k``, ``v`` and metadata ``grid`` ("F,H,W"),
        ``prefix_tokens``, optionally ``scale`` (default 1/sqrt(head_dim)), ``source``, ``model``
        and, each 0 by default, ``suffix_tokens``, ``layer`` and ``progress``.

    Raises
    ------
    ParoError
        If the file cannot be read or anything in its header is not as `Capture` states.
    """
    path = Path(path)
    shapes, metadata = read_header(path, "capture", _TENSORS)
    _check_shapes(path, shapes)
    heads, tokens, head_dim = shapes["q"]
    grid = _token_grid(path, metadata)
    prefix_tokens = _count(path, metadata, "prefix_tokens")
    suffix_tokens = _count(path, {"suffix_tokens": "0"} | metadata, "suffix_tokens")
    frames, height, width = grid
    expected = prefix_tokens + frames * height * width + suffix_tokens
    if tokens != expected:
        suffix = f" + {suffix_tokens} suffix tokens" if suffix_tokens else ""
        raise ParoError(
            f"capture {path} has {tokens} tokens, but its metadata tell {prefix_tokens} prefix "
            f"tokens + {frames} x {height} x {width}{suffix} = {expected}"
        )
    progress = _number(path, {"progress": "0"} | metadata, "progress")
    if not 0 <= progress < 1:
        raise ParoError(
            f"capture {path}: progress = {progress} is not legal; legal: 0 or more, below 1"
        )
    scale = _number(path, {"scale": repr(head_dim**-0.5)} | metadata, "scale")
    if scale <= 0:
        raise ParoError(f"capture {path}: scale = {scale} is not legal; legal: above 0")
    return CaptureFile(
        path=path,
        heads=heads,
        tokens=tokens,
        head_dim=head_dim,
        grid=grid,
        prefix_tokens=prefix_tokens,
        scale=scale,
        source=metadata.get("source", ""),
        model=metadata["model"] if "model" in metadata else file_digest(path, "capture"),
        suffix_tokens=suffix_tokens,
        layer=_count(path, {"layer": "0"} | metadata, "layer"),
        progress=progress,
    )


def save_capture(capture: Capture) -> None:
    """Write a capture to its path, whole or not at all; ParoError if that fails."""
    metadata = {
        "grid": ",".join(map(str, capture.grid)),
        "prefix_tokens": str(capture.prefix_tokens),
        "suffix_tokens": str(capture.suffix_tokens),
        "scale": repr(capture.scale),
        "source": capture.source,
        "model": capture.model,
        "layer": str(capture.layer),
        "progress": repr(capture.progress),
    }
    tensors = {name: getattr(capture, name).contiguous() for name in ("q", "k", "v")}
    write_tensors(capture.path, tensors, metadata)


def load_captures(paths: Sequence[Path]) -> list[Capture]:
    """Read captures as `open_captures` does, and their tensors; all of them are then in memory."""
    return [capture.load() for capture in open_captures(paths)]


def open_captures(paths: Sequence[Path]) -> list[CaptureFile]:
    """Read headers of what `source_files` finds; linear layers in folders are left out.

    Raises
    ------
    ParoError
        If layers alone are found, or as `source_files` and `open_capture`.
    """
    named = set(map(Path, paths))
    files = [file for file in source_files(paths) if file in named or not is_layer(file)]
    if not files:
        raise ParoError(
            f"folder {paths[0]} holds captures of linear layers alone, none of attention"
        )
    return [open_capture(file) for file in files]


def is_layer(path: Path) -> bool:
    """Whether a file says that it holds a linear layer; ParoError if it cannot be read."""
    return read_header(path, "capture", ())[1].get("kind") == LAYER_KIND


def source_files(paths: Sequence[Path]) -> list[Path]:
    """Find files; a folder stands for all ``.safetensors`` files directly in it, by name.

    Raises
    ------
    ParoError
        If a folder holds none or two have one name.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not found:
            raise ParoError(
                f"folder {path} holds no capture; legal: one with .safetensors files, which `paro "
                "convert` makes of npz and pt files"
            )
        files += found
    names = [file.stem for file in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ParoError(f"two captures are named {twice}; legal: a name of its own for each")
    return files


def _check_shapes(path: Path, shapes: dict[str, list[int]]) -> None:
    for name, shape in shapes.items():
        if len(shape) != 3 or 0 in shape:
            raise ParoError(
                f"capture {path}: {name} has shape {shape}; "
                "legal: [heads, tokens, head_dim], none of them 0"
            )
    q, k, v = (shapes[name] for name in _TENSORS)
    if q != k or q != v:
        raise ParoError(
            f"capture {path}: q, k and v have shapes {q}, {k} and {v}; legal: all equal"
        )
    if q[2] > HEAD_DIMS[-1]:
        raise ParoError(f"capture {path} has head_dim {q[2]}; legal: 1 to {HEAD_DIMS[-1]}")


def check_values(path: Path, kind: str, tensors: dict[str, torch.Tensor]) -> None:
    """Raise ParoError unless all tensors of a file, called ``kind``, are of `DTYPES` and finite."""
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            legal = ", ".join(_dtype_name(dtype) for dtype in DTYPES)
            raise ParoError(f"{kind} {path}: {name} is {_dtype_name(tensor.dtype)}; legal: {legal}")
        if not torch.isfinite(tensor).all():
            raise ParoError(f"{kind} {path}: {name} holds NaN or infinity; legal: finite values")


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _token_grid(path: Path, metadata: dict[str, str]) -> tuple[int, int, int]:
    text = _text(path, metadata, "grid")
    grid = parse_integers(text)
    if grid is None or len(grid) != 3 or 0 in grid:
        raise ParoError(
            f"capture {path}: grid = {quoted(text)} is not legal; "
            'legal: three positive integers "F,H,W"'
        )
    return (grid[0], grid[1], grid[2])


def _count(path: Path, metadata: dict[str, str], name: str) -> int:
    text = _text(path, metadata, name)
    count = parse_integers(text)
    if count is None or len(count) != 1:
        raise ParoError(
            f"capture {path}: {name} = {quoted(text)} is not legal; legal: an integer, 0 or more"
        )
    return count[0]


def _number(path: Path, metadata: dict[str, str], name: str) -> float:
    text = _text(path, metadata, name)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ParoError(
            f"capture {path}: {name} = {quoted(text)} is not legal; legal: a finite number"
        )
    return number


def _text(path: Path, metadata: dict[str, str], name: str) -> str:
    if name not in metadata:
        raise ParoError(
            f'capture {path} has no metadata {name!r}; legal: grid "F,H,W" and prefix_tokens '
            f'"N", as `paro convert {path} -o CAPTURE --grid F,H,W --prefix N` writes them'
        )
    return metadata[name]
