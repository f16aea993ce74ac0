"""The folder of compiled simulators that the tests share."""

from pathlib import Path

import pytest

from sim.cache import cache_folder


@pytest.fixture(scope="session")
def build_dir() -> Path:
    """Verilog and compiled simulators, kept from run to run."""
    return cache_folder()
