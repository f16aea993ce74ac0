"""Several devices in one folder, generated once."""

from pathlib import Path

import pytest

from gen.generate import generate
from gen.names import ACCELERATOR, CORE
from paro.config import PRESETS, Config

TINY = PRESETS["tiny"]
#: Another shape, and the same shape with another parameter.
WIDE = Config(rows=4, cols=8, block=16, head_dim=32)
FINE = Config(rows=4, cols=4, block=16, head_dim=32, exp_segments=16)
DEVICES = ((TINY, CORE), (WIDE, CORE), (FINE, CORE), (TINY, ACCELERATOR))


@pytest.fixture(scope="session")
def devices(tmp_path_factory) -> tuple[Path, list]:
    """A folder, and what `generate` says of each of `DEVICES` that it put there."""
    folder = tmp_path_factory.mktemp("devices")
    return folder, [generate(config, folder, top) for config, top in DEVICES]
