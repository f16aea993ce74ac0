"""Ctrl-C, really sent to a process group: one line, status 130, nothing that runs on."""

import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest
import torch
from safetensors.torch import save_file

from firmware_model import DEMO_CAPTURE
from paro.config.programs import deaf_processes
from sim.cache import CACHE_VARIABLE
from tests.places import ROOT

PROGRAM = [sys.executable, "-c", "from paro.cli.main import run; run()"]
COSIM = ("--rows", "4", "--cols", "4", "--block", "16")


def random_capture(folder, heads, grid):
    generator = torch.Generator().manual_seed(1)
    shape = (heads, math.prod(grid), 32)
    tensors = {name: torch.randn(shape, generator=generator) for name in "qkv"}
    path = folder / "capture.safetensors"
    save_file(tensors, path, {"grid": ",".join(map(str, grid)), "prefix_tokens": "0"})
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
        with suppress(ProcessLookupError):  # it has ended by itself, which is the failure
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
        until = time.monotonic() + 400  # beside other work
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
def test_while_a_simulator_is_compiled(tmp_path, whom):
    # A cache of its own: other tests compile meanwhile.
    cache, out = tmp_path / "cache", tmp_path / "out"
    command = ("cosim", random_capture(tmp_path, 1, (1, 4, 4)), *COSIM, "-o", out)
    status, lines = interrupt(command, runs("cc1plus"), whom, **{CACHE_VARIABLE: str(cache)})
    assert status == 130
    assert [line for line in lines if "compiling" not in line and "━" not in line] == [
        "paro: interrupted"
    ]
    assert not out.exists()
    assert list(cache.glob("verilator-*"))
    assert not list(cache.glob("verilator-*/complete"))


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
    # Half a minute of work.
    capture, plan = random_capture(tmp_path, 16, (16, 16, 16)), tmp_path / "plan.safetensors"
    started = time.monotonic()
    command = ("calibrate", capture, "--order", "error", "-o", plan)
    status, lines = interrupt(command, lambda _: time.monotonic() > started + 6)
    assert (status, lines) == (130, ["paro: interrupted"])
    assert list(tmp_path.iterdir()) == [capture]


SLEEP = """
import subprocess, sys, time
from paro.cli.interrupt import interruptible
from paro.config.programs import run_program
class Slow(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print("ready", flush=True)
        time.sleep(0.5)
class Late:
    def __del__(self):
        print("ready", flush=True)
        run_program(["sleep", "60"])
with interruptible():
    if sys.argv[1] == "finalizer":
        Late()
    elif sys.argv[1] == "start":
        subprocess.Popen = Slow
        run_program(["sleep", "60"])
    else:
        print("ready", flush=True)
        run_program(["sh", "-c", "sleep 60 & sleep 60"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["program", "finalizer", "start"])
def test_in_any_place(where, number):
    """Also where Python has no use for exceptions, and before it knows what it started."""
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
