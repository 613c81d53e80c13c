"""The decoder's vector kernels, on every instruction set this machine has, against float64 formulas.

Bounds: each function is a handful of float32 operations after a polynomial that is exact to 1e-8, so its relative error is a few
units of 2^-24; where the argument of an exponential is itself a rounded product, the error of that product counts in full.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import special

_native = pytest.importorskip("anybit._native", reason="the native module is not built")

ULP = 2.0**-24
ISAS = [name for name, _, supported in _native.isas() if supported]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa("auto")


def relative_error(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    # Below 2^-126 float32 is a fixed-point number: count in units of the smallest normal.
    return np.abs(got.astype(np.float64) - exact) / np.maximum(np.abs(exact), 2.0**-126)


def test_exp_is_within_two_ulp(isa: str) -> None:
    x = np.concatenate([np.linspace(-87.3, 88.7, 200_001), np.linspace(-1, 1, 50_001)]).astype(np.float32)
    assert relative_error(_native.vector_map("exp", x), np.exp(x.astype(np.float64))).max() < 4 * ULP


def test_exp_at_its_edges(isa: str) -> None:
    x = np.array([-np.inf, -200, -104, -100, 0, 88.8, 200, np.inf, np.nan], np.float32)
    y = _native.vector_map("exp", x)
    assert list(y[[0, 1, 2]]) == [0, 0, 0] and y[4] == 1 and np.isposinf(y[[5, 6, 7]]).all() and np.isnan(y[8])
    assert abs(float(y[3]) - np.exp(-100.0)) <= 2.0**-149


def test_tanh(isa: str) -> None:
    x = np.concatenate([np.linspace(-20, 20, 200_001), np.linspace(-0.7, 0.7, 50_001)]).astype(np.float32)
    assert relative_error(_native.vector_map("tanh", x), np.tanh(x.astype(np.float64))).max() < 6 * ULP
    assert list(_native.vector_map("tanh", np.array([-np.inf, np.inf, 0], np.float32))) == [-1, 1, 0]


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(
    ("name", "exact", "exponent"),
    [
        ("silu", lambda x: x * special.expit(x), np.abs),
        (
            "gelu_tanh",
            lambda x: x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)),
            lambda x: np.abs(x**3),
        ),
        ("gelu", lambda x: x * special.ndtr(x), lambda x: x**2),
    ],
)
def test_activations(isa: str, name: str, exact: object, exponent: object) -> None:
    x = np.concatenate([np.linspace(-9, 9, 200_001), np.linspace(-1e-3, 1e-3, 1001)]).astype(np.float32)
    wide = x.astype(np.float64)
    # The exponential's argument, up to 9^3, is rounded to float32: that many ulp of the result, and a few for the rest.
    bound = (12 + 4 * exponent(wide)) * ULP  # type: ignore[operator]
    assert (relative_error(_native.vector_map(name, x), exact(wide)) <= bound).all()  # type: ignore[operator]


def test_gelu_tanh_formula_is_the_sigmoid_one() -> None:
    x = np.linspace(-5, 5, 1001)
    assert np.allclose(gelu_tanh(x), x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)), atol=1e-15)


@pytest.mark.parametrize("width", [1, 7, 64, 576, 2049])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms_norm(isa: str, width: int, offset: float) -> None:
    rng = np.random.default_rng(width)
    x, gain = rng.normal(size=width).astype(np.float32), rng.normal(size=width).astype(np.float32)
    wide = x.astype(np.float64)
    exact = wide / np.sqrt((wide**2).mean() + 1e-5) * (gain.astype(np.float64) + offset)
    # the mean is a sum of `width` terms of one sign: at most width/lanes roundings deep, halved by the square root
    assert (
        np.abs(_native.vector_rms_norm(x, gain, offset, 1e-5) - exact) <= (8 + width / 16) * ULP * np.abs(exact) + 1e-9
    ).all()


@pytest.mark.parametrize(("heads", "dim", "half"), [(1, 2, 1), (3, 64, 32), (2, 80, 20), (4, 10, 5)])
def test_rope_rotates_pairs(isa: str, heads: int, dim: int, half: int) -> None:
    rng = np.random.default_rng(dim)
    x = rng.normal(size=heads * dim).astype(np.float32)
    angle = rng.normal(size=half)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    out = _native.vector_rope(x, heads, cos, sin).reshape(heads, dim)
    z = x.reshape(heads, dim).astype(np.float64)
    turned = (z[:, :half] + 1j * z[:, half : 2 * half]) * (cos.astype(np.float64) + 1j * sin.astype(np.float64))
    exact = np.concatenate([turned.real, turned.imag, z[:, 2 * half :]], axis=1)
    assert np.abs(out - exact).max() < 8 * ULP * np.abs(z).max()


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, window: int, cap: float) -> np.ndarray:
    """Float64 softmax attention of the last len(q) positions."""
    tokens, heads, _ = q.shape
    positions, kv_heads, _ = k.shape
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    k, v = (np.repeat(a, heads // kv_heads, axis=1) for a in (k, v))
    scores = np.einsum("thd,phd->htp", q, k) * scale
    if cap:
        scores = cap * np.tanh(scores / cap)
    at, key = np.arange(positions - tokens, positions)[:, None], np.arange(positions)[None]
    hidden = key > at
    if window:
        hidden |= key <= at - window
    scores[:, hidden] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("htp,phd->thd", weights / weights.sum(-1, keepdims=True), v)


SHAPES = [  # tokens, positions, heads, kv heads, head dim, window, softcap
    (1, 1, 1, 1, 8, 0, 0.0),
    (1, 200, 9, 3, 64, 0, 0.0),
    (1, 64, 8, 1, 32, 0, 0.0),
    (1, 65, 4, 4, 80, 20, 0.0),
    (70, 70, 4, 2, 16, 0, 0.0),
    (130, 300, 6, 2, 24, 100, 30.0),
    (5, 129, 32, 4, 128, 0, 50.0),
    (33, 33, 2, 2, 10, 7, 0.0),
    (150, 400, 4, 4, 64, 30, 0.0),
    (63, 257, 16, 2, 128, 0, 0.0),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_in_float32(isa: str, shape: tuple[int, int, int, int, int, int, float]) -> None:
    tokens, positions, heads, kv_heads, dim, window, cap = shape
    rng = np.random.default_rng(positions)
    q = rng.normal(size=(tokens, heads, dim)).astype(np.float32)
    k, v = (rng.normal(size=(positions, kv_heads, dim)).astype(np.float32) for _ in range(2))
    exact = attention(q, k, v, dim**-0.5, window, cap)
    got = _native.vector_attention(q, k, v, dim**-0.5, window, cap, "fp32")
    # scores: dim products; weights: relative error of a score of size |s| plus exp; then a convex sum of |v| <= 5
    assert np.abs(got - exact).max() < (dim + 64) * ULP * np.abs(v).max()


def test_attention_does_not_read_beyond_the_sequence(isa: str) -> None:
    """Positions after the last are zeros of a fresh tile; even huge scores of real keys must not let them in."""
    k = np.full((3, 1, 16), -100, np.float32)
    out = _native.vector_attention(
        np.full((1, 1, 16), 1, np.float32), k, np.ones((3, 1, 16), np.float32), 1.0, 0, 0.0, "fp32"
    )
    assert np.allclose(out, 1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_half_and_int8_caches_equal_attention_over_rounded_values(
    isa: str, shape: tuple[int, int, int, int, int, int, float]
) -> None:
    """What the cache does is rounding and nothing else: float64 attention over the rounded keys and values is the oracle."""
    tokens, positions, heads, kv_heads, dim, window, cap = shape
    rng = np.random.default_rng(positions + 1)
    q = rng.normal(size=(tokens, heads, dim)).astype(np.float32)
    k, v = (rng.normal(size=(positions, kv_heads, dim)).astype(np.float32) for _ in range(2))

    def int8(x: np.ndarray) -> np.ndarray:
        unit = np.abs(x).max(-1, keepdims=True) / np.float32(127)
        return (np.round(x * (np.float32(1) / unit)) * unit).astype(np.float32)

    for kind, rounded in (("fp16", lambda x: x.astype(np.float16).astype(np.float32)), ("int8", int8)):
        exact = attention(q, rounded(k), rounded(v), dim**-0.5, window, cap)
        got = _native.vector_attention(q, k, v, dim**-0.5, window, cap, kind)
        # int8: x * (127 / max) may fall on the other side of a tie than x / unit; one code in a few thousand moves one step
        slack = 0.0 if kind == "fp16" else 2 / 127 / 16
        assert np.abs(got - exact).max() < (dim + 64) * ULP * np.abs(v).max() + slack, kind


def test_half_cache_saturates_instead_of_overflowing(isa: str) -> None:
    k = np.full((2, 1, 8), 1e6, np.float32)
    out = _native.vector_attention(np.full((1, 1, 8), 1e-6, np.float32), k, k, 1.0, 0, 0.0, "fp16")
    assert np.allclose(out, 65504)
