"""Links between the pages as they lie in the repository, without a build."""

import re

import pytest

from tests.docs import pages
from tests.places import ROOT


@pytest.mark.parametrize(
    "page", [*pages.markdown_pages(), *pages.notebooks()], ids=lambda page: pages.name(page)
)
def test_links_lead_somewhere(page):
    for link in pages.links(pages.text_of(page)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: there is no {target}"
        assert target.resolve().is_relative_to(ROOT), link
        if anchor:
            assert anchor in pages.anchors(pages.text_of(target)), f"{link}: no such heading"


def test_anchors_are_those_of_github():
    text = "# A model's videos\n\n## `paro` at 1.6 bytes: how?\n"
    assert pages.anchors(text) == {"a-models-videos", "paro-at-16-bytes-how"}


def test_some_pages_have_links():
    found = [link for page in pages.markdown_pages() for link in pages.links(pages.text_of(page))]
    assert len(found) > 60
    assert any("#" in link for link in found)
