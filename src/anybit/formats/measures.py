"""What a number format is worth on data: signal to noise at the best scale, dynamic range, spacing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError
from anybit.formats.format import Format

DISTRIBUTIONS = ("gaussian", "laplace", "uniform")


def sample(distribution: str, count: int = 16_384, seed: int = 0) -> NDArray[np.float64]:
    """Numbers of unit variance: gaussian, laplace or uniform."""
    rng = np.random.default_rng(seed)
    if distribution == "gaussian":
        return rng.standard_normal(count)
    if distribution == "laplace":
        return rng.laplace(scale=np.sqrt(0.5), size=count)
    if distribution == "uniform":
        return rng.uniform(-np.sqrt(3), np.sqrt(3), count)
    raise FormatError(f"unknown distribution {distribution!r}; known: {', '.join(DISTRIBUTIONS)}")


@dataclass(frozen=True)
class Quality:
    """sqnr: 10 log10(signal / error) in dB with one scale for all numbers.  scale: that scale."""

    sqnr: float
    scale: float


def quality(fmt: Format, x: NDArray[Any], scales: int = 160) -> Quality:
    """The signal-to-noise ratio of fmt on the numbers x at the best of `scales` scales, refined once; each is tried with `fmt.round`."""
    x = np.asarray(x, np.float64).ravel()
    energy = float(np.sum(x * x))
    reach = max(abs(fmt.max), abs(fmt.min))
    absmax = float(np.abs(x).max(initial=0.0))
    if not absmax or not np.isfinite(absmax):
        raise FormatError("the quality of a format is measured on finite numbers that are not all zero")
    # From the largest number on the largest value to the typical number on the smallest one.
    typical = np.sqrt(energy / len(x))
    low, high = absmax / reach / 64, max(typical / (fmt.min_positive or reach), 2 * absmax / reach)
    low, high = np.log(low), np.log(high)

    def error(log_scale: float) -> float:
        scale = np.exp(log_scale)
        with np.errstate(over="ignore", under="ignore"):
            wrong = x - scale * fmt.round(x / scale)
        return float(np.sum(wrong * wrong))

    tried = np.linspace(low, high, scales)
    errors = [error(t) for t in tried]
    best = int(np.argmin(errors))
    step = tried[1] - tried[0]
    finer = [*np.linspace(tried[best] - step, tried[best] + step, 41), tried[best]]
    fine_errors = [error(t) for t in finer]
    best = int(np.argmin(fine_errors))
    least = fine_errors[best]
    return Quality(float(10 * np.log10(energy / least)) if least > 0 else float("inf"), float(np.exp(finer[best])))


def dynamic_range(fmt: Format) -> float:
    """Largest over smallest positive value in dB; 0 where there is no positive value."""
    if fmt.min_positive <= 0:
        return 0.0
    return float(20 * np.log10(max(fmt.max, abs(fmt.min))) - 20 * np.log10(fmt.min_positive))


def spacings(fmt: Format) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(values, distance to the next one) of the ascending real values of a format of up to 16 bits."""
    if fmt.is_complex:
        raise FormatError(f"{fmt.name} is complex, so its values have no order")
    grid = np.unique(fmt.values)
    return grid[:-1], np.diff(grid)
