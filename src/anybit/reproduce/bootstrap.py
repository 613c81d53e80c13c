"""Bootstrap confidence intervals: percentile and BCa (Efron, "Better bootstrap confidence intervals", 1987, section 3).

Every interval has its own seed, so the same values always give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from anybit.errors import AnybitError

Statistic = Callable[..., NDArray[np.float64]]
"""A reduction that takes `axis`, such as np.mean or np.median."""
Method = Literal["bca", "percentile"]


class Interval(NamedTuple):
    """A statistic of the sample and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def interval(
    values: ArrayLike,
    statistic: Statistic = np.median,
    level: float = 0.95,
    method: Method = "bca",
    resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Two-sided bootstrap confidence interval of `statistic` for independent `values` [n].

    A sample of one value gives that value at both ends. BCa falls back on the percentile interval where it is undefined: a statistic
    that no resample moves to both sides, or a jackknife without spread.  Raises AnybitError for empty or non-finite values and for a
    level outside (0, 1).
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise AnybitError(f"a bootstrap needs a vector of finite values; got {sample!r}")
    if not 0.0 < level < 1.0:
        raise AnybitError(f"a confidence level lies between 0 and 1; got {level}")
    if method not in ("bca", "percentile"):
        raise AnybitError(f"a bootstrap method is 'bca' or 'percentile'; got {method!r}")
    value = float(statistic(sample, axis=0))
    if sample.size == 1:
        return Interval(value, value, value)
    drawn = np.random.default_rng(seed).integers(0, sample.size, (resamples, sample.size))
    replicates = np.sort(np.asarray(statistic(sample[drawn], axis=1), dtype=np.float64))
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _corrected(tails, sample, replicates, value, statistic)
    low, high = np.quantile(replicates, tails)
    return Interval(value, float(low), float(high))


def _corrected(
    tails: NDArray[np.float64],
    sample: NDArray[np.float64],
    replicates: NDArray[np.float64],
    value: float,
    statistic: Statistic,
) -> NDArray[np.float64]:
    """The tail probabilities corrected for bias (z0) and skewness (acceleration a, from the jackknife)."""
    # Ties count half: a median of few values equals the sample's own value in many resamples.
    below = ((replicates < value).mean() + (replicates <= value).mean()) / 2
    left_out = np.array([statistic(np.delete(sample, i), axis=0) for i in range(sample.size)])
    spread = left_out.mean() - left_out
    square = float((spread**2).sum())
    if not 0.0 < below < 1.0 or square == 0.0:
        return tails
    bias = ndtri(below)
    acceleration = float((spread**3).sum()) / (6 * square**1.5)
    shifted = bias + ndtri(tails)
    corrected: NDArray[np.float64] = ndtr(bias + shifted / (1 - acceleration * shifted))
    return corrected
