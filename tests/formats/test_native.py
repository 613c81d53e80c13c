"""The native casts equal the readable code of the formats bit for bit; whole ranges of float32 against numpy, torch and ml_dtypes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anybit.errors import FormatError
from anybit.formats import MODES, Codebook, Float, get, native
from anybit.formats.arrays import code_array
from anybit.formats.rounding import RANDOM_MODES, StochasticKey

MODULE = native.module()
pytestmark = pytest.mark.skipif(MODULE is None, reason="the native module is not built (make native)")
ISAS = [] if MODULE is None else [name for name, _, present in MODULE.isas() if present]

FLOATS = ["e1m1", "e2m0", "e4m0", "e1m6none", "e2m1", "e3m2", "e2m3", "e4m3fn", "e4m3", "e5m2", "e5m2none", "e7m8", "bf16", "e8m1",
          "e8m3", "fp16", "e6m9"]  # fmt: skip
INTEGERS = ["int1", "int4", "int8", "int8n", "uint4", "int16"]
CODEBOOKS = ["nf4", "ternary", "bipolar1", "bipolar3", "bipolar5", "bipolar8"]
TABLES = ["posit8_1", "posit6_2", "posit16_1", "e8m0", "e4m3fnuz", "e4m3b11fnuz", "ue5m3fn", "ue5m3", "binary8p4"]
FIXED = ["fixed8_8", "fixed4_4", "ufixed3_5", "fixed1_0", "fixed4_20"]
SMALL = [*FLOATS, *INTEGERS, *CODEBOOKS, *TABLES, *FIXED]
KEY = (0x1234567890ABCDEF, 7)
FEW_BITS = [StochasticKey(0xFEDCBA, 5, bits) for bits in (1, 2, 5, 11, 23, 24)]


def patterns(count: int = 1 << 16) -> NDArray[np.float32]:
    """All upper halves of a float32 with three lower halves (NaN, infinities, subnormals, both zeros), and random bit patterns."""
    upper = np.arange(65536, dtype=np.uint32) << 16
    drawn = np.random.default_rng(5).integers(0, 2**32, count, dtype=np.uint64).astype(np.uint32)
    # Random patterns rarely fall where narrow formats have their values, so every exponent from 2^-20 to 2^20 gets some of its own.
    near = (
        np.ldexp(np.random.default_rng(6).uniform(1, 2, count), np.arange(count) % 41 - 20)
        .astype(np.float32)
        .view(np.uint32)
    )
    near ^= (drawn & 1) << np.uint32(31)
    return np.concatenate([upper, upper | 1, upper | 0x8000, drawn, near]).view(np.float32)


EVERYTHING = patterns()
NUMBERS = EVERYTHING[~np.isnan(EVERYTHING)]


def bits(a: NDArray) -> NDArray:
    a = np.ascontiguousarray(a)
    return a.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[a.dtype.itemsize])


@pytest.fixture(autouse=True)
def isa_as_before():
    before = MODULE.isa()
    yield
    MODULE.set_isa(before)


def each_isa() -> Iterator[str]:
    """One after the other, all in one test: the readable code takes longer than the kernels, and need not run for each."""
    for name in ISAS:
        MODULE.set_isa(name)
        yield name


def reference(fmt, x: NDArray, mode: str, key: object) -> tuple[NDArray, NDArray]:
    """(values, codes) by the readable code."""
    with np.errstate(all="ignore"):
        return fmt._round(np, x, mode, key).astype(np.float32), code_array(fmt._encode(np, x, mode, key), fmt.bits)


def check(fmt, x: NDArray, mode: str, key: object) -> None:
    values, codes = reference(fmt, x, mode, key)
    for isa in each_isa():
        rounded, encoded = native.round(fmt, x, mode, key), native.encode(fmt, x, mode, key)
        assert rounded is not None and encoded is not None
        assert np.array_equal(bits(rounded), bits(values)), (mode, key, isa)
        assert encoded.dtype == codes.dtype and np.array_equal(encoded, codes), (mode, key, isa)


@pytest.mark.parametrize("name", [*SMALL, "fp32"])
def test_every_mode_equals_the_reference(name: str) -> None:
    fmt = get(name)
    for mode in MODES:
        check(fmt, EVERYTHING if fmt.has_nan else NUMBERS, mode, KEY)


@pytest.mark.parametrize("name", [*SMALL, "fp32"])
def test_draws_of_few_bits_equal_the_reference(name: str) -> None:
    """Among the numbers are many whose position is a tie between two multiples of 2^-k, which goes to the even one."""
    fmt = get(name)
    steps = np.arange(-(1 << 15), 1 << 15).astype(np.float32) * np.float32(fmt.min_positive or 1) / 64
    ties = np.concatenate([steps, fmt.max - np.abs(steps) * 2.0**-4]).astype(np.float32)
    x = np.concatenate([ties, (EVERYTHING if fmt.has_nan else NUMBERS)[::7]])
    for key in FEW_BITS:
        check(fmt, x, "stochastic", key)
    check(fmt, x, "stochastic_50", FEW_BITS[1])


def doubles() -> NDArray[np.float64]:
    """Numbers of float32, their middles, hairs beside both, and numbers outside float32's range."""
    near, rng = NUMBERS[::5].astype(np.float64), np.random.default_rng(8)
    with np.errstate(invalid="ignore"):
        middle = (near + np.nextafter(NUMBERS[::5], np.float32(np.inf)).astype(np.float64)) / 2
    exact = np.concatenate([near, middle[np.isfinite(middle)]])
    drawn = np.ldexp(rng.uniform(1, 2, 30_000), rng.integers(-160, 140, 30_000)) * rng.choice([-1, 1], 30_000)
    extreme = [
        1e300,
        1e-300,
        5e-324,
        0.0,
        np.inf,
        2.0**128,
        2.0**128 - 2.0**103,
        np.nextafter(2.0**128 - 2.0**103, 0),
        2.0**-150,
    ]
    edges = np.array([*extreme, *(-v for v in extreme)])
    return np.concatenate([exact, np.nextafter(exact, np.inf), np.nextafter(exact, -np.inf), drawn, edges])


