"""Python that README and pages show runs as it stands."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import paro
from rtl.bus import write_master
from tests.docs import pages
from tests.places import ROOT

Names = dict[str, Any]


class Network(nn.Module):
    """Stands for the reader's own: images of 14 x 14 patches behind a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, kernel_size=2, stride=2)
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1)
        return x + self.attention(x, x, x, need_weights=False)[0]


def network(names: Names) -> None:
    torch.manual_seed(1)
    names |= {"network": Network().eval(), "images": torch.randn(1, 3, 28, 28)}


def arrays(names: Names) -> None:
    names |= zip("qkv", torch.randn(3, 2, 8 * 16 * 16, 32), strict=True)


def attention(names: Names) -> None:
    q, k, v = torch.randn(3, 2, 36, 32)
    capture = paro.capture(q, k, v, paro.Tokens(grid=(1, 6, 6)), layer=3)
    names |= {"q": q, "k": k, "v": v, "functools": functools}
    names |= {"plan": paro.calibrate([capture], block=16), "plan of the network": names["plan"]}


def plan(names: Names) -> None:
    names["plan"] = names["plan of the network"]


def mask(names: Names) -> None:
    names["mask"] = torch.ones(2, 13, 13)


def nothing(_names: Names) -> None:
    """All that is needed is there."""


#: Of each page with Python, and each of its blocks in turn: what the reader has before it, or why
#: it is not run.
READERS: dict[str, list[Callable[[Names], None] | str]] = {
    "README.md": [network],
    "docs/performance.md": [nothing],
    "docs/python.md": [
        network,
        arrays,
        attention,
        plan,
        "it takes a pipeline of diffusers and its weights; other tests have small ones",
        mask,
    ],
}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("page", READERS)
def test_python_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(write_master, "OUTSTANDING", write_master.OUTSTANDING)
    text = (ROOT / page).read_text()
    names: Names = {}
    for block, before in zip(pages.python_blocks(text), READERS[page], strict=True):
        if not isinstance(before, str):
            before(names)
            exec(compile(block, page, "exec"), names)
    printed = capsys.readouterr().out
    if page == "README.md":
        files = {path.name for path in tmp_path.iterdir()}
        assert files == {"layer.safetensors", "plan.safetensors"}
        assert len(printed.strip("[]\n").split(", ")) == 2, printed
    if page == "docs/performance.md":
        rows = [line.split() for line in printed.splitlines()]
        assert len(rows) == 4
        for outstanding in ("16", "64"):
            cycles = [f"{int(count):,}" for bursts, _, count in rows if bursts == outstanding]
            assert f"| {outstanding} | {' | '.join(cycles)} |" in text


def test_every_page_with_python_is_run():
    found = {
        pages.name(page)
        for page in pages.markdown_pages()
        if pages.python_blocks(pages.text_of(page))
    }
    assert found == set(READERS)
