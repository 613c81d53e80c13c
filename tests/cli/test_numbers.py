"""Every expected text is worked out by hand."""

from __future__ import annotations

import math

import pytest

from anybit.cli import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (17, "17 B"),
        (532_000, "532 kB"),
        (11_547_040, "11.5 MB"),
        (2.2e9, "2.20 GB"),
        (999_960, "1.00 MB"),
        (999, "999 B"),
    ],
)
def test_size(value, text):
    assert numbers.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(64, "64"), (260_032, "260 k"), (5_770_000, "5.77 M"), (1.1e9, "1.10 G"), (0, "0")]
)
def test_count(value, text):
    assert numbers.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.001234, "0.00123"),
        (4.5678, "4.57"),
        (45.678, "45.7"),
        (456.78, "457"),
        (4567.8, "4568"),
        (0, "0"),
        (9.999, "10.0"),
        (math.inf, "inf"),
    ],
)
def test_three_digits(value, text):
    assert numbers.three(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 s"),
        (5e-9, "5 ns"),
        (7.89e-6, "7.89 µs"),
        (0.0456, "45.6 ms"),
        (12.34, "12.3 s"),
        (185, "3 min 05 s"),
        (3720, "1 h 02 min"),
        (59.99, "1 min 00 s"),
    ],
)
def test_seconds(value, text):
    assert numbers.seconds(value) == text


def test_change_has_a_sign():
    assert numbers.change(101.3, 100) == "+1.3 %"
    assert numbers.change(99.98, 100) == "−0.02 %"
    assert numbers.change(350, 100) == "+250 %"
    assert numbers.change(99.9999, 100) == "0.00 %"


def test_perplexity():
    assert numbers.perplexity(14.8312) == "14.83"
    assert numbers.perplexity(123456.0) == "1.2e+05"


def test_either():
    assert [numbers.either(values, "thread") for values in ({1}, {2}, {2, 1})] == [
        "1 thread",
        "2 threads",
        "1 or 2 threads",
    ]
