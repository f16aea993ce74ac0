"""The simulated board, through its line: the very SoC, compiled by Verilator."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from firmware_model import DEMO_CAPTURE
from firmware_model.host.board import BoardTransport
from firmware_model.host.board_run import run_on_board
from firmware_model.host.driver import AcceleratorError, Driver, run_sync
from firmware_model.host.image import Image, place_jobs
from firmware_model.host.lines import TcpLine
from firmware_model.host.link import UartBone, open_bus
from firmware_model.layer import Layer, save_layer
from firmware_model.reference.outputs import model_outputs
from fpga.soc.simulation import SimulatedBoard, simulated_board
from fpga.soc.skewed_memory import SKEWS
from paro.config import PRESETS, ParoError
from paro.config.board_map import BOARD_MAGIC, MEMORY_BASE, board_address
from paro.config.registers import MAGIC, find_register
from sim.cache import cache_folder
from sim.verify.layers import LayerShape
from tests.firmware_model.host.jobs import make_job
from tests.firmware_model.models.tiny_pipelines import dit, write
from tests.fpga.soc.proxy import proxy

CONFIG = PRESETS["tiny"]
#: Seconds without a byte; the board is simulated, perhaps beside other work.
SILENCE = 240.0
#: Clocks of a byte on the simulated line.
BYTE = 4 * 10


@pytest.fixture(scope="module")
def board() -> Iterator[SimulatedBoard]:
    with simulated_board(CONFIG, cache_folder()) as running:
        yield running


@pytest.fixture(scope="module")
def terminal() -> Iterator[SimulatedBoard]:
    with simulated_board(CONFIG, cache_folder(), line="pty") as running:
        yield running


@pytest.fixture(scope="module")
def queue() -> tuple[Image, list[np.ndarray]]:
    """A head, a linear layer and another head, and the words of the integer model."""
    jobs = [
        make_job(CONFIG, 1, 7),
        LayerShape(37, 70, 40).job(CONFIG, 3),
        make_job(CONFIG, 5, 7),
    ]
    return place_jobs(CONFIG, jobs, 0), [model_outputs(CONFIG, job) for job in jobs]


def run_queue(
    device: str,
    queue: tuple[Image, list[np.ndarray]],
    silence: float = SILENCE,
    facts: tuple[int, int] = (32 << 20, 50_000_000),
) -> list[str]:
    """The queue on a board, exact; returns the faults that were mended.

    ``facts``: bytes of its memory, and its clock in Hz.
    """
    image, expected = queue
    # Closed in any case: a simulated board has one host at a time.
    with closing(open_bus(device, silence=silence)) as bus:
        transport = BoardTransport(bus)
        found = transport.identify()
        assert (found.memory_bytes, found.clock_hz) == facts
        config = run_sync(Driver(transport).identify())
        assert config == CONFIG
        done = run_on_board(transport, config, image, stillness=120)
    for got, want in zip(done.outputs, expected, strict=True):
        assert np.array_equal(got, want)
    return done.faults


def run_command(monkeypatch, *arguments: object) -> dict:
    """`paro run`, which must succeed; returns its report."""
    from paro.cli import main

    monkeypatch.setattr("sys.argv", ["paro", "run", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        main.run()
    assert not leaving.value.code
    return json.loads((arguments[-1] / "report.json").read_text())  # type: ignore[operator]


@pytest.mark.slow
def test_a_board_with_ddr3(queue) -> None:
    """Its memory reads nothing right until it is leveled; each lane has its own delay and bit."""
    with simulated_board(CONFIG, cache_folder(), board_name="orangecrab-25f") as board:
        assert run_queue(board.device, queue, facts=(128 << 20, 48_000_000)) == []
        bus = open_bus(board.device, silence=SILENCE)
        bus.recover()
        (windows,) = bus.read([(board_address("windows"), 1)])
        bus.close()
    assert list(windows) == [last - first + 1 for first, last, _ in SKEWS] + [0, 0]


@pytest.fixture(scope="module")
def server(terminal: SimulatedBoard) -> Iterator[str]:
    """LiteX's own server in front of a board; where clients find it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    program = Path(sys.executable).with_name("litex_server")
    path = terminal.device.removeprefix("serial:")
    line = ["--uart", "--uart-port", path, "--uart-baudrate", "3000000"]
    bind = ["--bind-ip", "127.0.0.1", "--bind-port", port]
    process = subprocess.Popen([program, *line, *bind], stdout=subprocess.DEVNULL)
    yield f"litex:127.0.0.1:{port}"
    process.kill()
    process.wait()


def test_a_queue(board: SimulatedBoard, queue) -> None:
    """Heads and a layer over TCP, exact, with nothing to mend."""
    assert run_queue(board.device, queue) == []


