"""Ctrl-C, really sent to a process group: one line, status 130, nothing that runs on."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from firmware_model import DEMO_CAPTURE
from paro.config.programs import deaf_processes
from sim.cache import cache_folder
from tests.places import ROOT

PROGRAM = [sys.executable, "-c", "from paro.cli.main import run; run()"]
COSIM = ("--rows", "4", "--cols", "4", "--block", "16")


@pytest.fixture
def capture(tmp_path):
    generator = torch.Generator().manual_seed(1)
    tensors = {name: torch.randn(1, 16, 32, generator=generator) for name in "qkv"}
    path = tmp_path / "capture.safetensors"
    save_file(tensors, path, {"grid": "1,4,4", "prefix_tokens": "0"})
    return path


def descendants(session):
    """Command lines of the processes of a session that have not ended."""
    run = subprocess.run(["ps", "-eo", "sid=,stat=,args="], capture_output=True, text=True)
    lines = [line.split(maxsplit=2) for line in run.stdout.splitlines()]
    return [args for sid, state, args in lines if int(sid) == session and "Z" not in state]


@contextmanager
def ended(group):
    """Leave nothing behind if the body fails."""
    try:
        yield
    except BaseException:
        os.killpg(group, signal.SIGKILL)
        raise


def interrupt(command, ready, whom=os.killpg, **variables):
    """Run ``paro`` until a process of it, or what it says, tells that it is ready, then Ctrl-C it.

    Gives the exit status and the lines that it wrote.
    """
    with (
        subprocess.Popen(
            [*PROGRAM, *map(str, command)],
            cwd=ROOT,
            env=os.environ | variables,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
        ended(process.pid),
    ):
        until = time.monotonic() + 120
        while not ready(descendants(process.pid)):
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < until
            time.sleep(0.05)
        whom(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        until = time.monotonic() + 5
        while descendants(process.pid) and time.monotonic() < until:
            time.sleep(0.05)
        assert descendants(process.pid) == []
    return process.returncode, [line for line in output.splitlines() if line.strip()]


def runs(pattern):
    """Whether a program runs whose command line fits."""
    return lambda lines: any(re.search(pattern, line) for line in lines)


@pytest.mark.parametrize("whom", [os.killpg, os.kill])
def test_while_a_simulator_is_compiled(capture, tmp_path, whom):
    # Flags that nothing was compiled with.
    flags = f"-DINTERRUPTED_{time.time_ns()}"
    before = set(cache_folder().glob("verilator-*/complete"))
    out = tmp_path / "out"
    command = ("cosim", capture, *COSIM, "-o", out)
    status, lines = interrupt(command, runs("cc1plus"), whom, CXXFLAGS=flags)
    assert status == 130
    assert [line for line in lines if "compiling" not in line and "━" not in line] == [
        "paro: interrupted"
    ]
    assert not out.exists()
    assert set(cache_folder().glob("verilator-*/complete")) == before


def test_while_it_simulates(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text("of an earlier run")
    command = ("cosim", DEMO_CAPTURE, "--heads", "0-3", *COSIM, "-o", out, "--sim", "icarus")
    status, lines = interrupt(command, runs("^vvp"))
    assert status == 130
    assert lines[-1] == "paro: interrupted"
    assert not any("Traceback" in line or "Exception" in line for line in lines)
    assert [path.name for path in out.iterdir()] == ["simulation"]


def test_while_threads_compute(tmp_path):
    started = time.monotonic()
    command = ("calibrate", DEMO_CAPTURE, "--order", "error", "-o", tmp_path / "plan.safetensors")
    status, lines = interrupt(command, lambda _: time.monotonic() > started + 6)
    assert (status, lines) == (130, ["paro: interrupted"])
    assert not list(tmp_path.iterdir())


SLEEP = """
import sys
from paro.cli.interrupt import interruptible
from paro.config.programs import run_program
class Late:
    def __del__(self):
        print("ready", flush=True)
        run_program(["sleep", "60"])
with interruptible():
    if sys.argv[1] == "finalizer":
        Late()
    else:
        print("ready", flush=True)
        run_program(["sh", "-c", "sleep 60 & sleep 60"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["program", "finalizer"])
def test_in_any_place(where, number):
    """Also where Python has no use for exceptions."""
    with (
        subprocess.Popen(
            [sys.executable, "-c", SLEEP, where],
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        ended(process.pid),
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (128 + number, "paro: interrupted\n")
        assert descendants(process.pid) == []


def test_processes_of_a_sweep_do_not_hear_of_it():
    """They would write tracebacks."""
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    with deaf_processes():
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "True\n"
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
