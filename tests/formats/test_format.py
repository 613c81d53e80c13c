"""What must hold for every `Format`, exhaustively over codes, against argmin over all values in float64.

New formats join FORMATS and nowhere else.
"""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anybit.errors import FormatError
from anybit.formats import Codebook, Format, get

FORMATS = [
    *(f"int{b}" for b in (1, 2, 3, 4, 5, 6, 7, 8, 16)),
    *(f"uint{b}" for b in (1, 2, 3, 4, 5, 6, 7, 8)),
    *(f"int{b}n" for b in (2, 3, 4, 8)),
    *("e2m1", "e3m2", "e2m3", "e1m2", "e3m0", "e4m3fn", "e4m3", "e3m4", "e5m2", "e5m6", "e8m0", "bf16", "fp16"),
    *("nf4", "dp4", "ternary", "bipolar1", "bipolar2", "bipolar3", "bipolar8"),
    *("e4m3fnuz", "e5m2fnuz", "e4m3b11fnuz", "e4m3uz", "e3m0uz", "e5m2b3", "e2m1bm3", "e2m2fnuz", "e6m9uz"),
    *("ue5m3", "ue5m3fn", "ue4m3fnuz", "ue4m2uz", "ue3m0", "ue2m1"),
    *("posit2_0", "posit3_1", "posit4_1", "posit5_3", "posit8_0", "posit8_2", "posit10_0", "posit16_1"),
    *("fixed4_4", "ufixed4_4", "fixed0_6", "ufixed0_3", "fixed1_0", "fixed8_4", "fixed8_8"),
    "levels(-3,-0.25,0,0.125,7)",
]
NEAREST = ("nearest_even", "nearest_away", "nearest_zero", "nearest_up", "nearest_down")
MODES = (*NEAREST, "toward_zero", "up", "down", "odd")


