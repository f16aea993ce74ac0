"""How long computations tell how far they are."""

import logging
from collections.abc import Callable

#: Called with (steps done, steps in all) after each step.
Progress = Callable[[int, int], None]

#: To show announcements, add a handler and set the level to ``INFO``.
ANNOUNCEMENTS = logging.getLogger("paro")


def announce(message: str) -> None:
    """Tell that something long begins, which is done once and kept."""
    ANNOUNCEMENTS.info(message)


class Steps:
    """Counts steps for a `Progress`, if there is one."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def advance(self, steps: int = 1) -> None:
        """Tell that ``steps`` more are done."""
        self._done += steps
        if self._progress is not None:
            self._progress(self._done, self._total)
