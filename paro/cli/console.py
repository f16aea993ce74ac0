"""What commands print: results on stdout, progress and errors on stderr."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from firmware_model.progress import ANNOUNCEMENTS

# What users name (files, titles) may look like markup.
stdout = Console(markup=False)
stderr = Console(stderr=True, markup=False)


def warn(sentence: str) -> None:
    """Tell on stderr what does not stop the command but should be known."""
    stderr.print(f"warning: {sentence}", highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr while the body runs; yields what it calls with (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with _progress(*columns, TimeElapsedColumn()) as bars:
        task = bars.add_task(label, total=None)

        def advance(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield advance


@contextmanager
def step_line(label: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr which named step runs, with its time; yields what it calls with each name."""
    with _progress(TextColumn("{task.description}"), TimeElapsedColumn()) as lines:
        task = None

        def begin(step: str) -> None:
            nonlocal task
            if task is not None:
                lines.stop_task(task)
            task = lines.add_task(f"{label}: {step}", total=None)

        yield begin


@contextmanager
def _progress(*columns: ProgressColumn) -> Iterator[Progress]:
    with Progress(*columns, console=stderr) as progress:
        try:
            yield progress
        except BaseException:
            # The error shall stand alone.
            progress.live.transient = True
            raise


@contextmanager
def announcements() -> Iterator[None]:
    """Show on stderr what the body announces (`firmware_model.progress.announce`)."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            stderr.print(f"paro: {record.getMessage()}", highlight=False, soft_wrap=True)

    handler, level = Handler(), ANNOUNCEMENTS.level
    ANNOUNCEMENTS.addHandler(handler)
    ANNOUNCEMENTS.setLevel(logging.INFO)
    try:
        yield
    finally:
        ANNOUNCEMENTS.removeHandler(handler)
        ANNOUNCEMENTS.setLevel(level)


def key_value_table(title: str, rows: dict[str, Any]) -> Table:
    """Table of names and values; ``None`` values are left out."""
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, format_value(value))
    return table


def format_value(value: Any) -> str:
    """Text of one value in a table: thousands separated, fractions short."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 100 else f"{value:,.1f}"
    return str(value)


def print_json(data: Any) -> None:
    """Print ``data`` as JSON on stdout, nothing else with it."""
    print(json.dumps(data, indent=2))
