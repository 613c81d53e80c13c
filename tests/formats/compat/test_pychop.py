"""What must hold for pychop.py: Pychop's interface, and right results in each of the cases that Pychop 0.6.2 gets wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import get
from anybit.formats.compat.pychop import RMODES, Chop, Chopf, Chopi, Customs, FaultChop

INF = np.inf


def half(x: list[float], rmode: int) -> list[float]:
    return Chop(5, 10, rmode)(np.array(x)).tolist()


def test_case_1_numbers_in_the_binade_beyond_the_largest_do_not_vanish() -> None:
    x = [65536.0, 100_000.0, 131_071.0, -100_000.0]
    assert half(x, 1) == half(x, 7) == half(x, 8) == [INF, INF, INF, -INF]
    assert half(x, 2) == [INF, INF, INF, -65504]
    assert half(x, 3) == [65504, 65504, 65504, -INF]
    assert half(x, 4) == half(x, 9) == [65504, 65504, 65504, -65504]


def test_case_2_the_tie_beyond_the_largest_value_is_infinity() -> None:
    assert half([65520.0, 65519.0], 1) == [INF, 65504]


def test_case_3_ties_of_negative_numbers_mirror_those_of_positive_ones() -> None:
    tie = 1 + 2.0**-11
    assert half([tie, -tie], 7) == [1, -1]
    assert half([tie, -tie], 8) == [1 + 2.0**-10, -(1 + 2.0**-10)]


def test_case_4_round_to_odd_keeps_numbers_of_the_grid() -> None:
    assert half([1.0, -2.0, 1 + 2.0**-10], 9) == [1, -2, 1 + 2.0**-10]
    assert half([1 + 2.0**-12], 9) == [1 + 2.0**-10]


def test_case_5_directed_rounding_of_tiny_numbers() -> None:
    assert half([1e-40, -1e-40], 2) == [2.0**-24, 0]
    assert half([1e-40, -1e-40], 3) == [0, -(2.0**-24)]


def test_case_6_integers_use_all_codes_and_clip_nothing() -> None:
    x = np.linspace(0, 10, 101)
    for bits in (4, 8):
        for symmetric in (False, True):
            quantizer = Chopi(bits, symmetric)
            codes = quantizer(x)
            step = 10 / (2 ** (bits - 1) - 1 if symmetric else 2**bits - 1)
            assert np.abs(quantizer.dequantize(codes) - x).max() <= step / 2 + 1e-12
    both = np.linspace(-1, 3, 4001)
    assert len(np.unique(Chopi(8)(both))) == 256 and len(np.unique(Chopi(8, True)(np.linspace(-3, 3, 4001)))) == 255


def test_case_7_exponent_bits_of_customs() -> None:
    x = np.array([60_000.0, 65_520.0, 1e-7])
    assert (
        FaultChop(customs=Customs(exp_bits=5, sig_bits=10))(x).tolist()
        == FaultChop("h")(x).tolist()
        == half(x.tolist(), 1)
    )
    assert Customs(exp_bits=8, t=8).limits() == (8, 127)
    with pytest.raises(FormatError, match="customs needs"):
        FaultChop(customs=Customs(t=3))


def test_case_8_stochastic_rounding_has_no_bias_below_the_smallest_value() -> None:
    n, tiny = 40_000, 2.0**-24
    y = FaultChop("h", rmode=5)(np.full(n, 0.3 * tiny))
    assert set(np.unique(y)) == {0.0, tiny}
    assert abs(np.mean(y == tiny) - 0.3) < 5 * np.sqrt(0.21 / n)


def test_case_9_the_global_generator_is_left_alone_and_calls_go_on_in_one_stream() -> None:
    np.random.seed(5)  # noqa: NPY002  the generator in question
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    x = np.full(100, 1 + 2.0**-12)
    chop = Chop(5, 10, 5, random_state=3)
    first, second = chop(x), chop(x)
    assert np.array_equal(np.random.get_state()[1], before)  # type: ignore[index,arg-type]  # noqa: NPY002
    assert not np.array_equal(first, second)
    again = Chop(5, 10, 5, random_state=3)
    assert np.array_equal(again(np.concatenate([x, x])), np.concatenate([first, second]))


@pytest.mark.parametrize("rmode", RMODES)
def test_every_mode_agrees_on_numpy_and_torch(rmode: int | str) -> None:
    x = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    assert np.array_equal(Chop(4, 3, rmode)(x), Chop(4, 3, rmode)(torch.from_numpy(x)).numpy())


def test_units_and_named_precisions() -> None:
    assert Chop(5, 10).u == 2.0**-11 and FaultChop("b").u == 2.0**-8
    x = np.random.default_rng(1).standard_normal(1000) * 100
    assert np.array_equal(FaultChop("q43")(x), get("e4m3").round(x, overflow="ieee"))
    assert np.array_equal(FaultChop("q52")(x), get("e5m2").round(x, overflow="ieee"))
    assert np.array_equal(FaultChop("bf16")(x), get("bf16").round(x))
    assert FaultChop("b")(np.array([1e-39, 6e-39])).tolist() == [0, 2.0**-126]  # no subnormal numbers, as in chop
    assert FaultChop("h", explim=0)(np.array([1e9])).tolist() == [np.float64(round(1e9 / 2**19) * 2**19)]


def test_flips() -> None:
    x = FaultChop("h")(np.random.default_rng(2).standard_normal(4000))
    assert np.mean(FaultChop("h", flip=True, p=1.0)(x) != x) == 1
    assert np.array_equal(FaultChop("h", flip=True, p=0.0)(x), x)


def test_fixed_point() -> None:
    x = np.array([-1.03, 1.03, -0.03125, 0.03125, 9.0, -9.0])
    assert Chopf(4, 4)(x).tolist() == [-1, 1, 0, 0, 7.9375, -8]
    assert Chopf(4, 4, 2)(x).tolist() == [-1, 1.0625, 0, 0.0625, 7.9375, -8]
    assert Chopf(4, 4, 3).quantize(torch.from_numpy(x)).tolist() == [-1.0625, 1, -0.0625, 0, 7.9375, -8]
    assert Chopf()(0.7) == 0.6875


def test_channels_have_scales_of_their_own() -> None:
    x = np.stack([np.linspace(-1, 1, 50), np.linspace(-100, 50, 50)])
    each = Chopi(8, per_channel=True, axis=0)
    error = np.abs(each.dequantize(each(x)) - x).max(axis=1)
    assert error[0] <= 1 / 255 + 1e-9 and error[1] <= 75 / 255 + 1e-9
    codes = Chopi(8, True)(torch.tensor([[1.0, -2.0]]))
    assert codes.dtype == torch.int8 and codes.tolist() == [[64, -127]]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(FormatError, match="rmode is one of 1, 2"):
        Chop(5, 10, 11)
    with pytest.raises(FormatError, match="2 to 11 exponent"):
        Chop(1, 10)
    with pytest.raises(FormatError, match="prec is one of q43"):
        FaultChop("e4m3")
    with pytest.raises(FormatError, match="no randfunc"):
        FaultChop(randfunc=np.random.rand)
    with pytest.raises(FormatError, match="real floating numbers"):
        Chop(5, 10)(np.array([1, 2]))
    with pytest.raises(FormatError, match="no scale yet"):
        Chopi().dequantize(np.array([1]))
    with pytest.raises(FormatError, match="finite numbers"):
        Chopi().calibrate(np.array([np.nan]))
