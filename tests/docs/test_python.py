"""Python that README and pages show runs as it stands."""

import pytest
import torch
from torch import nn

from tests.docs import pages
from tests.places import ROOT


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


def given() -> dict[str, object]:
    """What a reader of the README has."""
    torch.manual_seed(1)
    return {"network": Network().eval(), "images": torch.randn(1, 3, 28, 28)}


#: Pages with Python, and what their readers have.
READERS = {"README.md": given, "docs/performance.md": dict}


@torch.no_grad()
@pytest.mark.parametrize("page", READERS)
def test_python_runs(page, tmp_path, monkeypatch, capsys):
    from rtl.bus import write_master

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(write_master, "OUTSTANDING", write_master.OUTSTANDING)
    (block,) = pages.python_blocks((ROOT / page).read_text())
    exec(compile(block, page, "exec"), READERS[page]())
    printed = capsys.readouterr().out
    if page == "README.md":
        assert {path.name for path in tmp_path.iterdir()} == {
            "layer.safetensors",
            "plan.safetensors",
        }
        assert printed.count(".") == 2
    else:
        rows = [line.split() for line in printed.splitlines()]
        assert len(rows) == 4
        text = (ROOT / page).read_text()
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
