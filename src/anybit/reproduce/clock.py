"""Timing inside experiments: cases in turn, round after round, medians, to be compared as ratios within one run.

What is timed is the processor time of one thread, so that other work on the machine costs it its caches and bandwidth only.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

from anybit.ops import native
from anybit.reproduce.experiment import Progress, silent

Case = Callable[[], object]
W = TypeVar("W")
EVICT = 512 << 20
"""Bytes to read so that nothing of what was used before is left in a cache, for `medians`."""


@contextmanager
def one_thread() -> Iterator[None]:
    """The kernels' pool and torch's with one thread, the calling one, while the context lasts."""
    module = native.load()
    theirs, ours = torch.get_num_threads(), module.threads() if module else 0
    try:
        torch.set_num_threads(1)
        if module:
            module.set_threads(1)
        yield
    finally:
        torch.set_num_threads(theirs)
        if module:
            module.set_threads(ours)


def copies(make: Callable[[], W], call: Callable[[W], object], count: int = 5) -> list[Case]:
    """`call` with each of `count` things that `make` makes: what `medians` takes where data are to come from memory."""
    return [partial(call, make()) for _ in range(count)]


def reading(size: int, count: int = 5) -> list[Case]:
    """Cases that read `size` bytes of memory once: the rate of reading while products are timed in turn with them.

    It is what one plain loop reaches, no bound: products that fetch ahead may be a little faster.
    """
    module = native.load()
    if module:
        return copies(partial(native.bytes_to_read, size), module.read_through, count)
    return copies(partial(torch.ones, max(size // 4, 1)), torch.sum, count)


def medians(
    cases: Mapping[str, Case | Sequence[Case]],
    rounds: int,
    evict: int = 0,
    what: str = "timing",
    progress: Progress = silent,
) -> dict[str, float]:
    """Seconds of a call of each case on one thread (`one_thread`), the median over rounds, after one call that does not count.

    evict: bytes that are read before every case, so that what it reads is no longer in a cache; 0 for none. A case of several copies
    (`copies`) is the mean call of all but the first, which is called uncounted: after so much was read, a first call spends most of a
    millisecond on its code, page tables and the interpreter, whatever it multiplies. Without evict a case is called as often within a
    round as takes a millisecond.
    """
    buffer = torch.ones(max(evict // 4, 1))
    calls: dict[str, list[Case]] = {}
    for name, case in cases.items():
        several = [case] if callable(case) else list(case)
        several[0]()
        started = time.thread_time()
        several[-1]()
        often = 1 if evict else max(1, int(1e-3 / max(time.thread_time() - started, 1e-7)))
        calls[name] = several * often
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        progress(what, number, rounds)
        for name, several in calls.items():
            counted = several
            if evict:
                buffer.sum()
                if len(several) > 1:
                    several[0]()
                    counted = several[1:]
            started = time.thread_time()
            for call in counted:
                call()
            found[name].append((time.thread_time() - started) / len(counted))
    return {name: statistics.median(values) for name, values in found.items()}
