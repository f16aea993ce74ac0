"""Other programs that the project starts: they end when the work that needs them does."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["deaf_processes", "end_programs", "run_program"]

_running: set["subprocess.Popen[Any]"] = set()


def run_program(
    command: list[Any], *, input: str | None = None, **options: Any
) -> "subprocess.CompletedProcess[Any]":
    """Run a program to its end; if this call is left early, it and all that it started end at once.

    They are a process group of their own: Ctrl-C in a terminal reaches this process alone.

    Parameters
    ----------
    command : list
        Program and arguments.
    input : str, optional
        Its standard input; nothing by default.
    **options
        Of `subprocess.Popen`.
    """
    options["stdin"] = subprocess.DEVNULL if input is None else subprocess.PIPE
    with subprocess.Popen(command, process_group=0, **options) as process:
        _running.add(process)
        try:
            output, errors = process.communicate(input)
        except BaseException:
            _end(process)
            raise
        finally:
            _running.discard(process)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def end_programs() -> None:
    """End all programs that `run_program` runs, in any thread."""
    for process in list(_running):
        _end(process)


@contextmanager
def deaf_processes() -> Iterator[None]:
    """Processes that the body starts never hear of Ctrl-C; nor does this one, during the body.

    It ends them itself; Python would write a traceback for each. That a signal is ignored is
    inherited, that it is blocked is undone by `multiprocessing`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(process: "subprocess.Popen[Any]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
