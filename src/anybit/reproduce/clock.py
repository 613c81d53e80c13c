"""Timing inside experiments: cases in turn, round after round, medians, to be compared as ratios within one run.

What is timed is the processor time of one thread, so that other work on the machine costs it its caches and bandwidth only.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from anybit.ops import native
from anybit.reproduce.experiment import Progress, silent


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


def medians(
    cases: Mapping[str, Callable[[], object]],
    rounds: int,
    evict: int = 0,
    what: str = "timing",
    progress: Progress = silent,
) -> dict[str, float]:
    """Seconds of a call of each case on one thread (`one_thread`), the median over rounds, after one call that does not count.

    evict: bytes that are read before every call, so that what the case reads is no longer in a cache; 0 for none. Without it a case is
    called as often within a round as takes a millisecond.
    """
    buffer = torch.ones(max(evict // 4, 1))
    calls: dict[str, int] = {}
    for name, case in cases.items():
        case()
        started = time.thread_time()
        case()
        calls[name] = 1 if evict else max(1, int(1e-3 / max(time.thread_time() - started, 1e-7)))
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        progress(what, number, rounds)
        for name, case in cases.items():
            if evict:
                buffer.sum()
            started = time.thread_time()
            for _ in range(calls[name]):
                case()
            found[name].append((time.thread_time() - started) / calls[name])
    return {name: statistics.median(values) for name, values in found.items()}