DOUBLES = doubles()


@pytest.mark.parametrize("mode", MODES)
def test_float64_to_fp32_in_every_mode(mode: str) -> None:
    fmt, x = get("fp32"), DOUBLES
    for key in [KEY, *FEW_BITS] if mode in RANDOM_MODES else [None]:
        with np.errstate(all="ignore"):
            values, codes = fmt._round(np, x, mode, key), code_array(fmt._encode(np, x, mode, key), 32)
        if mode == "nearest_even":
            with np.errstate(over="ignore"):
                expected = np.clip(x.astype(np.float32), -fmt.max, fmt.max)
            assert np.array_equal(bits(values.astype(np.float32)), bits(expected))
        t = torch.from_numpy(x)
        for isa in each_isa():
            rounded, encoded = native.round(fmt, x, mode, key), native.encode(fmt, x, mode, key)
            assert rounded.dtype == np.float64, isa
            assert np.array_equal(rounded.view(np.uint64), values.view(np.uint64)), (key, isa)
            assert encoded.dtype == np.uint32 and np.array_equal(encoded, codes), (key, isa)
            assert np.array_equal(fmt.round(t, mode, key).numpy().view(np.uint64), values.view(np.uint64)), isa
            encoded = fmt.encode(t, mode, key)
            assert encoded.dtype == torch.int64 and np.array_equal(encoded.numpy(), codes), isa
            assert np.isnan(native.round(fmt, np.full(2000, np.nan), mode, KEY)).all(), isa


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("overflow", ["ieee", "infinity", "nan"])
@pytest.mark.parametrize(
    "name",
    [
        "fp16",
        "bf16",
        "fp32",
        "e4m3fn",
        "e5m2",
        "e4m3",
        "e8m1",
        "e4m3fnuz",
        "ue5m3",
        "ue5m3fn",
        "binary8p4",
        "e8m0",
        "posit8_1",
    ],
)
def test_overflow_equals_the_reference(name: str, overflow: str, dtype: type) -> None:
    fmt = get(name)
    if overflow == "infinity" and not fmt.has_inf:
        pytest.skip(f"{name} has no infinity")
    with np.errstate(all="ignore"):
        steps = np.arange(-4096, 4096) / 1024  # of the last one, around both ends of the range
        ends = [fmt.max + steps * fmt.steps_beyond[1], fmt.min - steps * fmt.steps_beyond[0]]
        x = np.concatenate([*ends, NUMBERS[::9], [np.nan]]).astype(dtype)
    for mode in MODES:
        keys = [KEY, FEW_BITS[0], FEW_BITS[3]] if mode in RANDOM_MODES else [None]
        for key in keys if dtype == np.float32 or native.from_float64(fmt, mode) else []:
            with np.errstate(all="ignore"):
                values, codes = fmt._rounded(np, x, mode, key, overflow), fmt._encoded(np, x, mode, key, overflow)
            expected, expected_codes, t = values.astype(dtype), code_array(codes, fmt.bits), torch.from_numpy(x)
            for case in ((mode, key, isa) for isa in each_isa()):
                rounded, encoded = native.round(fmt, x, mode, key, overflow), native.encode(fmt, x, mode, key, overflow)
                assert rounded.dtype == dtype and np.array_equal(rounded, expected, equal_nan=True), case
                assert np.array_equal(np.signbit(rounded), np.signbit(values)), case
                assert np.array_equal(encoded, expected_codes), case
                rounded = fmt.round(t, mode, key, overflow).numpy()
                assert np.array_equal(rounded, expected, equal_nan=True), case


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in RANDOM_MODES])
@pytest.mark.parametrize("name", ["e2m1", "e4m3fn", "bf16", "fp16", "e6m9", "int16", *TABLES, "fixed8_8", "fixed4_16"])
def test_float64_is_rounded_once(name: str, mode: str) -> None:
    """Numbers a hair beside float32's, so that going through float32 to nearest would round twice; and ones outside its range."""
    fmt, rng = get(name), np.random.default_rng(8)
    near = np.concatenate([NUMBERS[:70_000], NUMBERS[-70_000:]]).astype(np.float64)
    drawn = np.ldexp(rng.uniform(1, 2, 30_000), rng.integers(-40, 20, 30_000)) * rng.choice([-1, 1], 30_000)
    extreme = np.array([1e300, -1e300, 1e-300, -1e-300, 5e-324, -5e-324, 0.0, -0.0, np.inf, -np.inf])
    x = np.concatenate([near, np.nextafter(near, np.inf), np.nextafter(near, -np.inf), drawn, extreme])
    with np.errstate(all="ignore"):
        values, codes = fmt._round(np, x, mode, None), code_array(fmt._encode(np, x, mode, None), fmt.bits)
    for isa in each_isa():
        rounded = native.round(fmt, x, mode, None)
        assert rounded.dtype == np.float64, isa
        assert np.array_equal(rounded.view(np.uint64), values.astype(np.float64).view(np.uint64)), isa
        assert np.array_equal(native.encode(fmt, x, mode, None), codes), isa
        assert np.array_equal(fmt.round(torch.from_numpy(x), mode).numpy(), values), isa
        if fmt.has_nan:
            assert np.isnan(native.round(fmt, np.full(2000, np.nan), mode, None)).all(), isa


