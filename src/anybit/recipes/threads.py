"""Independent pieces of work, each on one thread.

Rounding a matrix is a long row of small operators; sharing each of them between threads costs more in waiting than it gains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def each_on_a_thread(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Results of `work` in the order of `items`, as many at a time as torch has threads; torch uses one thread inside each.

    The first exception is raised after the pieces under way have ended; pieces not begun are left.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = [pool.submit(work, item) for item in items]
        try:
            for future in waiting:
                yield future.result()
        finally:
            for future in waiting:
                future.cancel()
            pool.shutdown()
            # The setting is partly global (MKL's), so the workers' must be undone.
            torch.set_num_threads(threads)
