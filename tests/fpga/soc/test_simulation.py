"""The simulated board, through its line: the very SoC, compiled by Verilator."""

import json
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from firmware_model import DEMO_CAPTURE
from firmware_model.host.board import BoardTransport, run_on_board
from firmware_model.host.driver import AcceleratorError, Driver, run_sync
from firmware_model.host.image import place_jobs
from firmware_model.host.link import open_bus
from fpga.soc.simulation import SimulatedBoard, simulated_board
from fpga.soc.skewed_memory import SKEWS
from paro.config import Config, ParoError
from paro.config.board_map import BOARD_MAGIC, MEMORY_BASE, board_address
from paro.config.registers import MAGIC, find_register
from sim.cache import cache_folder
from tests.firmware_model.host.jobs import make_job
from tests.firmware_model.host.outputs import model_outputs
from tests.fpga.soc.proxy import proxy

pytestmark = pytest.mark.slow

CONFIG = Config(rows=4, cols=4, block=16, head_dim=32)
#: Seconds without a byte; the board is simulated, perhaps beside other work.
SILENCE = 120.0


@pytest.fixture(scope="module")
def board() -> Iterator[SimulatedBoard]:
    with simulated_board(CONFIG, cache_folder()) as running:
        yield running


def run_jobs(
    device: str,
    silence: float = SILENCE,
    expected: tuple[int, int] = (32 << 20, 50_000_000),
) -> list[str]:
    """Two heads on a board, exact; returns the faults that were mended.

    ``expected``: bytes of its memory, and its clock in Hz.
    """
    jobs = [make_job(CONFIG, order, 7) for order in (1, 5)]
    bus = open_bus(device, silence=silence)
    transport = BoardTransport(bus)
    facts = transport.identify()
    assert (facts.memory_bytes, facts.clock_hz) == expected
    config = run_sync(Driver(transport).identify())
    assert config == CONFIG
    done = run_on_board(transport, config, place_jobs(config, jobs, 0), stillness=120)
    bus.close()
    for job, got in zip(jobs, done.outputs, strict=True):
        assert np.array_equal(got, model_outputs(config, job))
    return done.faults


def test_three_runs_in_a_row(board: SimulatedBoard) -> None:
    for _ in range(3):
        assert run_jobs(board.device) == []


def test_a_pseudo_terminal() -> None:
    with simulated_board(CONFIG, cache_folder(), line="pty") as terminal:
        assert terminal.device.startswith("serial:/dev/")
        assert run_jobs(terminal.device) == []


def test_a_board_with_ddr3() -> None:
    """Its memory reads nothing right until it is leveled; each lane has its own delay and bit."""
    with simulated_board(CONFIG, cache_folder(), board_name="orangecrab-25f") as board:
        assert run_jobs(board.device, expected=(128 << 20, 48_000_000)) == []
        bus = open_bus(board.device, silence=SILENCE)
        bus.recover()
        (windows,) = bus.read([(board_address("windows"), 1)])
        bus.close()
    assert list(windows) == [last - first + 1 for first, last, _ in SKEWS] + [0, 0]


