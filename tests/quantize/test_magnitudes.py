"""Static scales from magnitudes: the largest, and that of least squared error against brute force over the numbers themselves."""

import pytest
import torch

from anybit.errors import RecipeError
from anybit.ops import StaticFormat
from anybit.quantize.magnitudes import Magnitudes

INT8, INT4, E4M3 = (StaticFormat.parse(f"{name}/static") for name in ("int8", "int4", "e4m3fn"))


def of(x: torch.Tensor, rule: str, pieces: int = 1) -> Magnitudes:
    made = Magnitudes(rule)
    for piece in x.chunk(pieces):
        made.add(piece)
    return made


def error(x: torch.Tensor, fmt: StaticFormat, scale: float) -> float:
    return float((fmt.at(scale).round(x).double() - x.double()).square().sum())


def test_the_largest_is_the_largest_code():
    x = torch.randn(40, 32)
    x[3, 4] = -7.5
    assert of(x, "absmax").scale(INT8) == pytest.approx(7.5 / 127, rel=1e-7)
    assert of(x, "absmax").scale(E4M3) == pytest.approx(7.5 / 448, rel=1e-7)
    assert of(x, "absmax", 9).largest == 7.5


@pytest.mark.parametrize("fmt", [INT8, INT4, E4M3], ids=str)
@pytest.mark.parametrize("tail", [0.0, 12.0, 200.0])
def test_least_squares_is_near_brute_force(fmt, tail):
    """Errors of the numbers themselves at 400 scales; counting in bins of 1/16 octave and 8 scales an octave costs a tenth at most."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 64, generator=g)
    if tail:
        x.view(-1)[::6000] = tail
    widest = fmt.scale_for(float(x.abs().max()))
    best = min(error(x, fmt, widest * 2 ** (-step / 80)) for step in range(401))
    made = of(x, "mse")
    assert error(x, fmt, made.scale(fmt)) <= 1.1 * best
    assert made.scale(fmt) <= widest


def test_order_and_pieces_do_not_matter():
    x = torch.randn(100, 16) * torch.logspace(-3, 3, 100)[:, None]
    scales = {of(each, "mse", pieces).scale(INT8) for each in (x, x.flip(0)) for pieces in (1, 7)}
    assert len(scales) == 1


def test_zeros_give_one_and_tiny_numbers_a_scale():
    for rule in ("absmax", "mse"):
        assert of(torch.zeros(4, 4), rule).scale(INT8) == 1.0
        assert Magnitudes(rule).scale(INT8) == 1.0
        assert 0 < of(torch.full((2, 2), 1e-42), rule).scale(INT8) < 1e-37


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused_by_name(bad):
    x = torch.ones(3, 3)
    x[1, 1] = bad
    with pytest.raises(RecipeError, match=r"layers\.3: the calibration inputs hold NaN or infinite values"):
        Magnitudes(name="layers.3").add(x)
