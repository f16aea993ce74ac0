"""Tables of what a run reports."""

from typing import Any

from rich import box
from rich.table import Table

from paro.cli.console import format_value

__all__ = ["heads_table"]


def heads_table(title: str, report: dict[str, Any]) -> Table:
    """One line for each head of a report of `paro cosim` or `paro evaluate`."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    heads = report["heads"]
    # A table with cycles fits 80 columns without what other columns nearly tell.
    hidden = ("ideal_cycles", "relative_l1", "rmse") if "cycles" in heads[0] else ()
    columns = [
        name
        for name, value in heads[0].items()
        if not isinstance(value, list | dict) and name not in hidden
    ]
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for head in heads:
        table.add_row(*(_cell(name, head[name]) for name in columns))
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "inf" if name == "snr_db" else ""
    return f"{value:.5f}" if name == "cosine" else format_value(value)
