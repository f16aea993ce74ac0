"""Captures for the tests: small made-up ones, the shipped one and, if present, the shared ones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from firmware_model import DEMO_CAPTURE
from firmware_model.capture import Capture, load_capture
from tests.places import SHARED


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """More threads only wait for each other on tensors of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def demo() -> Capture:
    return load_capture(DEMO_CAPTURE)


@pytest.fixture
def shared_capture():
    """Loader of a capture in ../shared/data; skips the test where there is none."""

    def load(name: str) -> Capture:
        path = SHARED / f"{name}.safetensors"
        if not path.exists():
            pytest.skip(f"no {name} in ../shared/data")
        return load_capture(path)

    return load


@pytest.fixture
def make_capture(tmp_path):
    """Write a random capture; keywords replace its tensors or metadata (None drops one)."""

    def make(
        grid=(2, 3, 5),
        prefix=3,
        heads=2,
        head_dim=20,
        gain=3.0,
        seed=0,
        tensors=None,
        metadata=None,
    ) -> Path:
        generator = torch.Generator().manual_seed(seed)
        tokens = prefix + grid[0] * grid[1] * grid[2]
        content = {
            name: torch.randn(heads, tokens, head_dim, generator=generator).half() for name in "qkv"
        }
        content["q"] *= gain
        strings = {"grid": ",".join(map(str, grid)), "prefix_tokens": str(prefix)}
        content = {k: v for k, v in (content | (tensors or {})).items() if v is not None}
        strings = {k: v for k, v in (strings | (metadata or {})).items() if v is not None}
        path = tmp_path / "capture.safetensors"
        save_file(content, path, strings)
        return path

    return make


@pytest.fixture
def random_capture():
    """Build a random capture in memory."""

    def build(
        grid=(2, 3, 5),
        prefix=0,
        suffix=0,
        heads=2,
        head_dim=20,
        gain=3.0,
        seed=0,
        model="a" * 64,
        layer=0,
        progress=0.0,
    ) -> Capture:
        generator = torch.Generator().manual_seed(seed)
        tokens = prefix + grid[0] * grid[1] * grid[2] + suffix
        q, k, v = torch.randn(3, heads, tokens, head_dim, generator=generator).unbind()
        return Capture(
            path=Path(f"random_{seed}.safetensors"),
            q=gain * q,
            k=k,
            v=v,
            grid=grid,
            prefix_tokens=prefix,
            scale=head_dim**-0.5,
            source="random",
            digest=f"{seed:064x}",
            model=model,
            suffix_tokens=suffix,
            layer=layer,
            progress=progress,
        )

    return build