def test_hostile_descriptors_are_refused(board: SimulatedBoard, queue) -> None:
    """What leaves the windows is refused with its cause, and no burst of it begins."""
    image, _ = queue
    bus = open_bus(board.device, silence=SILENCE)
    transport = BoardTransport(bus)
    transport.identify()
    driver = Driver(transport)
    run_sync(driver.reset())
    run_sync(driver.load(image))
    elsewhere, secret = 1 << 20, bytes(range(64))
    run_sync(transport.write(elsewhere, secret))
    good = image.data[image.queue_base :][:128]
    for word, cause, bursts in (
        (17, "READ_OUTSIDE", None),  # q_address
        (19, "READ_OUTSIDE", None),  # k_address
        (29, "READ_OUTSIDE", None),  # codes
        (23, "WRITE_OUTSIDE", None),  # o_address
        (0, "BAD_DESCRIPTOR", 1),  # its magic word: nothing but the descriptor is read
    ):
        bad = bytearray(good)
        bad[4 * word : 4 * word + 4] = elsewhere.to_bytes(4, "little")
        run_sync(transport.write(image.queue_base, bytes(bad)))
        run_sync(driver.start(image))
        with pytest.raises(AcceleratorError, match=f"{cause} at head 0 of the queue") as told:
            run_sync(driver.wait())
        if bursts is None:
            assert told.value.address >> 20 == 1
        else:
            assert run_sync(driver.counters()).read_bursts == bursts
        run_sync(driver.reset())
    assert run_sync(transport.read(elsewhere, 64)) == secret
    assert run_sync(transport.read32(find_register("IDENT").offset)) == MAGIC
    bus.close()


def test_what_the_board_remembers(board: SimulatedBoard) -> None:
    """It counts the words that are written to its memory, and forgets its token at a reset."""
    bus = open_bus(board.device, silence=5.0)
    transport = BoardTransport(bus)
    transport.identify()
    first = transport.visit()
    assert transport.is_visited(first)
    run_sync(transport.write(1 << 20, bytes(range(12))))
    assert not transport.is_visited(first)
    second = transport.visit()
    assert second.stored == first.stored + 3
    board.press_reset()
    time.sleep(0.2)
    transport.identify()
    assert not transport.is_visited(second)
    assert transport.visit().stored == 0
    assert run_sync(transport.read(1 << 20, 12)) == bytes(range(12))
    bus.close()


def test_a_pseudo_terminal(terminal: SimulatedBoard, queue) -> None:
    assert terminal.device.startswith("serial:/dev/")
    assert run_queue(terminal.device, queue) == []


