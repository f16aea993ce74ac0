"""Several cores and an accelerator in one folder, generated once."""

from pathlib import Path

import pytest

from gen.generate import generate
from tests.gen.designs import DESIGNS


@pytest.fixture(scope="session")
def generated(tmp_path_factory) -> tuple[Path, list]:
    """A folder with all of `DESIGNS`, and the summary of `generate` for each."""
    folder = tmp_path_factory.mktemp("generated")
    return folder, [generate(config, folder, top) for config, top in DESIGNS]
