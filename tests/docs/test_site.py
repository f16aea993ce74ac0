"""The built pages: no warning, every page reached, nothing fetched when they are read."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from paro.cli.main import COMMANDS
from paro.config import PRESETS, Config
from paro.config.descriptor import DESCRIPTOR
from paro.config.registers import REGISTERS
from tests.docs import pages
from tests.places import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--doctree-dir", folder / "doctrees"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ROOT / "docs", folder / "pages"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "pages"


class _Fetched(HTMLParser):
    """What a browser fetches by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = "href" if tag == "link" else "src"
        if tag != "a":
            self.found += [value for key, value in attrs if key == name and value]


def test_nothing_is_fetched(site):
    count = 0
    for page in site.rglob("*.html"):
        fetched = _Fetched()
        fetched.feed(page.read_text())
        count += len(fetched.found)
        for address in fetched.found:
            assert not re.match(r"(https?:)?//", address), f"{page.name}: {address}"
            if not address.startswith("data:"):
                assert (page.parent / address.partition("?")[0].partition("#")[0]).exists(), address
    assert count > 100
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(['\"]?|@import ['\"])(https?:)?//", style.read_text())


def test_every_page_is_there(site):
    for page in [*(ROOT / "docs").rglob("*.md"), *pages.notebooks()]:
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file()


def test_diagrams_are_pictures(site):
    text = (site / "architecture.html").read_text()
    assert text.count('<div class="diagram"><svg') == (
        ROOT / "docs/architecture.md"
    ).read_text().count("```mermaid")
    assert "firmware_model.calibration</" in text or "firmware_model.calibration<" in text


def test_reference_has_the_tables(site):
    commands = (site / "reference/commands.html").read_text()
    assert all(f"paro {command}" in commands for command in COMMANDS)
    assert "--query-blocks" in commands
    registers = (site / "reference/registers.html").read_text()
    for entry in (*REGISTERS, *DESCRIPTOR):
        assert entry.name in registers
    configuration = (site / "reference/configuration.html").read_text()
    for word in (*Config.model_fields, *PRESETS):
        assert word in configuration
    api = (site / "reference/api.html").read_text()
    import paro

    assert all(f'id="paro.api.{name}"' in api for name in paro.__all__)
