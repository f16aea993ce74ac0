"""Other programs that the project starts: they end when the work that needs them does."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["deaf_processes", "end_programs", "run_program"]

_running: set["subprocess.Popen[Any]"] = set()
#: Held while a program starts: it is among the running ones, or it was never started.
_starting = threading.Lock()
_ended = False


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
    with _started(command, options) as process:
        try:
            output, errors = process.communicate(input)
        except BaseException:
            _end(process)
            raise
        finally:
            _running.discard(process)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def end_programs(*, for_good: bool = False) -> None:
    """End all programs that `run_program` runs, in any thread.

    Parameters
    ----------
    for_good : bool
        This process ends: it starts none any more.
    """
    global _ended
    with _starting:
        _ended = _ended or for_good
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


def _started(command: list[Any], options: dict[str, Any]) -> "subprocess.Popen[Any]":
    """Start a program in a thread, where no signal's handler can raise between start and record."""

    def start() -> "subprocess.Popen[Any]":
        with _starting:
            if _ended:
                raise InterruptedError("this process ends")
            process = subprocess.Popen(command, process_group=0, **options)
            _running.add(process)
        return process

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(start)
        try:
            return future.result()
        except BaseException:
            future.add_done_callback(_end_started)
            raise


def _end_started(future: "Future[subprocess.Popen[Any]]") -> None:
    if future.exception() is None:
        process = future.result()
        _end(process)
        _running.discard(process)


def _end(process: "subprocess.Popen[Any]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