def test_the_line_is_used(board: SimulatedBoard) -> None:
    """Bursts take at least 90 % of the line's rate, each way, in the board's own time."""
    data = np.random.default_rng(1).bytes(1 << 14)
    bit = 4 * 10  # clocks of a byte
    bus = open_bus(board.device, silence=SILENCE)
    BoardTransport(bus).identify()  # its memory has started
    before = len(board.sessions)
    bus.close()
    while len(board.sessions) == before:
        time.sleep(0.1)
    before = len(board.sessions)
    bus = open_bus(board.device, silence=SILENCE)
    bus.recover()
    bus.write(MEMORY_BASE, data)
    (got,) = bus.read([(MEMORY_BASE, len(data) // 4)])
    bus.close()
    assert got == data
    while len(board.sessions) == before:
        time.sleep(0.1)
    session = board.sessions[-1]
    assert 2 * len(data) * bit / session["clocks"] >= 0.9


def test_litex_client(board: SimulatedBoard) -> None:
    """LiteX's own server and client, unchanged, and our driver through them."""
    from litex.tools.litex_client import RemoteClient
    from litex.tools.litex_server import RemoteServer
    from litex.tools.remote.comm_uart import CommUART

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _, host, place = board.device.split(":")
    server = RemoteServer(CommUART(f"socket://{host}:{place}"), "127.0.0.1", port)
    server.open()
    threading.Thread(target=server._serve_thread, daemon=True).start()
    client = RemoteClient("127.0.0.1", port)
    client.open()
    client.socket.settimeout(SILENCE)
    assert client.read(board_address("magic")) == BOARD_MAGIC
    client.write(MEMORY_BASE, [1, 2, 3])
    assert client.read(MEMORY_BASE, 3) == [1, 2, 3]
    client.close()
    assert run_jobs(f"litex:127.0.0.1:{port}") == []
    server.close()


@pytest.mark.parametrize("case", range(6))
def test_faults_on_the_line(case: int, board: SimulatedBoard, seed: int) -> None:
    """Right, or refused, and never without end; the next run is right."""
    kind = ("drop", "flip", "double")[case % 3]
    rate = (3e-5, 1e-3)[case // 3]
    with proxy(board.device, seed, {kind: rate}) as between:
        refused = None
        try:
            faults = run_jobs(between.device, silence=5.0)
        except ParoError as error:
            refused = str(error)
        else:
            assert faults or not between.happened[kind]
    assert refused is None or rate > 1e-4, refused
    assert run_jobs(board.device) == []


def test_a_cable_that_is_out(board: SimulatedBoard, seed: int) -> None:
    with proxy(board.device, seed, {}) as between:
        between.cuts = [20_000, 60_000]
        assert run_jobs(between.device)
        assert between.happened["cut"] == 2


def test_hostile_descriptors_are_refused(board: SimulatedBoard) -> None:
    """An output outside of its window is refused on the board as in simulation."""
    image = place_jobs(CONFIG, [make_job(CONFIG, 0, 3)], 0)
    bus = open_bus(board.device, silence=SILENCE)
    transport = BoardTransport(bus)
    transport.identify()
    driver = Driver(transport)
    run_sync(driver.reset())
    run_sync(driver.load(image))
    secret = bytes(range(64))
    run_sync(transport.write(1 << 20, secret))
    descriptor = bytearray(image.data[image.queue_base :][:128])
    descriptor[23 * 4 : 25 * 4] = (1 << 20).to_bytes(8, "little")  # o_address
    run_sync(transport.write(image.queue_base, bytes(descriptor)))
    run_sync(driver.start(image))
    with pytest.raises(AcceleratorError, match="WRITE_OUTSIDE at head 0 of the queue, in the bu"):
        run_sync(driver.wait())
    assert run_sync(transport.read(1 << 20, 64)) == secret
    assert run_sync(transport.read32(find_register("IDENT").offset)) == MAGIC
    bus.close()


def test_a_head_of_the_capture_that_ships(board: SimulatedBoard, tmp_path, monkeypatch) -> None:
    """`paro run` over TCP: one head, bit exact, with a report as of `paro cosim`."""
    from paro.cli import main

    arguments = [DEMO_CAPTURE, "--heads", "9", "--device", board.device]
    arguments += ["--silence", SILENCE, "-o", tmp_path / "run"]
    monkeypatch.setattr("sys.argv", ["paro", "run", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        main.run()
    assert not leaving.value.code
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["bit_exact"] is True
    assert report["outputs_compared"] == 512 * 32
    assert report["link"]["bytes_written"] > 4 * 512 * 32
    assert report["link"]["faults"] == []
    assert report["heads"][0]["head"] == 9
