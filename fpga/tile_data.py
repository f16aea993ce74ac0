"""What `fpga.tile` reads, computed with the golden reference: ``python -m fpga.tile_data``.

The data is kept so that building for a board needs no torch; a test computes it anew and compares.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import numpy as np
import torch
from safetensors.numpy import save_file

from firmware_model import DEMO_CAPTURE
from firmware_model.capture import Capture, load_capture
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.quantize import QuantizedHead, quantize_head
from fpga.tile import OPERANDS, TILE_FILE, operand_name, output_name, tile_codes, tile_tokens
from paro.config import Config, files

__all__ = ["compute_tiles"]


def compute_tiles() -> dict[str, np.ndarray]:
    """Operands and outputs of the self test for all cores that can be configured.

    Returns
    -------
    dict
        `operand_name`: int8 [tokens, head_dim] or int32 [tokens], of the longest tile;
        `output_name`: int16 [block, head_dim].
    """
    capture = load_capture(DEMO_CAPTURE)
    tensors: dict[str, np.ndarray] = {}
    for config in _configurations():
        head = quantize_head(_widened(capture, config.head_dim), 0, 0, config)
        longest = tile_tokens(max(_legal("block")))
        for name in OPERANDS:
            values = getattr(_first_tokens(head, longest), name)
            tensors[operand_name(config, name)] = values.numpy()
        tile = _first_tokens(head, tile_tokens(config.block))
        codes = torch.from_numpy(tile_codes())
        tensors[output_name(config)] = integer_attention(tile, codes, config, range(1)).numpy()
    return tensors


def _legal(name: str) -> tuple[int, ...]:
    return get_args(Config.model_fields[name].annotation)


def _configurations() -> Iterator[Config]:
    """One core for every choice that operands or outputs depend on."""
    names = ("block", "head_dim", "exp_segments")
    for values in itertools.product(*map(_legal, names)):
        yield Config(rows=4, cols=4, **dict(zip(names, values, strict=True)))


def _widened(capture: Capture, head_dim: int) -> Capture:
    """One head of ``head_dim`` channels: heads of the capture, side by side."""
    heads = head_dim // capture.head_dim

    def beside(values: torch.Tensor) -> torch.Tensor:
        return torch.cat(list(values[:heads]), dim=1).unsqueeze(0)

    return replace(
        capture,
        q=beside(capture.q),
        k=beside(capture.k),
        v=beside(capture.v),
        scale=capture.scale / heads**0.5,
    )


def _first_tokens(head: QuantizedHead, tokens: int) -> QuantizedHead:
    fields = (*OPERANDS, "permutation")
    return replace(head, **{name: getattr(head, name)[:tokens] for name in fields})


if __name__ == "__main__":
    data = compute_tiles()
    files.write_atomically(TILE_FILE, lambda path: save_file(data, path))
