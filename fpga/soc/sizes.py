"""What accelerators and boards take of an FPGA, counted beforehand: refusals without the long work.

The counts are Yosys', of the presets' accelerators alone and of each target's SoC without one;
`fpga.soc.count` makes them anew.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from fpga.devices import find_device, logic_cells
from fpga.soc.boards import SocBoard
from paro.config import PRESETS, Config, ParoError

__all__ = [
    "FILL",
    "KINDS",
    "SIZES_FILE",
    "check_fit",
    "check_size",
    "counted_presets",
    "largest_preset",
]

#: Share of the logic cells beyond which a design is not placed.
FILL = 0.95
SIZES_FILE = Path(__file__).with_name("data") / "sizes.json"
#: What is counted, as `fpga.report.cell_counts` names it.
KINDS = ("lut4", "carry", "ff", "dsp", "bram", "lutram")

#: What begins the names of the FPGAs whose capacity is known.
_FAMILY = "LFE5"

Counts = dict[str, int]


def check_fit(counts: dict[str, Any], device: str) -> None:
    """Refuse a design that a device cannot hold.

    Parameters
    ----------
    counts : dict
        As `fpga.report.cell_counts` returns them.
    device : str
        The FPGA; may have package and speed behind its name.

    Raises
    ------
    ParoError
        The sentence says what is missing and which preset would fit.
    """
    device = "-".join(device.split("-")[:2])
    if lacking := find_device(device).lacks(counts, FILL):
        raise ParoError(
            f"the design does not fit {device}: {', '.join(lacking)}; it was not placed; "
            f"{_advice(largest_preset(device))}"
        )


def check_size(config: Config, board: SocBoard) -> None:
    """Refuse a configuration that is at least as large, in all, as one that alone does not fit.

    The board's own share is left out: a part of it goes when both become one design.

    Raises
    ------
    ParoError
        The sentence says what that one lacks and which preset would fit.
    """
    for name, counts in _accelerators().items():
        lacking = _lacking(counts, None, board.device)
        if lacking and _contains(config, PRESETS[name]):
            raise ParoError(
                f"the design does not fit {board.device}: preset {name}, which is no larger, alone "
                f"takes {', '.join(lacking)}; nothing was made; "
                f"{_advice(largest_preset(board.device, board))}"
            )


def counted_presets() -> list[str]:
    """Presets whose accelerators were counted, smallest first."""
    return list(_accelerators())


def largest_preset(device: str, board: SocBoard | None = None) -> str:
    """Largest preset that fits a device by what Yosys counts of it and of the board.

    Parameters
    ----------
    device : str
        Name in `fpga.devices`.
    board : SocBoard, optional
        Without one, only the accelerator counts.

    Returns
    -------
    str
        ``none`` of those that were counted; ``not known`` of other FPGAs than ECP5.
    """
    fitting = [
        name for name, counts in _accelerators().items() if not _lacking(counts, board, device)
    ]
    if not device.startswith(_FAMILY):
        return "not known"
    return fitting[-1] if fitting else "none"


def _lacking(counts: Counts, board: SocBoard | None, device: str) -> list[str]:
    """What an accelerator, with a board's share, lacks on a device; nothing if it is unknown."""
    if not device.startswith(_FAMILY):
        return []
    share = _sizes()["boards"].get(board.target, {}) if board is not None else {}
    total = {kind: counts[kind] + share.get(kind, 0) for kind in KINDS}
    return find_device(device).lacks(total, FILL)


def _contains(config: Config, part: Config) -> bool:
    """Whether no field of a configuration is smaller than that of another."""
    values = config.model_dump()
    return all(values[name] >= value for name, value in part.model_dump().items())


def _advice(preset: str) -> str:
    if preset in PRESETS:
        return f"legal: such as --preset {preset}"
    return "no preset fits it; legal: --self-test, or a board with a larger FPGA"


@cache
def _sizes() -> dict[str, dict[str, Counts]]:
    return json.loads(SIZES_FILE.read_text())


def _accelerators() -> dict[str, Counts]:
    """By preset, smallest first."""
    found = _sizes()["accelerators"]
    return dict(sorted(found.items(), key=lambda item: logic_cells(item[1])))
