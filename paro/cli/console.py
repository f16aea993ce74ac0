"""Output of commands: results on stdout, progress and errors on stderr."""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich import progress as rich_progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from firmware_model.progress import ANNOUNCEMENTS

# Names that users give (files, titles) may look like markup.
stdout = Console(markup=False)
stderr = Console(stderr=True, markup=False)


def warn(sentence: str) -> None:
    """Print a warning on stderr; the command goes on."""
    stderr.print(f"warning: {sentence}", highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr while the body runs; yields the function to call with (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with _display(*columns, TimeElapsedColumn()) as bars:
        task = bars.add_task(label, total=None)

        def advance(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield advance


@contextmanager
def step_line(label: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr which named step runs, with its time; yields the function to call with each
    name."""
    with _display(TextColumn("{task.description}"), TimeElapsedColumn()) as lines:
        task = None

        def begin(step: str) -> None:
            nonlocal task
            if task is not None:
                lines.stop_task(task)
            task = lines.add_task(f"{label}: {step}", total=None)

        yield begin


@contextmanager
def _display(*columns: rich_progress.ProgressColumn) -> Iterator[rich_progress.Progress]:
    """Show tasks on stderr in these columns."""
    with rich_progress.Progress(*columns, console=stderr) as display:
        try:
            yield display
        except BaseException:
            # The error shall stand alone.
            display.live.transient = True
            raise


@contextmanager
def announcements() -> Iterator[None]:
    """Show on stderr the announcements of the body (`firmware_model.progress.announce`)."""

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


def header_table(
    title: str,
    columns: Iterable[str],
    *,
    left: Collection[str] = (),
    no_wrap: Collection[str] = (),
    caption: str | None = None,
    boxed: bool = False,
) -> Table:
    """Table with a header and no rows yet.

    Parameters
    ----------
    title : str
        Above the table.
    columns : iterable of str
        Header; columns stand to the right.
    left : collection of str
        Columns that stand to the left.
    no_wrap : collection of str
        Columns that are cut, not wrapped, where the terminal is narrow.
    caption : str, optional
        Below the table.
    boxed : bool
        Whether lines stand around the cells, not below the header alone.
    """
    if boxed:
        table = Table(title=title, title_justify="left")
    else:
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    if caption is not None:
        table.caption, table.caption_justify = caption, "left"
    for column in columns:
        justify = "left" if column in left else "right"
        table.add_column(column, justify=justify, no_wrap=column in no_wrap)
    return table


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
