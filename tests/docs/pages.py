"""The pages as text: their links, their headings, the commands that they show."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.places import ROOT

_PARSER = MarkdownIt("commonmark").enable("table")
#: Two words, as in ``make test``: tables of figures have lines that begin with a name.
_PROGRAM = re.compile(r"(^|&& )(paro|make) [a-zA-Z-]")
#: Fences of these languages show commands.
_SHELLS = ("", "sh", "bash", "console")


@dataclass(frozen=True)
class Command:
    """A command line.

    Parameters
    ----------
    page : str
        Path of its page in the checkout.
    text : str
        From the program's name on.
    block : bool
        Whether it stands in a block of commands, not within a sentence.
    """

    page: str
    text: str
    block: bool


def markdown_pages() -> list[Path]:
    """Everything that is read as Markdown, but for what `make docs` fills in."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert len(found) > 10
    return sorted(found)


def notebooks() -> list[Path]:
    found = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
    assert found
    return found


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    """A page's Markdown; of a notebook, its text and its shell cells as blocks."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif source.startswith("%%sh\n"):
            parts.append(f"```sh\n{source.removeprefix('%%sh')}\n```")
    return "\n\n".join(parts)


def _tokens(text: str) -> Iterator[Token]:
    for token in _PARSER.parse(text):
        yield token
        yield from token.children or ()


def links(text: str) -> list[str]:
    """Targets of links and pictures."""
    return [
        str(token.attrs.get("href", token.attrs.get("src")))
        for token in _tokens(text)
        if token.type in ("link_open", "image")
    ]


def anchors(text: str) -> set[str]:
    """Names of headings in links, as GitHub makes them."""
    tokens = _PARSER.parse(text)
    heads = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def python_blocks(text: str) -> list[str]:
    return [token.content for token in _tokens(text) if token.info.strip() == "python"]


def shell_lines(text: str) -> list[str]:
    """Lines of its blocks of commands."""
    return [
        line
        for token in _tokens(text)
        if token.type == "code_block" or (token.type == "fence" and token.info.strip() in _SHELLS)
        for line in map(_plain, token.content.replace("\\\n", " ").splitlines())
        if _PROGRAM.search(line)
    ]


def commands(page: str, text: str) -> list[Command]:
    """Calls of ``paro`` and ``make``."""
    blocks = shell_lines(text)
    inline = [_plain(token.content) for token in _tokens(text) if token.type == "code_inline"]
    return [
        Command(page, part.strip(), block)
        for lines, block in ((blocks, True), (inline, False))
        for line in lines
        for part in line.split("&&")
        if _PROGRAM.match(part.strip())
    ]


def _plain(line: str) -> str:
    """A line without its comment."""
    return " ".join(line.partition(" #")[0].split())