def probes(fmt: Format) -> np.ndarray:
    """The grid, all midpoints, their float neighbours, and numbers beyond the range: float64."""
    grid = np.unique(fmt.values)
    if len(grid) > 2000:
        grid = np.concatenate([grid[:500], grid[:: len(grid) // 700], grid[-500:]])
    middle = (grid[1:] + grid[:-1]) / 2
    x = np.concatenate([grid, middle, np.nextafter(middle, -np.inf), np.nextafter(middle, np.inf)])
    reach = max(abs(fmt.min), fmt.max)
    return np.concatenate([x, [1.5 * reach, -1.5 * reach, np.inf, -np.inf, 0.0, -0.0]])


def expected(fmt: Format, x: np.ndarray, mode: str) -> np.ndarray:
    """Rounding by definition: brute force over the sorted values, one number at a time."""
    grid = np.unique(fmt.values)
    out = np.empty_like(x)
    for i, v in enumerate(np.clip(x, grid[0], grid[-1])):
        below, above = np.searchsorted(grid, v, "right") - 1, np.searchsorted(grid, v, "left")
        if below == above:
            out[i] = grid[below]
            continue
        low, high = grid[below], grid[above]
        left, right = Fraction(v) - Fraction(low), Fraction(high) - Fraction(v)  # exact, where float64 would make ties
        if mode in ("up", "down"):
            out[i] = high if mode == "up" else low
        elif mode == "odd":
            out[i] = low if code_of(fmt, low) % 2 else high
        elif mode == "toward_zero":
            out[i] = high if abs(high) < abs(low) or (abs(high) == abs(low) and v >= 0) else low
        elif left != right:
            out[i] = low if left < right else high
        elif mode in ("nearest_up", "nearest_down"):
            out[i] = high if mode == "nearest_up" else low
        elif mode in ("nearest_away", "nearest_zero"):
            out[i] = high if (v > 0) == (mode == "nearest_away") else low
        else:
            out[i] = low if code_of(fmt, low) % 2 == 0 else high
    return out


@cache
def codes_of(fmt: Format) -> dict[float, int]:
    """value -> code, by decoding every code; of the two codes of zero the first."""
    codes = np.arange(codes_in_use(fmt))
    return {v: c for c, v in reversed(list(enumerate(fmt.decode(codes, np.float64).tolist())))}


def code_of(fmt: Format, value: float) -> int:
    return codes_of(fmt)[value]


def codes_in_use(fmt: Format) -> int:
    return len(fmt.values) if isinstance(fmt, Codebook) else 2**fmt.bits


@pytest.mark.parametrize("name", FORMATS)
def test_rounding_is_what_its_definition_says(name: str) -> None:
    fmt = get(name)
    x = probes(fmt)
    for mode in MODES:
        if name.startswith("posit") and mode in NEAREST:
            continue  # posits round the bit string: test_posit.py
        assert np.array_equal(fmt.round(x, mode), expected(fmt, x, mode)), mode


@pytest.mark.parametrize("name", [name for name in FORMATS if not name.startswith("posit")])
def test_nearest_is_nearest(name: str) -> None:
    fmt = get(name)
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(0, 0.6 * fmt.max, 300), rng.standard_normal(300)])
    grid = np.unique(fmt.values)
    distance = np.array([np.min(np.abs(grid - v)) for v in np.clip(x, grid[0], grid[-1])])
    assert np.array_equal(np.abs(fmt.round(x) - np.clip(x, grid[0], grid[-1])), distance)


@pytest.mark.parametrize("name", FORMATS)
def test_codes_decode_to_the_rounded_value_in_numpy_and_torch(name: str) -> None:
    fmt = get(name)
    x = probes(fmt)
    t = torch.from_numpy(x)
    for mode in MODES:
        y = fmt.round(x, mode)
        codes = fmt.encode(x, mode)
        assert codes.dtype == (np.uint8 if fmt.bits <= 8 else np.uint16)
        assert codes.max() < 2**fmt.bits, mode
        decoded = fmt.decode(codes, np.float64)
        assert np.array_equal(decoded.view(np.uint64), y.view(np.uint64)), mode  # the sign of zero, too
        assert np.array_equal(fmt.round(t, mode).numpy(), y), mode
        assert np.array_equal(fmt.encode(t, mode).numpy(), codes), mode
        assert np.array_equal(fmt.decode(fmt.encode(t, mode), torch.float64).numpy(), y), mode


@pytest.mark.parametrize("name", FORMATS)
def test_float32_input_rounds_like_float64_input(name: str) -> None:
    fmt = get(name)
    with np.errstate(over="ignore"):
        x = probes(fmt).astype(np.float32)
    wide = x.astype(np.float64)
    for mode in MODES:
        assert np.array_equal(fmt.round(x, mode), fmt.round(wide, mode).astype(np.float32)), mode
        assert np.array_equal(fmt.encode(x, mode), fmt.encode(wide, mode)), mode


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_round_trips(name: str) -> None:
    fmt = get(name)
    codes = np.arange(codes_in_use(fmt), dtype=np.uint8 if fmt.bits <= 8 else np.uint16)
    values = fmt.decode(codes, np.float64)
    finite = np.isfinite(values) & (values >= fmt.min)  # a narrow integer leaves one code out
    assert np.array_equal(values[finite], fmt.values)
    assert np.array_equal(fmt.encode(values[finite]), codes[finite])


@pytest.mark.parametrize("name", FORMATS)
def test_derived_facts_follow_from_the_values(name: str) -> None:
    fmt = get(name)
    assert fmt.max == fmt.values.max()
    assert fmt.min == fmt.values.min()
    positive = fmt.values[fmt.values > 0]
    assert fmt.min_positive == (positive.min() if len(positive) else 0.0)
    everything = fmt.decode(np.arange(codes_in_use(fmt)), np.float64)
    assert fmt.has_nan == bool(np.isnan(everything).any())
    assert fmt.has_inf == bool(np.isinf(everything).any())
    assert str(fmt) == fmt.name == name
    assert get(fmt.name) == fmt and hash(get(fmt.name)) == hash(fmt)


@pytest.mark.parametrize("name", FORMATS)
def test_nan_becomes_nan_or_is_refused_by_name(name: str) -> None:
    fmt = get(name)
    for x in (np.array([1.0, np.nan]), torch.tensor([1.0, float("nan")])):
        if fmt.has_nan:
            assert bool(fmt.round(x).isnan()[1] if isinstance(x, torch.Tensor) else np.isnan(fmt.round(x)[1]))
            decoded = fmt.decode(fmt.encode(x))
            assert bool(decoded[1] != decoded[1]) and bool(decoded[0] == decoded[0])
        else:
            for act in (fmt.round, fmt.encode):
                with pytest.raises(FormatError, match=re.escape(f"holds NaN, which {name} cannot represent")):
                    act(x)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rounding_is_idempotent_and_monotone(name: str, data: st.DataObject) -> None:
    fmt = get(name)
    numbers = st.floats(-3 * abs(fmt.max) - 2, 3 * abs(fmt.max) + 2, width=64)
    x = np.sort(np.array(data.draw(st.lists(numbers, min_size=1, max_size=30))))
    mode = data.draw(st.sampled_from(MODES))
    y = fmt.round(x, mode)
    assert np.array_equal(fmt.round(y, mode), y)
    assert np.all(np.diff(y) >= 0)


def test_formats_are_frozen_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get("int4").width = 5  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="read-only"):
        get("int4").values[0] = 1


