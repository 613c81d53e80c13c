"""What must hold for chop.py. Oracles: numpy's half precision; values printed in the paper of Higham and Pranesh."""

from __future__ import annotations

import numpy as np
import pytest

from anybit.errors import FormatError
from anybit.formats import get
from anybit.formats.compat.chop import Options, chop


def test_defaults_are_half_precision() -> None:
    x = np.random.default_rng(0).standard_normal(2000) * np.exp2(np.random.default_rng(1).uniform(-26, 17, 2000))
    with np.errstate(over="ignore"):
        assert np.array_equal(chop(x), x.astype(np.float16).astype(np.float64))


def test_parameters_of_the_formats() -> None:
    # Higham and Pranesh, table 2.1: unit roundoff, xmins, xmin, xmax.
    wanted = {
        "b": (3.91e-3, 1.18e-38, 3.39e38),
        "h": (4.88e-4, 6.10e-5, 6.55e4),
        "s": (5.96e-8, 1.18e-38, 3.40e38),
        "d": (1.11e-16, 2.22e-308, 1.797e308),
    }
    for name, (u, xmin, xmax) in wanted.items():
        grid = Options(format=name).grid()
        assert (grid.u, grid.xmin, grid.xmax) == pytest.approx((u, xmin, xmax), rel=2e-3)
    assert Options("h").grid().xmins == pytest.approx(5.96e-8, rel=1e-3) and not Options("b").grid().subnormal


@pytest.mark.parametrize(("number", "mode"), [(1, "nearest_even"), (2, "up"), (3, "down"), (4, "toward_zero")])
def test_rounding_modes_by_number(number: int, mode: str) -> None:
    x = np.random.default_rng(2).standard_normal(500) * 50_000
    wanted = get("fp16").round(x, mode, overflow="ieee")  # type: ignore[arg-type]
    assert np.array_equal(chop(x, Options(round=number)), wanted)


def test_custom_formats_random_modes_and_flips() -> None:
    x = np.full(20_000, 1 + 0.25 * 2.0**-3)
    y = chop(x, Options("c", params=(4, 7), round=5, seed=9))
    assert set(np.unique(y)) == {1.0, 1.125} and abs(np.mean(y == 1.125) - 0.25) < 0.016
    even = chop(x, Options("custom", params=(4, 7), round=6, seed=9))
    assert abs(np.mean(even == 1.125) - 0.5) < 0.018
    assert np.array_equal(y, chop(x, Options("c", params=(4, 7), round=5, seed=9)))
    assert abs(np.mean(chop(y, Options("c", params=(4, 7), flip=True, p=0.5, seed=1)) != y) - 0.5) < 0.018
    assert chop(np.array([1e30]), Options(explim=False)) == pytest.approx(1e30, rel=2**-11)


@pytest.mark.parametrize(("options", "message"), [
    (Options("x"), "format is one of q43"), (Options("c"), r"needs params = \(t, emax\)"), (Options(round=7), "round is 1 to 6"),
])  # fmt: skip
def test_bad_options_are_refused(options: Options, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        chop(np.ones(2), options)
