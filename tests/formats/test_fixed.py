"""What must hold for fixed.py. Oracle: Python's integers and fractions, one number at a time."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import FixedPoint, get

TRUE = {  # rounding of an exact fraction
    "down": floor,
    "up": ceil,
    "toward_zero": int,
    "nearest_up": lambda v: floor(v + Fraction(1, 2)),
    "nearest_down": lambda v: ceil(v - Fraction(1, 2)),
    "nearest_even": round,
    "nearest_away": lambda v: floor(v + Fraction(1, 2)) if v > 0 else ceil(v - Fraction(1, 2)),
    "nearest_zero": lambda v: ceil(v - Fraction(1, 2)) if v > 0 else floor(v + Fraction(1, 2)),
    "odd": lambda v: int(v) if v.denominator == 1 else floor(v) | 1,
}


@pytest.mark.parametrize("mode", TRUE)
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize(
    "name", ["fixed4_4", "ufixed3_2", "fixed1_7", "fixed0_5", "fixed12_12", "ufixed5_0", "fixed1_0"]
)
def test_every_mode_is_that_of_integers(name: str, overflow: str, mode: str) -> None:
    fmt = get(name)
    rng = np.random.default_rng(3)
    reach = 4 * max(fmt.max, -fmt.min)
    x = np.concatenate([rng.uniform(-reach, reach, 300), np.arange(-40, 40) * fmt.eps / 4, [1e12 + 0.5, -1e12]])
    units = [TRUE[mode](Fraction(v) * 2**fmt.fraction_bits) for v in x]
    low, high = int(fmt.min / fmt.eps), int(fmt.max / fmt.eps)
    if overflow == "wrap":
        wanted = [(u - low) % 2**fmt.bits + low for u in units]
    else:
        wanted = [min(max(u, low), high) for u in units]
    assert np.array_equal(fmt.round(x, mode, overflow=overflow), np.array(wanted) * fmt.eps)
    codes = [u % 2**fmt.bits for u in wanted]
    assert np.array_equal(fmt.encode(x, mode, overflow=overflow), codes)
    t = torch.from_numpy(x)
    assert np.array_equal(fmt.encode(t, mode, overflow=overflow).numpy(), codes)
    assert np.array_equal(fmt.decode(fmt.encode(x, mode, overflow=overflow), np.float64), np.array(wanted) * fmt.eps)


def test_hls_defaults_and_limits() -> None:
    # Vitis HLS, ap_fixed<8, 4>: -8 … 7.9375; AP_TRN and AP_WRAP turn 8 into -8 and -0.01 into -0.0625.
    fmt = get("fixed4_4")
    assert (fmt.min, fmt.max, fmt.min_positive, fmt.bits) == (-8, 7.9375, 0.0625, 8)
    assert fmt.round(np.array([8.0, -0.01, 7.99]), "down", overflow="wrap").tolist() == [-8, -0.0625, 7.9375]


@pytest.mark.parametrize(("i", "f"), [(-1, 4), (3, -1), (0, 0), (20, 5)])
def test_impossible_shapes_are_refused(i: int, f: int) -> None:
    with pytest.raises(FormatError, match="1 to 24 in all"):
        FixedPoint(i, f)


def test_infinity_does_not_wrap() -> None:
    with pytest.raises(FormatError, match="infinity cannot wrap around"):
        get("fixed4_4").round(np.array([np.inf]), overflow="wrap")
