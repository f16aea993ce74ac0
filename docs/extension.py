"""Sphinx extension: diagrams as pictures, and pages that tables of the code fill.

A line ``<!-- generated: NAME -->`` in a page is replaced by what `GENERATED` makes under that name.
"""

import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import mmdr
import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gen.registers import registers_markdown
from paro.cli.boards import board_rows
from paro.cli.main import app as command_line
from paro.config import PRESETS, Config

_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


class Mermaid(SphinxDirective):
    """A diagram, drawn while the pages are built: nothing is fetched when they are read."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        svg = mmdr.render("\n".join(self.content)).svg()
        # Each picture of a page needs identifiers of its own.
        name = f"diagram-{self.env.new_serialno('diagram')}"
        width = re.search(r"max-width:([\d.]+)px", svg)
        assert width, "the diagram has no width"
        svg = svg.replace("merman", name).replace('width="100%"', f'width="{width[1]}"', 1)
        return [nodes.raw("", f'<div class="diagram">{svg}</div>', format="html")]


def _table(header: list[str], rows: list[list[Any]]) -> Iterator[str]:
    yield ""
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def configuration() -> str:
    """Fields of a configuration."""
    rows = []
    for name, field in Config.model_fields.items():
        legal = ", ".join(map(str, typing.get_args(field.annotation)))
        bounds = {type(bound).__name__: bound for bound in field.metadata}
        if bounds:
            legal = f"{bounds['Ge'].ge} to {bounds['Le'].le}"
        rows.append([f"`{name}`", legal, field.default, field.description])
    return "\n".join(_table(["field", "legal", "default", "meaning"], rows))


def boards() -> str:
    """Boards that there are bitstreams for."""
    rows = board_rows()
    return "\n".join(_table([*rows[0]], [[*row.values()] for row in rows]))


def presets() -> str:
    """Configurations that have a name."""
    fields = ["rows", "cols", "block", "head_dim"]
    rows = [
        [f"`{name}`", *(getattr(preset, field) for field in fields), preset.rows * preset.cols]
        for name, preset in PRESETS.items()
    ]
    return "\n".join(_table(["preset", *fields, "multipliers"], rows))


def derived() -> str:
    """What follows from a configuration."""
    rows = [
        [f"`{name}`", inspect.cleandoc(value.__doc__ or "").replace("\n", " ")]
        for name, value in vars(Config).items()
        if isinstance(value, property)
    ]
    return "\n".join(_table(["value", "meaning"], rows))


def registers() -> str:
    """Registers and descriptor, without their heading."""
    return registers_markdown(Config(vector_channels=512)).partition("\n")[2]


def commands() -> str:
    """Every command: its help, with its options as tables."""
    group = typer.main.get_command(command_line)
    lines: list[str] = []
    for name, command in group.commands.items():  # pyright: ignore[reportAttributeAccessIssue]
        context = command.context_class(command, info_name=f"paro {name}", parent=None)
        text, _, examples = inspect.cleandoc(command.help).partition("[bold]Examples[/bold]")
        usage = " ".join(["paro", name, *command.collect_usage_pieces(context)])
        lines += [f"## paro {name}", "", "```sh", usage, "```", "", text.strip(), ""]
        shown = [" ".join(part.split()) for part in examples.strip().split("\n\n")]
        lines += ["```sh", *shown, "```"]
        panels: dict[str, list[list[str]]] = {}
        for parameter in command.params:
            record = parameter.get_help_record(context)
            if record is not None:
                panel = getattr(parameter, "rich_help_panel", None) or "Arguments and options"
                panels.setdefault(panel, []).append([f"`{record[0]}`", record[1]])
        for panel, rows in panels.items():
            lines += _table([panel, ""], rows)
    return "\n".join(lines)


#: What pages are filled with, by name.
GENERATED = {
    made.__name__: made for made in (boards, commands, configuration, derived, presets, registers)
}


def _fill(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = _MARK.sub(lambda mark: GENERATED[mark[1]](), source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "env_version": 1}
