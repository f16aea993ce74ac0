"""Boards that an accelerator with memory and link can be built for; LiteX knows their pins."""

import importlib
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from paro.config import ParoError
from paro.config.named import find_named

__all__ = ["SIMULATED_BIT", "SOC_BOARDS", "SocBoard", "find_soc_board", "require_litex"]

#: Clocks of a bit of a simulated board's line: a real one has several times as many.
SIMULATED_BIT = 4


@dataclass(frozen=True, kw_only=True)
class SocBoard:
    """One board.

    Parameters
    ----------
    name : str
        Value of ``--board``.
    target : str
        Module of `litex_boards.targets`.
    options : dict
        Arguments of the target's ``BaseSoC``.
    device : str
        Its FPGA.
    memory_module : str
        Memory chip, as `litedram.modules` names it.
    memory_bits, memory_bytes : int
        Width of the memory's data, and its size.
    clock_mhz : float
        Clock of memory, bus and accelerator.
    baud : int
        Bits a second of the serial line.
    link : str
        What carries it.
    preset : str
        Largest preset of `paro.config.PRESETS` that is known to fit; empty if none was tried.
    tried : str
        What was tried of it.
    """

    name: str
    target: str
    options: dict[str, Any] = field(default_factory=dict)
    device: str
    memory_module: str
    memory_bits: int
    memory_bytes: int
    clock_mhz: float
    baud: int
    link: str
    preset: str
    tried: str

    def base_soc(self) -> Any:
        """Class of LiteX's SoC for it."""
        require_litex()
        return importlib.import_module(f"litex_boards.targets.{self.target}").BaseSoC


def _ulx3s(size: str, preset: str, tried: str) -> SocBoard:
    return SocBoard(
        name=f"ulx3s-{size}f",
        target="radiona_ulx3s",
        options={"device": f"LFE5U-{size}F", "with_led_chaser": True},
        device=f"LFE5U-{size}F",
        memory_module="MT48LC16M16",
        memory_bits=16,
        memory_bytes=32 << 20,
        clock_mhz=50.0,
        baud=3_000_000,
        link="USB serial (FT231X)",
        preset=preset,
        tried=tried,
    )


#: Boards by name.
SOC_BOARDS: dict[str, SocBoard] = {
    board.name: board
    for board in (
        _ulx3s("12", "", "nothing"),
        _ulx3s("25", "", "nothing"),
        _ulx3s("45", "", "nothing"),
        _ulx3s("85", "", "simulated board"),
    )
}


def find_soc_board(name: str) -> SocBoard:
    """Board of that name.

    Raises
    ------
    ParoError
        If there is none; the sentence lists the legal names.
    """
    return find_named("board", name, SOC_BOARDS)


def require_litex() -> None:
    """Refuse to go on without LiteX.

    Raises
    ------
    ParoError
        If a package of it is missing; the sentence says how to get it.
    """
    for package in ("litex", "litedram", "litex_boards"):
        if find_spec(package) is None:
            raise ParoError(
                f"boards need {package}, which is not installed; get it with: make setup "
                "(or pip install 'paro-accelerator[board]')"
            )
