"""Captured attention inputs of a network: the files every command starts from."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from firmware_model.tensorfile import parse_integers, read_tensors
from paro_config.errors import ParoError

#: Data types a capture may hold.
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
#: Most channels a head may have.
HEAD_DIM_MAX = 128


@dataclass(frozen=True, eq=False)
class Capture:
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
        Tokens before the grid (text, class tokens); tokens = prefix_tokens + F * H * W.
    scale : float
        Factor of the logits before softmax.
    source : str
        Where the capture comes from, in words; may be empty.
    digest : str
        SHA-256 of the file, hexadecimal: what plans refer to.
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

    @property
    def name(self) -> str:
        """File name without its suffix."""
        return self.path.stem

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
        """Channels of a head, as captured (the hardware pads them to 32, 64 or 128)."""
        return self.q.shape[2]


def load_capture(path: Path) -> Capture:
    """Read and check a capture.

    Parameters
    ----------
    path : Path
        safetensors file with tensors ``q``, ``k``, ``v`` and metadata ``grid`` ("F,H,W"),
        ``prefix_tokens``, optionally ``scale`` (default 1/sqrt(head_dim)) and ``source``.

    Raises
    ------
    ParoError
        If the file cannot be read or anything in it is not as `Capture` states.
    """
    path = Path(path)
    tensors, metadata, digest = read_tensors(path, "capture", ("q", "k", "v"))
    _check_tensors(path, tensors)
    _, tokens, head_dim = tensors["q"].shape
    grid, prefix_tokens = _token_layout(path, metadata)
    frames, height, width = grid
    if tokens != prefix_tokens + frames * height * width:
        raise ParoError(
            f"capture {path} has {tokens} tokens, but its metadata tell {prefix_tokens} prefix "
            f"tokens + {frames} x {height} x {width} = {prefix_tokens + frames * height * width}"
        )
    return Capture(
        path=path,
        q=tensors["q"],
        k=tensors["k"],
        v=tensors["v"],
        grid=grid,
        prefix_tokens=prefix_tokens,
        scale=_softmax_scale(path, metadata, head_dim),
        source=metadata.get("source", ""),
        digest=digest,
    )


def _check_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            legal = ", ".join(_dtype_name(dtype) for dtype in DTYPES)
            raise ParoError(
                f"capture {path}: {name} is {_dtype_name(tensor.dtype)}; legal: {legal}"
            )
        if tensor.dim() != 3 or 0 in tensor.shape:
            raise ParoError(
                f"capture {path}: {name} has shape {list(tensor.shape)}; "
                "legal: [heads, tokens, head_dim], none of them 0"
            )
    shapes = [list(tensor.shape) for tensor in tensors.values()]
    if shapes[0] != shapes[1] or shapes[0] != shapes[2]:
        raise ParoError(
            f"capture {path}: q, k and v have shapes {shapes[0]}, {shapes[1]} and {shapes[2]}; "
            "legal: all equal"
        )
    if shapes[0][2] > HEAD_DIM_MAX:
        raise ParoError(f"capture {path} has head_dim {shapes[0][2]}; legal: 1 to {HEAD_DIM_MAX}")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ParoError(f"capture {path}: {name} holds NaN or infinity; legal: finite values")


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _token_layout(path: Path, metadata: dict[str, str]) -> tuple[tuple[int, int, int], int]:
    for key in ("grid", "prefix_tokens"):
        if key not in metadata:
            raise ParoError(f"capture {path} has no metadata {key!r}")
    grid = parse_integers(metadata["grid"])
    if grid is None or len(grid) != 3 or 0 in grid:
        raise ParoError(
            f"capture {path}: grid = {metadata['grid'][:60]!r} is not legal; "
            'legal: three positive integers "F,H,W"'
        )
    prefix_tokens = parse_integers(metadata["prefix_tokens"])
    if prefix_tokens is None or len(prefix_tokens) != 1:
        raise ParoError(
            f"capture {path}: prefix_tokens = {metadata['prefix_tokens'][:60]!r} is not legal; "
            "legal: an integer, 0 or more"
        )
    return (grid[0], grid[1], grid[2]), prefix_tokens[0]


def _softmax_scale(path: Path, metadata: dict[str, str], head_dim: int) -> float:
    text = metadata.get("scale")
    if text is None:
        return head_dim**-0.5
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not (math.isfinite(scale) and scale > 0):
        raise ParoError(
            f"capture {path}: scale = {text[:60]!r} is not legal; legal: a positive finite number"
        )
    return scale


def select_heads(capture: Capture, text: str | None) -> tuple[int, ...]:
    """Heads named on a command line.

    Parameters
    ----------
    capture : Capture
        Whose heads.
    text : str or None
        Comma-separated indices such as ``"0,3"``; ``None`` selects all heads.

    Returns
    -------
    tuple of int
        In the order given.

    Raises
    ------
    ParoError
        If ``text`` is not a list of distinct heads of the capture.
    """
    if text is None:
        return tuple(range(capture.heads))
    heads = parse_integers(text)
    if heads is None or len(set(heads)) != len(heads) or max(heads) >= capture.heads:
        raise ParoError(
            f"heads = {text[:60]!r} is not legal; legal: distinct indices from 0 to "
            f"{capture.heads - 1}, separated by commas"
        )
    return heads