@pytest.mark.parametrize("name", [*FLOATS, *INTEGERS, *CODEBOOKS, *TABLES, "fixed8_8", "ufixed3_5"])
def test_decoding_equals_the_reference(name: str) -> None:
    fmt = get(name)
    count = len(fmt.levels) if isinstance(fmt, Codebook) else 2**fmt.bits
    codes = np.resize(np.arange(count), max(count, native.SMALLEST)).astype(np.uint8 if fmt.bits <= 8 else np.uint16)
    with np.errstate(all="ignore"):
        expected = fmt._decode(np, codes, np.float32)
    wide = torch.from_numpy(codes.astype(np.uint8 if fmt.bits <= 8 else np.int32))
    for isa in each_isa():
        assert np.array_equal(bits(native.decode(fmt, codes, np.float32)), bits(expected)), isa
        assert np.array_equal(bits(native.decode(fmt, wide, torch.float32).numpy()), bits(expected)), isa


def half_tie(x: NDArray, mode: str) -> NDArray:
    """Integers nearest to x, ties as the mode says, in float64: floor(x + 1/2) and its mirror are exact there for float32 x."""
    x = x.astype(np.float64)
    tie_up, tie_down = np.floor(x + 0.5), np.ceil(x - 0.5)
    up = {"nearest_up": np.ones(x.shape, bool), "nearest_down": np.zeros(x.shape, bool), "nearest_zero": x < 0}[mode]
    return np.where(up, tie_up, tie_down)


@pytest.mark.parametrize("mode", ["nearest_up", "nearest_down", "nearest_zero", "odd"])
@pytest.mark.parametrize("name", ["e5m2", "bf16", "int8"])
def test_further_modes_of_the_kernels(name: str, mode: str) -> None:
    fmt = get(name)
    x = NUMBERS[(np.abs(NUMBERS) <= min(fmt.max, 1e30)) & (np.abs(NUMBERS) >= 2.0**-100)].astype(np.float64)
    if name == "int8":
        unit = np.ones(x.shape)
    else:
        unit = 2.0 ** (np.maximum(np.frexp(x)[1] - 1, fmt.min_exponent) - fmt.mantissa_bits)
    if mode == "odd":
        low = np.floor(x / unit)
        expected = np.where(low == x / unit, x, unit * np.where(low % 2 == 1, low, low + 1))
    else:
        expected = half_tie(x / unit, mode) * unit
    for isa in each_isa():
        got = np.empty(x.shape, np.float32)
        assert not MODULE.cast_round(native.grid(fmt), MODULE.CAST_MODES.index(mode), x.astype(np.float32), got)
        assert np.array_equal(got, expected), isa


