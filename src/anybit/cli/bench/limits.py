"""The machine's limits, measured by the native probes: reading memory, and arithmetic; and clearing its caches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anybit.cli.bench.rounds import Cold
from anybit.cli.machine import last_level_cache

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_READ = 128 << 20
COPY_BYTES = 96 << 20
"""As many copies of a weight are multiplied in turn as fit into this, each of them once after the caches were cleared."""
READ_BYTES = 8 << 20
FEWEST_COPIES, MOST_COPIES = 2, 9
"""One that wakes the threads, and those that are counted."""


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


def evictor() -> Callable[[], object]:
    """A function that reads twice as many bytes as the largest cache holds, so that nothing of before is left in it.

    It uses anybit's pool, whose threads sleep soon: those of torch would go on spinning beside what is measured next.
    """
    from anybit import _native
    from anybit.ops.native import bytes_to_read

    buffer = bytes_to_read(max(LEAST_READ, 2 * last_level_cache()))
    return lambda: _native.read_through(buffer)


def reader() -> Callable[[], float]:
    """A function that measures bytes/s of reading memory as products read their weights: in the shared pool, 8 MiB a call, after the
    caches were cleared (`evictor`). Lower than `read_bandwidth`, which is the best of many slices."""
    from anybit import _native
    from anybit.ops.native import bytes_to_read

    def read(buffer: NDArray[np.uint8]) -> Callable[[], object]:
        return lambda: _native.read_through(buffer)

    sample = Cold([read(bytes_to_read(READ_BYTES)) for _ in range(MOST_COPIES)])
    return lambda: READ_BYTES / sample()


def pause() -> None:
    """Long enough for the idle threads of a library to sleep instead of spinning beside the next."""
    time.sleep(0.03)


def read_bandwidth(count: int, rounds: int = 3) -> float:
    """Bytes a second of reading memory now with `count` threads, the best of `rounds`.

    The buffer lies on huge pages where there are any and is four times the largest cache.
    """
    from anybit import _native

    return float(_native.probe_bandwidth(max(LEAST_READ, 4 * last_level_cache()), count, rounds))


VECTOR_KINDS = ("int8", "bf16", "fp32")
"""Of arithmetic on vector instructions."""


def peak(kind: str, count: int) -> float:
    """Operations a second on `count` threads now of the vector instructions for int8, bf16 or fp32, or of the tile units for int8 or bf16
    ("int8_tiles", "bf16_tiles"), the best of some milliseconds; 0 where the machine lacks them."""
    from anybit import _native

    return float(_native.probe_int8_peak(count) if kind == "int8" else _native.probe_peak(kind, count))


def peaks(count: int) -> dict[str, float]:
    """`peak` of everything that the machine has."""
    found = {kind: peak(kind, count) for kind in (*VECTOR_KINDS, "int8_tiles", "bf16_tiles")}
    return {kind: rate for kind, rate in found.items() if rate > 0}
