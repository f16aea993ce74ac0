"""The board's own registers in Migen's simulator: the checksum of memory."""

import random
import zlib

from migen import Signal, run_simulation

from fpga.soc.gateware import BoardRegisters
from paro.config.board_map import BOARD_MAGIC, BOARD_REGISTERS

BASE = 0x4000_0000


def test_checksum_is_that_of_zlib(seed: int) -> None:
    """Of any words at any place, however long the memory takes."""
    rng = random.Random(seed)
    facts = {"memory_bytes": 1 << 20, "clock_hz": 1, "baud": 1}
    board = BoardRegisters(facts, Signal(reset=1), Signal())
    memory = [rng.getrandbits(32) for _ in range(64)]
    checks = [(0, 1), (5, 59), (63, 1), (0, 64), (7, 3)]
    found = []

    def host():
        for first, words in checks:
            yield board._address.storage.eq(BASE + 4 * first)
            yield board._words.storage.eq(words)
            yield board._words.re.eq(1)
            yield
            yield board._words.re.eq(0)
            yield
            wait = 0
            while (yield board._busy.status):
                # The memory: an answer after some cycles.
                if (yield board.bus.ack):
                    yield board.bus.ack.eq(0)
                elif (yield board.bus.stb) and (wait := wait + 1) > rng.randrange(4):
                    place = (yield board.bus.adr) - BASE // 4
                    yield board.bus.dat_r.eq(memory[place])
                    yield board.bus.ack.eq(1)
                    wait = 0
                yield
            yield board.bus.ack.eq(0)
            found.append((yield board._checksum.status))
        assert (yield board._checks.status) == len(checks)
        assert (yield board._magic.status) == BOARD_MAGIC

    run_simulation(board, host())
    expected = [
        zlib.crc32(b"".join(word.to_bytes(4, "little") for word in memory[first:][:words]))
        for first, words in checks
    ]
    assert found == expected


def test_registers_are_those_of_the_table() -> None:
    board = BoardRegisters({"memory_bytes": 0, "clock_hz": 0, "baud": 0}, Signal(), Signal())
    assert [csr.name for csr in board.get_csrs()] == list(BOARD_REGISTERS)
