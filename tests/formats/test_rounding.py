"""What must hold for rounding.py. Oracles: decimal's rounding modes, the known answers of the Philox authors' own test file."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

import gfloat
import gfloat.formats
import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import get
from anybit.formats.rounding import StochasticKey, advance, check_mode, philox, to_integer, uniform

DECIMAL = {
    "nearest_even": decimal.ROUND_HALF_EVEN,
    "nearest_away": decimal.ROUND_HALF_UP,
    "nearest_zero": decimal.ROUND_HALF_DOWN,
    "toward_zero": decimal.ROUND_DOWN,
    "up": decimal.ROUND_CEILING,
    "down": decimal.ROUND_FLOOR,
}


@pytest.mark.parametrize("mode", DECIMAL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_modes_agree_with_decimal_arithmetic(mode: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    ties = np.arange(-8, 8) + 0.5
    near = np.concatenate([np.nextafter(ties.astype(dtype), dtype(s)) for s in (-99, 99)])
    x = np.concatenate([ties, near, rng.normal(0, 9, 500), [0.49999997, -0.49999997, 0.0]]).astype(dtype)
    wanted = [float(Decimal(float(v)).quantize(Decimal(1), DECIMAL[mode])) for v in x]
    assert np.array_equal(to_integer(x, mode, None), wanted)
    assert np.array_equal(to_integer(torch.from_numpy(x), mode, None).numpy(), wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_modes_that_decimal_does_not_know_follow_from_exact_fractions(dtype: type) -> None:
    rng = np.random.default_rng(1)
    ties = np.arange(-8, 8) + 0.5
    near = np.concatenate([np.nextafter(ties.astype(dtype), dtype(s)) for s in (-99, 99)])
    x = np.concatenate([ties, near, rng.normal(0, 9, 500), [1e-30, -1e-30, 0, 7, -7]]).astype(dtype)
    exact = [Fraction(float(v)) for v in x]
    wanted = {
        "nearest_up": [floor(v + Fraction(1, 2)) for v in exact],
        "nearest_down": [ceil(v - Fraction(1, 2)) for v in exact],
        "odd": [int(v) if v.denominator == 1 else floor(v) | 1 for v in exact],
    }
    for mode, values in wanted.items():
        assert np.array_equal(to_integer(x, mode, None), values)
        assert np.array_equal(to_integer(torch.from_numpy(x), mode, None).numpy(), values)


def test_rounding_to_odd_first_leaves_no_double_rounding() -> None:
    # Boldo and Melquiond, "Emulation of FMA and correctly rounded sums" (2008): odd in p + 2 bits, then nearest even in p bits.
    x = np.random.default_rng(7).standard_normal(200_000)
    wide, narrow = get("e8m7"), get("e5m2")
    once = narrow.round(x)
    assert np.array_equal(narrow.round(wide.round(x, "odd")), once)
    assert not np.array_equal(narrow.round(wide.round(x)), once)


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("name", ["e5m2", "e4m3fn"])
def test_few_random_bits_are_those_of_gfloat(name: str, bits: int) -> None:
    info = {"e5m2": gfloat.formats.format_info_ocp_e5m2, "e4m3fn": gfloat.formats.format_info_ocp_e4m3}[name]
    x = np.abs(np.random.default_rng(8).standard_normal(300)) * 3
    key = StochasticKey(21, 5, bits)
    drawn = (uniform(x, key) * 2**bits).astype(int)
    # gfloat rounds up where position + bits carries, we where the drawn number is below the position: complementary numbers.
    wanted = [
        gfloat.round_float(info, v, gfloat.RoundMode.Stochastic, True, int(2**bits - 1 - draw), bits)
        for v, draw in zip(x, drawn, strict=True)
    ]
    assert np.array_equal(get(name).round(x, "stochastic", key), wanted)
    assert np.array_equal(get(name).round(torch.from_numpy(x), "stochastic", key).numpy(), wanted)


def test_half_and_half() -> None:
    fmt, n = get("e4m3fn"), 20_000
    x = np.full(n, 1.0 + 0.125 * 0.9)
    y = fmt.round(x, "stochastic_50", key=3)
    assert set(np.unique(y)) == {1.0, 1.125}
    assert abs(np.mean(y == 1.0) - 0.5) < 5 * np.sqrt(0.25 / n)
    for name in ("e4m3fn", "int8", "nf4", "posit8_0", "e8m0", "fixed4_4"):
        values = get(name).values
        assert np.array_equal(get(name).round(values, "stochastic_50", key=3), values)


def test_keys_of_every_spelling_give_one_stream() -> None:
    like = np.zeros(64, np.float32)
    assert np.array_equal(uniform(like, 5), uniform(like, (5, 0)))
    assert np.array_equal(uniform(like, StochasticKey(5)), uniform(like, 5))
    assert np.array_equal(uniform(like[10:], advance(5, 10)), uniform(like, 5)[10:])
    assert np.array_equal(uniform(like[10:], advance((5, 7), 3)), uniform(like, 5)[10:])
    few = StochasticKey(5, bits=4)
    assert np.array_equal(uniform(like, few), np.floor(uniform(like, 5) * 16) / 16)
    assert advance(few, 3) == StochasticKey(5, 3, 4) and advance(None, 3) is None
    assert np.array_equal(uniform(like, np.int64(5)), uniform(like, 5))
    assert np.array_equal(uniform(like, -1), uniform(like, 2**64 - 1))
    with pytest.raises(FormatError, match="1 to 24 random bits"):
        StochasticKey(1, bits=25)


@pytest.mark.parametrize(("key", "message"), [
    ("a", "of integers; got 'a'"), (1.5, "of integers; got 1.5"), ((1, None), "of integers; got None"), ((1,), "is \\(seed, offset\\)"),
    ((1, 2, 3), "is \\(seed, offset\\)"), (2**64, "64 bits"), ((1, -1), "position of a key"), ((1, 2**62), "position of a key"),
])  # fmt: skip
def test_what_is_no_key_is_refused(key: object, message: str) -> None:
    for size in (1, 2000):
        with pytest.raises(FormatError, match=message):
            get("e4m3fn").round(np.zeros(size, np.float32), "stochastic", key)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # Random123, tests/kat_vectors, philox4x32 10
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter: tuple[int, ...], key: int, words: tuple[int, ...]) -> None:
    c0, c1, c2, c3 = (np.array([c], np.int64) for c in counter)
    assert tuple(int(w[0]) for w in philox((c0, c1, c2, c3), key)) == words
    t0, t1, t2, t3 = (torch.tensor([c]) for c in counter)
    assert tuple(int(w[0]) for w in philox((t0, t1, t2, t3), key)) == words


def test_a_stream_does_not_depend_on_how_it_is_cut_or_on_the_kind_of_array() -> None:
    whole = uniform(np.zeros(1003, np.float32), 7)
    parts = [uniform(np.zeros(b - a, np.float32), (7, a)) for a, b in ((0, 1), (1, 6), (6, 500), (500, 1003))]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(uniform(torch.zeros(17, 59), 7).numpy().reshape(-1), whole)
    assert not np.array_equal(uniform(np.zeros(1003, np.float32), 8), whole)
    assert whole.min() >= 0 and whole.max() < 1


@pytest.mark.parametrize("name", ["int8", "e4m3fn", "bf16", "nf4", "e8m0", "e2m1"])
def test_stochastic_rounding_is_unbiased(name: str) -> None:
    fmt, n = get(name), 40_000
    grid = np.unique(fmt.values)
    grid = grid[(grid >= -4) & (grid <= 4)]
    low, high = grid[len(grid) // 2 + 1 - 1], grid[len(grid) // 2 + 1]
    for part in (0.1, 0.5, 0.8):
        x = np.full(n, low + part * (high - low))
        y = fmt.round(x, "stochastic", key=11)
        assert set(np.unique(y)) == {low, high}
        # The count of the upper neighbour is binomial; five standard deviations fail once in 1.7 million seeds.
        assert abs(np.mean(y == high) - part) < 5 * np.sqrt(part * (1 - part) / n)


def test_numbers_on_the_grid_stay_whatever_the_key() -> None:
    for name in ("int4", "e2m1", "nf4"):
        fmt = get(name)
        assert np.array_equal(fmt.round(fmt.values, "stochastic", key=3), fmt.values)


def test_unknown_mode_and_missing_key_are_refused() -> None:
    with pytest.raises(FormatError, match="unknown rounding mode 'nearest'; known: nearest_even"):
        check_mode("nearest", None)
    with pytest.raises(FormatError, match="stochastic rounding needs a key"):
        get("int8").round(np.zeros(1), "stochastic")
