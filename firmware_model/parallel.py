"""Block rows (or heads) in parallel: one thread a core, each working alone.

The tensors of a block row are small. Sharing each operation among torch's own threads costs more
in waiting than it gains, and many times more on a busy machine.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import torch

from firmware_model.progress import Steps

Row = TypeVar("Row")
Result = TypeVar("Result")


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
            each = map if threads == 1 else stack.enter_context(ThreadPoolExecutor(threads)).map
            results = []
            for result in each(work, rows):
                results.append(result)
                if steps is not None:
                    steps.advance()
            return results
    finally:
        torch.set_num_threads(threads)
