"""What must hold for measures.py. Oracles: signal-to-noise ratios of the literature, and of closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from anybit.errors import FormatError
from anybit.formats import get
from anybit.formats.measures import DISTRIBUTIONS, dynamic_range, quality, sample, spacings


@pytest.mark.parametrize(("name", "db"), [
    # Max, "Quantizing for minimum distortion" (1960), table II: equally spaced levels for a normal distribution, errors 0.3634
    # (2 levels), 0.1902 (3) and 0.01154 (16, here bipolar4), 0.1188 (4).
    ("bipolar1", -10 * np.log10(0.3634)), ("ternary", -10 * np.log10(0.1902)), ("bipolar2", -10 * np.log10(0.1188)),
    ("bipolar4", -10 * np.log10(0.01154)),
])  # fmt: skip
def test_signal_to_noise_of_max(name: str, db: float) -> None:
    assert quality(get(name), sample("gaussian", 60_000)).sqnr == pytest.approx(db, abs=0.1)


def test_uniform_numbers_gain_six_decibels_a_bit() -> None:
    # Odd multiples of the half step, 2^b of them, on a uniform density: exactly 2^(2b) of signal to noise.
    x = sample("uniform", 40_000)
    for bits in (2, 4, 6):
        assert quality(get(f"bipolar{bits}"), x).sqnr == pytest.approx(20 * bits * np.log10(2), abs=0.1)


def test_floats_do_not_care_about_the_scale() -> None:
    x = sample("gaussian", 4000)
    # Spacing 2^-7 of the power of two below, numbers log-uniform in a binade: error 2^-14 / 12 * (3 / 4) / (2 ln 2) of the signal.
    closed_form = -10 * np.log10(2.0**-14 / 12 * 0.75 / (2 * np.log(2)))
    assert quality(get("bf16"), x).sqnr == pytest.approx(quality(get("e5m7"), x).sqnr, abs=0.3)
    assert quality(get("bf16"), x).sqnr == pytest.approx(closed_form, abs=0.4)
    assert quality(get("bf16"), 1e-20 * x).sqnr == pytest.approx(quality(get("bf16"), x).sqnr, abs=0.5)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_samples_have_unit_variance(distribution: str) -> None:
    x = sample(distribution, 100_000)
    assert np.mean(x) == pytest.approx(0, abs=0.02) and np.var(x) == pytest.approx(1, abs=0.03)
    with pytest.raises(FormatError, match="known: gaussian"):
        sample("cauchy")


def test_ranges_and_spacings() -> None:
    assert dynamic_range(get("e2m1")) == pytest.approx(20 * np.log10(12))
    assert dynamic_range(get("bf16")) == pytest.approx(20 * np.log10(2) * (128 + 133), abs=0.1)
    assert dynamic_range(get("int1")) == 0
    values, steps = spacings(get("e2m1"))
    assert values.tolist() == [-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4]
    assert steps.tolist() == [2, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1, 1, 2]
    with pytest.raises(FormatError, match="complex"):
        spacings(get("i2c"))


def test_what_has_no_quality_is_refused() -> None:
    with pytest.raises(FormatError, match="not all zero"):
        quality(get("int4"), np.zeros(3))
