"""Rules of multiplication against their definition in exact rational arithmetic, on all pairs of 8-bit codes."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import get
from anybit.ops import product
from anybit.ops.product import Product


def logarithm(value: Fraction) -> int:
    """floor(log2 value) of a positive fraction."""
    e = value.numerator.bit_length() - value.denominator.bit_length()
    return e if Fraction(2) ** e <= value else e - 1


@cache
def parts(value: float) -> tuple[int, Fraction]:
    """(E, f) of a positive 2^E (1 + f)."""
    exact = Fraction(value)
    e = logarithm(exact)
    return e, exact / Fraction(2) ** e - 1


def defined(a: float, b: float, rule: str, m: int, smallest: float, largest: float, beyond: float) -> float:
    """The digest's words in fractions: mantissas added, the constant, the carry into the exponent (adder) or not (formula)."""
    sign = math.copysign(1, a) * math.copysign(1, b)
    if math.isnan(a) or math.isnan(b):
        return math.nan
    small_a, small_b = abs(a) < smallest, abs(b) < smallest
    if math.isinf(a) or math.isinf(b):
        return math.nan if small_a or small_b else sign * math.inf
    if small_a or small_b:
        return sign * 0.0
    (ea, fa), (eb, fb) = parts(abs(a)), parts(abs(b))
    constant = Fraction(0) if rule == "mitchell" else Fraction(1, 2 ** (m if m <= 3 else 3 if m == 4 else 4))
    s = fa + fb + constant
    if rule == "lmul_formula" or s < 1:
        value = Fraction(2) ** (ea + eb) * (1 + s)
    elif s < 2:
        value = Fraction(2) ** (ea + eb + 1) * s
    else:  # the carry is 2
        value = Fraction(2) ** (ea + eb + 2) * (s - 1)
    if value < Fraction(smallest):
        return sign * 0.0
    return sign * (beyond if value > Fraction(largest) else float(value))


def same(got: np.ndarray, expected: np.ndarray) -> bool:
    nan = np.isnan(expected)
    return bool(
        (np.isnan(got) == nan).all()
        and (got[~nan] == expected[~nan]).all()
        and (np.signbit(got) == np.signbit(expected))[~nan].all()
    )


@pytest.mark.parametrize("rule", ["mitchell", "lmul_add", "lmul_formula"])
@pytest.mark.parametrize("name", ["e4m3fn", "e5m2"])
def test_all_pairs_of_8_bit_codes(name: str, rule: str) -> None:
    fmt, p = get(name), Product(rule, name)
    values = fmt.decode(np.arange(256, dtype=np.uint8), np.float32)
    x = torch.from_numpy(values)
    prepared = p.prepare(x)
    got = product.multiply(prepared[:, None], prepared[None, :], p).numpy()
    magnitudes = [float(v) for v in values]
    expected = np.array(
        [
            [defined(a, b, rule, fmt.mantissa_bits, 2.0**fmt.min_exponent, fmt.max, p.beyond) for b in magnitudes]
            for a in magnitudes
        ]
    )
    assert same(got, expected)


@pytest.mark.parametrize("rule", ["mitchell", "lmul_add", "lmul_formula"])
def test_random_pairs_of_bfloat16(rule: str) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 65536, 4000).astype(np.uint32) << 16 for _ in range(2))
    a, b = a.view(np.float32), b.view(np.float32)
    p = Product(rule, "bf16")
    got = product.multiply(p.prepare(torch.from_numpy(a)), p.prepare(torch.from_numpy(b)), p).numpy()
    tiny = float(np.finfo(np.float32).tiny)
    pairs = zip(a, b, strict=True)
    expected = [defined(float(u), float(v), rule, 7, tiny, get("bf16").max, math.inf) for u, v in pairs]
    assert same(got, np.array(expected))


@pytest.mark.parametrize(
    ("name", "bias", "rms"), [("e8m2", 14.1, 16.6), ("e8m3", 4.8, 6.9), ("e8m4", 4.9, 6.2), ("bf16", 0.4, 3.2)]
)
def test_errors_of_the_adder_on_normal_operands(name: str, bias: float, rms: float) -> None:
    """The table of an independent study: bias and root mean square of the relative error in percent, 2 million pairs."""
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(400_000, generator=g), torch.randn(400_000, generator=g)
    p = Product("lmul_add", name)
    got = product.multiply(p.prepare(a), p.prepare(b), p).double()
    error = 100 * (got / (a.double() * b.double()) - 1)
    assert abs(error.mean() - bias) < 0.15
    assert abs(error.square().mean().sqrt() - rms) < 0.15


def test_the_gain_removes_the_bias() -> None:
    g = torch.Generator().manual_seed(2)
    x, w = torch.randn(64, 256, generator=g), torch.randn(48, 256, generator=g)
    gain = product.calibrated_gain(x, w, Product("lmul_add", "e8m4"))
    assert gain == pytest.approx(1 / 1.049, abs=2e-3)
    assert product.calibrated_gain(x * 0, w, Product("lmul_add", "e8m4")) == 1.0


def test_operands_are_rounded_and_their_subnormals_flushed() -> None:
    p = Product("lmul_add", "e4m3fn")
    x = torch.tensor([1.06, -0.01, 1e9, -0.0, float("inf"), 0.0156])
    assert p.prepare(x).tolist() == [1.0, 0.0, 448.0, 0.0, float("inf"), 0.015625]
    assert p.prepare(x).signbit().tolist() == [False, True, False, True, False, False]
    assert Product("exact", "e4m3fn").prepare(torch.tensor([0.002])).item() == 2.0**-9


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("lmul_add", "int8"), ("lmul_add", "e1m2"), ("lmul_add", "e4m0"), ("exact", "", 0.0)]
)
def test_what_is_refused(arguments: tuple) -> None:
    with pytest.raises(FormatError):
        Product(*arguments)
    if len(arguments) == 1:
        with pytest.raises(FormatError, match="unknown rule of multiplication 'nonsense'; known: exact, lmul_add"):
            product.named("nonsense")
