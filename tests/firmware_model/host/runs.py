"""A whole run on a board in Python, from finding it to the words."""

import random

from firmware_model.host.board import BoardTransport
from firmware_model.host.board_run import BoardRun, run_on_board
from firmware_model.host.driver import Driver, run_sync
from firmware_model.host.image import Image
from firmware_model.host.link import UartBone
from paro.config import PRESETS
from tests.firmware_model.host.board_model import ModelLine

TINY = PRESETS["tiny"]
#: Bytes of a board's memory.
MEMORY = 1 << 17
#: Seconds without a byte after which an answer is given up.
SILENCE = 0.02


def run(line: ModelLine, image: Image) -> BoardRun:
    rng = random.Random(line.seed)
    transport = BoardTransport(UartBone(line, SILENCE, rng), rng)
    assert transport.identify().memory_bytes == line.board.memory_bytes
    config = run_sync(Driver(transport).identify())
    assert config == line.board.config
    return run_on_board(transport, config, image, stillness=600)
