"""The boards that a core can be built for."""

from collections.abc import Callable
from dataclasses import dataclass

from amaranth.vendor import LatticeECP5Platform
from amaranth_boards import ulx3s

from paro.config.named import find_named

__all__ = ["BOARDS", "Board", "find_board"]


@dataclass(frozen=True)
class Board:
    """One board.

    Parameters
    ----------
    name : str
        Value of ``--board``.
    platform : callable
        Makes the board's platform, which brings the FPGA, the pins and the tools. It must have
        eight ``led`` resources and, as `restart`, a button.
    restart : (str, int)
        Resource of the button that starts the self test again.
    """

    name: str
    platform: Callable[[], LatticeECP5Platform]
    restart: tuple[str, int] = ("button_fire", 0)


#: Boards by name.
BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        Board("ulx3s-12f", ulx3s.ULX3S_12F_Platform),
        Board("ulx3s-25f", ulx3s.ULX3S_25F_Platform),
        Board("ulx3s-45f", ulx3s.ULX3S_45F_Platform),
        Board("ulx3s-85f", ulx3s.ULX3S_85F_Platform),
    )
}


def find_board(name: str) -> Board:
    """Board of that name.

    Raises
    ------
    ParoError
        If there is none; the sentence lists the legal names.
    """
    return find_named("board", name, BOARDS)
