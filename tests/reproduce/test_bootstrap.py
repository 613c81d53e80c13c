"""Intervals against scipy's own bootstrap, an exact enumeration and a closed form."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from anybit.errors import AnybitError
from anybit.reproduce.bootstrap import interval

RNG = np.random.default_rng(7)
SAMPLES = {"normal": RNG.normal(5, 2, 30), "skewed": RNG.exponential(1.0, 25), "few": RNG.normal(0, 1, 8)}


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("statistic", [np.mean, np.median], ids=["mean", "median"])
@pytest.mark.parametrize("name", SAMPLES)
def test_agrees_with_scipy(name, statistic, method):
    sample, resamples = SAMPLES[name], 40_000
    ours = interval(sample, statistic, 0.9, method, resamples, seed=1)
    theirs = stats.bootstrap(
        (sample,), statistic, confidence_level=0.9, n_resamples=resamples, method=method, rng=np.random.default_rng(2)
    ).confidence_interval
    # Both ends are quantiles of the same law estimated from independent draws. The rank of a quantile p among B draws has the
    # standard deviation sqrt(p(1-p)/B) < 0.0025; six of them are 0.015, so each end lies between quantiles that far apart.
    many = np.random.default_rng(3).integers(0, sample.size, (resamples, sample.size))
    replicates = statistic(sample[many], axis=1)
    for end, other in zip((ours.low, ours.high), theirs, strict=True):
        at, at_most = (replicates < other).mean(), (replicates <= other).mean()
        low, high = np.quantile(replicates, [max(at - 0.015, 0), min(at_most + 0.015, 1)])
        assert low <= end <= high
    assert ours.value == statistic(sample)


def test_percentile_equals_the_enumerated_distribution():
    sample = np.array([0.0, 1.0, 4.0, 9.0])
    exact = np.sort([np.mean(drawn) for drawn in itertools.product(sample, repeat=4)])
    found = interval(sample, np.mean, 0.8, "percentile", 100_000)
    # The exact quantiles, bracketed by the ranks that 100,000 draws can miss by: six times sqrt(0.09/1e5) = 0.006.
    for end, p in ((found.low, 0.1), (found.high, 0.9)):
        assert np.quantile(exact, p - 0.006, method="lower") <= end <= np.quantile(exact, p + 0.006, method="higher")


def test_mean_of_many_normals_is_the_textbook_interval():
    sample = np.random.default_rng(0).normal(10, 3, 2000)
    found = interval(sample, np.mean, 0.95, "bca", 4000)
    half = 1.959964 * sample.std() / math.sqrt(sample.size)
    # The end's own sampling error: sqrt(p(1-p)/B) / density at the 2.5 % point = 0.0025/0.0584 standard errors = 0.022 half widths a
    # standard deviation; five of them.
    assert found.low == pytest.approx(sample.mean() - half, abs=0.11 * half)
    assert found.high == pytest.approx(sample.mean() + half, abs=0.11 * half)


def test_same_seed_same_interval():
    sample = SAMPLES["normal"]
    assert interval(sample, seed=3) == interval(sample, seed=3)
    assert interval(sample, np.mean, seed=3) != interval(sample, np.mean, seed=4)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_degenerate_samples(method):
    assert interval([2.5], method=method) == (2.5, 2.5, 2.5)
    assert interval([1.0, 1.0, 1.0], method=method) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ([], {}, "finite values"),
        ([1.0, math.nan], {}, "finite values"),
        ([[1.0], [2.0]], {}, "vector"),
        ([1.0, 2.0], {"level": 1.0}, "between 0 and 1"),
        ([1.0, 2.0], {"method": "basic"}, "percentile"),
    ],
)
def test_refusals(values, options, words):
    with pytest.raises(AnybitError, match=words):
        interval(values, **options)
