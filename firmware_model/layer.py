"""Captures of linear layers: inputs, weights and bias of one layer of a real network."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from firmware_model.capture import (
    LAYER_KIND,
    CaptureFile,
    check_values,
    is_layer,
    open_capture,
    source_files,
)
from firmware_model.tensorfile import (
    parse_integers,
    read_header,
    read_tensors,
    tensor_names,
    write_tensors,
)
from paro.config.errors import ParoError, quoted
from paro.config.formats import INPUTS_MAX

__all__ = [
    "Layer",
    "LayerFile",
    "LayerSource",
    "load_layer",
    "open_layer",
    "open_sources",
    "save_layer",
    "weights_digest",
]

_FILE = "layer"
_TENSORS = ("x", "weight")


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer, ``y = x weight^T + bias``, and inputs that it was captured with.

    Parameters
    ----------
    path : Path
        File that it was read from.
    x : torch.Tensor
        [tokens, inputs]; float16, bfloat16 or float32; finite.
    weight : torch.Tensor
        [outputs, inputs], likewise.
    bias : torch.Tensor or None
        [outputs], likewise.
    name : str
        Name of the layer in its model.
    model : str
        Tells the model's weights apart from any others; empty if the file does not tell.
    run_tokens : int
        Tokens that the model gives the layer at a time, of which ``x`` may be some; 0 for as many
        as ``x`` has.
    digest : str
        SHA-256 of the file, hexadecimal; empty if it was not read from one.
    """

    path: Path
    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    name: str
    model: str = ""
    run_tokens: int = 0
    digest: str = ""

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.x.shape[0]

    @property
    def inputs(self) -> int:
        """Input channels."""
        return self.weight.shape[1]

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.weight.shape[0]

    def reference(self) -> torch.Tensor:
        """Outputs in float64, [tokens, outputs]."""
        y = self.x.double() @ self.weight.double().T
        return y if self.bias is None else y + self.bias.double()

    def load(self) -> "Layer":
        """Return the layer itself, as `LayerFile.load` reads one."""
        return self


@dataclass(frozen=True, eq=False)
class LayerFile:
    """A layer on disk, of which only the header was read; fields as those of `Layer`."""

    path: Path
    tokens: int
    inputs: int
    outputs: int
    biased: bool
    name: str
    model: str
    run_tokens: int

    def load(self) -> Layer:
        """Read and check its tensors.

        Raises
        ------
        ParoError
            If the file cannot be read any more or a tensor is not as `Layer` states.
        """
        names = (*_TENSORS, "bias") if self.biased else _TENSORS
        tensors, _, digest = read_tensors(self.path, _FILE, names)
        check_values(self.path, _FILE, tensors)
        x, weight, bias = tensors["x"], tensors["weight"], tensors.get("bias")
        return Layer(self.path, x, weight, bias, self.name, self.model, self.run_tokens, digest)


#: A layer in memory, or one that is read when it is needed.
LayerSource = Layer | LayerFile


def load_layer(path: Path) -> Layer:
    """Read and check a layer: `open_layer`, and its tensors; errors of both."""
    return open_layer(path).load()


def open_layer(path: Path) -> LayerFile:
    """Read and check the header of a layer.

    Parameters
    ----------
    path : Path
        safetensors file with tensors ``x`` and ``weight``, optionally ``bias``, and metadata
        ``kind`` ("linear") and, optionally, ``name`` (by default the file's), ``model`` and
        ``run_tokens``.

    Raises
    ------
    ParoError
        If the file cannot be read or anything in its header is not as `Layer` states.
    """
    path = Path(path)
    shapes, metadata = read_header(path, _FILE, _TENSORS)
    if metadata.get("kind") != LAYER_KIND:
        raise ParoError(
            f"{_FILE} {path}: kind = {quoted(metadata.get('kind'))} is not legal; legal: linear"
        )
    for name, shape in shapes.items():
        if len(shape) != 2 or 0 in shape:
            raise ParoError(f"{_FILE} {path}: {name} has shape {shape}; legal: two extents, none 0")
    (tokens, inputs), (outputs, weight_inputs) = shapes["x"], shapes["weight"]
    if inputs != weight_inputs:
        raise ParoError(
            f"{_FILE} {path}: x has {inputs} inputs and weight {weight_inputs}; "
            "legal: as many of one as of the other"
        )
    if inputs > INPUTS_MAX:
        raise ParoError(f"{_FILE} {path} has {inputs} inputs; legal: 1 to {INPUTS_MAX:,}")
    biased = "bias" in tensor_names(path, _FILE)
    if biased:
        bias = read_header(path, _FILE, ("bias",))[0]["bias"]
        if bias != [outputs]:
            raise ParoError(f"{_FILE} {path}: bias has shape {bias}; legal: [{outputs}]")
    return LayerFile(
        path=path,
        tokens=tokens,
        inputs=inputs,
        outputs=outputs,
        biased=biased,
        name=metadata.get("name", path.stem),
        model=metadata.get("model", ""),
        run_tokens=_run_tokens(path, metadata, tokens),
    )


def save_layer(layer: Layer) -> None:
    """Write a layer to its path, whole or not at all; ParoError if that fails."""
    tensors = {"x": layer.x, "weight": layer.weight}
    if layer.bias is not None:
        tensors["bias"] = layer.bias
    contiguous = {name: values.contiguous() for name, values in tensors.items()}
    metadata = {"kind": LAYER_KIND, "name": layer.name}
    if layer.model:
        metadata["model"] = layer.model
    if layer.run_tokens:
        metadata["run_tokens"] = str(layer.run_tokens)
    write_tensors(layer.path, contiguous, metadata)


def open_sources(paths: Sequence[Path]) -> tuple[list[CaptureFile], list[LayerFile]]:
    """Read headers of captures of attention and of layers, mixed, as `capture.open_captures`.

    Raises
    ------
    ParoError
        If a folder holds none or two have one name, or as `open_capture` and `open_layer`.
    """
    captures, layers = [], []
    for path in source_files(paths):
        if is_layer(path):
            layers.append(open_layer(path))
        else:
            captures.append(open_capture(path))
    return captures, layers


def weights_digest(weight: torch.Tensor, bias: torch.Tensor | None) -> str:
    """SHA-256 of a layer's shape and values, hexadecimal: the same in every float type."""
    found = hashlib.sha256(f"{list(weight.shape)} {bias is not None}".encode())
    for values in (weight, bias):
        if values is not None:
            found.update(values.float().contiguous().numpy().tobytes())
    return found.hexdigest()


def _run_tokens(path: Path, metadata: dict[str, str], tokens: int) -> int:
    text = metadata.get("run_tokens", str(tokens))
    found = parse_integers(text)
    if found is None or len(found) != 1 or found[0] < 1:
        raise ParoError(
            f"{_FILE} {path}: run_tokens = {quoted(text)} is not legal; legal: 1 or more"
        )
    return found[0]
