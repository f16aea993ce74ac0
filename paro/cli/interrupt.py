"""Ctrl-C: the process ends in order, with one line and without tracebacks."""

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from paro.cli.console import stderr
from paro.config.programs import end_programs

__all__ = ["interruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Interrupted(BaseException):
    """Unwinds the work; not a `KeyboardInterrupt`, of which libraries make something of their own.

    Parameters
    ----------
    number : int
        The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal (Ctrl-C, a request to end) end the body and the process.

    What the body holds is given back on the way out: temporary files go, programs that it started
    end. Exit status 128 + the signal's number; a second signal ends the process where it is.
    """
    taken = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    def interrupt(number: int, frame: Any) -> NoReturn:
        for each in taken:
            signal.signal(each, lambda second, frame: _leave(second))
        raise _Interrupted(number)

    unraisable = sys.unraisablehook

    def not_raised(problem: "sys.UnraisableHookArgs") -> None:
        # It came where Python takes no exception, as in a finalizer.
        if isinstance(problem.exc_value, _Interrupted):
            _leave(problem.exc_value.number)
        unraisable(problem)

    before = {number: signal.signal(number, interrupt) for number in taken}
    sys.unraisablehook = not_raised
    try:
        yield
    except _Interrupted as interrupted:
        _leave(interrupted.number)
    finally:
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int) -> NoReturn:
    """End this process now: threads that still compute are not waited for."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    end_programs(for_good=True)
    stderr.show_cursor(True)
    stderr.print("paro: interrupted")
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(128 + number)