@pytest.mark.parametrize("way", ["write", "read"])
def test_the_line_is_used(way: str, board: SimulatedBoard) -> None:
    """Bursts take at least 90 % of the line's rate, each way, in the board's own time."""
    data = np.random.default_rng(1).bytes(1 << 14)
    bus = open_bus(board.device, silence=SILENCE)
    transport = BoardTransport(bus)
    transport.identify()
    run_sync(transport.write(0, data))
    bus.close()
    _, host, port = board.device.split(":")
    line = TcpLine(host, int(port), SILENCE)
    line.open()
    bare = UartBone(line, SILENCE)
    commands = 6 * len(data) // 256
    if way == "read":
        assert bare.read([(MEMORY_BASE, len(data) // 4)]) == [data]
        bytes_of = {"received": commands, "sent": len(data)}
    else:
        bare.write(MEMORY_BASE, data)
        # The answer to this comes when all is written.
        assert bare.read([(board_address("magic"), 1)]) == [BOARD_MAGIC.to_bytes(4, "little")]
        bytes_of = {"received": len(data) + commands + 6, "sent": 4}
    line.close()
    clocks = []
    while not clocks:
        time.sleep(0.05)
        clocks = [
            told["clocks"] for told in list(board.sessions) if told.items() > bytes_of.items()
        ]
    assert len(data) * BYTE / clocks[-1] >= 0.9


@pytest.mark.slow
def test_litex_client(server: str, queue) -> None:
    """LiteX's own server and client, unchanged, and our driver through them."""
    from litex.tools.litex_client import RemoteClient

    with closing(open_bus(server, silence=SILENCE)) as bus:
        bus.recover()  # the server has started
    client = RemoteClient("127.0.0.1", int(server.split(":")[-1]))
    client.open()
    client.socket.settimeout(SILENCE)
    assert client.read(board_address("magic")) == BOARD_MAGIC
    client.write(MEMORY_BASE, [1, 2, 3])
    assert client.read(MEMORY_BASE, 3) == [1, 2, 3]
    client.close()
    for _ in range(3):
        assert run_queue(server, queue) == []


@pytest.mark.slow
def test_three_runs_in_a_row(board: SimulatedBoard, terminal: SimulatedBoard, queue) -> None:
    for device in (board.device, terminal.device):
        for _ in range(3):
            assert run_queue(device, queue) == []


#: Chances a byte of each kind of fault: some that are always mended, some that may be too many.
FAULTS = [(kind, rate) for rate in (3e-5, 1e-3) for kind in ("drop", "flip", "double")]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rate"), FAULTS)
def test_faults_on_the_line(kind: str, rate: float, board: SimulatedBoard, queue, seed) -> None:
    """Right, or refused, and never without end; the next run is right."""
    with proxy(board.device, seed, {kind: rate}) as between:
        refused = None
        try:
            faults = run_queue(between.device, queue, silence=10.0)
        except ParoError as error:
            refused = str(error)
        else:
            assert faults or not between.happened[kind]
    assert refused is None or rate > 1e-4, refused
    assert run_queue(board.device, queue) == []


@pytest.mark.slow
def test_a_cable_that_is_out(board: SimulatedBoard, queue, seed: int) -> None:
    """In the load and in the work, for ten seconds each."""
    with proxy(board.device, seed, {}) as between:
        between.cuts, between.seconds_out = [10_000, 40_000], 10.0
        assert run_queue(between.device, queue)
        assert between.happened["cut"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.1, 0.5, 0.8, 0.95])
def test_a_reset_in_mid_run(part: float, board: SimulatedBoard, queue, seed: int) -> None:
    """The run ends right, whatever the board forgot."""
    image, _ = queue
    outputs = sum(len(placed.bytes()) for placed in image.outputs)
    place = int(part * (len(image.data) + outputs))
    with proxy(board.device, seed, {}) as between:
        between.presses, between.press = [place], board.press_reset
        faults = run_queue(between.device, queue, silence=30.0)
        assert between.happened["reset"] == 1
    assert faults
    assert run_queue(board.device, queue) == []


@pytest.mark.slow
def test_a_head_of_the_capture_that_ships(board: SimulatedBoard, tmp_path, monkeypatch) -> None:
    """`paro run` over TCP: one head, bit exact, with a report as of `paro cosim`."""
    for device in (board.device, "sim"):
        report = run_command(
            monkeypatch,
            *(DEMO_CAPTURE, "--heads", "9", "--device", device, "--silence", SILENCE),
            *(("--rows", 4, "--cols", 4) if device == "sim" else ()),
            *("-o", tmp_path / "run"),
        )
        assert report["bit_exact"] is True
        assert report["outputs_compared"] == 512 * 32
        assert report["link"]["bytes_written"] > 4 * 512 * 32
        assert report["link"]["faults"] == []
        assert report["heads"][0]["head"] == 9


@pytest.mark.slow
@pytest.mark.parametrize("way", ["tcp", "litex"])
def test_a_whole_layer_of_heads(way: str, board, server: str, tmp_path, monkeypatch) -> None:
    """All 16 heads as one queue."""
    report = run_command(
        monkeypatch,
        *(DEMO_CAPTURE, "--device", server if way == "litex" else board.device),
        *("--silence", SILENCE, "-o", tmp_path / "run"),
    )
    assert report["bit_exact"] is True
    assert report["outputs_compared"] == 16 * 512 * 32
    assert report["link"]["faults"] == []
    assert [head["head"] for head in report["heads"]] == list(range(16))


@pytest.mark.slow
def test_a_projection(board: SimulatedBoard, server: str, tmp_path, monkeypatch, seed) -> None:
    """`paro run` of a linear layer, calibrated on the way."""
    generator = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(96, 96, generator=generator), torch.randn(80, 96, generator=generator)
    path = tmp_path / "layer.safetensors"
    save_layer(Layer(path, x, weight, torch.randn(80, generator=generator), "projection"))
    for device in (board.device, server):
        report = run_command(
            monkeypatch, path, "--device", device, "--silence", SILENCE, "-o", tmp_path / "run"
        )
        assert report["bit_exact"] is True
        assert report["outputs_compared"] == 96 * 80
        assert report["link"]["faults"] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_model_on_a_board(tmp_path, monkeypatch) -> None:
    """Both halves of the guidance of a step of a small DiT from one start, word for word."""
    folder = write(dit, tmp_path / "pipeline")
    with simulated_board(CONFIG.changed(vector_channels=128), cache_folder()) as running:
        run = (folder, "--device", running.device, "--steps", 2, "--on-device", ":1")
        report = run_command(monkeypatch, *run, "-o", tmp_path / "out")
    assert report["bit_exact"]
    assert report["words_compared"] == 2 * 16 * 32
    assert report["steps"][0]["cycles"] > 0
