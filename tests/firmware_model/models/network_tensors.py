"""What a queue leaves in memory against the integer network, word by word."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from firmware_model.host.image import Image
from firmware_model.models.device_program import DeviceProgram


def assert_tensors(
    program: DeviceProgram,
    image: Image,
    memory: bytes,
    wanted: Sequence[Mapping[str, Any]],
    names: Collection[str] | None = None,
) -> int:
    """Compare tensors of every item, all that are in memory by default; returns their number."""
    assert len(wanted) == len(program.tensors) > 0
    compared = 0
    for item, tensors in enumerate(wanted):
        for name in program.tensors[item] if names is None else names:
            got, want = program.integers(image, memory, item, name), tensors[name]
            if isinstance(got, tuple):
                assert torch.equal(got[1], want[1]), f"mantissas of {name}"
                got, want = got[0], want[0]
            assert torch.equal(got, want), name
            compared += 1
    assert compared >= len(wanted)
    return compared
