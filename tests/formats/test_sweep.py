"""What must hold for sweep.py. Oracles: every code vector tried, and a dense search over scales for weights."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from anybit.errors import FormatError
from anybit.formats import get
from anybit.formats.native import module
from anybit.formats.sweep import sides, sweep

ALPHABETS = {
    "e2m1": np.unique(get("e2m1").values),
    "int3": np.unique(get("int3").values),
    "ternary": np.array([-1.0, 0, 1]),
    "bipolar2": np.array([-3.0, -1, 1, 3]),
    "one-sided": np.array([0.0, 1, 3]),
    "crooked": np.array([-2.0, -0.25, 0.5, 3]),
    "no zero": np.array([-3.0, 1, 5]),
}


def all_codes(levels: np.ndarray, n: int) -> np.ndarray:
    codes = np.array(list(product(levels, repeat=n)))
    return codes[np.any(codes != 0, axis=1)]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("name", ALPHABETS)
def test_no_code_vector_is_nearer_in_direction(name: str, n: int) -> None:
    codes = all_codes(ALPHABETS[name], n)
    x = np.random.default_rng(n).standard_normal((200, n))
    cosine = (x @ codes.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(codes, axis=1)
    wanted = np.maximum(cosine.max(axis=1), 0)  # no positive scale helps a block that every code points away from
    assert np.max(np.abs(sweep(x, ALPHABETS[name]).cosine - wanted)) < 1e-12


@pytest.mark.parametrize("name", ALPHABETS)
def test_no_scale_and_codes_have_less_weighted_error(name: str) -> None:
    levels, n = ALPHABETS[name], 3
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((100, n)), rng.uniform(0.01, 4, (100, n))
    codes = all_codes(levels, n)
    dot, norm = (w * x) @ codes.T, w @ (codes**2).T
    wanted = np.sum(w * x * x, axis=1) - (np.maximum(dot, 0) ** 2 / norm).max(axis=1)
    found = sweep(x, levels, w)
    assert np.max(np.abs(found.error - wanted)) < 1e-12
    grid = np.unique(levels)
    s = np.where(found.scale > 0, found.scale, 1)[:, None]
    nearest = grid[np.abs(x[..., None] / s[..., None] - grid).argmin(-1)]
    error = np.sum(w * (x - s * nearest) ** 2, axis=1)
    some = found.scale > 0
    assert np.allclose(error[some], found.error[some], atol=1e-12)  # the scale gives these codes back


def test_longer_blocks_beat_a_dense_search_over_scales() -> None:
    levels = np.unique(get("e2m1").values)
    x = np.random.default_rng(1).standard_normal((50, 16))
    best = np.full(50, np.inf)
    for s in np.geomspace(0.05, 2, 3000):
        q = levels[np.abs(x[..., None] / s - levels).argmin(-1)]
        best = np.minimum(best, np.sum((x - s * q) ** 2, axis=1))
    error = sweep(x, levels).error
    assert np.all(error <= best + 1e-12) and np.allclose(error, best, rtol=1e-2)


def test_blocks_are_cut_into_chunks_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(2).standard_normal((37, 5))
    monkeypatch.setattr("anybit.formats.sweep.module", lambda: None)
    whole = sweep(x, ALPHABETS["e2m1"], np.arange(5))
    monkeypatch.setattr("anybit.formats.sweep.CHUNK", 100)
    assert np.array_equal(sweep(x, ALPHABETS["e2m1"], np.arange(5)).scale, whole.scale)


def blocks(n: int) -> np.ndarray:
    """Blocks of all sorts: zeros, many equal points, points that differ in their last bits, the ends of float64."""
    x = np.random.default_rng(n).standard_normal((600, n))
    x[0] = 0
    x[1, : n // 2] = 0
    x[2] = 1
    x[3:150] = np.round(4 * x[3:150])
    x[150:250] = 1 + 1e-15 * x[150:250]
    x[250] *= 1e-310
    x[251] *= 1e300
    x[252, 0] = 1e-320
    return x


@pytest.mark.skipif(module() is None, reason="the native module is not built (make native)")
@pytest.mark.parametrize("weighted", ["no", "by column", "each"])
@pytest.mark.parametrize("n", [1, 2, 3, 16, 17, 40])
@pytest.mark.parametrize("name", [*ALPHABETS, "nf4", "int8"])
def test_native_code_gives_the_same_bits_on_any_number_of_threads(
    name: str, n: int, weighted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = ALPHABETS[name] if name in ALPHABETS else get(name).values
    x, rng = blocks(n), np.random.default_rng(7)
    w = {"no": None, "by column": rng.uniform(0, 4, n), "each": rng.integers(0, 3, x.shape).astype(float)}[weighted]
    native, found = module(), []
    before = native.threads()
    try:
        for threads in (1, 3):
            native.set_threads(threads)
            found.append(sweep(x, levels, w))
    finally:
        native.set_threads(before)
    monkeypatch.setattr("anybit.formats.sweep.module", lambda: None)
    with np.errstate(all="ignore"):
        wanted = sweep(x, levels, w)
    for got in found:
        for field in ("scale", "projection", "norm", "energy"):
            a, b = getattr(got, field), getattr(wanted, field)
            assert np.array_equal(a.view(np.uint64), b.view(np.uint64)), field


def test_zeros_and_empty_input() -> None:
    found = sweep(np.zeros((2, 4)), ALPHABETS["e2m1"])
    assert found.scale.tolist() == [0, 0] and found.error.tolist() == [0, 0] and found.cosine.tolist() == [0, 0]
    assert sweep(np.zeros((0, 4)), ALPHABETS["e2m1"]).scale.shape == (0,)
    # A zero beside numbers costs nothing; duplicates of a value (the two zeros of floats) change nothing.
    x = np.array([[1.0, 0.0, -3.0]])
    assert sweep(x, get("e2m1").values).scale == sweep(x[:, [0, 2]], ALPHABETS["e2m1"]).scale


def test_sides() -> None:
    assert [side.tolist() for side in sides(np.array([-2.0, 0, 1, 3]))] == [[0, 1, 3], [0, -2]]
    assert [side.tolist() for side in sides(np.array([-1.0, 1, 3]))] == [[1, 3], [-1]]
    assert [side.tolist() for side in sides(np.array([-3.0, 1, 5]))] == [[1, 5], [1, -3]]


def test_bad_input_is_refused() -> None:
    with pytest.raises(FormatError, match="two or more different finite values"):
        sweep(np.ones((1, 2)), np.array([1.0, 1.0]))
    with pytest.raises(FormatError, match="finite numbers"):
        sweep(np.array([[1.0, np.nan]]), ALPHABETS["e2m1"])


def test_blocks_of_nothing_and_weights_that_are_none():
    found = sweep(np.ones((2, 0)), [-1, 0, 1])
    assert found.scale.tolist() == [0, 0]
    for weights in (np.array([1.0, -1]), np.array([1.0, np.nan]), np.ones(3), np.ones((4, 2))):
        with pytest.raises(FormatError, match="weights of the sweep"):
            sweep(np.ones((2, 2)), [-1, 0, 1], weights)
