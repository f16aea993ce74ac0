"""The board's own registers in Migen's simulator: the checksum of memory."""

import random
import zlib

from migen import Signal, run_simulation

from fpga.soc.gateware import BoardRegisters
from paro.config.board_map import BOARD_MAGIC, BOARD_REGISTERS

BASE = 0x4000_0000
FACTS = ("memory_bytes", "clock_hz", "baud")


def test_checksum_is_that_of_zlib(seed: int) -> None:
    """Of any words at any place, however long the memory takes."""
    rng = random.Random(seed)
    facts: dict[str, int] = dict.fromkeys(FACTS, 1)
    board = BoardRegisters(facts, Signal(reset=1), Signal(), Signal())
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


def test_a_check_of_too_many_words_leaves_the_bus_to_others() -> None:
    """A flipped bit asks for 8 GiB: the bus is free after each word, and another check is done."""
    board = BoardRegisters(dict.fromkeys(FACTS, 1), Signal(), Signal(), Signal())

    def ask(words: int):
        yield board._words.storage.eq(words)
        yield board._words.re.eq(1)
        yield
        yield board._words.re.eq(0)
        yield

    def host():
        yield from ask(1 << 31)
        for _ in range(10):
            assert (yield board.bus.cyc)
            yield board.bus.ack.eq(1)
            yield
            yield board.bus.ack.eq(0)
            yield
            assert not (yield board.bus.cyc)
            yield
        yield from ask(1)
        yield board.bus.ack.eq(1)
        yield
        yield board.bus.ack.eq(0)
        yield
        assert not (yield board._busy.status)
        assert (yield board._checks.status) == 1

    run_simulation(board, host())


def test_registers_are_those_of_the_table() -> None:
    board = BoardRegisters(dict.fromkeys(FACTS, 0), Signal(), Signal(), Signal())
    assert [csr.name for csr in board.get_csrs()] == list(BOARD_REGISTERS)


def test_words_that_hosts_write_are_counted() -> None:
    stored = Signal()
    board = BoardRegisters(dict.fromkeys(FACTS, 0), Signal(), Signal(), stored)

    def host():
        for value in (1, 0, 1, 1, 0, 0):
            yield stored.eq(value)
            yield
        yield
        assert (yield board._stored.status) == 3

    run_simulation(board, host())
