"""The machine's limits, measured by the native probes: reading memory, and 8-bit integer arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from anybit.cli.machine import last_level_cache

LEAST_READ = 128 << 20


@contextmanager
def threads(count: int) -> Iterator[None]:
    """anybit's shared pool and torch's with so many threads while the context lasts."""
    import torch

    from anybit import _native

    ours, theirs = _native.threads(), torch.get_num_threads()
    try:
        _native.set_threads(count)
        torch.set_num_threads(count)
        yield
    finally:
        _native.set_threads(ours)
        torch.set_num_threads(theirs)


def read_bandwidth(count: int, rounds: int = 3) -> float:
    """Bytes a second of reading memory now with `count` threads, the best of `rounds`.

    The buffer lies on huge pages where there are any and is four times the largest cache.
    """
    from anybit import _native

    return float(_native.probe_bandwidth(max(LEAST_READ, 4 * last_level_cache()), count, rounds))


def int8_peak(count: int) -> float:
    """Operations a second of the 8-bit multiply-add loop on `count` threads; a multiply-add is two."""
    from anybit import _native

    return float(_native.probe_int8_peak(count))
