"""What must hold for overflow.py. Oracles: gfloat's round_float and ml_dtypes' and numpy's own casts, none of which saturate."""

from __future__ import annotations

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import get

MODES = {
    "nearest_even": gfloat.RoundMode.TiesToEven,
    "nearest_away": gfloat.RoundMode.TiesToAway,
    "toward_zero": gfloat.RoundMode.TowardZero,
    "up": gfloat.RoundMode.TowardPositive,
    "down": gfloat.RoundMode.TowardNegative,
}
GFLOAT = {
    "e5m2": gfloat.formats.format_info_ocp_e5m2,
    "e4m3fn": gfloat.formats.format_info_ocp_e4m3,
    "fp16": gfloat.formats.format_info_binary16,
    "bf16": gfloat.formats.format_info_bfloat16,
    "p3109_k8p3se": gfloat.formats.format_info_p3109(8, 3),
    "p3109_k6p1se": gfloat.formats.format_info_p3109(6, 1),
}


def around_the_end(name: str) -> np.ndarray:
    """Numbers on both sides of the largest value, of the tie beyond it and of the value that would follow, both signs, and infinities."""
    fmt = get(name)
    step = fmt.steps_beyond[1]
    points = fmt.max + step * np.array([-1, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.5, 2, 7])
    points = np.concatenate(
        [points, np.nextafter(points, np.inf), np.nextafter(points, -np.inf), [np.inf, fmt.max * 1e20]]
    )
    return np.concatenate([points, -points])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", GFLOAT)
def test_ieee_is_what_gfloat_does_without_saturation(name: str, mode: str) -> None:
    fmt, x = get(name), around_the_end(name)
    wanted = np.array([gfloat.round_float(GFLOAT[name], float(v), MODES[mode], sat=False) for v in x])
    got = fmt.round(x, mode, overflow="ieee")
    assert np.array_equal(got, wanted, equal_nan=True)
    assert np.array_equal(fmt.decode(fmt.encode(x, mode, overflow="ieee"), np.float64), wanted, equal_nan=True)
    t = torch.from_numpy(x)
    assert np.array_equal(fmt.round(t, mode, overflow="ieee").numpy(), wanted, equal_nan=True)
    assert np.array_equal(fmt.encode(t, mode, overflow="ieee").numpy(), fmt.encode(x, mode, overflow="ieee"))


@pytest.mark.parametrize(("name", "dtype"), [
    ("fp16", np.float16), ("bf16", ml_dtypes.bfloat16), ("e5m2", ml_dtypes.float8_e5m2), ("e4m3", ml_dtypes.float8_e4m3),
    ("e4m3fn", ml_dtypes.float8_e4m3fn), ("e4m3fnuz", ml_dtypes.float8_e4m3fnuz), ("e5m2fnuz", ml_dtypes.float8_e5m2fnuz),
    ("e4m3b11fnuz", ml_dtypes.float8_e4m3b11fnuz), ("e3m4", ml_dtypes.float8_e3m4),
])  # fmt: skip
def test_ieee_is_the_cast_of_numpy_and_ml_dtypes(name: str, dtype: type) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        x = around_the_end(name).astype(np.float32)
        wanted = x.astype(dtype)
    codes = get(name).encode(x, overflow="ieee")
    assert np.array_equal(get(name).round(x, overflow="ieee"), wanted.astype(np.float32), equal_nan=True)
    numbers = ~np.isnan(wanted.astype(np.float32))
    assert np.array_equal(codes[numbers], wanted.view(codes.dtype)[numbers])


def test_infinity_ignores_the_direction_of_the_mode() -> None:
    fmt = get("e5m2")
    x = np.array([57344.0, 60000.0, 65536.0, -65536.0, 1e9, -np.inf])
    inf = np.inf
    assert fmt.round(x, "toward_zero", overflow="infinity").tolist() == [57344, 57344, inf, -inf, inf, -inf]
    assert fmt.round(x, "toward_zero", overflow="ieee").tolist() == [57344, 57344, 57344, -57344, 57344, -inf]
    assert fmt.round(x, "odd", overflow="ieee").tolist() == [57344, 57344, 57344, -57344, 57344, -inf]
    assert np.array_equal(fmt.round(x, overflow="nan"), [57344, 57344, np.nan, np.nan, np.nan, np.nan], equal_nan=True)


def test_stochastic_overflow_has_the_probability_of_the_position() -> None:
    fmt, n = get("e4m3fn"), 20_000
    x = np.full(n, 448 + 0.25 * 32)
    share = np.mean(np.isnan(fmt.round(x, "stochastic", key=5, overflow="ieee")))
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / n)


def test_below_unsigned_formats() -> None:
    fmt = get("ue5m3")
    tiny = fmt.min_positive
    x = np.array([-1.0, -tiny, -tiny / 4, -0.0, 1e9])
    assert np.array_equal(fmt.round(x, overflow="ieee"), [np.nan, np.nan, 0, 0, np.inf], equal_nan=True)
    assert fmt.encode(x, overflow="ieee").tolist() == [fmt.nan_code, fmt.nan_code, 0, 0, fmt.inf_code]
    assert fmt.round(x).tolist() == [0, 0, 0, 0, 61440]


@pytest.mark.parametrize("name", ["int3", "int8", "int16", "uint5", "int1", "fixed2_3"])
def test_wrap_is_the_conversion_of_integers(name: str) -> None:
    fmt = get(name)
    x = np.concatenate([np.arange(-700, 700) / 4, [2.0**40 + 3, -(2.0**52) - 1]])
    units = np.round(x / fmt.eps).astype(np.int64)
    codes = units & (2**fmt.bits - 1)
    assert np.array_equal(fmt.encode(x, overflow="wrap"), codes)
    assert np.array_equal(fmt.round(x, overflow="wrap"), fmt.decode(codes, np.float64))
    t = torch.from_numpy(x)
    assert np.array_equal(fmt.round(t, overflow="wrap").numpy(), fmt.round(x, overflow="wrap"))


@pytest.mark.parametrize(("name", "overflow", "message"), [
    ("int8", "infinity", "int8 has no infinity"), ("int8", "nan", "has no NaN"), ("e2m1", "ieee", "no infinity nor NaN"),
    ("e4m3fn", "infinity", "has no infinity"), ("e5m2", "wrap", "no range that wraps"), ("nf4", "wrap", "no range"),
    ("int4n", "wrap", "no range"), ("int8", "clip", "unknown overflow mode 'clip'; known: saturate"),
])  # fmt: skip
def test_what_a_format_cannot_say_is_refused(name: str, overflow: str, message: str) -> None:
    for act in (get(name).round, get(name).encode):
        with pytest.raises(FormatError, match=message):
            act(np.zeros(2), overflow=overflow)
