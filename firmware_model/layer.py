"""Captures of linear layers: inputs, weights and bias of one layer of a real network."""

from dataclasses import dataclass
from pathlib import Path

import torch

from firmware_model.capture import check_values
from firmware_model.tensorfile import read_header, read_tensors, tensor_names, write_tensors
from paro.config.errors import ParoError
from paro.config.formats import INPUTS_MAX

__all__ = ["KIND", "Layer", "load_layer", "save_layer"]

#: Metadata ``kind`` of a file that holds a linear layer.
KIND = "linear"
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
    """

    path: Path
    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    name: str

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


def load_layer(path: Path) -> Layer:
    """Read and check a layer.

    Parameters
    ----------
    path : Path
        safetensors file with tensors ``x`` and ``weight``, optionally ``bias``, and metadata
        ``kind`` ("linear") and ``name``.

    Raises
    ------
    ParoError
        If the file cannot be read or anything in it is not as `Layer` states.
    """
    path = Path(path)
    shapes, metadata = read_header(path, _FILE, _TENSORS)
    if metadata.get("kind") != KIND:
        raise ParoError(
            f"{_FILE} {path}: kind = {metadata.get('kind')!r} is not legal; legal: linear"
        )
    for name, shape in shapes.items():
        if len(shape) != 2 or 0 in shape:
            raise ParoError(f"{_FILE} {path}: {name} has shape {shape}; legal: two extents, none 0")
    if shapes["x"][1] != shapes["weight"][1]:
        raise ParoError(
            f"{_FILE} {path}: x has {shapes['x'][1]} inputs and weight {shapes['weight'][1]}; "
            "legal: as many of one as of the other"
        )
    if shapes["x"][1] > INPUTS_MAX:
        raise ParoError(f"{_FILE} {path} has {shapes['x'][1]} inputs; legal: 1 to {INPUTS_MAX:,}")
    names = (*_TENSORS, "bias") if "bias" in tensor_names(path, _FILE) else _TENSORS
    tensors = read_tensors(path, _FILE, names).tensors
    bias = tensors.get("bias")
    if bias is not None and list(bias.shape) != [shapes["weight"][0]]:
        raise ParoError(
            f"{_FILE} {path}: bias has shape {list(bias.shape)}; legal: [{shapes['weight'][0]}]"
        )
    check_values(path, _FILE, tensors)
    return Layer(path, tensors["x"], tensors["weight"], bias, metadata.get("name", path.stem))


def save_layer(layer: Layer) -> None:
    """Write a layer to its path, whole or not at all; ParoError if that fails."""
    tensors = {"x": layer.x, "weight": layer.weight}
    if layer.bias is not None:
        tensors["bias"] = layer.bias
    contiguous = {name: values.contiguous() for name, values in tensors.items()}
    write_tensors(layer.path, contiguous, {"kind": KIND, "name": layer.name})