def test_values_of_wide_formats_are_not_listed() -> None:
    with pytest.raises(FormatError, match="fp32 has 2\\^32 values"):
        _ = get("fp32").values


def test_any_shape_and_empty_arrays() -> None:
    for fmt in map(get, FORMATS):
        for shape in ((), (0,), (2, 3, 1)):
            x = torch.zeros(shape)
            assert fmt.round(x).shape == fmt.decode(fmt.encode(x)).shape == shape
            assert fmt.round(x.numpy()).shape == fmt.decode(fmt.encode(x.numpy())).shape == shape


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["bf16", "fp32", "e8m3", "posit8_2", "int16"])
def test_numbers_that_float64_does_not_hold_are_rounded_once(name: str, mode: str) -> None:
    """64-bit integers and long doubles one unit beside the middles of the grid, which float64 would make ties; by exact fractions."""
    fmt = get(name)
    if fmt.bits == 32:
        powers = [2.0**e * k for e in (55, 60, 62) for k in (1, 1 + 2.0**-23, 1.5, 2 - 2.0**-23)]
        grid = np.array(sorted({v * s for v in powers for s in (1, 1 + 2.0**-23)}))
    else:
        grid = (
            np.unique(fmt.values[(fmt.values >= 2.0**53) & (fmt.values < 2.0**63)])
            if fmt.max > 2**53
            else np.array([fmt.max])
        )
    middles = [int(a + b) // 2 for a, b in pairwise(grid.tolist()) if a and b / a < 1.2] or [2**53]
    near = [m + d for m in middles for d in (-513, -1, 0, 1, 1023) if m + d < 2**63]
    whole = np.array([*near, *(-n for n in near), 2**63 - 1, -(2**63), 5], np.int64)
    found = [fmt.round(whole, mode), fmt.round(torch.from_numpy(whole), mode).numpy()]
    if np.finfo(np.longdouble).nmant >= 63:
        wide = whole.astype(np.longdouble)
        assert [int(v) for v in wide] == whole.tolist()
        found += [fmt.round(wide, mode).astype(np.float64)]
        assert fmt.round(wide, mode).dtype == np.longdouble
    unsigned = fmt.round(np.abs(whole[: len(near)]).astype(np.uint64), mode)
    # A float64 of the same side of every middle: the number itself where it is one, else a hair (2^-40 of it) further.
    stand_in = [float(int(v)) if int(float(int(v))) == int(v) else None for v in whole]
    for i, v in enumerate(whole.tolist()):
        base = (abs(v) >> 12) << 12
        value = stand_in[i] if stand_in[i] is not None else np.sign(v) * float(base + (1 << 11))
        wanted = fmt.round(np.array([value]), mode)[0]
        assert all(f[i] == wanted for f in found), (v, wanted, [f[i] for f in found])
        assert i >= len(near) or unsigned[i] == fmt.round(np.array([abs(value)]), mode)[0]


@pytest.mark.parametrize(
    ("name", "bits", "signed"), [("int8", 8, True), ("uint4", 4, False), ("int16", 16, True), ("fixed24_0", 24, True)]
)
def test_large_integers_wrap_as_in_c(name: str, bits: int, signed: bool) -> None:
    x = np.array([2**53 + 1, -(2**53) - 1, 2**62 + 129, -(2**63), 2**63 - 1, 300, -300], np.int64)
    wanted = [(v + signed * 2 ** (bits - 1)) % 2**bits - signed * 2 ** (bits - 1) for v in x.tolist()]
    assert get(name).round(x, overflow="wrap").tolist() == wanted
    assert get(name).round(torch.from_numpy(x), overflow="wrap").tolist() == wanted
    assert get(name).encode(x, overflow="wrap").tolist() == [v % 2**bits for v in wanted]
    unsigned = np.array([2**64 - 1, 2**63 + 5], np.uint64)
    assert get(name).encode(unsigned, overflow="wrap").tolist() == [v % 2**bits for v in unsigned.tolist()]


@pytest.mark.parametrize("name", ["int4", "e2m1", "e4m3fn", "ternary", "posit16_1", "fixed4_4", "fp32", "i2c"])
def test_what_is_no_code_is_refused(name: str) -> None:
    fmt = get(name)
    for codes in (np.array([1.0]), np.array([True]), np.array(["a"]), np.array([1j])):
        with pytest.raises(FormatError, match="codes are integers; got an array of"):
            fmt.decode(codes)
    for codes in (torch.ones(3), torch.ones(3, dtype=torch.bool)):
        with pytest.raises(FormatError, match="codes are integers; got an array of"):
            fmt.decode(codes)
    for size in (3, 2000):  # readable and native code
        for code in (-1, 2**fmt.bits):
            codes = np.zeros(size, np.int64)
            codes[-1] = code
            for given_codes in (codes, torch.from_numpy(codes)):
                with pytest.raises(FormatError, match=f"codes 0 to .*; got {code}"):
                    fmt.decode(given_codes)
    assert fmt.decode(np.zeros((0, 2), np.int8)).shape == (0, 2)
    for dtype in (np.int32, torch.float32, "text"):
        with pytest.raises(FormatError, match="floating type of numpy; got"):
            fmt.decode(np.zeros(3, np.uint8), dtype)
    for dtype in (torch.int32, np.float32):
        with pytest.raises(FormatError, match="floating type of torch; got"):
            fmt.decode(torch.zeros(3, dtype=torch.uint8), dtype)


def test_codes_of_any_integer_type() -> None:
    for size in (3, 2000):
        codes = np.arange(size) % 60_000
        for dtype in (np.uint16, np.int32, np.uint32, np.int64, np.uint64):
            for found in (
                get("fp16").decode(codes.astype(dtype)),
                get("fp16").decode(torch.from_numpy(codes.astype(dtype))).numpy(),
            ):
                assert np.array_equal(
                    found, codes.astype(np.uint16).view(np.float16).astype(np.float32), equal_nan=True
                )


def test_sparse_tensors_and_records_are_refused() -> None:
    with pytest.raises(FormatError, match="expected a dense tensor; got one of layout"):
        get("e4m3fn").round(torch.eye(50).to_sparse())
    with pytest.raises(FormatError, match="expected real numbers"):
        get("e4m3fn").round(np.zeros(3, [("a", "f4")]))


def test_strided_tensors() -> None:
    x = torch.randn(6, 8).t()
    for fmt in map(get, FORMATS):
        assert torch.equal(fmt.encode(x), fmt.encode(x.contiguous()))
