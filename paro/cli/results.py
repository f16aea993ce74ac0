"""Tables of heads and of layers in reports of `paro cosim` and `paro evaluate`."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from paro.cli.console import format_value, header_table

__all__ = ["heads_table", "layers_table"]


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


def layers_table(title: str, reports: Sequence[dict[str, Any]]) -> Table:
    """One line for each report of a linear layer."""
    columns = ("capture", "tokens", "inputs", "outputs", "snr_db", "cosine", "mean_bits", "density")
    table = header_table(title, [name.replace("_", " ") for name in columns])
    for report in reports:
        table.add_row(report["capture"], *(_cell(name, report[name]) for name in columns[1:]))
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "inf" if name == "snr_db" else ""
    return f"{value:.5f}" if name == "cosine" else format_value(value)
