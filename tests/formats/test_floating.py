"""What must hold for floating.py. Oracles: ml_dtypes and gfloat over every code; tables typed from the OCP documents."""

from __future__ import annotations

import gfloat
import gfloat.formats as known
import ml_dtypes
import numpy as np
import pytest
import torch
from gfloat.types import Domain, Signedness

from anybit.errors import FormatError
from anybit.formats import Exponent, Float, get

ML_DTYPES = {
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e4m3": ml_dtypes.float8_e4m3,
    "e3m4": ml_dtypes.float8_e3m4,
    "e5m2": ml_dtypes.float8_e5m2,
    "e8m0": ml_dtypes.float8_e8m0fnu,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e4m3b11fnuz": ml_dtypes.float8_e4m3b11fnuz,
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
}
SIGNEDNESS, DOMAIN = {"s": "Signed", "u": "Unsigned"}, {"e": "Extended", "f": "Finite"}
GFLOAT = {
    "e2m1": known.format_info_ocp_e2m1,
    "e3m2": known.format_info_ocp_e3m2,
    "e2m3": known.format_info_ocp_e2m3,
    "e4m3fn": known.format_info_ocp_e4m3,
    "e5m2": known.format_info_ocp_e5m2,
    "e8m0": known.format_info_ocp_e8m0,
    "bf16": known.format_info_bfloat16,
    "fp16": known.format_info_binary16,
    **{
        f"p3109_k{k}p{p}{s}{e}": known.format_info_p3109(k, p, Signedness[SIGNEDNESS[s]], Domain[DOMAIN[e]])
        for k, p in ((8, 1), (8, 3), (8, 4), (8, 7), (6, 3), (4, 2), (12, 6), (16, 11))
        for s in SIGNEDNESS
        for e in DOMAIN
        if (k, p, s) != (8, 1, "u")  # its 8 exponent bits leave the range of float32
    },
}
GFLOAT_MODES = {
    "nearest_even": gfloat.RoundMode.TiesToEven,
    "nearest_away": gfloat.RoundMode.TiesToAway,
    "toward_zero": gfloat.RoundMode.TowardZero,
    "up": gfloat.RoundMode.TowardPositive,
    "down": gfloat.RoundMode.TowardNegative,
}


@pytest.mark.parametrize("name", ML_DTYPES)
def test_every_code_decodes_as_in_ml_dtypes(name: str) -> None:
    fmt = get(name)
    codes = np.arange(2**fmt.bits).astype(np.uint8 if fmt.bits <= 8 else np.uint16)
    with np.errstate(invalid="ignore"):
        wanted = codes.view(ML_DTYPES[name]).astype(np.float64)
    assert np.array_equal(fmt.decode(codes, np.float64), wanted, equal_nan=True)
    assert np.array_equal(np.signbit(fmt.decode(codes)[wanted == 0]), np.signbit(wanted[wanted == 0]))
    wide = torch.from_numpy(codes.astype(np.int32))
    assert np.array_equal(fmt.decode(wide, torch.float64).numpy(), wanted, equal_nan=True)


@pytest.mark.parametrize("name", ML_DTYPES)
def test_random_numbers_encode_as_in_ml_dtypes(name: str) -> None:
    fmt = get(name)
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(20_000) * 2.0 ** rng.uniform(-20, 20, 20_000)).astype(np.float32)
    # Their overflow goes to infinity or NaN, ours saturates: compare within the range.
    x = np.clip(np.abs(x) if name == "e8m0" else x, fmt.min, fmt.max)
    wanted = x.astype(ML_DTYPES[name]).view(np.uint8 if fmt.bits <= 8 else np.uint16)
    assert np.array_equal(fmt.encode(x), wanted)
    assert np.array_equal(fmt.encode(torch.from_numpy(x)).numpy(), wanted)


@pytest.mark.parametrize("name", GFLOAT)
def test_every_code_decodes_as_in_gfloat(name: str) -> None:
    fmt, info = get(name), GFLOAT[name]
    codes = np.arange(2**fmt.bits)[:: 1 if fmt.bits <= 8 else 37]
    wanted = [gfloat.decode_float(info, int(c)).fval for c in codes]
    assert np.array_equal(fmt.decode(codes, np.float64), wanted, equal_nan=True)
    assert (fmt.max, fmt.min_positive) == (info.max, info.smallest)


@pytest.mark.parametrize("mode", GFLOAT_MODES)
@pytest.mark.parametrize("name", [name for name in GFLOAT if name != "e8m0"])
def test_every_mode_rounds_as_in_gfloat(name: str, mode: str) -> None:
    fmt, info = get(name), GFLOAT[name]
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.standard_normal(200) * 2.0 ** rng.integers(-8, 8, 200), [2 * fmt.max, -2 * fmt.max, 0.0]])
    x = x if fmt.min < 0 else np.abs(x)
    wanted = [gfloat.round_float(info, float(v), GFLOAT_MODES[mode], sat=True) for v in x]
    assert np.array_equal(fmt.round(x, mode), wanted)


