"""What all tests share: seeded randomness that can be repeated from the printed seed."""

import os
import random
import signal
import zlib

import pytest

from sim.cache import CACHE_VARIABLE
from tests.places import ROOT

TESTS = ROOT / "tests"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed",
        type=int,
        default=1,
        help="base seed of every random test; a negative value draws one",
    )


def pytest_configure(config: pytest.Config) -> None:
    # What tests compile is kept from run to run, apart from what the user's own runs do.
    os.environ.setdefault(CACHE_VARIABLE, str(config.rootpath / "build" / "cache"))
    # Commands in the background of a shell do not hear Ctrl-C, and hand that on.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.seed < 0:
        config.option.seed = random.SystemRandom().randrange(2**31)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that processes end together (--no-loadscope-reorder)."""
    places = TESTS / "sim", TESTS / "fpga" / "soc", TESTS / "test_wheel.py"
    items.sort(key=lambda item: not any(item.path.is_relative_to(place) for place in places))


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed} (repeat with --seed {config.option.seed})"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Seed of this test alone, printed when it fails; the order of the tests does not matter."""
    value = zlib.crc32(f"{request.config.option.seed}:{request.node.nodeid}".encode())
    print(f"seed of {request.node.nodeid}: {value}")
    return value
