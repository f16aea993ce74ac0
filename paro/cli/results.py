"""The table of heads in a report of `paro cosim` or `paro evaluate`."""

from typing import Any

from rich.table import Table

from paro.cli.console import format_value, header_table

__all__ = ["heads_table"]


def heads_table(title: str, report: dict[str, Any]) -> Table:
    """One line for each head of a report of `paro cosim` or `paro evaluate`."""
    heads = report["heads"]
    # With cycles, the table fits 80 columns without those that others nearly repeat.
    hidden = ("ideal_cycles", "relative_l1", "rmse") if "cycles" in heads[0] else ()
    columns = [
        name
        for name, value in heads[0].items()
        if not isinstance(value, list | dict) and name not in hidden
    ]
    table = header_table(title, [name.replace("_", " ") for name in columns])
    for head in heads:
        table.add_row(*(_cell(name, head[name]) for name in columns))
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "inf" if name == "snr_db" else ""
    return f"{value:.5f}" if name == "cosine" else format_value(value)