@pytest.mark.parametrize("mode, key", [("nearest_even", None), ("stochastic", KEY), ("stochastic", FEW_BITS[2])])
@pytest.mark.parametrize("shape", [(1025,), (33, 35), (3, 7, 101), (1024,)])
@pytest.mark.parametrize("name", ["e4m3fn", "bf16", "int4", "nf4", "fp16", "fp32"])
def test_numpy_and_torch_of_any_shape_and_stride(name: str, shape: tuple[int, ...], mode: str, key: object) -> None:
    fmt, rng = get(name), np.random.default_rng(len(shape))
    wide = rng.normal(size=(*shape[:-1], 2 * shape[-1])).astype(np.float32)
    for x in (wide[..., : shape[-1]], wide[..., ::2], np.asfortranarray(wide[..., 1::2])):
        values, codes = reference(fmt, x, mode, key)
        assert np.array_equal(bits(fmt.round(x, mode, key)), bits(values))
        assert np.array_equal(fmt.encode(x, mode, key), codes)
        t = torch.from_numpy(x)
        assert np.array_equal(bits(fmt.round(t, mode, key).numpy()), bits(values))
        found = fmt.encode(t, mode, key)
        assert found.dtype == (
            torch.uint8 if fmt.bits <= 8 else torch.int32 if fmt.bits <= 16 else torch.int64
        ) and np.array_equal(found.numpy(), codes)
        assert found.shape == t.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_tensors_keep_their_type(dtype: torch.dtype) -> None:
    x = torch.randn(40, 60, generator=torch.Generator().manual_seed(1)).to(dtype)
    fmt = get("e4m3fn")
    assert native.round(fmt, x, "nearest_even", None).dtype == dtype
    assert torch.equal(fmt.round(x), fmt._round(torch, x.float(), "nearest_even", None).to(dtype))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_narrow_numpy_arrays_keep_their_type(dtype: type) -> None:
    x = np.random.default_rng(1).standard_normal((40, 60)).astype(dtype)
    fmt = get("e4m3fn")
    rounded, codes = native.round(fmt, x, "nearest_even", None), native.encode(fmt, x, "nearest_even", None)
    values, wanted = reference(fmt, x.astype(np.float32), "nearest_even", None)
    assert rounded.dtype == x.dtype and np.array_equal(
        rounded.astype(np.float32), values.astype(dtype).astype(np.float32)
    )
    assert np.array_equal(codes, wanted)
    with pytest.raises(FormatError, match="expected real numbers"):
        fmt.round(np.zeros(5000, "V4"))


@pytest.mark.parametrize("draw", [None, 3])
@pytest.mark.parametrize("name", ["e4m3fn", "bf16", "int8"])
def test_a_stochastic_stream_does_not_depend_on_threads_or_on_where_an_array_is_cut(
    name: str, draw: int | None
) -> None:
    fmt, before = get(name), MODULE.threads()
    x = np.random.default_rng(2).normal(size=200_003).astype(np.float32) * 5
    try:
        results = []
        for threads in (1, 2, 3):
            MODULE.set_threads(threads)
            results.append(native.round(fmt, x, "stochastic", StochasticKey(9, bits=draw)))
    finally:
        MODULE.set_threads(before)
    assert all(np.array_equal(bits(r), bits(results[0])) for r in results)
    cuts = [0, 2001, 77_777, 200_003]
    parts = [native.round(fmt, x[a:b], "stochastic", StochasticKey(9, a, draw)) for a, b in pairwise(cuts)]
    assert np.array_equal(bits(np.concatenate(parts)), bits(results[0]))


