"""Images of the accelerator's memory as files, from the host to the bench."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from firmware_model.host.driver import Image, PlacedHead
from paro.config import files

__all__ = ["load_image", "save_image"]


def save_image(image: Image, path: Path) -> None:
    """Write an image for the bench."""
    tensors = {f"tokens_{i}": head.tokens.contiguous() for i, head in enumerate(image.heads)}
    tensors["data"] = torch.from_numpy(np.frombuffer(image.data, np.uint8).copy())
    places = [(head.o_address, head.o_row_stride) for head in image.heads]
    facts = {
        "base": image.base,
        "queue_base": image.queue_base,
        "head_dim": image.head_dim,
        "places": places,
    }
    save_file(tensors, path)
    files.write_json(path.with_suffix(".json"), facts)


def load_image(path: Path) -> Image:
    """Read what `save_image` wrote."""
    tensors, facts = load_file(path), json.loads(path.with_suffix(".json").read_text())
    heads = [
        PlacedHead(address, stride, tensors[f"tokens_{i}"])
        for i, (address, stride) in enumerate(facts.pop("places"))
    ]
    return Image(data=tensors["data"].numpy().tobytes(), heads=heads, **facts)
