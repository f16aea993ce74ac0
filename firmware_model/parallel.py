"""Block rows (or heads) in parallel: one thread a core, each working alone.

The tensors of a block row are small. Sharing each operation among torch's own threads costs more
in waiting than it gains, and many times more on a busy machine.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch

from firmware_model.progress import Steps
from paro.config.programs import end_programs

Row = TypeVar("Row")
Result = TypeVar("Result")


@contextmanager
def thread_pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for the body; its end waits for them, but not an interruption such as Ctrl-C.

    Programs that they wait for end then.
    """
    pool = ThreadPoolExecutor(threads)
    wait = False
    try:
        yield pool
        wait = True
    except Exception:
        wait = True
        raise
    finally:
        pool.shutdown(wait, cancel_futures=not wait)
        if not wait:
            end_programs()


def map_rows(
    work: Callable[[Row], Result], rows: Iterable[Row], steps: Steps | None = None
) -> list[Result]:
    """Apply ``work`` to every row on as many threads as torch may use; results in order.

    ``steps`` is advanced by one for each row.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ExitStack() as stack:
            # Within the rows of another call there is one thread: no pool then.
            each = map if threads == 1 else stack.enter_context(thread_pool(threads)).map
            results = []
            for result in each(work, rows):
                results.append(result)
                if steps is not None:
                    steps.advance()
            return results
    finally:
        torch.set_num_threads(threads)
