"""The machine's limits, measured by the native probes: reading memory, and 8-bit integer arithmetic."""

from __future__ import annotations

from anybit.cli.machine import last_level_cache

LEAST_READ = 128 << 20


def set_threads(threads: int) -> None:
    """The size of anybit's shared thread pool from now on."""
    from anybit import _native

    _native.set_threads(threads)


def read_bandwidth(threads: int, rounds: int = 3) -> float:
    """Bytes a second of reading memory now, the best of `rounds`; from a buffer on huge pages, four times the largest cache."""
    from anybit import _native

    return float(_native.probe_bandwidth(max(LEAST_READ, 4 * last_level_cache()), threads, rounds))


def int8_peak(threads: int) -> float:
    """Operations a second of the 8-bit multiply-add loop; a multiply-add is two."""
    from anybit import _native

    return float(_native.probe_int8_peak(threads))
