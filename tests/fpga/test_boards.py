import pytest

from fpga.boards import BOARDS, find_board
from paro.config import ParoError


def test_the_reference_board_is_known():
    platform = find_board("ulx3s-85f").platform()
    assert platform.device == "LFE5U-85F"
    assert platform.default_clk_frequency == 25e6


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_has_what_the_top_asks_for(name):
    board = find_board(name)
    platform = board.platform()
    assert board.name == name
    assert platform.lookup(*board.restart)
    assert all(platform.lookup("led", index) for index in range(8))


def test_an_unknown_board_is_refused_with_the_legal_ones():
    with pytest.raises(ParoError, match=r"no board 'zcu102'; legal: ulx3s-12f, .*ulx3s-85f"):
        find_board("zcu102")
