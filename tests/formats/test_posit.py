"""What must hold for posit.py. Oracles: a decoder of bits into fractions, rounding of exact bit strings, softposit."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import Posit, get

SHAPES = [(2, 0), (3, 0), (4, 1), (5, 2), (6, 3), (8, 0), (8, 1), (8, 2), (9, 4), (12, 1), (16, 1), (16, 2)]


def decoded(code: int, width: int, es: int) -> Fraction | None:
    """The value of a posit by reading its bits from the left; None for NaR."""
    bits = [(code >> (width - 1 - i)) & 1 for i in range(width)]
    if not any(bits[1:]):
        return None if bits[0] else Fraction(0)
    sign = bits[0]
    if sign:
        code = (-code) % (1 << width)
        bits = [(code >> (width - 1 - i)) & 1 for i in range(width)]
    rest = bits[1:]
    first, run = rest[0], 0
    while rest and rest[0] == first:
        rest.pop(0)
        run += 1
    if rest:
        rest.pop(0)  # the bit that ends the regime
    regime = run - 1 if first else -run
    exponent = 0
    for _ in range(es):
        exponent = 2 * exponent + (rest.pop(0) if rest else 0)
    fraction = sum((Fraction(bit, 2 ** (i + 1)) for i, bit in enumerate(rest)), Fraction(0))
    value = Fraction(2) ** (regime * 2**es + exponent) * (1 + fraction)
    return -value if sign else value


@cache
def positives(width: int, es: int) -> list[Fraction]:
    found = [decoded(code, width, es) for code in range(1, 1 << (width - 1))]
    assert all(v is not None for v in found)
    return [v for v in found if v is not None]


def nearest_code(x: float, width: int, es: int, tie: str) -> int:
    """The posit of x: the bit string of one bit more decides, found by bisection over exact values."""
    if np.isnan(x):
        return 1 << (width - 1)
    if x == 0:
        return 0
    grid, finer = positives(width, es), positives(width + 1, es)
    size = abs(x)
    if size >= grid[-1]:
        code = len(grid)
    elif size <= grid[0]:
        code = 1
    else:
        exact = Fraction(size)
        low, high = 0, len(grid) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if grid[middle] <= exact else (low, middle)
        if exact == grid[high]:
            low = high
        border = finer[2 * low + 2]  # code 2 (low + 1) + 1 of the finer posit
        up = {"nearest_even": (low + 1) % 2 == 1, "nearest_away": True, "nearest_zero": False}
        up |= {"nearest_up": x > 0, "nearest_down": x < 0}
        code = low + 1 + (exact > border or (exact == border and up[tie]))
    return code if x > 0 else (-code) % (1 << width)


@pytest.mark.parametrize(("width", "es"), SHAPES)
def test_every_code_has_the_value_of_its_bits(width: int, es: int) -> None:
    codes = range(0, 1 << width, 1 if width < 16 else 7)
    wanted = [float("nan") if (v := decoded(c, width, es)) is None else float(v) for c in codes]
    got = Posit(width, es).decode(np.array(codes), np.float64)
    assert np.array_equal(got, wanted, equal_nan=True)


@pytest.mark.parametrize("tie", ["nearest_even", "nearest_away", "nearest_zero", "nearest_up", "nearest_down"])
@pytest.mark.parametrize(("width", "es"), SHAPES)
def test_nearest_rounds_the_bit_string(width: int, es: int, tie: str) -> None:
    fmt = Posit(width, es)
    rng = np.random.default_rng(1)
    finer = np.array([float(v) for v in positives(width + 1, es)])
    finer = finer if len(finer) < 600 else rng.choice(finer, 600, replace=False)
    size = np.concatenate([finer, np.nextafter(finer, 0), np.nextafter(finer, np.inf), [1e-38, 1e38, 0.0]])
    x = np.concatenate([size, -size, np.exp2(rng.uniform(-30, 30, 200)) * rng.choice([-1, 1], 200)])
    wanted = [nearest_code(v, width, es, tie) for v in x]
    assert np.array_equal(fmt.encode(x, tie), wanted)
    assert np.array_equal(fmt.encode(torch.from_numpy(x), tie).numpy(), wanted)
    with np.errstate(under="ignore", over="ignore"):
        narrow = x.astype(np.float32)
    assert np.array_equal(fmt.encode(narrow, tie), fmt.encode(narrow.astype(np.float64), tie))


@pytest.mark.parametrize("name", ["posit8_0", "posit16_1"])
def test_posits_of_softposit(name: str) -> None:
    softposit = pytest.importorskip("softposit", reason="softposit is not installed")
    fmt = get(name)
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.standard_normal(2000) * np.exp2(rng.uniform(-32, 32, 2000)), [1e9, -1e9, 1e-9, -1e-9, 0.0]])
    make = softposit.posit8 if fmt.bits == 8 else softposit.posit16
    assert np.array_equal(fmt.round(x), [float(make(float(v))) for v in x])


def test_values_of_xr_npe() -> None:
    assert get("posit4_1").values.tolist() == [
        0,
        1 / 16,
        1 / 4,
        1 / 2,
        1,
        2,
        4,
        16,
        -16,
        -4,
        -2,
        -1,
        -1 / 2,
        -1 / 4,
        -1 / 16,
    ]
    assert (get("posit8_0").max, get("posit8_0").min_positive, get("posit8_0").eps) == (64, 1 / 64, 2.0**-5)
    assert (get("posit16_1").max, get("posit16_1").eps) == (2.0**28, 2.0**-12)
    assert get("posit8") == get("posit8_2") and get("posit16") == get("posit16_2")


def test_nothing_but_zero_becomes_zero_or_nar_in_the_nearest_modes() -> None:
    fmt = get("posit8_1")
    x = np.array([5e-324, -5e-324, 1e300, -1e300, np.inf, -np.inf, np.nan, 0.0, -0.0])
    m, big = fmt.min_positive, fmt.max
    assert np.array_equal(fmt.round(x), [m, -m, big, -big, big, -big, np.nan, 0, 0], equal_nan=True)
    assert fmt.round(x[:2], "toward_zero").tolist() == [0, 0]
    strict = fmt.round(x, overflow="nan")
    assert np.isnan(strict[4:7]).all() and np.array_equal(strict[:4], [m, -m, big, -big])
    assert fmt.encode(x, overflow="ieee")[4:7].tolist() == [0x80] * 3


def test_regime_borders_are_geometric_far_from_one() -> None:
    # Between 16 and 64 of posit8_0 (regimes 111110 and 1111110… meet at 32): the arithmetic mean would be 40.
    fmt = get("posit8_0")
    assert fmt.round(np.array([33.0, 47.0, 31.0, 49.0])).tolist() == [32, 32, 32, 64]


@pytest.mark.parametrize(("width", "es"), [(1, 0), (17, 1), (8, 5), (8, -1), (16, 4)])
def test_impossible_shapes_are_refused(width: int, es: int) -> None:
    with pytest.raises(FormatError, match="posit"):
        Posit(width, es)
