"""Quantities as people read them; one way for every table of the command line and the report."""

from __future__ import annotations

import math
from collections.abc import Collection

from anybit.errors import AnybitError


def size(count: float) -> str:
    """Bytes in decimal units, three digits: 11.5 MB, 532 kB, 17 B."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale * 0.9995:
            return f"{three(count / scale)} {unit}"
    return f"{count:.0f} B"


def parse_size(text: str) -> float:
    """Bytes of "2.5 MB", "800kB", "1 GB" or a plain number of bytes; AnybitError otherwise."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0), ("", 1.0)):
        if text.strip().lower().endswith(unit.lower()):
            try:
                value = float(text.strip()[: len(text.strip()) - len(unit)]) * scale
            except ValueError:
                break
            if 0 < value < math.inf:
                return value
            break
    raise AnybitError(f"a size is a number of bytes above 0 such as 2.5MB or 800kB; got {text!r}")


def count(number: float) -> str:
    """A count in decimal units: 1.10 G, 135 M, 5.77 M, 260 k, 64."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale * 0.9995:
            return f"{three(number / scale)} {unit}"
    return f"{number:.0f}"


def three(number: float) -> str:
    """Three significant digits without an exponent, for numbers up to about a million: 0.00123, 4.57, 45.7, 457, 4567."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    digits = 2 - math.floor(math.log10(abs(float(f"{number:.2e}"))))
    return f"{number:.{max(digits, 0)}f}"


def seconds(duration: float) -> str:
    """A duration: 1 h 02 min, 3 min 05 s, 12.3 s, 45.6 ms, 7.89 µs."""
    if duration >= 3599.5:
        minutes = round(duration / 60)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if duration >= 59.95:
        whole = round(duration)
        return f"{whole // 60} min {whole % 60:02d} s"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if duration >= scale * 0.9995:
            return f"{three(duration / scale)} {unit}"
    return f"{duration * 1e9:.0f} ns" if duration else "0 s"


def perplexity(value: float) -> str:
    """Four significant digits, or a power of ten where the model is broken: 14.83, 151.2, 1.2e+05."""
    return f"{value:.4g}" if value < 1e4 else f"{value:.1e}"


def change(value: float, reference: float) -> str:
    """The relative difference in percent with its sign: +1.3 %, −0.02 %."""
    percent = 100 * (value / reference - 1)
    digits = 2 if abs(percent) < 1 else 1 if abs(percent) < 100 else 0
    text = f"{percent:+.{digits}f}"
    return "0.00 %" if float(text) == 0 else f"{text} %".replace("-", "−")


def either(values: Collection[int], noun: str) -> str:
    """Whole numbers of things: 1 thread, 2 threads, 1 or 2 threads."""
    return f"{' or '.join(map(str, sorted(values)))} {noun}{'' if set(values) == {1} else 's'}"