def test_what_the_kernels_do_not_take_goes_to_the_readable_code() -> None:
    fmt, x = get("e4m3fn"), np.zeros(4096, np.float32)
    assert native.round(fmt, x, "nearest_even", None) is not None
    assert native.round(fmt, x[:8], "nearest_even", None) is None
    assert native.round(fmt, x.astype(np.float64), "stochastic", 1) is None
    assert native.round(get("nf4"), x.astype(np.float64), "nearest_even", None) is None
    assert native.round(fmt, x, "stochastic", StochasticKey(1, bits=4)) is not None
    assert native.round(get("int8"), x, "nearest_even", None, "wrap") is None
    assert native.round(fmt, x.astype(np.int64), "nearest_even", None) is None
    assert native.round(Float(1, 0, "none"), x, "up", None) is None
    assert native.round(fmt, torch.zeros(4096, requires_grad=True), "nearest_even", None) is None
    assert native.decode(fmt, np.zeros(4096, np.uint8), np.float64) is None
    assert native.decode(fmt, np.zeros(4096, np.int64), np.float32) is None
    assert torch.func.vmap(fmt.round)(torch.ones(2, 4096)).shape == (2, 4096)
    assert fmt.round(np.empty((0, 5), np.float32)).shape == (0, 5)


def test_refusals_are_the_same_for_large_arrays() -> None:
    x = np.zeros(5000, np.float32)
    x[4321] = np.nan
    for name in ("int8", "e2m1", "nf4"):
        with pytest.raises(FormatError, match=f"the input holds NaN, which {name} cannot represent"):
            get(name).round(x)
        with pytest.raises(FormatError, match=f"the input holds NaN, which {name} cannot represent"):
            get(name).encode(torch.from_numpy(x))
    with pytest.raises(FormatError, match="unknown rounding mode"):
        get("int8").round(np.zeros(5000, np.float32), "sideways")
    with pytest.raises(FormatError, match="ternary has codes 0 to 2; got 3"):
        get("ternary").decode(np.full(5000, 3, np.uint8))
    with pytest.raises(FormatError, match="e2m1 has codes 0 to 15; got 16"):
        get("e2m1").decode(np.full(5000, 16, np.uint8))


def test_large_results_are_ordinary_arrays() -> None:
    a = native.empty(native.LARGE, np.float32)
    assert a.shape == (native.LARGE,) and a.flags.writeable and a.ctypes.data % 64 == 0
    b = a[5:9]
    del a
    b[:] = 3
    assert b.tolist() == [3.0] * 4


def test_formats_import_light_and_load_the_native_module_on_first_use() -> None:
    code = (
        "import sys, numpy as np, anybit.formats as f\n"
        "assert 'anybit._native' not in sys.modules\n"
        "f.get('e4m3fn').round(np.ones(5000, np.float32))\n"
        "assert 'anybit._native' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_native_module_the_readable_code_answers() -> None:
    code = (
        "import sys; sys.modules['anybit._native'] = None\n"
        "import numpy as np\nfrom anybit.formats import get, native\n"
        "x = np.linspace(-9, 9, 5000, dtype=np.float32)\n"
        "assert native.module() is None and native.round(get('e2m1'), x, 'nearest_even', None) is None\n"
        "assert set(abs(get('e2m1').round(x))) == {0, .5, 1, 1.5, 2, 3, 4, 6}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["fp16", "bf16", "e5m2"])
def test_all_float32_inputs_against_other_libraries(name: str) -> None:
    """Codes of all 2^32 inputs: fp16 by numpy, bf16 and e5m2 by ml_dtypes; beyond the range ours saturates, theirs overflows."""
    fmt, step = get(name), 1 << 24
    other = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "e5m2": ml_dtypes.float8_e5m2}[name]
    torch_type = {"fp16": torch.float16, "bf16": torch.bfloat16, "e5m2": torch.float8_e5m2}[name]
    store = np.uint8 if fmt.bits == 8 else np.uint16
    infinity = ((1 << fmt.exponent_bits) - 1) << fmt.mantissa_bits
    for first in range(0, 1 << 32, step):
        x = np.arange(first, first + step, dtype=np.uint32).view(np.float32)
        got = fmt.encode(x)
        with np.errstate(all="ignore"):
            theirs = x.astype(other).view(store)
            again = (
                torch.from_numpy(x)
                .to(torch_type)
                .view(torch.uint8 if fmt.bits == 8 else torch.int16)
                .numpy()
                .view(store)
            )
        magnitude = store((1 << (fmt.bits - 1)) - 1)
        for codes in (theirs, again):
            expected = np.where((codes & magnitude) == infinity, (codes & ~magnitude) | store(infinity - 1), codes)
            nan = (codes & magnitude) > infinity
            assert np.array_equal(nan, np.isnan(x)) and (got[nan] & magnitude > infinity).all()
            assert np.array_equal(got[~nan], expected[~nan])