# OCP Microscaling Formats v1.0, table 5.3 (FP4, FP6) and OCP OFP8 rev. 1.0, table 2: max normal, min normal, min subnormal.
SPEC = {
    "e2m1": (6.0, 1.0, 0.5),
    "e3m2": (28.0, 0.25, 0.0625),
    "e2m3": (7.5, 1.0, 0.125),
    "e4m3fn": (448.0, 2.0**-6, 2.0**-9),
    "e5m2": (57344.0, 2.0**-14, 2.0**-16),
    "fp16": (65504.0, 2.0**-14, 2.0**-24),
    "bf16": ((2 - 2**-7) * 2.0**127, 2.0**-126, 2.0**-133),
    "fp32": ((2 - 2**-23) * 2.0**127, 2.0**-126, 2.0**-149),
}


@pytest.mark.parametrize("name", SPEC)
def test_limits_of_the_specification(name: str) -> None:
    fmt = get(name)
    assert isinstance(fmt, Float)
    assert (fmt.max, 2.0**fmt.min_exponent, fmt.min_positive) == SPEC[name]


def test_special_codes_of_the_specification() -> None:
    e4m3, e5m2, fp16, e8m0 = (get(n) for n in ("e4m3fn", "e5m2", "fp16", "e8m0"))
    assert np.isnan(e4m3.decode(np.array([0x7F, 0xFF]))).all() and e4m3.decode(np.array([0x7E]))[0] == 448
    assert e5m2.decode(np.array([0x7C, 0xFC])).tolist() == [np.inf, -np.inf]
    assert np.isnan(e5m2.decode(np.array([0x7D, 0x7E, 0x7F, 0xFF]))).all()
    assert e4m3.encode(np.array([np.nan])).tolist() == [0x7F]
    assert e5m2.encode(np.array([np.nan])).tolist() == [0x7E]
    assert fp16.encode(np.array([np.nan])).tolist() == [0x7E00]
    assert e8m0.decode(np.array([0, 127, 254]), np.float64).tolist() == [2.0**-127, 1.0, 2.0**127]
    assert e8m0.encode(np.array([np.nan, 0.0, -3.0, 3e38])).tolist() == [255, 0, 0, 254]


def test_fp32_is_the_machines_own() -> None:
    rng = np.random.default_rng(5)
    codes = np.concatenate([rng.integers(0, 2**32, 5000), [0, 1, 2**31, 0x7F800000, 0xFF800000]]).astype(np.uint32)
    values = codes.view(np.float32)
    fmt = get("fp32")
    assert np.array_equal(fmt.decode(codes).view(np.uint32)[~np.isnan(values)], codes[~np.isnan(values)])
    finite = np.isfinite(values)
    assert np.array_equal(fmt.encode(values[finite]), codes[finite])
    assert np.array_equal(fmt.encode(torch.from_numpy(values[finite])).numpy(), codes[finite])
    x = rng.standard_normal(5000)
    assert np.array_equal(fmt.round(x), x.astype(np.float32))


@pytest.mark.parametrize(("e", "m", "specials", "message"), [
    (0, 3, "none", "1 to 8 exponent bits"), (9, 2, "ieee", "1 to 8 exponent bits"), (4, -1, "none", "mantissa bits"),
    (5, 11, "ieee", "e5m11 has 17"), (1, 2, "ieee", "2 or more exponent bits"), (3, 0, "ieee", "a mantissa bit"),
    (1, 1, "fn", "3 or more"), (1, 1, "uz", "3 or more"),
    (8, 7, "none", "8 exponent bits"), (8, 0, "none", "Exponent\\(8\\)"), (4, 3, "x", "special values are"),
])  # fmt: skip
def test_impossible_shapes_are_refused(e: int, m: int, specials: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Float(e, m, specials)  # type: ignore[arg-type]


def test_no_format_leaves_the_range_of_float32() -> None:
    with pytest.raises(FormatError, match="bias -119 reaches beyond float32"):
        Float(4, 3, "none", -119)
    with pytest.raises(FormatError, match="bias 128 reaches beyond float32"):
        Float(4, 3, "none", 128)
    assert Float(4, 3, "none", -112).max == 1.875 * 2.0**127


def test_names_of_biases_and_special_values() -> None:
    assert Float(4, 3, "fnuz", 8) == get("e4m3fnuz") and Float(4, 3, "fnuz", 8).name == "e4m3fnuz"
    assert get("e4m3b7") == get("e4m3") and get("e4m3b11fnuz").name == "e4m3b11fnuz" and get("e2m1bm3").bias == -3
    assert get("p3109_k8p4sf") == get("e4m3fnuz") and get("p3109_k8p3sf") == get("e5m2fnuz")
    assert get("binary8p4") == get("p3109_k8p4se") == get("e4m3uz")
    with pytest.raises(FormatError, match="the precision of a P3109 format"):
        get("p3109_k8p8se")


def test_both_codebooks_of_ue5m3() -> None:
    # "UE5M3 FP4 block scaling" (arXiv 2609.02846) keeps the top exponent for numbers; the other one reserves it.
    kept, reserved = get("ue5m3fn"), get("ue5m3")
    assert (kept.max, kept.min_positive, kept.bits, kept.min) == (114688, 2.0**-17, 8, 0)
    assert (reserved.max, reserved.min_positive, reserved.has_inf) == (61440, 2.0**-17, True)
    assert np.array_equal(kept.values[:248], reserved.values)


def test_only_eight_bit_exponents() -> None:
    with pytest.raises(FormatError, match="8 bits; got 4"):
        Exponent(4)
