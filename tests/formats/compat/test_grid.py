"""What must hold for grid.py. Oracles: exact fractions, numpy's casts, our own formats, and math.nextafter for float64 itself."""

from __future__ import annotations

import warnings
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import get
from anybit.formats.compat.grid import BinaryGrid
from anybit.formats.rounding import StochasticKey

MODES = (
    "nearest_even",
    "nearest_away",
    "nearest_zero",
    "nearest_up",
    "nearest_down",
    "toward_zero",
    "up",
    "down",
    "odd",
)
HALF = BinaryGrid(11, 15)


def numbers(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(400) * np.exp2(rng.uniform(-30, 18, 400))
    grid = np.float16(rng.standard_normal(200) * np.exp2(rng.uniform(-24, 15, 200))).astype(np.float64)
    ties = grid + np.spacing(np.abs(grid).astype(np.float16)).astype(np.float64) / 2
    ends = np.array(
        [65504, 65519.99, 65520, 65535, 65536, 70000, 131072, 1e300, np.inf, 0, 6e-8, 3e-8, 2.0**-25, 1e-40]
    )
    x = np.concatenate([x, grid, ties, ends])
    return np.concatenate([x, -x, [np.nan]])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("t", "emax", "name"), [(11, 15, "fp16"), (3, 15, "e5m2"), (4, 7, "e4m3"), (8, 127, "bf16"), (24, 127, "fp32")]
)
def test_the_grid_of_a_format_is_its_ieee_rounding(t: int, emax: int, name: str, mode: str) -> None:
    x = numbers()
    fmt = get(name)
    # fp32 has no room beyond it in float32 arithmetic, but these numbers are float64.
    wanted = fmt.round(x, mode, overflow="ieee")  # type: ignore[arg-type]
    got = BinaryGrid(t, emax).round(x, mode)
    assert np.array_equal(got, wanted, equal_nan=True)
    assert np.array_equal(np.signbit(got), np.signbit(wanted))
    assert np.array_equal(BinaryGrid(t, emax).round(torch.from_numpy(x), mode).numpy(), wanted, equal_nan=True)


def test_half_precision_is_numpy_s() -> None:
    x = numbers()
    with np.errstate(over="ignore"):
        assert np.array_equal(HALF.round(x), x.astype(np.float16).astype(np.float64), equal_nan=True)
    assert (HALF.u, HALF.xmin, HALF.xmins, HALF.xmax) == (2.0**-11, 2.0**-14, 2.0**-24, 65504)


@pytest.mark.parametrize("mode", MODES)
def test_without_limits_of_the_exponent_only_the_significand_counts(mode: str) -> None:
    grid, x = BinaryGrid(5, 3, explim=False), np.array([1e-300, 3.3e200, -7.77e-5, 1.03125, 1.09375])
    exact = {"up": ceil, "down": floor, "toward_zero": int, "odd": lambda v: int(v) if v.denominator == 1 else floor(v) | 1,
             "nearest_even": round}  # fmt: skip
    if mode in exact:
        wanted = []
        for v in x:
            unit = Fraction(2) ** (int(np.frexp(v)[1]) - 5)
            wanted.append(float(exact[mode](Fraction(v) / unit) * unit))
        assert grid.round(x, mode).tolist() == wanted
    y = grid.round(x, mode)
    assert np.array_equal(grid.round(y, mode), y)


def test_flushing_goes_to_the_nearer_of_zero_and_the_smallest_normal_value() -> None:
    grid = BinaryGrid(11, 15, subnormal=False)
    m = 2.0**-14
    x = np.array([0.49 * m, 0.5 * m, 0.51 * m, 0.999 * m, m, 1.5 * m, -0.4 * m, -0.6 * m])
    assert grid.round(x).tolist() == [0, m, m, m, m, 1.5 * m, 0, -m]
    assert grid.round(x, "toward_zero").tolist() == [0, 0, 0, 0, m, 1.5 * m, 0, 0]
    assert grid.round(x, "up").tolist() == [m, m, m, m, m, 1.5 * m, 0, 0]


def test_double_precision_is_the_identity_down_to_its_subnormal_numbers() -> None:
    x = np.array([5e-324, 1e-310, 1.1, -1.7976931348623157e308, np.inf, np.nan, 0.0])
    for mode in MODES:
        with pytest.warns(UserWarning, match="rounding to 53 bits leaves numbers of float64 as they are"):
            assert np.array_equal(BinaryGrid(53, 1023).round(x, mode), x, equal_nan=True)


def test_types_come_back_and_narrow_carriers_are_named() -> None:
    assert HALF.round(np.float32([1.0001])).dtype == np.float32
    assert HALF.round(torch.tensor([1.0001])).dtype == torch.float32
    assert HALF.round(1.0001) == 1.0
    with pytest.warns(UserWarning, match="rounding to 30 bits leaves numbers of float32 as they are"):
        assert BinaryGrid(30, 127).round(np.float32([1.1])) == np.float32(1.1)
    for grid in (BinaryGrid(24, 127), BinaryGrid(24, 15, explim=False)):
        with pytest.warns(UserWarning, match="rounding to 24 bits leaves"):
            assert grid.round(np.float32([1.1])) == np.float32(1.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # fewer bits, or a narrower range: something is done
        assert BinaryGrid(24, 15).round(np.float32([1e30])) == np.inf and BinaryGrid(23, 127).round(
            np.float32([1.1])
        ) != np.float32(1.1)
    for wrong in (np.array([1, 2]), np.array([1j]), torch.tensor([1]), torch.tensor([1j])):
        with pytest.raises(FormatError, match="real floating numbers"):
            HALF.round(wrong)


def test_jax_arrays() -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    with np.errstate(over="ignore"):
        x = numbers().astype(np.float32)
    got = HALF.round(jax.numpy.asarray(x), "stochastic", 3)
    assert isinstance(got, jax.Array) and np.array_equal(
        np.asarray(got), HALF.round(x, "stochastic", 3), equal_nan=True
    )


def test_flips_invert_one_trailing_bit_with_their_probability() -> None:
    x = HALF.round(np.random.default_rng(1).standard_normal(20_000))
    y = HALF.round(x, key=7, flip=0.25)
    changed = x != y
    assert abs(changed.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / len(x))
    bits = x.astype(np.float16).view(np.uint16) ^ y.astype(np.float16).view(np.uint16)
    flipped = bits[changed]
    assert np.array_equal(np.unique(flipped), 2 ** np.arange(10))  # one bit of ten each time, never exponent or sign
    assert np.array_equal(HALF.round(x, key=7, flip=0.25), y)
    parts = [HALF.round(x[:7000], key=7, flip=0.25), HALF.round(x[7000:], key=StochasticKey(7, 7000), flip=0.25)]
    assert np.array_equal(np.concatenate(parts), y)
    with pytest.raises(FormatError, match="flips need a key"):
        HALF.round(x, flip=0.5)


@pytest.mark.parametrize(("t", "emax"), [(0, 15), (54, 15), (11, 0), (11, 1024)])
def test_impossible_grids_are_refused(t: int, emax: int) -> None:
    with pytest.raises(FormatError, match="a binary grid has"):
        BinaryGrid(t, emax)
